//! From the environment's plain values to a class.
use crate::api::class::{
    CloudflareSettings, MailboxSettings, MxrouteSettings, PortalClassSpec, ProbeSettings, ResetSettings,
    SmtpEncryption, SmtpSettings,
};
use crate::api::proxy::{
    CaddySettings, ExistingCertificate, IngressSettings, IssuerKind, IssuerRef, LetsEncryptSettings, ManualSettings,
    NpmCertificate, NpmSettings, ProxySettings, TraefikLayout, TraefikSettings,
};
use crate::api::{HostName, MailAddress};
use crate::config::environment::{ClassVariables, NpmCertificateVariable, NpmVariables, ProxyVariables};
use crate::config::{ConfigError, Environment};
use crate::controller::{EnvironmentClass, EnvironmentSecrets};

/// The class `environment`.
pub fn class(variables: &ClassVariables) -> EnvironmentClass {
    let mut secrets = EnvironmentSecrets::default();
    let proxy = match &variables.proxy {
        ProxyVariables::Npm(npm) => {
            secrets.npm_identity = Some(npm.identity.clone());
            secrets.npm_password = Some(npm.secret.clone());
            ProxySettings { npm: Some(npm_settings(npm)), ..Default::default() }
        }
        ProxyVariables::Caddy { admin_url, origin, admin_token } => {
            secrets.caddy_admin_token.clone_from(admin_token);
            let caddy = CaddySettings {
                admin_url: trimmed(admin_url),
                origin: origin.clone(),
                admin_token_secret_ref: None,
                listen: None,
            };
            ProxySettings { caddy: Some(caddy), ..Default::default() }
        }
        ProxyVariables::Traefik { dynamic_dir, origin_url, cert_resolver, entry_points, api_url } => {
            let traefik = TraefikSettings {
                dynamic_dir: dynamic_dir.clone(),
                origin_url: trimmed(origin_url),
                cert_resolver: cert_resolver.clone(),
                entry_points: entry_points.clone(),
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
            ProxySettings { manual: Some(ManualSettings { origin: origin.clone() }), ..Default::default() }
        }
    };
    let cloudflare = variables.cloudflare.as_ref().map(|cloudflare| {
        secrets.cf_api_token = Some(cloudflare.api_token.clone());
        CloudflareSettings {
            account_id: cloudflare.account_id.clone(),
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
    let wrong = [
        host("RESET_PORTAL_CNAME_TARGET", class.and_then(|class| class.cname_target.as_ref())),
        host("ADMIN_HOST", environment.admin_host.as_ref()),
        from.and_then(|text| {
            MailAddress::parse(text).err().map(|error| ("RESET_SMTP_FROM", text.clone(), error.to_string()))
        }),
    ];
    let told = |(name, shown, allowed)| ConfigError::Invalid { name, shown, allowed };
    wrong.into_iter().flatten().map(told).collect()
}

fn trimmed(url: &url::Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}
