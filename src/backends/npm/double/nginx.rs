//! The simulated nginx: files on disk, the configuration that runs, and what a visitor gets from it.
use std::collections::BTreeMap;

use serde_json::Value;

/// What a visitor gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visit {
    /// NPM's own page, with status 200.
    DefaultPage,
    /// From this upstream.
    Page(String),
    /// To https.
    Redirect,
    /// An access list asks for a login.
    Denied,
    /// Nobody answers by https for the name.
    NoTls,
}

/// One host's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    id: u64,
    pub names: Vec<String>,
    upstream: String,
    /// The certificate it answers with.
    pub https: Option<u64>,
    /// Files of a Let's Encrypt certificate that the file names.
    needs: Option<u64>,
    forced: bool,
    access: u64,
    bad: bool,
}

impl Conf {
    /// The file for a row. A certificate that does not exist is left out without a word.
    pub fn of(id: u64, row: &Value, certificates: &[u64], orders: &[u64]) -> Self {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let number = |name: &str| row[name].as_u64().unwrap_or(0);
        let https = Some(number("certificate_id")).filter(|id| certificates.contains(id));
        let names = row["domain_names"].as_array().into_iter().flatten();
        Self {
            id,
            names: names.filter_map(Value::as_str).map(str::to_lowercase).collect(),
            upstream: format!("{}://{}:{}", text("forward_scheme"), text("forward_host"), number("forward_port")),
            needs: https.filter(|id| orders.contains(id)),
            https,
            forced: row["ssl_forced"] == true && https.is_some(),
            access: number("access_list_id"),
            bad: text("advanced_config").contains("not_a_directive"),
        }
    }

    /// The file as NPM writes it after an order: from a row without its certificate and access list.
    pub fn stripped(self) -> Self {
        Self { https: None, needs: None, forced: false, access: 0, ..self }
    }
}

#[derive(Debug, Default)]
pub struct Nginx {
    pub files: BTreeMap<u64, Conf>,
    running: BTreeMap<u64, Conf>,
    /// Loaded after the next visit.
    loading: Option<BTreeMap<u64, Conf>>,
    /// Something that is not a proxy host breaks the configuration.
    pub broken: bool,
}

impl Nginx {
    /// `nginx -t` over everything.
    pub fn test(&self, certificates: &[u64]) -> Result<(), String> {
        if self.broken {
            return Err("nginx: [emerg] host not found in upstream in /data/nginx/proxy_host/2.conf:9".to_owned());
        }
        for conf in self.files.values() {
            if conf.bad {
                let message = format!(
                    "nginx: [emerg] unknown directive \"not_a_directive\" in /data/nginx/proxy_host/{}.conf:40",
                    conf.id
                );
                return Err(message);
            }
            if conf.needs.is_some_and(|id| !certificates.contains(&id)) {
                return Err("nginx: [emerg] cannot load certificate \"/etc/letsencrypt/live/…\"".to_owned());
            }
        }
        Ok(())
    }

    pub fn reload(&mut self) {
        self.running = self.loading.take().unwrap_or_else(|| self.running.clone());
        self.loading = Some(self.files.clone());
    }

    pub fn visit(&mut self, host: &str, https: bool) -> Visit {
        let found = self.running.values().find(|conf| conf.names.iter().any(|name| name == host)).cloned();
        if let Some(loaded) = self.loading.take() {
            self.running = loaded;
        }
        let Some(conf) = found else { return if https { Visit::NoTls } else { Visit::DefaultPage } };
        match conf {
            Conf { https: None, .. } if https => Visit::NoTls,
            Conf { forced: true, .. } if !https => Visit::Redirect,
            Conf { access: 1.., .. } => Visit::Denied,
            Conf { upstream, .. } => Visit::Page(upstream),
        }
    }
}
