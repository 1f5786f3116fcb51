//! The proxies of a `PortalClass`: exactly one of them gets the routes.
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::class::{SecretKeyRef, thirty, yes};
use super::ingress::IngressSettings;
use super::{all_fit, fits, fits_or_empty, is_none_of};
use crate::config::rules;

/// Exactly one proxy.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.npm), has(self.cloudflareTunnel), has(self.caddy), has(self.traefik), has(self.ingress), has(self.manual)].filter(one, one).size() == 1",
    "exactly one proxy is needed: npm, cloudflareTunnel, caddy, traefik, ingress or manual"
))]
pub struct ProxySettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub npm: Option<NpmSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloudflare_tunnel: Option<CloudflareTunnelSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caddy: Option<CaddySettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traefik: Option<TraefikSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual: Option<ManualSettings>,
}

/// Caddy by its admin API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.clientCertificateSecretRef) == has(self.clientKeySecretRef)",
    "clientCertificateSecretRef and clientKeySecretRef belong together"
))]
#[x_kube(validation = (
    "self.adminUrl.startsWith('https://') || !(has(self.clientCertificateSecretRef) || has(self.caSecretRef))",
    "clientCertificateSecretRef and caSecretRef need an https adminUrl"
))]
#[x_kube(validation = (
    "!has(self.verifyTls) || self.verifyTls || !has(self.caSecretRef)",
    "with verifyTls: false nobody looks at caSecretRef; leave one of them out"
))]
#[x_kube(validation = (
    "!(has(self.dnsChallenge) && has(self.certificate) && has(self.certificate.originCa))",
    "dnsChallenge and certificate.originCa exclude each other"
))]
pub struct CaddySettings {
    /// Admin address, `http://127.0.0.1:2019`, or a socket, `unix:///run/caddy/admin.sock`; a Caddy before 2.7 whose
    /// `admin.origins` are set needs `127.0.0.1:2019` among them for that.
    #[schemars(length(max = rules::CADDY_ADMIN.longest))]
    #[x_kube(validation = fits(&rules::CADDY_ADMIN))]
    #[x_kube(validation = is_none_of(&rules::CADDY_CONFIG))]
    pub admin_url: String,
    /// `false` takes any certificate of an https admin address.
    #[serde(default = "yes")]
    pub verify_tls: bool,
    /// Certificate, PEM, by which Caddy's `admin.remote` knows this program; `tls.crt` of a Secret of type
    /// `kubernetes.io/tls`. It needs the path `/config/apps/` with GET, PUT and PATCH there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<SecretKeyRef>,
    /// Its key, PEM; `tls.key` of that Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key_secret_ref: Option<SecretKeyRef>,
    /// Authority that signed the certificate of an https admin address, or that certificate itself, PEM; without it, what
    /// the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// Where the hosts' certificates come from; without it, from wherever Caddy gets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ProxyCertificate>,
    /// Lets Caddy get certificates by a DNS challenge at Cloudflare: one TLS policy for all names, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_challenge: Option<CaddyDnsChallenge>,
    /// Where Caddy finds the pages, `127.0.0.1:5000`.
    #[schemars(length(min = 1, max = rules::ORIGIN.longest))]
    #[x_kube(validation = fits(&rules::ORIGIN))]
    pub origin: String,
    /// Bearer token for an admin endpoint that wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_token_secret_ref: Option<SecretKeyRef>,
    /// Listen address of the server that gets the routes; without it, the one that listens on `:443`,
    /// or else the only one there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::LISTEN.longest))]
    #[x_kube(validation = fits(&rules::LISTEN))]
    pub listen: Option<String>,
}

/// A source of certificates instead of the proxy's own.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProxyCertificate {
    /// One per host of Cloudflare's Origin CA, which only Cloudflare's edge trusts; made with the class's Cloudflare
    /// token, which needs Zone, SSL and Certificates, Edit. For Traefik they are files of their own in `dynamicDir`, of
    /// mode 0640 and the folder's group, which Traefik must be able to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_ca: Option<OriginCaSettings>,
}

impl ProxyCertificate {
    /// Whether Cloudflare's Origin CA signs the hosts' certificates.
    pub fn signs(certificate: Option<&Self>) -> bool {
        certificate.is_some_and(|certificate| certificate.origin_ca.is_some())
    }
}

/// A Cloudflare Tunnel that is managed remotely, by Cloudflare's API. The portals' records point to it, so `cnameTarget` is
/// not used, and they must be proxied.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CloudflareTunnelSettings {
    /// The tunnel's id, a UUID.
    #[schemars(length(max = rules::TUNNEL_ID.longest))]
    #[x_kube(validation = fits(&rules::TUNNEL_ID))]
    pub tunnel_id: String,
    /// The tunnel's account; without it, `cloudflare.accountId`. The zones must be in the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = rules::ACCOUNT.longest))]
    #[x_kube(validation = fits(&rules::ACCOUNT))]
    pub account_id: Option<String>,
    /// Where the tunnel's connectors find the pages, `http://127.0.0.1:5000`: scheme, host and port, and no path.
    #[schemars(length(min = 1, max = rules::TUNNEL_ORIGIN.longest))]
    #[x_kube(validation = fits(&rules::TUNNEL_ORIGIN))]
    pub origin: String,
}

/// Certificates of Caddy by a DNS challenge at Cloudflare, which needs a Caddy built with `dns.providers.cloudflare`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!(has(self.tokenSecretRef) && has(self.placeholder))", "tokenSecretRef and placeholder exclude each other"))]
pub struct CaddyDnsChallenge {
    /// Cloudflare token with DNS Edit, which Caddy keeps in its configuration. Without it, the class's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
    /// Instead of a token, a placeholder that Caddy fills in, such as `{env.CF_API_TOKEN}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), regex(pattern = r"^\{[A-Za-z0-9_.:/-]+\}$"))]
    pub placeholder: Option<String>,
    /// `false`: where Caddy lacks the module, it gets certificates in its own ways, and that is only told.
    #[serde(default = "yes")]
    pub required: bool,
}

/// Nginx Proxy Manager, 2.12 and newer, by its API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NpmSettings {
    /// Address of the admin pages, `http://127.0.0.1:81`.
    #[schemars(length(max = rules::WEB_ADDRESS.longest))]
    #[x_kube(validation = fits(&rules::WEB_ADDRESS))]
    pub api_url: String,
    /// Login of a user without second factor that may manage proxy hosts and certificates. Absent only in the class
    /// `environment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_secret_ref: Option<SecretKeyRef>,
    /// Password of that user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
    /// Name or address under which NPM finds the pages.
    #[schemars(length(min = 1, max = rules::FORWARD_HOST.longest))]
    #[x_kube(validation = fits(&rules::FORWARD_HOST))]
    pub forward_host: String,
    #[serde(default = "pages_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub forward_port: u16,
    /// How NPM speaks to the pages.
    #[serde(default)]
    pub forward_scheme: ForwardScheme,
    /// Sends visitors who came by http to https, where there is a certificate.
    #[serde(default = "yes")]
    pub force_https: bool,
    /// `false` takes any certificate of NPM's own API.
    #[serde(default = "yes")]
    pub verify_tls: bool,
    /// Where the hosts' certificates come from; Let's Encrypt where nothing is said.
    #[serde(default)]
    pub certificate: NpmCertificate,
}

fn pages_port() -> u16 {
    5000
}

/// Scheme of the way from the proxy to the pages.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ForwardScheme {
    #[default]
    Http,
    Https,
}

impl ForwardScheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// At most one source of certificates.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("(has(self.letsEncrypt) ? 1 : 0) + (has(self.originCa) ? 1 : 0) + (has(self.existing) ? 1 : 0) + (has(self.none) ? 1 : 0) <= 1", "at most one of letsEncrypt, originCa, existing and none"))]
pub struct NpmCertificate {
    /// NPM orders one per host, by a DNS challenge at Cloudflare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lets_encrypt: Option<LetsEncryptSettings>,
    /// One per host of Cloudflare's Origin CA, which only Cloudflare's edge trusts; made with the class's Cloudflare
    /// token, which needs Zone, SSL and Certificates, Edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_ca: Option<OriginCaSettings>,
    /// One that is in NPM already, such as a wildcard; it is never changed or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<ExistingCertificate>,
    /// Plain http: TLS ends before NPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<NoCertificate>,
}

impl NpmCertificate {
    /// Whether NPM orders at Let's Encrypt, which it also does where nothing is said.
    pub fn orders(&self) -> bool {
        self.origin_ca.is_none() && self.existing.is_none() && self.none.is_none()
    }
}

/// Let's Encrypt through NPM.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LetsEncryptSettings {
    /// Contact address for NPM 2.12, which later versions take from their own user. Without it, NPM's login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 320))]
    pub email: Option<String>,
    /// Cloudflare token with DNS Edit for the challenge, which NPM keeps for renewals. Without it, the class's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_token_secret_ref: Option<SecretKeyRef>,
    /// How long NPM lets the challenge's record spread, in seconds.
    #[serde(default = "thirty")]
    #[schemars(range(min = 0, max = 600))]
    pub propagation_seconds: u32,
}

impl Default for LetsEncryptSettings {
    fn default() -> Self {
        Self { email: None, dns_token_secret_ref: None, propagation_seconds: thirty() }
    }
}

/// Cloudflare's Origin CA.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct OriginCaSettings {}

/// No certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct NoCertificate {}

/// A certificate of NPM by its id, or by its name where only one has it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.id) != has(self.name)", "give either id or name"))]
pub struct ExistingCertificate {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub id: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = rules::CERTIFICATE_NAME.longest))]
    #[x_kube(validation = fits(&rules::CERTIFICATE_NAME))]
    pub name: Option<String>,
}

/// Traefik by its file provider: files in the folder that it watches.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TraefikSettings {
    /// The watched folder (`providers.file.directory`), as this program sees it.
    #[schemars(length(min = 1, max = rules::FOLDER.longest))]
    #[x_kube(validation = fits(&rules::FOLDER))]
    pub dynamic_dir: String,
    /// Where Traefik finds the pages, `http://127.0.0.1:5000`.
    #[schemars(length(min = 1, max = rules::ORIGIN.longest))]
    #[x_kube(validation = fits(&rules::ORIGIN))]
    pub origin_url: String,
    /// Certificate resolver of Traefik's static configuration; empty where certificates come from elsewhere.
    #[serde(default = "cloudflare_resolver")]
    #[schemars(length(max = rules::WORD.longest))]
    #[x_kube(validation = fits_or_empty(&rules::WORD))]
    pub cert_resolver: String,
    /// Entry points that get the routes; default `websecure`, or `web` for http.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = rules::WORD.longest)))]
    #[x_kube(validation = all_fit(&rules::WORD))]
    pub entry_points: Vec<String>,
    /// Where the hosts' certificates come from; without it, from `certResolver` or from wherever Traefik gets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ProxyCertificate>,
    #[serde(default)]
    pub layout: TraefikLayout,
    /// Traefik's API, `http://127.0.0.1:8080`, where it can be asked what it has loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::WEB_ADDRESS.longest))]
    #[x_kube(validation = fits(&rules::WEB_ADDRESS))]
    #[x_kube(validation = is_none_of(&rules::TRAEFIK_PATHS))]
    pub api_url: Option<String>,
}

fn cloudflare_resolver() -> String {
    "cloudflare".to_owned()
}

/// How portals are spread over files.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraefikLayout {
    /// A file for each portal host: right up to a few hundred.
    #[default]
    PerHost,
    /// One file for all portals.
    Merged,
}

/// Routes made by hand.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ManualSettings {
    /// Origin that the snippets name, `127.0.0.1:5000`.
    #[serde(default = "default_origin")]
    #[schemars(length(min = 1, max = rules::ORIGIN.longest))]
    #[x_kube(validation = fits(&rules::ORIGIN))]
    pub origin: String,
}

fn default_origin() -> String {
    "127.0.0.1:5000".to_owned()
}
