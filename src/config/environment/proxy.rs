//! The proxies by the environment.
use std::collections::BTreeMap;

use url::Url;

use super::reader::Reader;
use crate::config::rules;
use crate::config::secret::{NO_PASSWORD, Secret};

/// A proxy by the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyVariables {
    Npm(NpmVariables),
    /// Both as they were written; whether they are an id and an address is for who knows these.
    Tunnel {
        id: String,
        origin: String,
    },
    Caddy(CaddyVariables),
    Traefik {
        dynamic_dir: String,
        /// As it was written; whether it is an address is for who knows these.
        origin_url: String,
        /// Empty where certificates come from elsewhere.
        cert_resolver: String,
        entry_points: Vec<String>,
        api_url: Option<Url>,
        /// Certificates of Cloudflare's Origin CA instead.
        origin_ca: bool,
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
        /// Like Caddy's.
        origin: String,
    },
}

/// Caddy by the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaddyVariables {
    pub admin_url: Url,
    /// As it was written; whether it is an address is for who knows these.
    pub origin: String,
    /// Listen address of the server that gets the routes.
    pub listen: Option<String>,
    pub admin_token: Option<Secret>,
    pub verify_tls: bool,
    /// PEM texts; whether they can be used is for who knows these.
    pub client_certificate: Option<Secret>,
    pub client_key: Option<Secret>,
    pub ca: Option<Secret>,
    /// Certificates by a DNS challenge, and whether there must be.
    pub dns_challenge: Option<bool>,
    /// Certificates of Cloudflare's Origin CA instead.
    pub origin_ca: bool,
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

impl Reader<'_> {
    pub fn caddy(&mut self) -> Option<CaddyVariables> {
        let admin_url = match self.text("CADDY_ADMIN_URL") {
            Some(text) => {
                let usable = rules::CADDY_ADMIN.admits(&text) && !rules::CADDY_CONFIG.is_met(&text);
                let url = Url::parse(&text).ok().filter(|_| usable);
                if text.contains('@') {
                    // It would stand in the class for everybody to read, and the value is not repeated here either.
                    let allowed = "an address must not hold a name or a password; CADDY_ADMIN_TOKEN is there for those";
                    self.invalid("CADDY_ADMIN_URL", "…@…", allowed);
                } else if url.is_none() {
                    let allowed = match rules::CADDY_ADMIN.admits(&text) {
                        true => rules::CADDY_CONFIG.words,
                        false => rules::CADDY_ADMIN.words,
                    };
                    self.invalid("CADDY_ADMIN_URL", &text, allowed);
                }
                url
            }
            None => self.missing(
                "CADDY_ADMIN_URL",
                "REVERSE_PROXY_BACKEND=caddy needs Caddy's admin address, like http://127.0.0.1:2019",
            ),
        };
        let origin = self.text("CADDY_ORIGIN");
        self.needed(
            "CADDY_ORIGIN",
            "REVERSE_PROXY_BACKEND=caddy needs the address under which Caddy finds this program, like 127.0.0.1:5000",
        );
        let listen = self.fitting("CADDY_LISTEN", &rules::LISTEN);
        let admin_token = self.token("CADDY_ADMIN_TOKEN");
        let verify_tls = self.flag("CADDY_TLS_VERIFY").unwrap_or(true);
        let origin_ca = self.origin_ca("CADDY_CERTIFICATE");
        let dns_challenge = match self.text("CADDY_DNS_CHALLENGE").as_deref() {
            Some("true") if origin_ca => {
                let why = "CADDY_CERTIFICATE is origin_ca, so Caddy orders no certificates";
                self.unusable("CADDY_DNS_CHALLENGE", why);
                None
            }
            None | Some("auto") => (!origin_ca).then_some(false),
            Some("true") => Some(true),
            Some("false") => None,
            Some(other) => {
                let other = other.to_owned();
                self.invalid("CADDY_DNS_CHALLENGE", &other, "allowed are auto, true and false");
                None
            }
        };
        let client_certificate = self.secret("CADDY_ADMIN_CLIENT_CERT");
        let client_key = self.secret("CADDY_ADMIN_CLIENT_KEY");
        let ca = self.secret("CADDY_ADMIN_CA");
        for (there, other, name) in [
            (client_certificate.is_some(), client_key.is_some(), "CADDY_ADMIN_CLIENT_CERT"),
            (client_key.is_some(), client_certificate.is_some(), "CADDY_ADMIN_CLIENT_KEY"),
        ] {
            if !there && other {
                self.missing::<()>(name, "a client certificate and its key belong together");
            }
        }
        let plain = admin_url.as_ref().is_some_and(|url| url.scheme() != "https");
        for (there, name) in
            [(client_certificate.is_some(), "CADDY_ADMIN_CLIENT_CERT"), (ca.is_some(), "CADDY_ADMIN_CA")]
        {
            if there && plain {
                self.unusable(name, "CADDY_ADMIN_URL is no https:// address, so no certificate is shown there");
            }
        }
        if ca.is_some() && !verify_tls {
            self.unusable("CADDY_ADMIN_CA", "with CADDY_TLS_VERIFY=false nobody looks at it");
        }
        let (admin_url, origin) = admin_url.zip(origin)?;
        Some(CaddyVariables {
            admin_url,
            origin,
            listen,
            admin_token,
            verify_tls,
            client_certificate,
            client_key,
            ca,
            dns_challenge,
            origin_ca,
        })
    }

    /// Whether certificates are those of Cloudflare's Origin CA.
    fn origin_ca(&mut self, name: &'static str) -> bool {
        match self.text(name).as_deref() {
            None | Some("auto") => false,
            Some("origin_ca") => true,
            Some(other) => {
                let other = other.to_owned();
                self.invalid(name, &other, "allowed are auto and origin_ca");
                false
            }
        }
    }

    pub fn npm(&mut self) -> Option<NpmVariables> {
        const WHY: &str = "REVERSE_PROXY_BACKEND=npm, which is also the default, needs";
        let api_url = self.url("NPM_API_URL");
        let identity = self.text("NPM_IDENTITY").map(Secret::new);
        let secret = self.secret("NPM_SECRET");
        if secret.as_ref().is_some_and(Secret::has_control) {
            self.unusable("NPM_SECRET", NO_PASSWORD);
        }
        let forward_host = self.fitting("NPM_FORWARD_HOST", &rules::FORWARD_HOST);
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
                _ => {
                    // A name of digits alone would be a number that was mistyped.
                    let digits = text.trim_start_matches(['-', '+']);
                    let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                    if number || !rules::CERTIFICATE_NAME.admits(&text) {
                        let allowed = "allowed are letsencrypt, origin_ca, none, the number of a certificate of NPM, from 1 on, or its name of up to 255 characters";
                        self.invalid("NPM_CERTIFICATE", &text, allowed);
                    }
                    NpmCertificateVariable::Name(text)
                }
            },
        };
        let forward_port = port.unwrap_or(5000);
        let (api_url, identity, secret, forward_host) = (api_url?, identity?, secret?, forward_host?);
        Some(NpmVariables { api_url, identity, secret, forward_host, forward_port, verify_tls, email, certificate })
    }

    pub fn tunnel(&mut self) -> Option<ProxyVariables> {
        const WHY: &str = "REVERSE_PROXY_BACKEND=cloudflare_tunnel needs";
        let (id, origin) = (self.text("CF_TUNNEL_ID"), self.text("CF_TUNNEL_ORIGIN"));
        for (name, what) in [
            ("CF_TUNNEL_ID", "the id of a remotely managed tunnel, which the dashboard shows"),
            (
                "CF_TUNNEL_ORIGIN",
                "the address under which the tunnel's connectors find this program, like http://127.0.0.1:5000",
            ),
            ("CF_ACCOUNT_ID", "the account that the tunnel and the zones are in"),
        ] {
            self.needed(name, &format!("{WHY} {what}"));
        }
        Some(ProxyVariables::Tunnel { id: id?, origin: origin? })
    }

    pub fn traefik(&mut self) -> Option<ProxyVariables> {
        let dynamic_dir = self.text("TRAEFIK_DYNAMIC_DIR");
        self.needed(
            "TRAEFIK_DYNAMIC_DIR",
            "REVERSE_PROXY_BACKEND=traefik needs the folder that Traefik's file provider watches",
        );
        if let Some(text) = dynamic_dir.as_ref().filter(|text| !text.starts_with('/')) {
            self.invalid("TRAEFIK_DYNAMIC_DIR", text, "allowed is a whole path, one that begins with /");
        }
        let origin_url = self.text("TRAEFIK_ORIGIN_URL");
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
        if let Some(text) = self.text("TRAEFIK_API_URL").filter(|text| rules::TRAEFIK_PATHS.is_met(text)) {
            self.invalid("TRAEFIK_API_URL", &text, rules::TRAEFIK_PATHS.words);
        }
        let origin_ca = self.origin_ca("TRAEFIK_CERTIFICATE");
        Some(ProxyVariables::Traefik {
            dynamic_dir: dynamic_dir?,
            origin_url: origin_url?,
            cert_resolver,
            entry_points,
            api_url,
            origin_ca,
        })
    }

    pub fn ingress(&mut self) -> ProxyVariables {
        let mut annotations = BTreeMap::new();
        for pair in
            self.text("INGRESS_ANNOTATIONS").unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty())
        {
            match pair.split_once('=') {
                Some((name, _)) if !rules::ANNOTATION_KEY.admits(name.trim()) => {
                    self.invalid("INGRESS_ANNOTATIONS", name, rules::ANNOTATION_KEY.words);
                }
                Some((name, value)) => {
                    annotations.insert(name.trim().to_owned(), value.trim().to_owned());
                }
                None => {
                    let allowed = "allowed is name=value, joined by commas; a value with a comma in it needs a PortalClass, in \
                                   proxy.ingress.annotations";
                    self.invalid("INGRESS_ANNOTATIONS", pair, allowed);
                }
            }
        }
        let class_name = self.fitting("INGRESS_CLASS_NAME", &rules::SUBDOMAIN);
        let namespace = self.fitting("INGRESS_NAMESPACE", &rules::LABEL);
        let service = self.fitting("INGRESS_SERVICE_NAME", &rules::LABEL);
        let tls_secret = self.fitting("INGRESS_TLS_SECRET", &rules::SUBDOMAIN);
        let cluster_issuer = self.fitting("INGRESS_CLUSTER_ISSUER", &rules::SUBDOMAIN);
        if tls_secret.is_some() && cluster_issuer.is_some() {
            let why = "INGRESS_TLS_SECRET is set, too: the certificate comes from one of them";
            self.unusable("INGRESS_CLUSTER_ISSUER", why);
        }
        let allowed = "allowed is a port, 1 to 65535";
        ProxyVariables::Ingress {
            class_name,
            namespace,
            service: service.unwrap_or_else(|| "portalkeeper".to_owned()),
            port: self.number("INGRESS_SERVICE_PORT", allowed, |port: &u16| *port > 0).unwrap_or(5000),
            tls_secret,
            cluster_issuer,
            annotations,
        }
    }
}
