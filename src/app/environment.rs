//! From the environment's plain values to a class.
use crate::api::class::{
    CloudflareSettings, MailboxSettings, MxrouteSettings, PortalClassSpec, ProbeSettings, ResetSettings,
    SmtpEncryption, SmtpSettings,
};
use crate::api::ingress::{IngressSettings, IssuerKind, IssuerRef};
use crate::api::proxy::{
    CaddyDnsChallenge, CaddySettings, CloudflareTunnelSettings, ExistingCertificate, LetsEncryptSettings,
    ManualSettings, NpmCertificate, NpmSettings, ProxyCertificate, ProxySettings, TraefikLayout, TraefikSettings,
};
use crate::api::{HostName, MailAddress, Origin, TunnelError, TunnelId, TunnelOrigin};
use crate::config::environment::{
    CaddyVariables, ClassVariables, NpmCertificateVariable, NpmVariables, ProxyVariables,
};
use crate::config::{ConfigError, Environment};
use crate::controller::{EnvironmentClass, EnvironmentSecrets, caddy_tls};
use crate::http::TlsError;

/// The class `environment`.
pub fn class(variables: &ClassVariables) -> EnvironmentClass {
    let mut secrets = EnvironmentSecrets::default();
    let proxy = match &variables.proxy {
        ProxyVariables::Npm(npm) => {
            secrets.npm_identity = Some(npm.identity.clone());
            secrets.npm_password = Some(npm.secret.clone());
            ProxySettings { npm: Some(npm_settings(npm)), ..Default::default() }
        }
        ProxyVariables::Tunnel { id, origin } => {
            // Whatever cannot be parsed was refused by `wrong_names`.
            let tunnel = CloudflareTunnelSettings {
                tunnel_id: TunnelId::parse(id).map_or_else(|_| id.clone(), |id| id.to_string()),
                account_id: None,
                origin: TunnelOrigin::parse(origin).map_or_else(|_| origin.clone(), |origin| origin.to_string()),
            };
            ProxySettings { cloudflare_tunnel: Some(tunnel), ..Default::default() }
        }
        ProxyVariables::Caddy(caddy) => {
            caddy_secrets(caddy, &mut secrets);
            ProxySettings { caddy: Some(caddy_settings(caddy)), ..Default::default() }
        }
        ProxyVariables::Traefik { dynamic_dir, origin_url, cert_resolver, entry_points, api_url, origin_ca } => {
            let traefik = TraefikSettings {
                dynamic_dir: dynamic_dir.clone(),
                origin_url: Origin::parse(origin_url).map_or_else(|_| origin_url.clone(), |o| format!("http://{o}")),
                cert_resolver: cert_resolver.clone(),
                entry_points: entry_points.clone(),
                certificate: origin_ca.then(|| ProxyCertificate { origin_ca: Some(Default::default()) }),
                layout: TraefikLayout::default(),
                api_url: api_url.as_ref().map(trimmed),
            };
            ProxySettings { traefik: Some(traefik), ..Default::default() }
        }
        ProxyVariables::Ingress { class_name, namespace, service, port, tls_secret, cluster_issuer, annotations } => {
            let ingress = IngressSettings {
                namespace: namespace.clone(),
                service: service.clone(),
                port: *port,
                class_name: class_name.clone(),
                annotations: annotations.clone(),
                tls_secret: tls_secret.clone(),
                issuer: cluster_issuer.clone().map(|name| IssuerRef { name, kind: IssuerKind::ClusterIssuer }),
                gateway: None,
            };
            ProxySettings { ingress: Some(ingress), ..Default::default() }
        }
        ProxyVariables::Manual { origin } => {
            ProxySettings { manual: Some(ManualSettings { origin: canonical(origin) }), ..Default::default() }
        }
    };
    let cloudflare = variables.cloudflare.as_ref().map(|cloudflare| {
        secrets.cf_api_token = Some(cloudflare.api_token.clone());
        CloudflareSettings {
            account_id: cloudflare.account_id.clone(),
            sweep_hours: 24,
            audit_log: true,
            api_token_secret_ref: None,
            api_url: cloudflare.api_url.as_ref().map(trimmed),
        }
    });
    let mailbox = variables.mailbox.as_ref().map(|mx| {
        secrets.mx_api_key = Some(mx.api_key.clone());
        let mxroute = MxrouteSettings {
            server: mx.server.clone(),
            username: mx.user.clone(),
            api_key_secret_ref: None,
            api_url: mx.api_url.as_ref().map(trimmed),
        };
        MailboxSettings { mxroute: Some(mxroute) }
    });
    let smtp = variables.smtp.as_ref().map(|smtp| {
        secrets.smtp_password.clone_from(&smtp.password);
        let encryption = match (smtp.use_tls, smtp.port) {
            (false, _) => SmtpEncryption::Plain,
            (true, 465) => SmtpEncryption::Tls,
            (true, _) => SmtpEncryption::StartTls,
        };
        SmtpSettings {
            host: smtp.host.clone(),
            port: smtp.port,
            encryption,
            username: smtp.user.clone(),
            password_secret_ref: None,
            from: smtp.from.clone(),
        }
    });
    let spec = PortalClassSpec {
        default: false,
        cloudflare,
        cname_target: variables.cname_target.clone(),
        proxy,
        mailbox,
        smtp,
        reset: ResetSettings::default(),
        grants: Vec::new(),
        public_scheme: Default::default(),
        public_port: None,
        probe: ProbeSettings::default(),
    };
    EnvironmentClass { spec, secrets }
}

fn caddy_secrets(caddy: &CaddyVariables, secrets: &mut EnvironmentSecrets) {
    secrets.caddy_admin_token.clone_from(&caddy.admin_token);
    secrets.caddy_client_certificate.clone_from(&caddy.client_certificate);
    secrets.caddy_client_key.clone_from(&caddy.client_key);
    secrets.caddy_ca.clone_from(&caddy.ca);
}

fn caddy_settings(caddy: &CaddyVariables) -> CaddySettings {
    let challenge = |required| CaddyDnsChallenge { required, ..Default::default() };
    CaddySettings {
        admin_url: trimmed(&caddy.admin_url),
        verify_tls: caddy.verify_tls,
        client_certificate_secret_ref: None,
        client_key_secret_ref: None,
        ca_secret_ref: None,
        certificate: caddy.origin_ca.then(|| ProxyCertificate { origin_ca: Some(Default::default()) }),
        dns_challenge: caddy.dns_challenge.map(challenge),
        origin: canonical(&caddy.origin),
        admin_token_secret_ref: None,
        listen: caddy.listen.clone(),
    }
}

fn npm_settings(npm: &NpmVariables) -> NpmSettings {
    let mut certificate = NpmCertificate::default();
    match &npm.certificate {
        NpmCertificateVariable::LetsEncrypt => {
            let settings = LetsEncryptSettings { email: npm.email.clone(), ..LetsEncryptSettings::default() };
            certificate.lets_encrypt = Some(settings);
        }
        NpmCertificateVariable::OriginCa => certificate.origin_ca = Some(Default::default()),
        NpmCertificateVariable::None => certificate.none = Some(Default::default()),
        NpmCertificateVariable::Id(id) => {
            certificate.existing = Some(ExistingCertificate { id: Some(*id), name: None })
        }
        NpmCertificateVariable::Name(name) => {
            certificate.existing = Some(ExistingCertificate { id: None, name: Some(name.clone()) });
        }
    }
    NpmSettings {
        api_url: trimmed(&npm.api_url),
        identity_secret_ref: None,
        password_secret_ref: None,
        forward_host: npm.forward_host.clone(),
        forward_port: npm.forward_port,
        forward_scheme: Default::default(),
        force_https: true,
        verify_tls: npm.verify_tls,
        certificate,
    }
}

/// Host names and addresses that are none, told like any other wrong value.
pub fn wrong_names(environment: &Environment) -> Vec<ConfigError> {
    let class = environment.class.as_ref();
    let host = |name, text: Option<&String>| {
        let text = text?;
        HostName::parse(text).err().map(|error| (name, text.clone(), error.to_string()))
    };
    let from = class.and_then(|class| class.smtp.as_ref()).and_then(|smtp| smtp.from.as_ref());
    let mail = |name, text: Option<&String>| {
        let text = text?;
        MailAddress::parse(text).err().map(|error| (name, text.clone(), error.to_string()))
    };
    let contact = match class.map(|class| &class.proxy) {
        Some(ProxyVariables::Npm(npm)) => npm.email.as_ref(),
        _ => None,
    };
    let wrong = [
        host("RESET_PORTAL_CNAME_TARGET", class.and_then(|class| class.cname_target.as_ref())),
        host("ADMIN_HOST", environment.admin_host.as_ref()),
        mail("RESET_SMTP_FROM", from),
        mail("NPM_LETSENCRYPT_EMAIL", contact),
    ];
    let told = |(name, shown, allowed)| ConfigError::Invalid { name, shown, allowed };
    let wrong = wrong.into_iter().flatten().map(told).chain(wrong_tunnel(environment));
    wrong.chain(wrong_origin(environment)).chain(wrong_pem(environment)).collect()
}

/// Where a proxy is to find the pages, if that is no such place.
fn wrong_origin(environment: &Environment) -> Option<ConfigError> {
    let (name, origin) = match &environment.class.as_ref()?.proxy {
        ProxyVariables::Caddy(caddy) => ("CADDY_ORIGIN", &caddy.origin),
        ProxyVariables::Traefik { origin_url, .. } => ("TRAEFIK_ORIGIN_URL", origin_url),
        ProxyVariables::Manual { origin } => ("MANUAL_PROXY_ORIGIN", origin),
        ProxyVariables::Npm(_) | ProxyVariables::Tunnel { .. } | ProxyVariables::Ingress { .. } => return None,
    };
    let why = Origin::parse(origin).err()?.to_string();
    Some(ConfigError::Unusable { name, why })
}

/// What cannot be parsed was refused by `wrong_names`.
fn canonical(origin: &str) -> String {
    Origin::parse(origin).map_or_else(|_| origin.to_owned(), |origin| origin.to_string())
}

/// What is wrong with the tunnel's variables. The error's own words show the text, without a password in it.
fn wrong_tunnel(environment: &Environment) -> Vec<ConfigError> {
    let Some(ProxyVariables::Tunnel { id, origin }) = environment.class.as_ref().map(|class| &class.proxy) else {
        return Vec::new();
    };
    let unusable = |name, error: TunnelError| ConfigError::Unusable { name, why: error.to_string() };
    let id = TunnelId::parse(id).err().map(|error| unusable("CF_TUNNEL_ID", error));
    let origin = TunnelOrigin::parse(origin).err().map(|error| unusable("CF_TUNNEL_ORIGIN", error));
    id.into_iter().chain(origin).collect()
}

/// Certificates and keys that cannot be used, by the variable that holds them.
fn wrong_pem(environment: &Environment) -> Option<ConfigError> {
    let Some(ProxyVariables::Caddy(caddy)) = environment.class.as_ref().map(|class| &class.proxy) else {
        return None;
    };
    let mut secrets = EnvironmentSecrets::default();
    caddy_secrets(caddy, &mut secrets);
    let error = caddy_tls(&secrets).err()?;
    let name = match &error {
        TlsError::Certificate(_) => "CADDY_ADMIN_CLIENT_CERT",
        TlsError::Key(_) | TlsError::OtherKey => "CADDY_ADMIN_CLIENT_KEY",
        TlsError::Authority(_) => "CADDY_ADMIN_CA",
    };
    Some(ConfigError::Unusable { name, why: error.to_string() })
}

fn trimmed(url: &url::Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_tunnel_is_refused_with_the_variables_name_and_a_right_one_is_made_canonical() {
        let read = |id: &str, origin: &str| {
            let pairs = [
                ("REVERSE_PROXY_BACKEND", "cloudflare_tunnel"),
                ("CF_TUNNEL_ID", id),
                ("CF_TUNNEL_ORIGIN", origin),
                ("CF_ACCOUNT_ID", "0123456789abcdef0123456789abcdef"),
                ("CF_API_TOKEN", "token-1234"),
            ];
            let lookup = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            Environment::read(&lookup).unwrap()
        };
        let wrong = wrong_names(&read("mine", "http://me:hunter2@127.0.0.1:5000/x"));
        let words: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert!(words[0].starts_with("CF_TUNNEL_ID is set, but `mine` is not the id of a tunnel"), "{words:?}");
        assert!(
            words[1].starts_with("CF_TUNNEL_ORIGIN is set, but `http://…@127.0.0.1:5000/x` has a path"),
            "{words:?}"
        );
        let right = read("0F7C1D58-7D7C-4D3E-9C0A-5B8F3E2A1C6D", "HTTP://Pages:5000/");
        assert_eq!(wrong_names(&right), []);
        let spec = class(right.class.as_ref().unwrap()).spec;
        assert_eq!((spec.backend_name(), spec.origin().as_str()), ("cloudflare_tunnel", "http://pages:5000"));
        let tunnel = spec.proxy.cloudflare_tunnel.unwrap();
        assert_eq!(tunnel.tunnel_id, "0f7c1d58-7d7c-4d3e-9c0a-5b8f3e2a1c6d");
    }

    #[test]
    fn a_wrong_origin_is_refused_with_the_variables_name_and_a_right_one_is_made_canonical() {
        let proxies = [
            ("caddy", "CADDY_ORIGIN", vec![("CADDY_ADMIN_URL", "http://127.0.0.1:2019")]),
            ("traefik", "TRAEFIK_ORIGIN_URL", vec![("TRAEFIK_DYNAMIC_DIR", "/etc/traefik/dynamic")]),
            ("manual", "MANUAL_PROXY_ORIGIN", vec![]),
        ];
        for (backend, name, more) in proxies {
            let read = |origin: &str| {
                let mut pairs =
                    vec![("REVERSE_PROXY_BACKEND", backend), (name, origin), ("CF_API_TOKEN", "token-1234")];
                pairs.push(("RESET_PORTAL_CNAME_TARGET", "proxy.example.com"));
                pairs.extend_from_slice(&more);
                let lookup = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
                Environment::read(&lookup).unwrap()
            };
            for (origin, words) in [
                ("{env.HOME}:5000", "`{env.HOME}:5000` is not an address or host name with a port"),
                ("::1:5000", "`::1:5000` has an IPv6 address without brackets; write it as in `[::1]:5000`"),
                ("127.0.0.1", "`127.0.0.1` has no port"),
                ("127.0.0.1:5000/pages", "`127.0.0.1:5000/pages` has a path, query, user or fragment"),
                ("me:hunter2@pages:5000", "`…@pages:5000` has a path, query, user or fragment"),
                (
                    "https://pages:5000",
                    "`https://pages:5000` has a scheme other than http, in which the pages are served",
                ),
            ] {
                let wrong: Vec<String> = wrong_names(&read(origin)).iter().map(ToString::to_string).collect();
                assert_eq!(wrong.len(), 1, "{wrong:?}");
                assert!(wrong[0].starts_with(&format!("{name} is set, but {words}")), "{wrong:?}");
            }
            let right = read("http://[::1]:80/");
            assert_eq!(wrong_names(&right), []);
            let spec = class(right.class.as_ref().unwrap()).spec;
            assert_eq!(spec.origin(), if backend == "traefik" { "http://[::1]:80" } else { "[::1]:80" });
        }
    }

    #[test]
    fn the_contact_of_certificate_orders_is_a_mail_address() {
        let wrong = |email: &str| {
            let pairs = [
                ("NPM_API_URL", "http://127.0.0.1:81"),
                ("NPM_IDENTITY", "me@example.com"),
                ("NPM_SECRET", "secret"),
                ("NPM_FORWARD_HOST", "10.0.0.5"),
                ("NPM_LETSENCRYPT_EMAIL", email),
                ("CF_API_TOKEN", "token-1234"),
                ("RESET_PORTAL_CNAME_TARGET", "proxy.example.com"),
            ];
            let lookup = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            wrong_names(&Environment::read(&lookup).unwrap())
        };
        assert_eq!(wrong("me@example.com"), []);
        assert_eq!(wrong(""), [], "then the login is the contact");
        let told = wrong("me").first().map(ToString::to_string).unwrap_or_default();
        assert!(told.starts_with("NPM_LETSENCRYPT_EMAIL=me is not valid: `me` is not a mail address"), "{told}");
    }

    #[test]
    fn certificates_that_cannot_be_used_are_refused_with_the_variables_name() {
        let read = |certificate: &str, key: &str, ca: &str| {
            let pairs = [
                ("REVERSE_PROXY_BACKEND", "caddy"),
                ("CADDY_ADMIN_URL", "https://caddy.example.com:2021"),
                ("CADDY_ORIGIN", "127.0.0.1:5000"),
                ("CF_API_TOKEN", "token-1234"),
                ("RESET_PORTAL_CNAME_TARGET", "proxy.example.com"),
                ("CADDY_ADMIN_CLIENT_CERT", certificate),
                ("CADDY_ADMIN_CLIENT_KEY", key),
                ("CADDY_ADMIN_CA", ca),
            ];
            let lookup = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            let wrong = wrong_names(&Environment::read(&lookup).unwrap());
            wrong.first().map(ToString::to_string).unwrap_or_default()
        };
        let pair = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec!["portalkeeper".to_owned()]).unwrap();
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let ((certificate, key), (_, other)) = (pair(), pair());
        assert_eq!(read(&certificate, &key, &certificate), "");
        let wrong = read("x", &key, &certificate);
        assert!(wrong.starts_with("CADDY_ADMIN_CLIENT_CERT is set, but the certificate cannot be read: "), "{wrong}");
        let wrong = read(&certificate, &other, &certificate);
        assert_eq!(wrong, "CADDY_ADMIN_CLIENT_KEY is set, but the key is not that of the certificate");
        let wrong = read(&certificate, &key, "x");
        assert!(wrong.starts_with("CADDY_ADMIN_CA is set, but the authority's certificate cannot be read"), "{wrong}");
    }
}
