//! Kubernetes: an Ingress per portal, or an HTTPRoute where the cluster has the Gateway API.
//!
//! The API does not refuse two objects for one host; which one a controller follows depends on it. So what others
//! made for a host is looked for before ours is made; the portal's claim decides among portals.
mod object;

use std::time::Duration;

use async_trait::async_trait;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

pub use self::object::{Flavour, LABEL_MARK, Route, Stays, Target, Tls};
use super::{Backend, BackendError, Doubt, ErrorClass, Scope};
use crate::api::condition::Truth;
use crate::api::{ANNOTATION_ADOPT, FIELD_MANAGER};
use crate::plan::{Change, Intent, Item, Observed, Ownership, Plan};

/// Marks in one selector: 45 characters each, in an address.
const MARKS: usize = 40;
/// Objects in one page of a list.
const PAGE: u32 = 500;

/// Reason where the cluster does not know the kind.
const KIND_MISSING: &str = "KindMissing";

/// The objects of one namespace.
pub struct Ingress {
    client: kube::Client,
    target: Target,
    resource: ApiResource,
}

impl Ingress {
    pub fn new(client: kube::Client, target: Target) -> Self {
        let (group, version) = target.flavour.api_version().split_once('/').unwrap_or_default();
        let kind = GroupVersionKind::gvk(group, version, target.flavour.kind());
        let resource = ApiResource::from_gvk_with_plural(&kind, target.flavour.plural());
        Self { client, target, resource }
    }

    fn own(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.target.namespace, &self.resource)
    }

    fn failure(&self, error: kube::Error, what: &str) -> BackendError {
        let kind = self.target.flavour.kind();
        let kube::Error::Api(status) = &error else {
            let message = format!("cannot {what}: the Kubernetes API does not answer");
            return BackendError::new(ErrorClass::Unavailable, "ApiUnreachable", message);
        };
        let (class, reason, advice) = match status.code {
            401 | 403 => (
                ErrorClass::Credential,
                "Forbidden",
                format!(
                    "; grant list on {0} everywhere and create, patch and delete in {1}",
                    self.resource.plural, self.target.namespace
                ),
            ),
            404 if what.starts_with("list") => {
                let advice = format!("; the cluster has no {kind} ({})", self.resource.api_version);
                (ErrorClass::Permanent, KIND_MISSING, advice)
            }
            404 => (ErrorClass::Unavailable, "NamespaceMissing", String::new()),
            409 => (ErrorClass::Conflict, "FieldConflict", String::new()),
            429 => (ErrorClass::Throttled, "Throttled", String::new()),
            500.. => (ErrorClass::Unavailable, "ApiFailed", String::new()),
            _ => (ErrorClass::Permanent, "Refused", String::new()),
        };
        BackendError::new(class, reason, format!("cannot {what}: {}{advice}", status.message))
    }

    async fn list(&self, api: &Api<DynamicObject>, labels: Option<&str>) -> Result<Vec<Value>, BackendError> {
        let mut params = ListParams::default().limit(PAGE);
        if let Some(labels) = labels {
            params = params.labels(labels);
        }
        let mut found = Vec::new();
        loop {
            let what = format!("list {}", self.resource.plural);
            let page = api.list(&params).await.map_err(|error| self.failure(error, &what))?;
            for object in page.items {
                let mut value = serde_json::to_value(object).unwrap_or(Value::Null);
                // Lists leave the kind out of their items.
                value["kind"] = json!(self.target.flavour.kind());
                found.push(value);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    /// Everything that the scope is about.
    async fn look(&self, scope: &Scope) -> Result<Vec<Observed<Route>>, BackendError> {
        let flavour = &self.target.flavour;
        let marks: Vec<String> = scope.marks.iter().map(crate::plan::Mark::identifier).collect();
        let mut found = Vec::new();
        for object in self.labelled(&marks).await? {
            let hosts: Vec<String> = object::own_host(&flavour.hosts(&object), &object).into_iter().collect();
            found.extend(self.observed(&object, &hosts));
        }
        let ours =
            |host: &str| found.iter().any(|o| o.item.host == host && matches!(o.ownership, Ownership::Marked(_)));
        let open: Vec<&str> = scope.hosts.iter().map(|host| host.as_str()).filter(|host| !ours(host)).collect();
        if open.is_empty() {
            return Ok(found);
        }
        // Whoever has the host already, in any namespace.
        let known: Vec<String> = found.iter().map(|o| o.id.clone()).collect();
        for object in self.list(&Api::all_with(self.client.clone(), &self.resource), None).await? {
            let hosts = flavour.hosts(&object);
            if !hosts.iter().any(|host| open.contains(&host.as_str()))
                || !flavour.rivals(&self.target.namespace, &object)
            {
                continue;
            }
            found.extend(self.observed(&object, &hosts).into_iter().filter(|o| !known.contains(&o.id)));
        }
        Ok(found)
    }

    /// Objects of our namespace that carry one of the labels.
    async fn labelled(&self, marks: &[String]) -> Result<Vec<Value>, BackendError> {
        let mut found = Vec::new();
        for some in marks.chunks(MARKS) {
            let selector = format!("{LABEL_MARK} in ({})", some.join(","));
            found.extend(self.list(&self.own(), Some(&selector)).await?);
        }
        Ok(found)
    }

    fn observed(&self, object: &Value, hosts: &[String]) -> Vec<Observed<Route>> {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let item = |host: &str| {
            let ownership = match namespace == self.target.namespace {
                true => object::owner(object, host),
                false => Ownership::Foreign,
            };
            let stays = self.stays(namespace, hosts).filter(|_| ownership == Ownership::Foreign);
            let item = Route { host: host.to_owned(), body: object::shown(object), force: false, stays };
            Observed { id: format!("{namespace}/{name}"), ownership, item }
        };
        hosts.iter().map(|host| item(host)).collect()
    }

    /// Why an object of somebody else cannot become ours.
    fn stays(&self, namespace: &str, hosts: &[String]) -> Option<Stays> {
        match hosts {
            _ if namespace != self.target.namespace => Some(Stays::Elsewhere),
            [_] => None,
            _ => Some(Stays::OtherNames),
        }
    }

    async fn one(&self, name: &str) -> Result<Option<Value>, BackendError> {
        let what = format!("read {} {}/{name}", self.target.flavour.kind(), self.target.namespace);
        let found = self.own().get_opt(name).await.map_err(|error| self.failure(error, &what))?;
        Ok(found.map(|object| serde_json::to_value(object).unwrap_or(Value::Null)))
    }

    /// Server-side apply by our field manager; what others manage is taken only where the portal says so.
    async fn put(&self, route: &Route, force: bool) -> Result<Option<String>, BackendError> {
        let name = route.body["metadata"]["name"].as_str().unwrap_or_default();
        let label = format!("{} {}/{name}", self.target.flavour.kind(), self.target.namespace);
        let mut body = route.body.clone();
        if let Some(there) = self.one(name).await? {
            if object::owner(&there, &route.host) != object::owner(&route.body, &route.host) {
                let message = format!("{label} is there and not ours; remove it");
                return Err(BackendError::new(ErrorClass::Conflict, "ForeignRoute", message));
            }
            if there["metadata"]["deletionTimestamp"].is_string() {
                let message = format!("{label} is being deleted; it is made anew when its finalizers are gone");
                return Err(BackendError::new(ErrorClass::Unavailable, "Terminating", message));
            }
            // Another object of this name is not the one that was looked at.
            body["metadata"]["uid"] = there["metadata"]["uid"].clone();
        }
        let params = PatchParams { force, field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let done = self.own().patch(name, &params, &Patch::Apply(&body)).await;
        done.map_err(|error| {
            let mut failure = self.failure(error, &format!("apply {label}"));
            if failure.reason == "FieldConflict" {
                failure.message.push_str(&format!(
                    "; give the fields back, delete the object, or set the annotation {ANNOTATION_ADOPT}=true"
                ));
            }
            failure
        })?;
        Ok(Some(format!("{}/{name}", self.target.namespace)))
    }

    /// Removes exactly the object that was just read.
    async fn delete(&self, name: &str, there: &Value) -> Result<(), BackendError> {
        let text = |field: &str| there["metadata"][field].as_str().map(str::to_owned);
        let exactly = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
        let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
        match self.own().delete(name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => {
                let what = format!("delete {} {}/{name}", self.target.flavour.kind(), self.target.namespace);
                Err(self.failure(error, &what))
            }
            Ok(_) => Ok(()),
        }
    }

    /// Our object of that id, if it is there and still ours.
    async fn still_ours(&self, id: &str, host: &str) -> Result<Option<(String, Value)>, BackendError> {
        let Some(name) = id.strip_prefix(&format!("{}/", self.target.namespace)) else { return Ok(None) };
        let there = self.one(name).await?;
        let ours = there.filter(|object| matches!(object::owner(object, host), Ownership::Marked(_)));
        Ok(ours.map(|object| (name.to_owned(), object)))
    }

    async fn change(&self, change: &Change<Route>) -> Result<Option<String>, BackendError> {
        match change {
            Change::Create { item, .. } => self.put(item, item.force).await,
            Change::Update { id, from, to, .. } => {
                let new = self.put(to, to.force).await?;
                // Named otherwise by an older version.
                if new.as_deref() != Some(id)
                    && let Some((name, there)) = self.still_ours(id, &from.host).await?
                {
                    self.delete(&name, &there).await?;
                }
                Ok(new)
            }
            Change::Adopt { id, from, to, .. } => {
                let name = id.strip_prefix(&format!("{}/", self.target.namespace));
                let Some(name) = name.filter(|_| from.adoptable()) else {
                    let message = format!("{} is taken by {}", from.host, crate::plan::Item::describe(from));
                    return Err(BackendError::new(ErrorClass::Conflict, "ForeignRoute", message));
                };
                let new = self.put(to, true).await?;
                self.delete(name, &from.body).await?;
                Ok(new)
            }
            Change::Delete { id, item, .. } => {
                if let Some((name, there)) = self.still_ours(id, &item.host).await? {
                    self.delete(&name, &there).await?;
                }
                Ok(None)
            }
            Change::Release { id, item, .. } => {
                if let Some((name, there)) = self.still_ours(id, &item.host).await? {
                    let params =
                        PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
                    let done = self.own().patch(&name, &params, &Patch::Merge(object::release(&there))).await;
                    done.map_err(|error| self.failure(error, &format!("release {id}")))?;
                }
                Ok(None)
            }
        }
    }
}

#[async_trait]
impl Backend for Ingress {
    type Item = Route;

    fn instance(&self) -> String {
        match &self.target.flavour {
            Flavour::Ingress { .. } => format!("ingress/{}", self.target.namespace),
            // A portal has one HTTPRoute, whichever gateway it names.
            Flavour::HttpRoute { .. } => format!("gateway/{}", self.target.namespace),
        }
    }

    fn desired(&self, intent: &Intent) -> Vec<Route> {
        vec![object::desired(intent, &self.target)]
    }

    async fn observe(&self, scope: &Scope) -> Result<Vec<Observed<Route>>, BackendError> {
        match self.look(scope).await {
            // Nothing of ours can be of a kind that is not there. Whoever wants to make something is told so.
            Err(error) if error.reason == KIND_MISSING && scope.wanted.is_empty() => Ok(Vec::new()),
            seen => seen,
        }
    }

    async fn apply(&self, plan: &Plan<Route>) -> Vec<Result<Option<String>, BackendError>> {
        let mut outcomes = Vec::new();
        for change in &plan.changes {
            outcomes.push(self.change(change).await);
        }
        outcomes
    }

    /// An object alone proves nothing: its controller says in the status whether it follows it.
    async fn doubts(&self, items: &[Route]) -> Vec<Doubt> {
        let label = |item: &Route| item.body["metadata"]["labels"][LABEL_MARK].as_str().map(str::to_owned);
        let marks: Vec<String> = items.iter().filter_map(label).collect();
        let objects = self.labelled(&marks).await;
        let doubt = |item: &Route| {
            let key = item.host.clone();
            let objects = match &objects {
                Ok(objects) => objects,
                Err(error) => {
                    let (reason, message) = (error.reason, error.message.clone());
                    return Some(Doubt { key, truth: Truth::Unknown, reason, message });
                }
            };
            let name = &item.body["metadata"]["name"];
            let Some(object) = objects.iter().find(|object| object["metadata"]["name"] == *name) else {
                let message = format!("{} was written and is not listed yet", crate::plan::Item::describe(item));
                return Some(Doubt { key, truth: Truth::Unknown, reason: "NotSeen", message });
            };
            let (refused, reason, message) = object::status_trouble(&self.target, object)?;
            let truth = if refused { Truth::False } else { Truth::Unknown };
            Some(Doubt { key, truth, reason, message })
        };
        items.iter().filter_map(doubt).collect()
    }

    /// Labelled objects cost the API server little; its own watch tells of nothing here.
    fn drift_interval(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn conflict_reason(&self) -> &'static str {
        "ForeignRoute"
    }
}
