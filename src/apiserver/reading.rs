//! The verbs that only read: get, list, watch.
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::paging::Page;
use super::render::Rendering;
use super::rest::{Answer, ApiServer, Call, Target, stream_answer};
use super::selector::Selector;
use super::status::ApiError;
use super::store::{Object, Snapshot};
use super::watch::{WatchOptions, watch};

/// Watches that name no time end by themselves after this many seconds, and up to as many more.
const WATCH_SECONDS: u64 = 1800;

fn selector(target: &Target, call: &Call) -> Result<Selector, ApiError> {
    Selector::of(&target.resource, call.parameter("labelSelector"), call.parameter("fieldSelector"))
}

impl ApiServer {
    pub(super) fn rendering(&self, target: &Target, call: &Call) -> Rendering {
        Rendering {
            resource: Arc::clone(&target.resource),
            form: call.form,
            include: call.parameter("includeObject").unwrap_or("Metadata").to_owned(),
            clock: Arc::clone(&self.0.clock),
        }
    }

    pub(super) fn get(&self, target: &Target, name: &str, call: &Call) -> Answer {
        let found = self.0.store.get(&target.key(name));
        let object = found.ok_or_else(|| ApiError::not_found(&target.resource.full_name(), name))?;
        Ok(self.object_answer(200, target, call, &object))
    }

    /// What a list with these selectors holds.
    pub(super) fn selected(&self, target: &Target, call: &Call) -> Result<(u64, Vec<Arc<Object>>), ApiError> {
        let selector = selector(target, call)?;
        let Snapshot { version, mut objects } =
            self.0.store.list(&target.resource.stored_as(), target.namespace.as_deref());
        if !selector.is_empty() {
            objects.retain(|object| selector.selects_stored(&target.resource, object));
        }
        Ok((version, objects))
    }

    pub(super) fn list(&self, target: &Target, call: &Call) -> Answer {
        let limit: usize = match call.parameter("limit") {
            None => 0,
            Some(text) => {
                text.parse().map_err(|_| ApiError::bad_request(format!("limit: Invalid value: \"{text}\"")))?
            }
        };
        let selectors = [call.parameter("labelSelector"), call.parameter("fieldSelector")];
        let question = format!("{} {:?} {selectors:?}", target.resource.full_name(), target.namespace);
        let now = self.0.clock.now();
        let Page { version, objects, token, remaining } = match call.parameter("continue") {
            Some(token) => self.0.pages.next(&question, token, limit, now)?,
            None => {
                let (version, objects) = self.selected(target, call)?;
                self.0.pages.first(&question, version, objects, limit, now)
            }
        };
        let mut about = json!({"resourceVersion": version.to_string()});
        if let Some(token) = token {
            about["continue"] = json!(token);
            if selectors.iter().all(Option::is_none) {
                about["remainingItemCount"] = json!(remaining);
            }
        }
        Ok(self.rendering(target, call).list(&about, objects))
    }

    pub(super) fn watch(&self, target: &Target, call: &Call) -> Answer {
        let initial = call.flag("sendInitialEvents");
        let since = match call.parameter("resourceVersion") {
            None | Some("0") => None,
            Some(_) if initial => None,
            Some(text) => Some(text.parse().map_err(|_| {
                ApiError::bad_request(format!("resourceVersion: Invalid value: \"{text}\": must be a number"))
            })?),
        };
        let asked = call.parameter("timeoutSeconds").and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
        let seconds = asked.unwrap_or_else(|| WATCH_SECONDS + rand::random_range(0..WATCH_SECONDS));
        let options = WatchOptions {
            rendering: self.rendering(target, call),
            namespace: target.namespace.clone(),
            selector: selector(target, call)?,
            since,
            bookmarks: call.flag("allowWatchBookmarks"),
            mark_initial_end: initial,
            timeout: Duration::from_secs(seconds),
        };
        Ok(stream_answer(watch(&self.0.store, options)?))
    }

    /// One object of the store or of a dry run in the form that was asked for.
    pub(super) fn object_answer(
        &self,
        status: u16,
        target: &Target,
        call: &Call,
        object: &Value,
    ) -> hyper::Response<super::rest::AnswerBody> {
        super::rest::json_answer(status, &self.rendering(target, call).one(&target.shown(object)))
    }
}
