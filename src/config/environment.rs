//! The environment variables, read and checked once. Names are those of the manual this program grew from.
use std::collections::BTreeMap;

use ipnet::IpNet;
use url::Url;

use super::networks;
use super::secret::Secret;

/// A variable with a wrong value, with what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}={shown} is not valid: {allowed}")]
    Invalid { name: &'static str, shown: String, allowed: String },
    #[error("{name} is not set: {why}")]
    Missing { name: &'static str, why: String },
    #[error("{name} is set, but {why}")]
    Unusable { name: &'static str, why: String },
}

impl ConfigError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "InvalidVariable",
            Self::Missing { .. } => "MissingVariable",
            Self::Unusable { .. } => "UnusableVariable",
        }
    }
}

/// A variable of this program.
pub struct Variable {
    pub name: &'static str,
    pub default: &'static str,
    pub meaning: &'static str,
    /// Belongs to the class `environment`, rather than to the process.
    pub class: bool,
}

const fn class(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning, class: true }
}
const fn process(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning, class: false }
}

/// Every variable, in the order of the documentation.
pub const VARIABLES: &[Variable] = &[
    class(
        "REVERSE_PROXY_BACKEND",
        "npm",
        "Proxy that gets the routes: `npm`, `caddy`, `traefik`, `ingress` or `manual` (`cloudflare_tunnel` is refused until it is built).",
    ),
    class("RESET_PORTAL_CNAME_TARGET", "", "Public host that the portals' CNAMEs point to."),
    class("CF_API_TOKEN", "", "Cloudflare API token with Zone Read and DNS Edit. Also as `CF_API_TOKEN_FILE`."),
    class("CF_ACCOUNT_ID", "", "Cloudflare account; only its zones are used."),
    class("CF_API_URL", "https://api.cloudflare.com/client/v4", "Cloudflare's API, with its `/client/v4`."),
    class(
        "CF_ORIGIN_CA_KEY",
        "",
        "Cloudflare's Origin CA service keys stopped working in autumn 2026, so the key is not used. With `npm` it still asks for Origin CA certificates, which are made with `CF_API_TOKEN`.",
    ),
    class("NPM_API_URL", "", "Admin address of Nginx Proxy Manager, like `http://127.0.0.1:81`."),
    class("NPM_IDENTITY", "", "Login of an NPM user that may manage proxy hosts and certificates."),
    class("NPM_SECRET", "", "Password of that user. Also as `NPM_SECRET_FILE`."),
    class("NPM_FORWARD_HOST", "", "Name or address under which NPM finds this program."),
    class("NPM_FORWARD_PORT", "5000", "Port of it."),
    class("NPM_TLS_VERIFY", "true", "`false` takes any certificate of NPM's own API."),
    class("NPM_LETSENCRYPT_EMAIL", "NPM_IDENTITY", "Contact of certificate orders, for NPM 2.12."),
    class(
        "NPM_CERTIFICATE",
        "letsencrypt, or origin_ca where CF_ORIGIN_CA_KEY is set",
        "Where NPM's hosts get certificates: `letsencrypt` (DNS challenge at Cloudflare), `origin_ca`, `none`, or the id or name of one that is in NPM already.",
    ),
    class("CADDY_ADMIN_URL", "", "Caddy's admin API, like `http://127.0.0.1:2019`."),
    class("CADDY_ORIGIN", "", "Where Caddy finds this program, like `127.0.0.1:5000`."),
    class(
        "CADDY_ADMIN_TOKEN",
        "",
        "Bearer token, where something before the admin API wants one. Also as `CADDY_ADMIN_TOKEN_FILE`.",
    ),
    class("TRAEFIK_DYNAMIC_DIR", "", "The folder that Traefik's file provider watches, as this program sees it."),
    class("TRAEFIK_ORIGIN_URL", "", "Where Traefik finds this program, like `http://127.0.0.1:5000`."),
    class(
        "TRAEFIK_CERT_RESOLVER",
        "cloudflare",
        "Certificate resolver of Traefik's static configuration; `none` where certificates come from elsewhere.",
    ),
    class("TRAEFIK_ENTRYPOINTS", "websecure", "Entry points that get the routes, joined by commas."),
    class("TRAEFIK_API_URL", "", "Traefik's API, where it can be asked what it has loaded."),
    class(
        "INGRESS_CLASS_NAME",
        "the cluster's default",
        "Class of the Ingress objects. With `manual` it means `ingress`, with records made by hand.",
    ),
    class("INGRESS_NAMESPACE", "the controller's own", "Namespace of the Service, where the Ingress objects are made."),
    class("INGRESS_SERVICE_NAME", "portalkeeper", "Service that leads to the pages."),
    class("INGRESS_SERVICE_PORT", "5000", "Its port."),
    class("INGRESS_TLS_SECRET", "", "Secret with the certificate, in the same namespace."),
    class(
        "INGRESS_CLUSTER_ISSUER",
        "",
        "cert-manager's ClusterIssuer that makes a certificate for each portal instead.",
    ),
    class("INGRESS_ANNOTATIONS", "", "Annotations of the Ingress objects, `name=value` joined by commas."),
    class("MANUAL_PROXY_ORIGIN", "127.0.0.1:5000", "Where hand-made proxies find this program; shown in snippets."),
    class("RESET_SMTP_HOST", "", "Mail server that takes the mails."),
    class("RESET_SMTP_PORT", "587", "Its port; 465 is TLS from the first byte, others STARTTLS."),
    class("RESET_SMTP_USER", "", "Login at the mail server."),
    class("RESET_SMTP_PASSWORD", "", "Password for it. Also as `RESET_SMTP_PASSWORD_FILE`."),
    class("RESET_SMTP_FROM", "reset@ and the mail domain", "Sender address of the mails."),
    class("RESET_SMTP_USE_TLS", "true", "`false` sends in the clear: loopback only."),
    class("MX_SERVER", "", "MXroute mail server, like `eagle.mxlogin.com`."),
    class("MX_USER", "", "MXroute user name."),
    class("MX_API_KEY", "", "MXroute API key. Also as `MX_API_KEY_FILE`."),
    class("MX_API_URL", "https://api.mxroute.com", "MXroute's API."),
    class("MAILBOX_RESET_ENABLED", "true where MX_* is set", "`false` serves pages without changing passwords."),
    process("FORCE_HTTPS", "false", "Sends visitors who came by http to https."),
    process("TRUSTED_PROXY_COUNT", "1", "Proxies in front of the program, 0 to 10: how `X-Forwarded-For` is read."),
    process(
        "TRUSTED_PROXY_CIDRS",
        "",
        "Where these proxies are: addresses and networks joined by commas, and `cloudflare` for its edge. Without it, whoever connects is believed.",
    ),
    process("ADMIN_HOST", "", "Host of the admin pages, which no portal may have."),
];

/// Backends that the manual names and that are not built yet.
const NOT_YET: [&str; 1] = ["cloudflare_tunnel"];

/// Those that are.
const ALLOWED: &str = "npm, caddy, traefik, ingress and manual";

/// Variables of those backends. Whoever sets one means the class, and hears that it cannot be had yet.
const VARIABLES_NOT_YET: [&str; 2] = ["CF_TUNNEL_ID", "CF_TUNNEL_ORIGIN"];

/// A proxy by the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyVariables {
    Npm(NpmVariables),
    Caddy {
        admin_url: Url,
        origin: String,
        admin_token: Option<Secret>,
    },
    Traefik {
        dynamic_dir: String,
        origin_url: Url,
        /// Empty where certificates come from elsewhere.
        cert_resolver: String,
        entry_points: Vec<String>,
        api_url: Option<Url>,
    },
    Ingress {
        class_name: Option<String>,
        namespace: Option<String>,
        service: String,
        port: u16,
        tls_secret: Option<String>,
        cluster_issuer: Option<String>,
        annotations: BTreeMap<String, String>,
    },
    Manual {
        origin: String,
    },
}

/// Nginx Proxy Manager by the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NpmVariables {
    pub api_url: Url,
    pub identity: Secret,
    pub secret: Secret,
    pub forward_host: String,
    pub forward_port: u16,
    pub verify_tls: bool,
    pub email: Option<String>,
    pub certificate: NpmCertificateVariable,
}

/// What `NPM_CERTIFICATE` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NpmCertificateVariable {
    LetsEncrypt,
    OriginCa,
    None,
    Id(u32),
    Name(String),
}

/// Cloudflare by the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudflareVariables {
    pub api_token: Secret,
    pub account_id: Option<String>,
    pub api_url: Option<Url>,
}

/// The mail server by the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpVariables {
    pub host: String,
    pub port: u16,
    pub use_tls: bool,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub from: Option<String>,
}

/// MXroute by the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxVariables {
    pub server: String,
    pub user: String,
    pub api_key: Secret,
    pub api_url: Option<Url>,
}

/// What makes the class `environment`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassVariables {
    pub proxy: ProxyVariables,
    pub cloudflare: Option<CloudflareVariables>,
    pub cname_target: Option<String>,
    pub smtp: Option<SmtpVariables>,
    pub mailbox: Option<MxVariables>,
}

/// The whole environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `None` where none of the class's variables is set.
    pub class: Option<ClassVariables>,
    pub force_https: bool,
    pub trusted_proxy_count: u8,
    /// Where the trusted proxies are; empty: anywhere.
    pub trusted_proxies: Vec<IpNet>,
    pub admin_host: Option<String>,
    /// Things worth telling that are no errors.
    pub warnings: Vec<String>,
}

struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    /// A set, non-empty text without blanks around it.
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }
    fn invalid(&mut self, name: &'static str, shown: &str, allowed: impl Into<String>) {
        let shown = shown.chars().filter(|c| !c.is_control()).take(80).collect();
        self.errors.push(ConfigError::Invalid { name, shown, allowed: allowed.into() });
    }
    fn missing<T: Default>(&mut self, name: &'static str, why: impl Into<String>) -> T {
        self.errors.push(ConfigError::Missing { name, why: why.into() });
        T::default()
    }
    fn flag(&mut self, name: &'static str) -> Option<bool> {
        let text = self.text(name)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => {
                self.invalid(name, &text, "allowed are true and false");
                None
            }
        }
    }
    fn number<T: std::str::FromStr>(
        &mut self,
        name: &'static str,
        allowed: &str,
        fits: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| fits(number));
        if number.is_none() {
            self.invalid(name, &text, allowed);
        }
        number
    }
    fn url(&mut self, name: &'static str) -> Option<Url> {
        let text = self.text(name)?;
        let url = Url::parse(&text).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.host_str().is_some());
        if url.is_none() {
            self.invalid(name, &text, "allowed is an address that begins with http:// or https://");
        }
        url
    }
    /// `host:port`; a scheme before it is cut off, as the manual's program does.
    fn origin(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name)?;
        let bare = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest).trim_end_matches('/');
        let port = bare.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        match port {
            Some((host, 1..)) if !host.is_empty() && !host.contains(['/', '@', ' ']) => Some(bare.to_owned()),
            _ => {
                self.invalid(name, &text, "allowed is a host with a port, like 127.0.0.1:5000");
                None
            }
        }
    }
    /// The variable itself, or the content of the file that `NAME_FILE` names.
    fn secret(&mut self, name: &'static str) -> Option<Secret> {
        if let Some(text) = self.text(name) {
            return Some(Secret::new(text));
        }
        let path = self.text(&format!("{name}_FILE"))?;
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Some(Secret::new(text.trim())),
            Ok(_) => {
                self.errors.push(ConfigError::Unusable { name, why: format!("the file {path} is empty") });
                None
            }
            Err(error) => {
                self.errors
                    .push(ConfigError::Unusable { name, why: format!("the file {path} cannot be read: {error}") });
                None
            }
        }
    }

    fn class(&mut self) -> Option<ClassVariables> {
        let set = |name: &str| self.text(name).is_some() || self.text(&format!("{name}_FILE")).is_some();
        let meant = VARIABLES.iter().any(|variable| variable.class && set(variable.name));
        if !meant && !VARIABLES_NOT_YET.iter().any(|name| set(name)) {
            return None;
        }
        let backend = self.text("REVERSE_PROXY_BACKEND");
        let proxy = match backend.as_deref() {
            None | Some("npm") => self.npm().map(ProxyVariables::Npm),
            Some("caddy") => {
                let admin_url = self.url("CADDY_ADMIN_URL");
                if admin_url.is_none() && self.text("CADDY_ADMIN_URL").is_none() {
                    self.missing::<()>(
                        "CADDY_ADMIN_URL",
                        "REVERSE_PROXY_BACKEND=caddy needs Caddy's admin address, like http://127.0.0.1:2019",
                    );
                }
                let origin = self.origin("CADDY_ORIGIN");
                if origin.is_none() && self.text("CADDY_ORIGIN").is_none() {
                    self.missing::<()>("CADDY_ORIGIN", "REVERSE_PROXY_BACKEND=caddy needs the address under which Caddy finds this program, like 127.0.0.1:5000");
                }
                let admin_token = self.secret("CADDY_ADMIN_TOKEN");
                admin_url.zip(origin).map(|(admin_url, origin)| ProxyVariables::Caddy {
                    admin_url,
                    origin,
                    admin_token,
                })
            }
            Some("traefik") => self.traefik(),
            Some("ingress") => Some(self.ingress()),
            Some("manual") if self.text("INGRESS_CLASS_NAME").is_some() => Some(self.ingress()),
            Some("manual") => {
                let origin = self.origin("MANUAL_PROXY_ORIGIN").unwrap_or_else(|| "127.0.0.1:5000".to_owned());
                Some(ProxyVariables::Manual { origin })
            }
            Some(other) if NOT_YET.contains(&other) => {
                let why = format!("the backend {other} is not built yet; allowed are {ALLOWED}");
                self.errors.push(ConfigError::Unusable { name: "REVERSE_PROXY_BACKEND", why });
                None
            }
            Some(other) => {
                let other = other.to_owned();
                self.invalid(
                    "REVERSE_PROXY_BACKEND",
                    &other,
                    format!("allowed are {ALLOWED} (later: cloudflare_tunnel)"),
                );
                None
            }
        };
        let automatic = matches!(
            proxy,
            Some(ProxyVariables::Npm(_) | ProxyVariables::Caddy { .. } | ProxyVariables::Traefik { .. })
        );
        let account_id = self.text("CF_ACCOUNT_ID");
        let api_url = self.url("CF_API_URL");
        // In manual mode nothing is automatic, whatever else is set.
        // Clusters often have other means to make records.
        let record_too = backend.as_deref() == Some("ingress")
            && (self.text("CF_API_TOKEN").is_some() || self.text("CF_API_TOKEN_FILE").is_some());
        let automatic = automatic || record_too;
        let cloudflare = if automatic {
            match self.secret("CF_API_TOKEN") {
                Some(api_token) => Some(CloudflareVariables { api_token, account_id, api_url }),
                None => self.missing(
                    "CF_API_TOKEN",
                    "an automatic backend needs a Cloudflare API token with Zone Read and DNS Edit",
                ),
            }
        } else {
            None
        };
        let cname_target = self.text("RESET_PORTAL_CNAME_TARGET");
        if automatic && cname_target.is_none() {
            self.missing::<()>(
                "RESET_PORTAL_CNAME_TARGET",
                "an automatic backend needs the public host that the portals' CNAMEs point to",
            );
        }
        let resets = self.flag("MAILBOX_RESET_ENABLED").unwrap_or(true);
        let smtp = self.smtp().filter(|_| resets);
        let mailbox = self.mailbox().filter(|_| resets);
        Some(ClassVariables { proxy: proxy?, cloudflare, cname_target, smtp, mailbox })
    }

    fn npm(&mut self) -> Option<NpmVariables> {
        const WHY: &str = "REVERSE_PROXY_BACKEND=npm, which is also the default, needs";
        let api_url = self.url("NPM_API_URL");
        let identity = self.text("NPM_IDENTITY").map(Secret::new);
        let secret = self.secret("NPM_SECRET");
        let forward_host = self.text("NPM_FORWARD_HOST");
        for (there, name, what) in [
            (self.text("NPM_API_URL").is_some(), "NPM_API_URL", "NPM's admin address, like http://127.0.0.1:81"),
            (identity.is_some(), "NPM_IDENTITY", "the login of an NPM user"),
            (secret.is_some(), "NPM_SECRET", "the password of that user"),
            (forward_host.is_some(), "NPM_FORWARD_HOST", "the address under which NPM finds this program"),
        ] {
            if !there {
                self.missing::<()>(name, format!("{WHY} {what}"));
            }
        }
        let port = self.number("NPM_FORWARD_PORT", "allowed is a port, 1 to 65535", |port: &u16| *port > 0);
        let verify_tls = self.flag("NPM_TLS_VERIFY").unwrap_or(true);
        let email = self.text("NPM_LETSENCRYPT_EMAIL");
        let origin_ca = self.text("CF_ORIGIN_CA_KEY").is_some();
        let certificate = match self.text("NPM_CERTIFICATE") {
            None if origin_ca => NpmCertificateVariable::OriginCa,
            None => NpmCertificateVariable::LetsEncrypt,
            Some(text) => match (text.as_str(), text.parse()) {
                ("letsencrypt", _) => NpmCertificateVariable::LetsEncrypt,
                ("origin_ca", _) => NpmCertificateVariable::OriginCa,
                ("none", _) => NpmCertificateVariable::None,
                (_, Ok(id)) if id > 0 => NpmCertificateVariable::Id(id),
                _ => NpmCertificateVariable::Name(text),
            },
        };
        let forward_port = port.unwrap_or(5000);
        let (api_url, identity, secret, forward_host) = (api_url?, identity?, secret?, forward_host?);
        Some(NpmVariables { api_url, identity, secret, forward_host, forward_port, verify_tls, email, certificate })
    }

    /// A variable that a backend cannot do without.
    fn needed(&mut self, name: &'static str, why: &str) {
        if self.text(name).is_none() {
            self.missing::<()>(name, why);
        }
    }
    /// A plain name, as entry points and resolvers have.
    fn word(&mut self, name: &'static str, text: &str) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let fits = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= 64 && text.chars().all(plain);
        if !fits {
            self.invalid(name, text, "allowed are letters, digits, hyphens, underscores and dots");
        }
        fits.then(|| text.to_owned())
    }

    fn traefik(&mut self) -> Option<ProxyVariables> {
        let dynamic_dir = self.text("TRAEFIK_DYNAMIC_DIR");
        self.needed(
            "TRAEFIK_DYNAMIC_DIR",
            "REVERSE_PROXY_BACKEND=traefik needs the folder that Traefik's file provider watches",
        );
        if let Some(text) = dynamic_dir.as_ref().filter(|text| !text.starts_with('/')) {
            self.invalid("TRAEFIK_DYNAMIC_DIR", text, "allowed is a whole path, one that begins with /");
        }
        let origin_url = self.url("TRAEFIK_ORIGIN_URL");
        self.needed("TRAEFIK_ORIGIN_URL", "REVERSE_PROXY_BACKEND=traefik needs the address under which Traefik finds this program, like http://127.0.0.1:5000");
        let cert_resolver = match self.text("TRAEFIK_CERT_RESOLVER") {
            None => "cloudflare".to_owned(),
            Some(none) if none == "none" => String::new(),
            Some(text) => self.word("TRAEFIK_CERT_RESOLVER", &text).unwrap_or_default(),
        };
        let points = self.text("TRAEFIK_ENTRYPOINTS").unwrap_or_default();
        let points = points.split(',').map(str::trim).filter(|point| !point.is_empty());
        let entry_points = points.filter_map(|point| self.word("TRAEFIK_ENTRYPOINTS", point)).collect();
        let api_url = self.url("TRAEFIK_API_URL");
        Some(ProxyVariables::Traefik {
            dynamic_dir: dynamic_dir?,
            origin_url: origin_url?,
            cert_resolver,
            entry_points,
            api_url,
        })
    }

    fn ingress(&mut self) -> ProxyVariables {
        let mut annotations = BTreeMap::new();
        for pair in
            self.text("INGRESS_ANNOTATIONS").unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty())
        {
            match pair.split_once('=') {
                Some((name, value)) if !name.trim().is_empty() => {
                    annotations.insert(name.trim().to_owned(), value.trim().to_owned());
                }
                _ => self.invalid("INGRESS_ANNOTATIONS", pair, "allowed is name=value, joined by commas"),
            }
        }
        let (tls_secret, cluster_issuer) = (self.text("INGRESS_TLS_SECRET"), self.text("INGRESS_CLUSTER_ISSUER"));
        if tls_secret.is_some() && cluster_issuer.is_some() {
            let why = "INGRESS_TLS_SECRET is set, too: the certificate comes from one of them".to_owned();
            self.errors.push(ConfigError::Unusable { name: "INGRESS_CLUSTER_ISSUER", why });
        }
        let allowed = "allowed is a port, 1 to 65535";
        ProxyVariables::Ingress {
            class_name: self.text("INGRESS_CLASS_NAME"),
            namespace: self.text("INGRESS_NAMESPACE"),
            service: self.text("INGRESS_SERVICE_NAME").unwrap_or_else(|| "portalkeeper".to_owned()),
            port: self.number("INGRESS_SERVICE_PORT", allowed, |port: &u16| *port > 0).unwrap_or(5000),
            tls_secret,
            cluster_issuer,
            annotations,
        }
    }

    fn smtp(&mut self) -> Option<SmtpVariables> {
        let port =
            self.number("RESET_SMTP_PORT", "allowed is a port, 1 to 65535", |port: &u16| *port > 0).unwrap_or(587);
        let use_tls = self.flag("RESET_SMTP_USE_TLS").unwrap_or(true);
        let user = self.text("RESET_SMTP_USER");
        let password = self.secret("RESET_SMTP_PASSWORD");
        let from = self.text("RESET_SMTP_FROM");
        let Some(host) = self.text("RESET_SMTP_HOST") else {
            if user.is_some() || password.is_some() || from.is_some() {
                return self.missing(
                    "RESET_SMTP_HOST",
                    "other RESET_SMTP_ variables are set, so the mail server must be named",
                );
            }
            return None;
        };
        if user.is_some() && password.is_none() {
            self.missing::<()>("RESET_SMTP_PASSWORD", "RESET_SMTP_USER needs a password");
        }
        Some(SmtpVariables { host, port, use_tls, user, password, from })
    }

    fn mailbox(&mut self) -> Option<MxVariables> {
        let (server, user, api_key) = (self.text("MX_SERVER"), self.text("MX_USER"), self.secret("MX_API_KEY"));
        let api_url = self.url("MX_API_URL");
        if server.is_none() && user.is_none() && api_key.is_none() {
            return None;
        }
        for (there, name) in
            [(server.is_some(), "MX_SERVER"), (user.is_some(), "MX_USER"), (api_key.is_some(), "MX_API_KEY")]
        {
            if !there {
                self.missing::<()>(name, "MXroute needs MX_SERVER, MX_USER and MX_API_KEY together");
            }
        }
        Some(MxVariables { server: server?, user: user?, api_key: api_key?, api_url })
    }
}

impl Environment {
    /// Reads every variable. Errors: all that is wrong, not only the first.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<ConfigError>> {
        let mut reader = Reader { lookup, errors: Vec::new() };
        let class = reader.class();
        let force_https = reader.flag("FORCE_HTTPS").unwrap_or(false);
        let allowed = "allowed is a number from 0 to 10";
        let trusted_proxy_count = reader.number("TRUSTED_PROXY_COUNT", allowed, |count: &u8| *count <= 10).unwrap_or(1);
        let networks = reader.text("TRUSTED_PROXY_CIDRS").unwrap_or_default();
        let trusted_proxies = networks::parse(&networks).unwrap_or_else(|part| {
            let allowed =
                "allowed are addresses and networks like 10.0.0.0/8 and the word cloudflare, joined by commas";
            reader.invalid("TRUSTED_PROXY_CIDRS", &part, allowed);
            Vec::new()
        });
        let admin_host = reader.text("ADMIN_HOST");
        let mut warnings = Vec::new();
        if reader.text("CF_ORIGIN_CA_KEY").is_some() {
            let mut words = "CF_ORIGIN_CA_KEY is set and not used: Cloudflare's Origin CA service keys stopped working in autumn 2026".to_owned();
            let npm = class.as_ref().and_then(|class| match &class.proxy {
                ProxyVariables::Npm(npm) => Some(npm),
                _ => None,
            });
            if npm.is_some_and(|npm| npm.certificate == NpmCertificateVariable::OriginCa) {
                words.push_str(
                    "; Origin CA certificates are made with CF_API_TOKEN, which needs Zone, SSL and Certificates, Edit",
                );
            }
            warnings.push(words);
        }
        if reader.errors.is_empty() {
            Ok(Self { class, force_https, trusted_proxy_count, trusted_proxies, admin_host, warnings })
        } else {
            Err(reader.errors)
        }
    }

    /// Reads the process environment, and beneath it the file `.env` of the working directory.
    pub fn from_process() -> Result<Self, Vec<ConfigError>> {
        let file = dot_env(std::path::Path::new(".env")).map_err(|error| vec![error])?;
        Self::read(&|name| std::env::var(name).ok().or_else(|| file.get(name).cloned()))
    }
}

/// The variables of a `.env` file; none where there is no such file.
fn dot_env(path: &std::path::Path) -> Result<BTreeMap<String, String>, ConfigError> {
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let bad = |error: dotenvy::Error| {
        // The library quotes the line, which may hold a secret.
        let why = match error {
            dotenvy::Error::LineParse(_, at) => {
                format!("a line cannot be read (at character {at}); lines are NAME=value")
            }
            other => other.to_string(),
        };
        ConfigError::Unusable { name: ".env", why }
    };
    dotenvy::from_path_iter(path).map_err(bad)?.map(|pair| pair.map_err(bad)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, Vec<String>> {
        let pairs: BTreeMap<String, String> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Environment::read(&|name| pairs.get(name).cloned())
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    const CADDY: [(&str, &str); 5] = [
        ("REVERSE_PROXY_BACKEND", "caddy"),
        ("CADDY_ADMIN_URL", "http://127.0.0.1:2019"),
        ("CADDY_ORIGIN", "http://127.0.0.1:5000"),
        ("CF_API_TOKEN", "token-1234"),
        ("RESET_PORTAL_CNAME_TARGET", "proxy.example.com"),
    ];

    #[test]
    fn nothing_set_is_no_class() {
        let environment = read(&[]).unwrap();
        assert_eq!((environment.class, environment.force_https, environment.trusted_proxy_count), (None, false, 1));
    }

    #[test]
    fn the_manuals_caddy_example_is_read() {
        let class = read(&CADDY).unwrap().class.unwrap();
        let ProxyVariables::Caddy { origin, .. } = &class.proxy else { panic!("caddy") };
        assert_eq!(origin, "127.0.0.1:5000");
        assert_eq!(class.cloudflare.unwrap().api_token.expose(), "token-1234");
    }

    const NPM: [(&str, &str); 6] = [
        ("NPM_API_URL", "http://npm:81"),
        ("NPM_IDENTITY", "me@example.com"),
        ("NPM_SECRET", "npm-secret-1"),
        ("NPM_FORWARD_HOST", "10.0.0.5"),
        ("CF_API_TOKEN", "token-1234"),
        ("RESET_PORTAL_CNAME_TARGET", "proxy.example.com"),
    ];

    #[test]
    fn npm_is_the_default_backend() {
        let npm = |more: &[(&str, &str)]| {
            let pairs: Vec<_> = NPM.iter().chain(more).copied().collect();
            match read(&pairs).unwrap().class.unwrap().proxy {
                ProxyVariables::Npm(npm) => npm,
                other => panic!("{other:?}"),
            }
        };
        let plain = npm(&[]);
        assert_eq!((plain.forward_host.as_str(), plain.forward_port, plain.verify_tls), ("10.0.0.5", 5000, true));
        assert_eq!(plain.certificate, NpmCertificateVariable::LetsEncrypt);
        assert_eq!(npm(&[("REVERSE_PROXY_BACKEND", "npm")]), plain);
        let certificate = |text| npm(&[("NPM_CERTIFICATE", text)]).certificate;
        assert_eq!(certificate("none"), NpmCertificateVariable::None);
        assert_eq!(certificate("12"), NpmCertificateVariable::Id(12));
        assert_eq!(certificate("my wildcard"), NpmCertificateVariable::Name("my wildcard".into()));
        assert_eq!(npm(&[("CF_ORIGIN_CA_KEY", "v1.0-x")]).certificate, NpmCertificateVariable::OriginCa);
    }

    #[test]
    fn each_missing_variable_of_npm_is_told() {
        assert_eq!(
            read(&[("NPM_API_URL", "http://npm:81"), ("NPM_FORWARD_PORT", "0")]).unwrap_err(),
            [
                "NPM_IDENTITY is not set: REVERSE_PROXY_BACKEND=npm, which is also the default, needs the login of an NPM user",
                "NPM_SECRET is not set: REVERSE_PROXY_BACKEND=npm, which is also the default, needs the password of that user",
                "NPM_FORWARD_HOST is not set: REVERSE_PROXY_BACKEND=npm, which is also the default, needs the address under which NPM finds this program",
                "NPM_FORWARD_PORT=0 is not valid: allowed is a port, 1 to 65535",
            ]
        );
    }

    #[test]
    fn manual_mode_makes_nothing_even_with_a_token() {
        let class = read(&[("REVERSE_PROXY_BACKEND", "manual"), ("CF_API_TOKEN", "t")]).unwrap().class.unwrap();
        assert_eq!(class.proxy, ProxyVariables::Manual { origin: "127.0.0.1:5000".into() });
        assert_eq!(class.cloudflare, None);
    }

    #[test]
    fn each_wrong_value_is_told_with_its_name_and_what_is_allowed() {
        let wrong = |pairs: &[(&str, &str)]| read(pairs).unwrap_err();
        assert_eq!(
            wrong(&[("CF_API_TOKEN", "secret-token-1")])[0],
            "NPM_API_URL is not set: REVERSE_PROXY_BACKEND=npm, which is also the default, needs NPM's admin address, like http://127.0.0.1:81"
        );
        assert_eq!(
            wrong(&[("REVERSE_PROXY_BACKEND", "cloudflare_tunnel")]),
            [
                "REVERSE_PROXY_BACKEND is set, but the backend cloudflare_tunnel is not built yet; allowed are npm, caddy, traefik, ingress and manual"
            ]
        );
        assert_eq!(
            wrong(&[("REVERSE_PROXY_BACKEND", "nginx")]),
            [
                "REVERSE_PROXY_BACKEND=nginx is not valid: allowed are npm, caddy, traefik, ingress and manual (later: cloudflare_tunnel)"
            ]
        );
        assert_eq!(
            wrong(&[("REVERSE_PROXY_BACKEND", "caddy"), ("CADDY_ADMIN_URL", "127.0.0.1:2019")]),
            [
                "CADDY_ADMIN_URL=127.0.0.1:2019 is not valid: allowed is an address that begins with http:// or https://",
                "CADDY_ORIGIN is not set: REVERSE_PROXY_BACKEND=caddy needs the address under which Caddy finds this program, like 127.0.0.1:5000",
                // Without a usable proxy nothing is known to be automatic, so no token is asked for yet.
            ]
        );
        let with = |name: &'static str, value: &'static str| {
            let pairs: Vec<_> = CADDY.iter().copied().filter(|(n, _)| *n != name).chain([(name, value)]).collect();
            read(&pairs).unwrap_err()
        };
        assert_eq!(
            with("TRUSTED_PROXY_COUNT", "many"),
            ["TRUSTED_PROXY_COUNT=many is not valid: allowed is a number from 0 to 10"]
        );
        assert_eq!(
            with("TRUSTED_PROXY_CIDRS", "10.0.0.0/8,proxy"),
            [
                "TRUSTED_PROXY_CIDRS=proxy is not valid: allowed are addresses and networks like 10.0.0.0/8 and the word cloudflare, joined by commas"
            ]
        );
        assert_eq!(with("FORCE_HTTPS", "maybe"), ["FORCE_HTTPS=maybe is not valid: allowed are true and false"]);
        assert_eq!(with("RESET_SMTP_PORT", "0"), ["RESET_SMTP_PORT=0 is not valid: allowed is a port, 1 to 65535"]);
        assert_eq!(
            with("CADDY_ORIGIN", "127.0.0.1"),
            ["CADDY_ORIGIN=127.0.0.1 is not valid: allowed is a host with a port, like 127.0.0.1:5000"]
        );
        assert_eq!(
            with("CF_API_TOKEN", ""),
            ["CF_API_TOKEN is not set: an automatic backend needs a Cloudflare API token with Zone Read and DNS Edit"]
        );
        assert_eq!(
            with("RESET_PORTAL_CNAME_TARGET", ""),
            [
                "RESET_PORTAL_CNAME_TARGET is not set: an automatic backend needs the public host that the portals' CNAMEs point to"
            ]
        );
        assert_eq!(with("MX_USER", "me").len(), 2);
        assert_eq!(
            with("RESET_SMTP_FROM", "a@b.example"),
            ["RESET_SMTP_HOST is not set: other RESET_SMTP_ variables are set, so the mail server must be named"]
        );
        assert!(wrong(&[("CF_API_TOKEN", "secret-token-1")]).iter().all(|words| !words.contains("secret-token-1")));
    }

    #[test]
    fn the_manuals_traefik_example_is_read() {
        let pairs = [
            ("REVERSE_PROXY_BACKEND", "traefik"),
            ("TRAEFIK_DYNAMIC_DIR", "/etc/traefik/dynamic"),
            ("TRAEFIK_ORIGIN_URL", "http://127.0.0.1:5000"),
            ("CF_API_TOKEN", "token-1234"),
            ("RESET_PORTAL_CNAME_TARGET", "proxy.example.com"),
        ];
        let with = |more: &[(&'static str, &'static str)]| read(&[&pairs[..], more].concat());
        let class = with(&[]).unwrap().class.unwrap();
        let ProxyVariables::Traefik { cert_resolver, entry_points, .. } = class.proxy else { panic!("traefik") };
        assert_eq!((cert_resolver.as_str(), entry_points.len()), ("cloudflare", 0));
        let class = with(&[("TRAEFIK_CERT_RESOLVER", "none"), ("TRAEFIK_ENTRYPOINTS", "a, b")]).unwrap().class.unwrap();
        let ProxyVariables::Traefik { cert_resolver, entry_points, .. } = class.proxy else { panic!("traefik") };
        assert_eq!((cert_resolver.as_str(), entry_points), ("", vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(
            with(&[("TRAEFIK_CERT_RESOLVER", "{{ env }}")]).unwrap_err(),
            [
                "TRAEFIK_CERT_RESOLVER={{ env }} is not valid: allowed are letters, digits, hyphens, underscores and dots"
            ]
        );
        assert_eq!(
            with(&[("TRAEFIK_DYNAMIC_DIR", "dynamic")]).unwrap_err(),
            ["TRAEFIK_DYNAMIC_DIR=dynamic is not valid: allowed is a whole path, one that begins with /"]
        );
        assert_eq!(read(&pairs[..1]).unwrap_err().len(), 2);
    }

    #[test]
    fn ingress_needs_nothing_and_takes_a_record_along_where_there_is_a_token() {
        let class = |pairs: &[(&str, &str)]| read(pairs).unwrap().class.unwrap();
        let plain = class(&[("REVERSE_PROXY_BACKEND", "ingress")]);
        let ProxyVariables::Ingress { service, port, .. } = &plain.proxy else { panic!("ingress") };
        assert_eq!((service.as_str(), *port, plain.cloudflare), ("portalkeeper", 5000, None));
        let token = [("REVERSE_PROXY_BACKEND", "ingress"), ("CF_API_TOKEN", "t")];
        assert!(read(&token).unwrap_err()[0].starts_with("RESET_PORTAL_CNAME_TARGET is not set"));
        let by_hand = class(&[
            ("REVERSE_PROXY_BACKEND", "manual"),
            ("INGRESS_CLASS_NAME", "public"),
            ("INGRESS_ANNOTATIONS", "a.example/x=1, b=2=3"),
            ("CF_API_TOKEN", "t"),
        ]);
        let ProxyVariables::Ingress { class_name, annotations, .. } = &by_hand.proxy else { panic!("ingress") };
        assert_eq!((class_name.as_deref(), annotations["b"].as_str()), (Some("public"), "2=3"));
        assert_eq!(by_hand.cloudflare, None);
        let wrong = [("REVERSE_PROXY_BACKEND", "ingress"), ("INGRESS_ANNOTATIONS", "x")];
        assert_eq!(
            read(&wrong).unwrap_err(),
            ["INGRESS_ANNOTATIONS=x is not valid: allowed is name=value, joined by commas"]
        );
    }

    #[test]
    fn the_origin_ca_key_is_taken_with_a_warning() {
        let pairs: Vec<_> = CADDY.iter().copied().chain([("CF_ORIGIN_CA_KEY", "v1.0-x")]).collect();
        let environment = read(&pairs).unwrap();
        assert_eq!(environment.warnings.len(), 1);
        assert!(!environment.warnings[0].contains("v1.0-x"));
    }

    #[test]
    fn a_dot_env_file_is_read_and_a_broken_line_is_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        assert!(dot_env(&path).unwrap().is_empty());
        std::fs::write(&path, "# comment\nA=1\nexport B='two words'\n").unwrap();
        assert_eq!(dot_env(&path).unwrap()["B"], "two words");
        std::fs::write(&path, "CF_API_TOKEN=secret 'unfinished\n").unwrap();
        let error = dot_env(&path).unwrap_err().to_string();
        assert!(error.starts_with(".env is set, but a line cannot be read") && !error.contains("secret"), "{error}");
    }
}
