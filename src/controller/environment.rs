//! Classes as objects: the read-only one that stands for the process environment, and every class's status.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::core::response::StatusCause;
use kube::runtime::reflector::Store as Reflected;
use serde_json::json;
use url::Url;

use super::classes::{EnvironmentClass, choose};
use super::context::Context;
use super::error::{ControllerError, is_code};
use super::runtime::ClassRuntime;
use crate::api::class::PortalClassStatus;
use crate::api::condition::{Finding, READY, Truth, conditions};
use crate::api::{
    ANNOTATION_APPROVE_PLAN, ENVIRONMENT_CLASS, FIELD_MANAGER, PortalClass, PortalClassSpec, ResetPortal,
};
use crate::config::environment::named;
use crate::telemetry::metrics;

/// Tries of putting the class `environment` right while others write it.
const TRIES: usize = 5;

/// What the API finds wrong with the class, each field with the variable that it comes from.
fn refused_fields(status: &Status) -> String {
    // Without a field, it is told only that more may be wrong.
    let of_field = |cause: &&StatusCause| !matches!(cause.field.as_str(), "" | "<nil>");
    let told = |cause: &StatusCause| match cause.field.strip_prefix("spec.") {
        Some(field) => format!("{}: {}", named(field), cause.message),
        None => format!("{}: {}", cause.field, cause.message),
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<String> = causes.filter(of_field).map(told).collect();
    if causes.is_empty() { status.message.clone() } else { causes.join("; ") }
}

impl Context {
    /// Makes the class `environment` where there is no class at all, and undoes edits of it.
    pub(super) async fn keep_environment_class(&self) -> Result<(), ControllerError> {
        let Some(environment) = &self.environment else { return Ok(()) };
        for _ in 0..TRIES {
            match self.keep_environment_once(environment).await {
                // Somebody wrote in between: another replica the same, or the class's status, which wakes nobody.
                Err(error) if is_code(&error, 409) => {}
                Err(kube::Error::Api(status)) if status.code == 422 => {
                    return Err(ControllerError::ClassRefused(refused_fields(&status)));
                }
                done => return Ok(done?),
            }
        }
        Ok(())
    }

    async fn keep_environment_once(&self, environment: &EnvironmentClass) -> Result<(), kube::Error> {
        let api: Api<PortalClass> = Api::all(self.client.clone());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let classes = api.list(&ListParams::default()).await?.items;
        match classes.iter().find(|class| class.name_any() == ENVIRONMENT_CLASS) {
            Some(found) if found.spec == environment.spec => Ok(()),
            Some(found) => {
                let mut class = found.clone();
                class.spec = environment.spec.clone();
                api.replace(ENVIRONMENT_CLASS, &params, &class).await.map(|_| ())
            }
            None if classes.is_empty() => {
                let mut class = PortalClass::new(ENVIRONMENT_CLASS, environment.spec.clone());
                class.labels_mut().insert("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned());
                class.annotations_mut().insert(
                    "portalkeeper.dev/description".to_owned(),
                    "Made from the environment of the daemon; edits are undone.".to_owned(),
                );
                api.create(&params, &class).await.map(|_| ())
            }
            None => Ok(()),
        }
    }

    /// An approval is for one plan: when that is done, or there is none such, the annotation goes.
    async fn clear_approval(
        &self,
        api: &Api<PortalClass>,
        class: &PortalClass,
        running: Option<&ClassRuntime>,
        default: bool,
    ) -> Result<(), ControllerError> {
        let (Some(id), Some(running)) = (super::fuse::approval(class), running) else { return Ok(()) };
        if !self.approval_is_spent(class, running, &id, default) {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "annotations": {ANNOTATION_APPROVE_PLAN: null}, "resourceVersion": class.metadata.resource_version,
        }});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(&class.name_any(), &params, &Patch::Merge(&patch)).await {
            Err(error) if !is_code(&error, 404) && !is_code(&error, 409) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Writes every class's status where it says something new, and sets the gauge of portals.
    pub(super) async fn report_classes(&self, portals: &Reflected<ResetPortal>) -> Result<(), ControllerError> {
        let mut counts: HashMap<String, BTreeMap<String, i64>> = HashMap::new();
        let mut all: BTreeMap<String, i64> =
            [("True", 0), ("False", 0), ("Unknown", 0)].map(|(t, n)| (t.to_owned(), n)).into();
        for portal in portals.state() {
            let status = portal.status.as_ref();
            let ready = status.and_then(|s| s.conditions.iter().find(|c| c.type_ == READY));
            let truth = ready.map_or("Unknown", |condition| condition.status.as_str()).to_owned();
            *all.entry(truth.clone()).or_default() += 1;
            if let Some(class) = status.and_then(|status| status.class_name.clone()) {
                *counts.entry(class).or_default().entry(truth).or_default() += 1;
            }
        }
        for (truth, count) in all {
            metrics::portals(&truth, count);
        }
        let tombstones = self.tombstone_places().await?;
        let api: Api<PortalClass> = Api::all(self.client.clone());
        let classes: Vec<Arc<PortalClass>> =
            api.list(&ListParams::default()).await?.items.into_iter().map(Arc::new).collect();
        let default = choose(None, &classes).ok().map(|class| class.name_any());
        let (mut resolved, mut unheard) = (Vec::new(), Vec::new());
        for class in classes {
            let name = class.name_any();
            let default = default.as_ref() == Some(&name);
            let running = self.resolve(&class).await?.and_then(|resolved| self.registry.get(resolved));
            match (&running, caddy_of(&class.spec)) {
                (Ok(_), _) => resolved.push(name.clone()),
                (Err(_), Some(place)) => unheard.push((name.clone(), place)),
                (Err(_), None) => {}
            }
            let held = self.held_plans(&class, running.as_ref().ok().map(AsRef::as_ref), default);
            self.clear_approval(&api, &class, running.as_ref().ok().map(AsRef::as_ref), default).await?;
            let finding = match (&running, held.first()) {
                (Ok(_), None) => Finding::new(READY, Truth::True, "Usable", "settings and secrets are complete"),
                (Ok(_), Some(plan)) => {
                    let words = format!(
                        "{}; to let it go ahead, annotate the class with {ANNOTATION_APPROVE_PLAN}={}",
                        plan.what, plan.id
                    );
                    Finding::new(READY, Truth::True, "ChangesHeld", words)
                }
                (Err(finding), _) => Finding { type_: READY, ..finding.clone() },
            };
            let old = class.status.clone().unwrap_or_default();
            let generation = class.metadata.generation.unwrap_or_default();
            let new = PortalClassStatus {
                observed_generation: Some(generation),
                conditions: conditions(&old.conditions, &[finding], generation, self.clock.now()),
                portals: counts.remove(&name).unwrap_or_default(),
                held_plans: held,
                settings: old.settings.clone(),
            };
            let settings = self.tidy_settings(&class, &portals.state(), &tombstones);
            if new == old && settings.is_empty() {
                continue;
            }
            let gone = |digest: &String| settings.get(digest).is_some_and(Option::is_none);
            self.kept_settings.lock().await.retain(|(class, digest)| *class != name || !gone(digest));
            // Truths that no portal has any more are patched away.
            let mut portals = json!(new.portals);
            for truth in old.portals.keys().filter(|truth| !new.portals.contains_key(*truth)) {
                portals[truth] = serde_json::Value::Null;
            }
            let mut patch = json!({"status": {
                "observedGeneration": new.observed_generation, "conditions": new.conditions, "portals": portals,
                "heldPlans": new.held_plans,
            }});
            if !settings.is_empty() {
                patch["status"]["settings"] = json!(settings);
            }
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            match api.patch_status(&name, &params, &Patch::Merge(&patch)).await {
                Err(error) if !is_code(&error, 404) => return Err(error.into()),
                _ => {}
            }
        }
        self.registry.settle_challenges(&resolved, &unheard);
        Ok(())
    }
}

/// The Caddy that gets a token of this class, if it does.
fn caddy_of(spec: &PortalClassSpec) -> Option<String> {
    let caddy = spec.proxy.caddy.as_ref().filter(|caddy| caddy.dns_challenge.is_some())?;
    Url::parse(&caddy.admin_url).ok().map(|address| super::caddy::place(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_refuses_is_told_by_the_variable() {
        let status = |details: serde_json::Value| -> Status {
            let refused = json!({"status": "Failure", "code": 422, "message": "raw", "details": details});
            serde_json::from_value(refused).unwrap()
        };
        let causes = json!({"causes": [
            {"field": "spec.proxy.npm.forwardHost", "message": "Invalid value: \"a/b\": a name is needed", "reason": "x"},
            {"field": "metadata.name", "message": "taken", "reason": "x"},
            {"field": "<nil>", "message": "some rules were not checked", "reason": "x"},
        ]});
        assert_eq!(
            refused_fields(&status(causes)),
            "proxy.npm.forwardHost (NPM_FORWARD_HOST): Invalid value: \"a/b\": a name is needed; metadata.name: taken"
        );
        assert_eq!(refused_fields(&status(json!({}))), "raw");
    }
}
