//! Traefik by its file provider: a file per portal host, or one for all, in the folder it watches.
//!
//! One file that Traefik cannot read stops every change of the folder, so each of ours is read back before it is put
//! there, whole and at once. A file is ours by its name and its first line together; each portal's part in it by
//! names made from the portal's mark.
mod apply;
mod certificates;
mod folder;
mod fragment;
mod live;
mod path;
mod rules;
mod supplies;
mod writing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

use self::folder::{File, Folder, Kind};
use self::fragment::{Entry, entry, entry_name};
pub use self::fragment::{Routing, Word};
use self::live::Live;
use super::origin_ca::certified::{self, Certified};
use super::origin_ca::kept::{Own, Tls};
use super::origin_ca::supply::{OriginCertificates, Supply};
use super::{Backend, BackendError, Doubt, ErrorClass, Remark, Scope};
use crate::api::condition::Truth;
use crate::plan::{CertificateMode, Intent, Item, Mark, Observed, Ownership, Plan};

/// How portals are spread over files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A file for each portal host. Each change of one makes Traefik read all of them: right up to a few hundred.
    PerHost,
    /// One file for all of an installation.
    Merged,
}

impl Layout {
    fn file(self, mark: &Mark, entry: &str) -> String {
        match self {
            Self::PerHost => fragment::file_name(entry),
            Self::Merged => fragment::merged_file_name(&mark.installation),
        }
    }
}

/// One folder.
#[derive(Debug, Clone)]
pub struct TraefikOptions {
    /// What `providers.file.directory` names.
    pub dynamic_dir: PathBuf,
    pub layout: Layout,
    pub routing: Routing,
    /// Traefik's API, where it can be asked what it has loaded.
    pub api_url: Option<Url>,
    /// Certificates of Cloudflare's Origin CA, in files beside the routes.
    pub origin_ca: Option<OriginCertificates>,
}

/// The routes of one folder.
pub struct Traefik {
    /// The folder's one name, however it is spelled in the settings.
    instance: String,
    folder: Arc<Folder>,
    layout: Layout,
    routing: Routing,
    live: Option<Live>,
    supply: Supply,
}

/// A route as the planner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub host: String,
    pub body: Body,
    pub tls: Tls,
}

/// What stands behind a host.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// With the file that it stands in.
    Ours(String, Entry),
    /// Ours by name and first line, and not to be read; the words say why.
    Damaged(String),
    /// A certificate of ours for this host that has no route.
    Leftover(String),
    Theirs {
        words: String,
        /// The file's text, where the file holds nothing but this route.
        whole: Option<Arc<str>>,
    },
}

impl Item for Route {
    fn key(&self) -> &str {
        &self.host
    }
    fn satisfies(&self, desired: &Self) -> bool {
        match (&self.body, &desired.body) {
            (Body::Ours(here, have), Body::Ours(there, want)) => {
                here == there && have.canonical() == want.canonical() && self.tls.satisfies(&desired.tls)
            }
            _ => false,
        }
    }
    fn certificate(&self) -> Option<String> {
        self.tls.describe().filter(|_| self.tls == Tls::Wanted)
    }
    fn describe(&self) -> String {
        match &self.body {
            Body::Ours(file, entry) => {
                let route = format!("route to {} in {file}", entry.target());
                self.tls.describe().map_or(route.clone(), |tls| format!("{route} {tls}"))
            }
            Body::Leftover(_) => "an unused certificate of Cloudflare's Origin CA".to_owned(),
            Body::Damaged(why) => format!("a damaged file of ours: {why}"),
            Body::Theirs { words, .. } => words.clone(),
        }
    }
}

impl Certified for Route {
    fn host(&self) -> &str {
        &self.host
    }
    fn tls(&self) -> &Tls {
        &self.tls
    }
    fn set_tls(&mut self, tls: Tls) {
        self.tls = tls;
    }
    fn leftover(own: &Own) -> Self {
        Self::of(format!("certificate for {}", own.host), Body::Leftover(own.host.clone()))
    }
}

impl Route {
    fn of(host: String, body: Body) -> Self {
        Self { host, body, tls: Tls::Elsewhere }
    }
}

/// File and entry as one id, for status and for finding it again.
fn id(file: &str, entry: &str) -> String {
    format!("{file} {entry}")
}

impl Traefik {
    /// Errors: an API address that cannot be used at all.
    pub fn new(options: TraefikOptions) -> Result<Self, BackendError> {
        let TraefikOptions { dynamic_dir, layout, routing, api_url, origin_ca } = options;
        let live = api_url.map(Live::new).transpose()?;
        let instance = format!("traefik:{}", path::canonical(&dynamic_dir).display());
        let folder = Arc::new(Folder::new(path::tidy(&dynamic_dir)));
        Ok(Self { instance, folder, layout, routing, live, supply: Supply::new(origin_ca) })
    }

    async fn scan(&self) -> Result<Vec<File>, BackendError> {
        let folder = Arc::clone(&self.folder);
        beside(move || folder.scan()).await
    }
}

/// Runs file work where it holds nobody up.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    let broken = |_| BackendError::new(ErrorClass::Unavailable, "FolderUnreadable", "the file work broke off");
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}

/// What the files say, one item per router and host.
fn observed(files: &[File]) -> Result<Vec<Observed<Route>>, BackendError> {
    let mut found = Vec::new();
    for file in files {
        match file.kind.as_ref() {
            Kind::Ours(Ok(contents)) => {
                for (name, entry) in &contents.entries {
                    let ownership = fragment::owner_of(name);
                    let host = entry.host(name).unwrap_or_else(|| name.clone());
                    let body = match ownership {
                        Ownership::Marked(_) => Body::Ours(file.name.clone(), entry.clone()),
                        Ownership::Foreign => Body::Theirs { words: their_words(name, &file.name), whole: None },
                    };
                    found.push(Observed { id: id(&file.name, name), ownership, item: Route::of(host, body) });
                }
            }
            Kind::Ours(Err(why)) => {
                let name = file.name.trim_end_matches(".yml");
                let Ownership::Marked(mark) = fragment::owner_of(name) else {
                    // What other portals have in it is not known, so it is not written anew.
                    let message = format!(
                        "our file {} was damaged ({why}); remove it, and the routes are written anew",
                        file.name
                    );
                    return Err(BackendError::new(ErrorClass::Unavailable, "FileDamaged", message));
                };
                let item = Route::of(name.to_owned(), Body::Damaged(why.clone()));
                found.push(Observed { id: id(&file.name, name), ownership: Ownership::Marked(mark), item });
            }
            Kind::Foreign(foreign) => {
                for (name, hosts) in &foreign.routers {
                    found.extend(hosts.iter().map(|host| {
                        let whole = foreign.simple.then(|| Arc::clone(&file.text));
                        let body = Body::Theirs { words: their_words(name, &file.name), whole };
                        let item = Route::of(host.clone(), body);
                        Observed { id: id(&file.name, name), ownership: Ownership::Foreign, item }
                    }));
                }
            }
        }
    }
    Ok(found)
}

fn their_words(router: &str, file: &str) -> String {
    match router {
        "?" => format!("a router in the file {file}"),
        router => format!("the router {router} in the file {file}"),
    }
}

#[async_trait]
impl Backend for Traefik {
    type Item = Route;

    fn instance(&self) -> String {
        self.instance.clone()
    }

    fn desired(&self, intent: &Intent) -> Vec<Route> {
        let name = entry_name(&intent.mark, intent.host.as_str());
        let file = self.layout.file(&intent.mark, &name);
        let body = Body::Ours(file, entry(&name, &intent.host, &self.routing));
        let signed = self.supply.is_wanted() && intent.certificate == CertificateMode::Proxy;
        let tls = if signed { Tls::Wanted } else { Tls::Elsewhere };
        vec![Route { tls, ..Route::of(intent.host.to_string(), body) }]
    }

    /// The folder whole, and for hosts that have no route of ours in it what other providers of Traefik say.
    async fn observe(&self, scope: &Scope) -> Result<Vec<Observed<Route>>, BackendError> {
        let files = self.scan().await?;
        let own = certificates::ours(&files, self.supply.now());
        self.supply.remember(&own);
        let id = |own: &Own| certificates::file_name(&own.mark, &own.host);
        let mut found = certified::with_certificates(observed(&files)?, &own, self.supply.is_wanted(), id);
        let Some(live) = &self.live else { return Ok(found) };
        // What only is to go is known by its file, and goes whether or not the API answers.
        for host in &scope.wanted {
            if found.iter().any(|o| o.item.key() == host.as_str()) {
                continue;
            }
            for name in live.others(host.as_str()).await? {
                let body = Body::Theirs { words: format!("Traefik's router {name}"), whole: None };
                let item = Route::of(host.to_string(), body);
                found.push(Observed { id: name, ownership: Ownership::Foreign, item });
            }
        }
        Ok(found)
    }

    /// Certificates come before the routes and go after them.
    async fn apply(&self, plan: &Plan<Route>) -> Vec<Result<Option<String>, BackendError>> {
        let waiting = self.supply(&plan.changes).await;
        let changes = certified::ready(plan, &waiting).changes;
        let (folder, given) = (Arc::clone(&self.folder), changes.clone());
        let mut outcomes = match beside(move || Ok(apply::apply(&folder, &given))).await {
            Ok(outcomes) => outcomes,
            Err(error) => changes.iter().map(|_| Err(error.clone())).collect(),
        };
        let needed = certified::needed(&plan.changes);
        for (change, outcome) in changes.iter().zip(&mut outcomes) {
            if outcome.is_ok()
                && let Err(error) = self.discard(change, &needed).await
            {
                *outcome = Err(error);
            }
        }
        certified::in_order(plan.changes.len(), waiting, outcomes, "traefik")
    }

    fn remarks(&self, mark: &Mark) -> Vec<Remark> {
        self.supply.remarks(mark)
    }

    /// A written file proves nothing: Traefik may not have read it, and reads none while one of them is broken.
    async fn doubts(&self, items: &[Route]) -> Vec<Doubt> {
        let files = match self.scan().await {
            Ok(files) => files,
            Err(error) => {
                let unseen = |item: &Route| Doubt {
                    key: item.host.clone(),
                    truth: Truth::Unknown,
                    reason: error.reason,
                    message: error.message.clone(),
                };
                return items.iter().map(unseen).collect();
            }
        };
        let foreign = files.iter().filter_map(|file| match file.kind.as_ref() {
            Kind::Foreign(foreign) => Some((&file.name, foreign)),
            Kind::Ours(_) => None,
        });
        let path = self.folder.path().display();
        let broken = foreign.clone().find_map(|(name, foreign)| {
            let why = foreign.broken.as_ref()?;
            Some(format!(
                "the file {name} in {path} is broken ({why}): Traefik takes no change of any file until it is repaired, and \
                 after a restart has no route of any file"
            ))
        });
        let templates: Vec<&str> = foreign.filter(|(_, one)| one.template).map(|(name, _)| name.as_str()).collect();
        let suspects = (!templates.is_empty()).then(|| {
            let names = templates.join(", ");
            format!(
                "; of templates ({names} in {path}) only Traefik's log tells whether they are in order: a broken one stops every \
                 change of any file"
            )
        });
        let mut doubts = Vec::new();
        for item in items {
            let Body::Ours(_, entry) = &item.body else { continue };
            let name = entry.router["service"].as_str().unwrap_or_default();
            let found = match &self.live {
                Some(live) => live.against(name, entry, &self.routing.entry_points).await,
                None => Some(live::Trouble {
                    truth: Truth::Unknown,
                    reason: "NotConfirmed",
                    message: "the file is written; without Traefik's API, proxy.traefik.apiUrl (TRAEFIK_API_URL), only the proof of life tells \
                              whether Traefik uses it"
                        .to_owned(),
                }),
            };
            let key = item.host.clone();
            doubts.extend(match (found, &broken) {
                (Some(found), Some(broken)) => {
                    let message = format!("{}; {broken}", found.message);
                    Some(Doubt { key, truth: found.truth, reason: "ForeignFileBroken", message })
                }
                (Some(found), None) => {
                    let suspects = suspects.as_deref().filter(|_| found.reason == live::NOT_LOADED).unwrap_or_default();
                    let message = format!("{}{suspects}", found.message);
                    Some(Doubt { key, truth: found.truth, reason: found.reason, message })
                }
                (None, Some(broken)) => {
                    let message = format!("in place; {broken}");
                    Some(Doubt { key, truth: Truth::True, reason: "ForeignFileBroken", message })
                }
                (None, None) => None,
            });
        }
        doubts
    }

    /// Looking costs a listing of the folder; Traefik itself is asked for two small answers.
    fn drift_interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn conflict_reason(&self) -> &'static str {
        "ForeignRoute"
    }
}
