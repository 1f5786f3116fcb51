//! What a class is at run time: its workers, its account at the mail host, its mailer. Made once per
//! settings and secrets, and made anew when one of them changes.
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use url::Url;

use super::classes::{ResolvedClass, fingerprint};
use super::provider::ProviderFacts;
use super::tunnel::{self, StoreLedger};
use super::{caddy, npm, origin};
use crate::api::class::{CloudflareSettings, PublicScheme};
use crate::api::clock::Clock;
use crate::api::condition::{ACCEPTED, Finding, Truth};
use crate::api::ingress::IngressSettings;
use crate::api::proxy::{
    CaddySettings, CloudflareTunnelSettings, NpmSettings, ProxyCertificate, ProxySettings, TraefikLayout,
    TraefikSettings,
};
use crate::api::{Origin, PortalClassSpec};
use crate::backends::caddy::{Caddy, Challenges};
use crate::backends::cloudflare::{AUDIT_INTERVAL, CloudflareDns, CloudflareOptions};
use crate::backends::cloudflare_api::{self, Api, Budget};
use crate::backends::cloudflare_tunnel::{CloudflareTunnel, Turn};
use crate::backends::ingress::{Flavour, Ingress, Target, Tls};
use crate::backends::npm::{Gate, Npm};
use crate::backends::origin_ca::supply::OriginCertificates;
use crate::backends::traefik::{Layout, Routing, Traefik, TraefikOptions, Word};
use crate::backends::{Backend, BackendError, Worker};
use crate::config::environment::named;
use crate::config::{Secret, rules};
use crate::http::double::lock;
use crate::http::shutdown::Shutdown;
use crate::mail::{Mailer, SmtpOptions};
use crate::mailbox::mxroute::{self, Mxroute, MxrouteOptions};
use crate::reset::directory::Account;
use crate::store::Store;

/// A worker with what tells it from others: two classes of one instance share it.
#[derive(Clone)]
pub struct Shared {
    key: String,
    pub worker: Worker,
}

impl Shared {
    /// Whether both are one worker's handles.
    pub fn is(&self, other: &Self) -> bool {
        self.key == other.key
    }
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
    store: Store,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    classes: Mutex<HashMap<String, Arc<ClassRuntime>>>,
    /// One per Nginx Proxy Manager, by its address: two workers of one instance take turns.
    gates: Mutex<HashMap<String, Gate>>,
    /// One per Caddy, by its place: its classes share one TLS policy.
    challenges: Mutex<HashMap<String, Challenges>>,
    /// As the gates, for tunnels, by id.
    turns: Mutex<HashMap<String, Turn>>,
    /// One per Cloudflare token: everything that calls with it shares its rate limit.
    budgets: Mutex<HashMap<String, Arc<Budget>>>,
}

fn unusable(class: &str, error: impl std::fmt::Display) -> Finding {
    Finding::new(ACCEPTED, Truth::False, "ClassUnusable", format!("PortalClass {class:?} cannot be used: {error}"))
}

/// The folder's settings, each checked: nothing else may reach a file.
fn traefik_options(
    spec: &PortalClassSpec,
    settings: &TraefikSettings,
    origin_ca: Option<OriginCertificates>,
) -> Result<TraefikOptions, String> {
    let https = spec.public_scheme == PublicScheme::Https;
    let word = |text: &str, field: &str| {
        let advice = "letters, digits, hyphens, underscores and dots are allowed";
        Word::parse(text)
            .ok_or_else(|| format!("{} `{text}` is no plain name: {advice}", named(&format!("proxy.traefik.{field}"))))
    };
    let points: Vec<&str> = match settings.entry_points.as_slice() {
        [] if https => vec!["websecure"],
        [] => vec!["web"],
        named => named.iter().map(String::as_str).collect(),
    };
    let resolver = Some(settings.cert_resolver.as_str()).filter(|name| !name.is_empty() && origin_ca.is_none());
    let address = |text: &String| {
        Url::parse(text).map_err(|error| format!("{} `{text}`: {error}", named("proxy.traefik.apiUrl")))
    };
    let origin = Origin::parse(&settings.origin_url)
        .map_err(|error| format!("{}: {error}", named("proxy.traefik.originUrl")))?;
    Ok(TraefikOptions {
        dynamic_dir: settings.dynamic_dir.clone().into(),
        layout: match settings.layout {
            TraefikLayout::PerHost => Layout::PerHost,
            TraefikLayout::Merged => Layout::Merged,
        },
        routing: Routing {
            origin,
            entry_points: points.into_iter().map(|point| word(point, "entryPoints")).collect::<Result<_, _>>()?,
            resolver: resolver.map(|resolver| word(resolver, "certResolver")).transpose()?,
            https,
        },
        api_url: settings.api_url.as_ref().map(address).transpose()?,
        origin_ca: origin_ca.filter(|_| https),
    })
}

/// The error says which setting the cluster would refuse.
fn ingress_target(settings: &IngressSettings, own_namespace: &str) -> Result<Target, String> {
    // The definition checks all names but keys of a map.
    if let Some(key) = settings.annotations.keys().find(|key| !rules::ANNOTATION_KEY.admits(key)) {
        let (field, words) = (named("proxy.ingress.annotations"), rules::ANNOTATION_KEY.words);
        return Err(format!("{field} has the key {key:?}, which is none of an annotation: {words}"));
    }
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
    Ok(Target { namespace, service: settings.service.clone(), port: settings.port, flavour })
}

impl Registry {
    pub fn new(client: kube::Client, namespace: &str, store: Store, clock: Arc<dyn Clock>, shutdown: Shutdown) -> Self {
        let (classes, gates, challenges) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (turns, budgets) = (Mutex::default(), Mutex::default());
        let namespace = namespace.to_owned();
        Self { client, namespace, store, clock, shutdown, classes, gates, challenges, turns, budgets }
    }

    /// All classes that there are were resolved and made, but for the `unheard`, each with the place of its Caddy: a token
    /// in a Caddy that none of them has is nobody's.
    pub fn settle_challenges(&self, resolved: &[String], unheard: &[(String, String)]) {
        let classes = lock(&self.classes);
        for (place, challenges) in lock(&self.challenges).iter() {
            let user = |name: &String| {
                let class = &classes.get(name)?.class;
                let settings = class.spec.proxy.caddy.as_ref()?;
                let here = caddy::place(&Url::parse(&settings.admin_url).ok()?) == *place;
                here.then(|| (name.clone(), caddy::challenge(class, settings).map(|challenge| challenge.token)))
            };
            let unheard: BTreeSet<String> =
                unheard.iter().filter(|(_, at)| at == place).map(|(name, _)| name.clone()).collect();
            challenges.settle(resolved.iter().filter_map(user).collect(), &unheard);
        }
    }

    /// The running class for these settings and secrets. The error says what in them cannot work.
    pub fn get(&self, class: ResolvedClass) -> Result<Arc<ClassRuntime>, Finding> {
        let mut classes = lock(&self.classes);
        if let Some(running) = classes.get(&class.name)
            && running.class.fingerprint == class.fingerprint
        {
            if let Some(id) = &class.approved {
                running.dns.iter().chain(&running.proxy).for_each(|shared| shared.worker.approve(id));
            }
            return Ok(Arc::clone(running));
        }
        let known: Vec<Shared> =
            classes.values().flat_map(|running| [running.dns.clone(), running.proxy.clone()]).flatten().collect();
        let name = class.name.clone();
        let made = Arc::new(self.make(class, &known)?);
        classes.insert(name, Arc::clone(&made));
        Ok(made)
    }

    fn budget(&self, api_url: &Url, token: &Secret) -> Arc<Budget> {
        let key = fingerprint(&[api_url.as_str().trim_end_matches('/'), token.expose()]);
        Arc::clone(lock(&self.budgets).entry(key).or_insert_with(|| Budget::new(Arc::clone(&self.clock))))
    }

    fn make(&self, class: ResolvedClass, known: &[Shared]) -> Result<ClassRuntime, Finding> {
        let making = Making { registry: self, class: &class, known };
        let (dns, proxy) = (making.dns()?, making.proxy()?);
        let (account, mailer) = (making.account()?, making.mailer()?);
        Ok(ClassRuntime { class, dns, proxy, account, mailer, facts: ProviderFacts::default() })
    }
}

/// One class being made.
struct Making<'a> {
    registry: &'a Registry,
    class: &'a ResolvedClass,
    known: &'a [Shared],
}

impl Making<'_> {
    fn unusable(&self, error: impl std::fmt::Display) -> Finding {
        unusable(&self.class.name, error)
    }

    fn url(&self, text: &str, field: &str) -> Result<Url, Finding> {
        Url::parse(text).map_err(|error| self.unusable(format!("{} `{text}` is not an address: {error}", named(field))))
    }

    /// The worker that is known by this key, or a new one over the backend.
    fn shared<B: Backend>(
        &self,
        key: String,
        backend: impl FnOnce() -> Result<B, BackendError>,
    ) -> Result<Shared, Finding> {
        if let Some(shared) = self.known.iter().find(|shared| shared.key == key) {
            return Ok(shared.clone());
        }
        let backend = backend().map_err(|error| self.unusable(error))?;
        let Registry { clock, shutdown, .. } = self.registry;
        Ok(Shared { worker: Worker::spawn(backend, Arc::clone(clock), shutdown.clone()), key })
    }

    /// Address and token of the class's Cloudflare account.
    fn cloudflare(&self) -> Result<Option<(Url, &CloudflareSettings, &Secret)>, Finding> {
        let (Some(settings), Some(token)) = (&self.class.spec.cloudflare, &self.class.secrets.cf_api_token) else {
            return Ok(None);
        };
        let text = settings.api_url.as_deref().unwrap_or(cloudflare_api::DEFAULT_API_URL);
        Ok(Some((self.url(text, "cloudflare.apiUrl")?, settings, token)))
    }

    /// The class's Cloudflare account, for its certificates.
    fn cloudflare_api(&self) -> Result<Option<Api>, Finding> {
        let Some((api_url, settings, token)) = self.cloudflare()? else { return Ok(None) };
        let budget = self.registry.budget(&api_url, token);
        let api = Api::new(api_url, token.clone(), budget).map_err(|error| self.unusable(error))?;
        Ok(Some(api.of_account(settings.account_id.as_deref())))
    }

    fn dns(&self) -> Result<Option<Shared>, Finding> {
        let Some((api_url, settings, token)) = self.cloudflare()? else { return Ok(None) };
        let account_id = tunnel::account(&self.class.spec).map(str::to_owned);
        let account = account_id.as_deref().unwrap_or_default();
        let key = fingerprint(&[
            "cloudflare",
            api_url.as_str(),
            token.expose(),
            account,
            &format!("{} {}", settings.sweep_hours, settings.audit_log),
        ]);
        let budget = self.registry.budget(&api_url, token);
        let drift_interval = Duration::from_hours(settings.sweep_hours.into());
        let audit_interval = settings.audit_log.then_some(AUDIT_INTERVAL);
        let options = CloudflareOptions { api_url, token: token.clone(), account_id, drift_interval, audit_interval };
        self.shared(key, || CloudflareDns::new(options, budget)).map(Some)
    }

    fn proxy(&self) -> Result<Option<Shared>, Finding> {
        let made = match &self.class.spec.proxy {
            ProxySettings { npm: Some(settings), .. } => self.npm(settings)?,
            ProxySettings { cloudflare_tunnel: Some(settings), .. } => self.tunnel(settings)?,
            ProxySettings { caddy: Some(settings), .. } => self.caddy(settings)?,
            ProxySettings { traefik: Some(settings), .. } => self.traefik(settings)?,
            ProxySettings { ingress: Some(settings), .. } => self.ingress(settings)?,
            _ => return Ok(None),
        };
        Ok(Some(made))
    }

    fn npm(&self, settings: &NpmSettings) -> Result<Shared, Finding> {
        let address = self.url(&settings.api_url, "proxy.npm.apiUrl")?;
        let place = format!("{:?} {:?}", address.host_str(), address.port_or_known_default());
        let gate = lock(&self.registry.gates).entry(place).or_default().clone();
        let api = self.cloudflare_api()?;
        let options = npm::options(self.class, settings, address, api, gate, self.registry.store.clone());
        self.shared(npm::key(self.class, settings), || Npm::new(options, Arc::clone(&self.registry.clock)))
    }

    fn tunnel(&self, settings: &CloudflareTunnelSettings) -> Result<Shared, Finding> {
        let missing = "proxy.cloudflareTunnel needs cloudflare, whose token makes rules and records";
        let (api_url, _, token) = self.cloudflare()?.ok_or_else(|| self.unusable(missing))?;
        let turn = lock(&self.registry.turns).entry(settings.tunnel_id.to_ascii_lowercase()).or_default().clone();
        let options = tunnel::options(self.class, settings, turn).map_err(|error| self.unusable(error))?;
        self.shared(tunnel::key(self.class, settings), || {
            let ledger = Arc::new(StoreLedger(self.registry.store.clone()));
            let budget = self.registry.budget(&api_url, token);
            let api = Api::new(api_url, token.clone(), budget)?.of_account(Some(&options.account));
            Ok(CloudflareTunnel::new(api, options, ledger))
        })
    }

    fn caddy(&self, settings: &CaddySettings) -> Result<Shared, Finding> {
        let admin_url = self.url(&settings.admin_url, "proxy.caddy.adminUrl")?;
        let (api, clock) = (self.cloudflare_api()?, &self.registry.clock);
        let place = caddy::place(&admin_url);
        let challenges = lock(&self.registry.challenges).entry(place).or_insert_with(Challenges::awaited).clone();
        let options = caddy::options(self.class, settings, admin_url, challenges, api.as_ref(), clock);
        let options = options.map_err(|error| self.unusable(error))?;
        // Former settings of a class say nothing about what it wants.
        if !self.class.name.contains('@') {
            let token = options.dns_challenge.as_ref().map(|challenge| challenge.token.clone());
            options.challenges.register(&self.class.name, token);
        }
        self.shared(caddy::key(self.class, settings), || Caddy::new(options))
    }

    fn traefik(&self, settings: &TraefikSettings) -> Result<Shared, Finding> {
        let signs = ProxyCertificate::signs(settings.certificate.as_ref());
        let (api, clock) = (self.cloudflare_api()?, &self.registry.clock);
        let wanted = signs.then_some("proxy.traefik.certificate.originCa");
        let options = origin::certificates(wanted, api.as_ref(), clock)
            .and_then(|origin_ca| traefik_options(&self.class.spec, settings, origin_ca))
            .map_err(|error| self.unusable(error))?;
        let key = fingerprint(&[&format!("{options:?}"), &origin::key(self.class, signs)]);
        self.shared(key, || Traefik::new(options))
    }

    fn ingress(&self, settings: &IngressSettings) -> Result<Shared, Finding> {
        let target = ingress_target(settings, &self.registry.namespace).map_err(|error| self.unusable(error))?;
        self.shared(fingerprint(&[&format!("{target:?}")]), || Ok(Ingress::new(self.registry.client.clone(), target)))
    }

    fn account(&self) -> Result<Option<Account>, Finding> {
        let settings = self.class.spec.mailbox.as_ref().and_then(|mailbox| mailbox.mxroute.as_ref());
        let (Some(settings), Some(api_key)) = (settings, &self.class.secrets.mx_api_key) else { return Ok(None) };
        let api_url = settings.api_url.as_deref().unwrap_or(mxroute::DEFAULT_API_URL);
        let provider = Mxroute::new(MxrouteOptions {
            api_url: self.url(api_url, "mailbox.mxroute.apiUrl")?,
            server: settings.server.clone(),
            username: settings.username.clone(),
            api_key: api_key.clone(),
        })
        .map_err(|error| self.unusable(error))?;
        // The key may change without the account becoming another one.
        let id = fingerprint(&["mxroute", api_url, &settings.server, &settings.username]);
        Ok(Some(Account { id, provider: Arc::new(provider) }))
    }

    fn mailer(&self) -> Result<Option<Arc<Mailer>>, Finding> {
        let Some(settings) = &self.class.spec.smtp else { return Ok(None) };
        let mailer = Mailer::new(SmtpOptions {
            host: settings.host.clone(),
            port: settings.port,
            encryption: settings.encryption,
            username: settings.username.clone(),
            password: self.class.secrets.smtp_password.clone(),
        })
        .map_err(|error| self.unusable(error))?;
        Ok(Some(Arc::new(mailer)))
    }
}
