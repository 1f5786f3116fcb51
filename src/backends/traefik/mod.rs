//! Traefik by its file provider: a file per portal host, or one for all, in the folder it watches.
//!
//! One file that Traefik cannot read stops every change of the folder, so each of ours is read back before it is put
//! there, whole and at once. A file is ours by its name and its first line together; each portal's part in it by
//! names made from the portal's mark.
mod apply;
mod certificates;
mod doubts;
mod folder;
mod foreign;
mod fragment;
mod live;
mod path;
mod route;
mod rules;
mod supplies;
mod writing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

use self::folder::{File, Folder};
pub use self::fragment::{Routing, Word};
use self::fragment::{entry, entry_name};
use self::live::Live;
pub use self::route::{Body, Route};
use self::route::{id, observed};
use super::origin_ca::certified;
use super::origin_ca::kept::{Own, Tls};
use super::origin_ca::supply::{OriginCertificates, Supply};
use super::{Backend, BackendError, Doubt, ErrorClass, Remark, Scope};
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

    async fn doubts(&self, items: &[Route]) -> Vec<Doubt> {
        self.doubted(items).await
    }

    /// Looking costs a listing of the folder; Traefik itself is asked for two small answers.
    fn drift_interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn conflict_reason(&self) -> &'static str {
        "ForeignRoute"
    }
}
