//! What makes the class `environment`: Cloudflare, mail server and mailbox provider beside the proxy.
use url::Url;

use super::proxy::ProxyVariables;
use super::reader::Reader;
use super::variables::{ALLOWED, VARIABLES};
use crate::config::rules;
use crate::config::secret::Secret;

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

impl Reader<'_> {
    pub fn class(&mut self) -> Option<ClassVariables> {
        let set = |name: &str| self.text(name).is_some() || self.text(&format!("{name}_FILE")).is_some();
        if !VARIABLES.iter().any(|variable| variable.class && set(variable.name)) {
            return None;
        }
        let backend = self.text("REVERSE_PROXY_BACKEND");
        let proxy = match backend.as_deref() {
            None | Some("npm") => self.npm().map(ProxyVariables::Npm),
            Some("cloudflare_tunnel") => self.tunnel(),
            Some("caddy") => self.caddy().map(ProxyVariables::Caddy),
            Some("traefik") => self.traefik(),
            Some("ingress") => Some(self.ingress()),
            Some("manual") if self.text("INGRESS_CLASS_NAME").is_some() => Some(self.ingress()),
            Some("manual") => {
                let origin = self.text("MANUAL_PROXY_ORIGIN").unwrap_or_else(|| "127.0.0.1:5000".to_owned());
                Some(ProxyVariables::Manual { origin })
            }
            Some(other) => {
                let other = other.to_owned();
                self.invalid("REVERSE_PROXY_BACKEND", &other, format!("allowed are {ALLOWED}"));
                None
            }
        };
        let automatic = matches!(
            proxy,
            Some(
                ProxyVariables::Npm(_)
                    | ProxyVariables::Tunnel { .. }
                    | ProxyVariables::Caddy(_)
                    | ProxyVariables::Traefik { .. }
            )
        );
        // A record that leads to a tunnel names the tunnel.
        let tunnel = matches!(proxy, Some(ProxyVariables::Tunnel { .. }));
        let account_id = self.fitting("CF_ACCOUNT_ID", &rules::ACCOUNT);
        let api_url = self.url("CF_API_URL");
        // In manual mode nothing is automatic, whatever else is set.
        // Clusters often have other means to make records.
        let record_too = backend.as_deref() == Some("ingress")
            && (self.text("CF_API_TOKEN").is_some() || self.text("CF_API_TOKEN_FILE").is_some());
        let automatic = automatic || record_too;
        let cloudflare = if automatic {
            match self.token("CF_API_TOKEN") {
                Some(api_token) => Some(CloudflareVariables { api_token, account_id, api_url }),
                None => self.missing(
                    "CF_API_TOKEN",
                    "an automatic backend needs a Cloudflare API token with Zone Read and DNS Edit",
                ),
            }
        } else {
            None
        };
        let cname_target = self.text("RESET_PORTAL_CNAME_TARGET").filter(|_| !tunnel);
        if automatic && !tunnel && cname_target.is_none() {
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

    fn smtp(&mut self) -> Option<SmtpVariables> {
        let port =
            self.number("RESET_SMTP_PORT", "allowed is a port, 1 to 65535", |port: &u16| *port > 0).unwrap_or(587);
        let use_tls = self.flag("RESET_SMTP_USE_TLS").unwrap_or(true);
        let user = self.text("RESET_SMTP_USER");
        let password = self.secret("RESET_SMTP_PASSWORD");
        let from = self.text("RESET_SMTP_FROM");
        let Some(host) = self.fitting("RESET_SMTP_HOST", &rules::SERVER) else {
            if user.is_some() || password.is_some() || from.is_some() {
                return self.missing(
                    "RESET_SMTP_HOST",
                    "other RESET_SMTP_ variables are set, so the mail server must be named",
                );
            }
            return None;
        };
        if !use_tls && !rules::ON_THIS_MACHINE.admits(&host) {
            self.unusable(
                "RESET_SMTP_USE_TLS",
                format!("it is false and RESET_SMTP_HOST is {host}: {}", rules::ON_THIS_MACHINE.words),
            );
        }
        if user.is_some() && password.is_none() {
            self.missing::<()>("RESET_SMTP_PASSWORD", "RESET_SMTP_USER needs a password");
        }
        Some(SmtpVariables { host, port, use_tls, user, password, from })
    }

    fn mailbox(&mut self) -> Option<MxVariables> {
        let server = self.fitting("MX_SERVER", &rules::SERVER);
        let (user, api_key) = (self.fitting("MX_USER", &rules::USERNAME), self.token("MX_API_KEY"));
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
