//! The environment variables, read and checked once. Names are those of the manual this program grew from.
mod class;
mod fields;
mod proxy;
mod reader;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::BTreeMap;

use ipnet::IpNet;

use self::reader::Reader;
use super::networks;

pub use class::{ClassVariables, CloudflareVariables, MxVariables, SmtpVariables};
pub use fields::{FIELDS, named};
pub use proxy::{CaddyVariables, NpmCertificateVariable, NpmVariables, ProxyVariables};
pub use variables::{VARIABLES, Variable};

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

impl Environment {
    /// Reads every variable. Errors: all that is wrong, not only the first.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<ConfigError>> {
        let mut reader = Reader { lookup, errors: Vec::new() };
        let class = reader.class();
        let force_https = reader.flag("FORCE_HTTPS").unwrap_or(false);
        let allowed = "allowed is a number from 0 to 10";
        let trusted_proxy_count = reader.number("TRUSTED_PROXY_COUNT", allowed, |count: &u8| *count <= 10).unwrap_or(1);
        if force_https && trusted_proxy_count == 0 {
            let why = "TRUSTED_PROXY_COUNT is 0: this program itself serves plain http, and no proxy's word for https would be \
                       believed, so that each page would be a redirect to itself; set TRUSTED_PROXY_COUNT to the number of \
                       proxies in front of this program, or FORCE_HTTPS to false";
            reader.unusable("FORCE_HTTPS", why);
        }
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
            let signs = class.as_ref().is_some_and(|class| match &class.proxy {
                ProxyVariables::Npm(npm) => npm.certificate == NpmCertificateVariable::OriginCa,
                ProxyVariables::Caddy(caddy) => caddy.origin_ca,
                ProxyVariables::Traefik { origin_ca, .. } => *origin_ca,
                _ => false,
            });
            if signs {
                words.push_str(
                    "; Origin CA certificates are made with CF_API_TOKEN, which needs Zone, SSL and Certificates, Edit",
                );
            }
            warnings.push(words);
        }
        let tunnel = class.as_ref().is_some_and(|class| matches!(class.proxy, ProxyVariables::Tunnel { .. }));
        if tunnel && reader.text("RESET_PORTAL_CNAME_TARGET").is_some() {
            let words = "RESET_PORTAL_CNAME_TARGET is set and not used: with cloudflare_tunnel the portals' records point to the tunnel";
            warnings.push(words.to_owned());
        }
        if reader.errors.is_empty() {
            Ok(Self { class, force_https, trusted_proxy_count, trusted_proxies, admin_host, warnings })
        } else {
            Err(reader.errors)
        }
    }

    /// Reads the process environment, and beneath it the file `.env` of the working directory.
    pub fn from_process() -> Result<Self, Vec<ConfigError>> {
        let lookup = process().map_err(|error| vec![error])?;
        Self::read(&lookup)
    }
}

/// One variable, for a command that needs no other: read as [`Environment::from_process`] does, an empty one counts as
/// unset.
pub fn variable(name: &str) -> Result<Option<String>, ConfigError> {
    let lookup = process()?;
    Ok(Reader { lookup: &lookup, errors: Vec::new() }.text(name))
}

/// The process environment, and beneath it the file `.env` of the working directory.
fn process() -> Result<impl Fn(&str) -> Option<String>, ConfigError> {
    let file = dot_env(std::path::Path::new(".env"))?;
    Ok(move |name: &str| std::env::var(name).ok().or_else(|| file.get(name).cloned()))
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
