//! Deletions: of one object, and of everything that a list holds.
use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::json_answer;
use super::catalog::DEFINITIONS;
use super::collector;
use super::rest::{Answer, ApiServer, Call, Target};
use super::status::ApiError;
use super::store::{Change, Key};
use super::strategy;
use super::write::{self, Propagation};

/// The options of a deletion: those of the body, where there is one, else those of the query.
struct DeleteOptions {
    propagation: Propagation,
    dry_run: bool,
    uid: Option<String>,
    version: Option<String>,
}

impl DeleteOptions {
    fn of(call: &Call) -> Result<Self, ApiError> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let body = call.delete_options()?;
        if body.is_null() {
            let orphan = call.parameter("orphanDependents").map(|value| value == "true" || value == "1");
            return Ok(Self {
                propagation: Propagation::of(call.parameter("propagationPolicy"), orphan),
                dry_run: call.dry_run(),
                uid: None,
                version: None,
            });
        }
        Ok(Self {
            propagation: Propagation::of(body["propagationPolicy"].as_str(), body["orphanDependents"].as_bool()),
            dry_run: body["dryRun"].as_array().is_some_and(|modes| modes.iter().any(|mode| mode == "All")),
            uid: text(&body["preconditions"]["uid"]),
            version: text(&body["preconditions"]["resourceVersion"]),
        })
    }

    /// Errors: 409 where the object is not the one that was meant.
    fn met(&self, target: &Target, name: &str, old: &Value) -> Result<(), ApiError> {
        let kind = target.resource.full_kind();
        let had = |field: &str| old["metadata"][field].as_str().unwrap_or_default();
        if let Some(uid) = self.uid.as_deref().filter(|uid| *uid != had("uid")) {
            let had = had("uid");
            return Err(ApiError::conflict(
                &kind,
                name,
                &format!(
                    "the UID in the precondition ({uid}) does not match the UID in record ({had}). The object might have been deleted \
                     and then recreated"
                ),
            ));
        }
        if let Some(version) = self.version.as_deref().filter(|version| *version != had("resourceVersion")) {
            let had = had("resourceVersion");
            return Err(ApiError::conflict(
                &kind,
                name,
                &format!(
                    "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({had}). The \
                     object might have been modified"
                ),
            ));
        }
        Ok(())
    }
}

/// The first step of an object's end: some kinds wait for their contents. `resource` is `plural` or `plural.group`.
pub fn of(resource: &str, old: &Value, propagation: Propagation, now: Timestamp) -> Change {
    match resource {
        "namespaces" => write::terminate_namespace(old, propagation, now),
        DEFINITIONS => collector::terminate_definition(old, now),
        _ => write::delete(old, propagation, now),
    }
}

/// What became of a deleted object.
struct Deleted {
    /// As it is now, or as it was last.
    object: Value,
    gone: bool,
}

impl ApiServer {
    pub(super) async fn delete(&self, target: &Target, name: &str, call: &Call) -> Answer {
        let options = DeleteOptions::of(call)?;
        let deleted = self.delete_one(target, &target.key(name), &options).await?;
        if !deleted.gone || strategy::answers_the_deleted(&target.resource) {
            return Ok(self.object_answer(200, target, call, &deleted.object));
        }
        let mut details =
            json!({"name": name, "kind": target.resource.plural, "uid": deleted.object["metadata"]["uid"]});
        if !target.resource.group.is_empty() {
            details["group"] = json!(target.resource.group);
        }
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        Ok(json_answer(200, &status))
    }

    async fn delete_one(&self, target: &Target, key: &Key, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        let (full, now, name) = (target.resource.full_name(), self.0.clock.now(), key.name.as_str());
        let is_namespace = full == "namespaces";
        if is_namespace && !strategy::may_be_deleted(name) {
            return Err(ApiError::forbidden(&full, name, "this namespace may not be deleted"));
        }
        let mut preview = None;
        let mut gone = false;
        let stored = self
            .0
            .store
            .transact::<ApiError>(key, |old| {
                let old = old.ok_or_else(|| ApiError::not_found(&full, name))?;
                options.met(target, name, old)?;
                let change = of(&full, old, options.propagation, now);
                gone = change == Change::Remove;
                if !options.dry_run {
                    return Ok(change);
                }
                if let Change::Put(object) = change {
                    preview = Some(object);
                }
                Ok(Change::Keep)
            })
            .await?;
        if is_namespace && !options.dry_run {
            self.empty_namespace(name.to_owned());
        }
        let object = preview.or(stored).ok_or_else(|| ApiError::not_found(&full, name))?;
        Ok(Deleted { object, gone })
    }

    /// Deletes everything a list with the same selectors holds, and answers that list.
    pub(super) async fn delete_all(&self, target: &Target, call: &Call) -> Answer {
        if target.resource.namespaced && target.namespace.is_none() || target.resource.full_name() == "namespaces" {
            return Err(ApiError::not_allowed());
        }
        let options = DeleteOptions::of(call)?;
        let page = self.page(target, call)?;
        for object in &page.objects {
            match self.delete_one(target, &object.key(), &options).await {
                // Somebody else was faster.
                Err(error) if error.code == 404 => {}
                done => drop(done?),
            }
        }
        let mut about = json!({"resourceVersion": page.version.to_string()});
        if let Some(token) = page.token.or_else(|| target.resource.is_custom().then(String::new)) {
            about["continue"] = json!(token);
        }
        Ok(self.rendering(target, call).list(&about, page.objects))
    }
}
