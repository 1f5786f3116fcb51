//! What a class is at run time: its workers, its account at the mail host, its mailer. Made once per
//! settings and secrets, and made anew when one of them changes.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use url::Url;

use super::classes::{ResolvedClass, fingerprint};
use super::npm;
use super::provider::ProviderFacts;
use crate::api::class::PublicScheme;
use crate::api::clock::Clock;
use crate::api::condition::{ACCEPTED, Finding, Truth};
use crate::api::proxy::{IngressSettings, TraefikLayout, TraefikSettings};
use crate::api::{Origin, PortalClassSpec};
use crate::backends::caddy::{Caddy, CaddyOptions};
use crate::backends::cloudflare::{CloudflareDns, CloudflareOptions, DRIFT_INTERVAL};
use crate::backends::cloudflare_api::{self, Budget};
use crate::backends::ingress::{Flavour, Ingress, Target, Tls};
use crate::backends::npm::{Gate, Npm};
use crate::backends::traefik::{Layout, Routing, Traefik, TraefikOptions, Word};
use crate::backends::{BackendError, Worker};
use crate::config::Secret;
use crate::http::double::lock;
use crate::http::shutdown::Shutdown;
use crate::mail::{Mailer, SmtpOptions};
use crate::mailbox::mxroute::{self, Mxroute, MxrouteOptions};
use crate::reset::directory::Account;

/// A worker with what tells it from others: two classes of one instance share it.
#[derive(Clone)]
pub struct Shared {
    key: String,
    pub worker: Worker,
}

/// A class in use.
pub struct ClassRuntime {
    pub class: ResolvedClass,
    pub dns: Option<Shared>,
    pub proxy: Option<Shared>,
    pub account: Option<Account>,
    pub mailer: Option<Arc<Mailer>>,
    pub facts: ProviderFacts,
}

/// The classes in use, by name.
pub struct Registry {
    client: kube::Client,
    /// The controller's own.
    namespace: String,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    classes: Mutex<HashMap<String, Arc<ClassRuntime>>>,
    /// One per Nginx Proxy Manager, by its address: two workers of one instance take turns.
    gates: Mutex<HashMap<String, Gate>>,
    /// One per Cloudflare token: everything that calls with it shares its rate limit.
    budgets: Mutex<HashMap<String, Arc<Budget>>>,
}

fn unusable(class: &str, error: impl std::fmt::Display) -> Finding {
    Finding::new(ACCEPTED, Truth::False, "ClassUnusable", format!("PortalClass {class:?} cannot be used: {error}"))
}

/// The folder's settings, each checked: nothing else may reach a file.
fn traefik_options(spec: &PortalClassSpec, settings: &TraefikSettings) -> Result<TraefikOptions, String> {
    let https = spec.public_scheme == PublicScheme::Https;
    let word = |text: &str, field: &str| {
        let advice = "letters, digits, hyphens, underscores and dots are allowed";
        Word::parse(text).ok_or_else(|| format!("proxy.traefik.{field} `{text}` is no plain name: {advice}"))
    };
    let points: Vec<&str> = match settings.entry_points.as_slice() {
        [] if https => vec!["websecure"],
        [] => vec!["web"],
        named => named.iter().map(String::as_str).collect(),
    };
    let resolver = Some(settings.cert_resolver.as_str()).filter(|resolver| !resolver.is_empty());
    let address = |text: &String| Url::parse(text).map_err(|error| format!("proxy.traefik.apiUrl `{text}`: {error}"));
    Ok(TraefikOptions {
        dynamic_dir: settings.dynamic_dir.clone().into(),
        layout: match settings.layout {
            TraefikLayout::PerHost => Layout::PerHost,
            TraefikLayout::Merged => Layout::Merged,
        },
        routing: Routing {
            origin: Origin::parse(&settings.origin_url).map_err(|error| format!("proxy.traefik.originUrl {error}"))?,
            entry_points: points.into_iter().map(|point| word(point, "entryPoints")).collect::<Result<_, _>>()?,
            resolver: resolver.map(|resolver| word(resolver, "certResolver")).transpose()?,
            https,
        },
        api_url: settings.api_url.as_ref().map(address).transpose()?,
    })
}

fn ingress_target(settings: &IngressSettings, own_namespace: &str) -> Target {
    let tls = match (&settings.tls_secret, &settings.issuer) {
        (Some(secret), _) => Tls::Secret(secret.clone()),
        (None, Some(issuer)) => Tls::Issuer { kind: issuer.kind, name: issuer.name.clone() },
        (None, None) => Tls::None,
    };
    let flavour = match &settings.gateway {
        Some(gateway) => Flavour::HttpRoute {
            gateway: gateway.name.clone(),
            gateway_namespace: gateway.namespace.clone(),
            section: gateway.section_name.clone(),
        },
        None => {
            let (class_name, annotations) = (settings.class_name.clone(), settings.annotations.clone());
            Flavour::Ingress { class_name, annotations, tls }
        }
    };
    let namespace = settings.namespace.clone().unwrap_or_else(|| own_namespace.to_owned());
    Target { namespace, service: settings.service.clone(), port: settings.port, flavour }
}

impl Registry {
    pub fn new(client: kube::Client, namespace: &str, clock: Arc<dyn Clock>, shutdown: Shutdown) -> Self {
        let (classes, gates, budgets) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { client, namespace: namespace.to_owned(), clock, shutdown, classes, gates, budgets }
    }

    /// The running class for these settings and secrets. The error says what in them cannot work.
    pub fn get(&self, class: ResolvedClass) -> Result<Arc<ClassRuntime>, Finding> {
        let mut classes = lock(&self.classes);
        if let Some(running) = classes.get(&class.name)
            && running.class.fingerprint == class.fingerprint
        {
            return Ok(Arc::clone(running));
        }
        let known: Vec<Shared> =
            classes.values().flat_map(|running| [running.dns.clone(), running.proxy.clone()]).flatten().collect();
        let name = class.name.clone();
        let made = Arc::new(self.make(class, &known)?);
        classes.insert(name, Arc::clone(&made));
        Ok(made)
    }

    fn budget(&self, api_url: &str, token: &Secret) -> Arc<Budget> {
        let key = fingerprint(&[api_url, token.expose()]);
        Arc::clone(lock(&self.budgets).entry(key).or_insert_with(|| Budget::new(Arc::clone(&self.clock))))
    }

    fn make(&self, class: ResolvedClass, known: &[Shared]) -> Result<ClassRuntime, Finding> {
        let name = class.name.clone();
        let shared = |key: String, start: &dyn Fn() -> Result<Worker, BackendError>| -> Result<Shared, Finding> {
            match known.iter().find(|shared| shared.key == key) {
                Some(shared) => Ok(shared.clone()),
                None => Ok(Shared { worker: start().map_err(|error| unusable(&name, error))?, key }),
            }
        };
        let url = |text: &str, what: &str| {
            Url::parse(text).map_err(|error| unusable(&name, format!("{what} `{text}` is not an address: {error}")))
        };
        let dns = match (&class.spec.cloudflare, &class.secrets.cf_api_token) {
            (Some(settings), Some(token)) => {
                let api_url = settings.api_url.as_deref().unwrap_or(cloudflare_api::DEFAULT_API_URL);
                let account_id = settings.account_id.clone();
                let key =
                    fingerprint(&["cloudflare", api_url, token.expose(), account_id.as_deref().unwrap_or_default()]);
                let budget = self.budget(api_url, token);
                let options = CloudflareOptions {
                    api_url: url(api_url, "cloudflare.apiUrl")?,
                    token: token.clone(),
                    account_id,
                    drift_interval: DRIFT_INTERVAL,
                };
                Some(shared(key, &|| {
                    let backend = CloudflareDns::new(options.clone(), Arc::clone(&budget))?;
                    Ok(Worker::spawn(backend, Arc::clone(&self.clock), self.shutdown.clone()))
                })?)
            }
            _ => None,
        };
        let proxy = match &class.spec.proxy.caddy {
            Some(settings) => {
                let https = class.spec.public_scheme == PublicScheme::Https;
                let token = class.secrets.caddy_admin_token.clone();
                let key = fingerprint(&[
                    "caddy",
                    &settings.admin_url,
                    &settings.origin,
                    token.as_ref().map_or("", Secret::expose),
                    settings.listen.as_deref().unwrap_or_default(),
                    class.spec.public_scheme.as_str(),
                ]);
                let options = CaddyOptions {
                    admin_url: url(&settings.admin_url, "proxy.caddy.adminUrl")?,
                    origin: settings.origin.clone(),
                    admin_token: token,
                    listen: settings.listen.clone(),
                    https,
                };
                Some(shared(key, &|| {
                    Ok(Worker::spawn(Caddy::new(options.clone())?, Arc::clone(&self.clock), self.shutdown.clone()))
                })?)
            }
            None => match &class.spec.proxy.traefik {
                Some(settings) => {
                    let options = traefik_options(&class.spec, settings).map_err(|error| unusable(&name, error))?;
                    Some(shared(fingerprint(&[&format!("{options:?}")]), &|| {
                        let backend = Traefik::new(options.clone())?;
                        Ok(Worker::spawn(backend, Arc::clone(&self.clock), self.shutdown.clone()))
                    })?)
                }
                None => class.spec.proxy.ingress.as_ref().map(|settings| {
                    let target = ingress_target(settings, &self.namespace);
                    let key = fingerprint(&[&format!("{target:?}")]);
                    known.iter().find(|shared| shared.key == key).cloned().unwrap_or_else(|| {
                        let backend = Ingress::new(self.client.clone(), target);
                        Shared { key, worker: Worker::spawn(backend, Arc::clone(&self.clock), self.shutdown.clone()) }
                    })
                }),
            },
        };
        let proxy = match &class.spec.proxy.npm {
            Some(settings) => {
                let address = url(&settings.api_url, "proxy.npm.apiUrl")?;
                let place = format!("{:?} {:?}", address.host_str(), address.port_or_known_default());
                let gate = lock(&self.gates).entry(place).or_default().clone();
                Some(shared(npm::key(&class, settings), &|| {
                    let options = npm::options(&class, settings, address.clone(), gate.clone())?;
                    let backend = Npm::new(options, Arc::clone(&self.clock))?;
                    Ok(Worker::spawn(backend, Arc::clone(&self.clock), self.shutdown.clone()))
                })?)
            }
            None => proxy,
        };
        let account = match (class.spec.mailbox.as_ref().and_then(|m| m.mxroute.as_ref()), &class.secrets.mx_api_key) {
            (Some(settings), Some(api_key)) => {
                let api_url = settings.api_url.as_deref().unwrap_or(mxroute::DEFAULT_API_URL);
                let provider = Mxroute::new(MxrouteOptions {
                    api_url: url(api_url, "mailbox.mxroute.apiUrl")?,
                    server: settings.server.clone(),
                    username: settings.username.clone(),
                    api_key: api_key.clone(),
                })
                .map_err(|error| unusable(&name, error))?;
                // The key may change without the account becoming another one.
                let id = fingerprint(&["mxroute", api_url, &settings.server, &settings.username]);
                Some(Account { id, provider: Arc::new(provider) })
            }
            _ => None,
        };
        let mailer = match &class.spec.smtp {
            Some(settings) => {
                let mailer = Mailer::new(SmtpOptions {
                    host: settings.host.clone(),
                    port: settings.port,
                    encryption: settings.encryption,
                    username: settings.username.clone(),
                    password: class.secrets.smtp_password.clone(),
                })
                .map_err(|error| unusable(&name, error))?;
                Some(Arc::new(mailer))
            }
            None => None,
        };
        Ok(ClassRuntime { class, dns, proxy, account, mailer, facts: ProviderFacts::default() })
    }
}
