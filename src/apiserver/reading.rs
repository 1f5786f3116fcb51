//! The verbs that only read: get, list, watch.
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{json_answer, stream_answer};
use super::listoptions::{ListOptions, Match, no_version};
use super::paging::Page;
use super::render::Rendering;
use super::rest::{Answer, AnswerBody, ApiServer, Call, Target};
use super::selector::Selector;
use super::status::ApiError;
use super::store::Snapshot;
use super::table::Form;
use super::watch::{self, Begin, WatchOptions};

/// Watches that name no time end by themselves after this many seconds, and up to as many more.
const WATCH_SECONDS: u64 = 1800;

const TOO_OLD: &str = "The resourceVersion for the provided list is too old.";

fn selector(target: &Target, call: &Call) -> Result<Selector, ApiError> {
    Selector::of(&target.resource, call.parameter("labelSelector"), call.parameter("fieldSelector"))
}

impl ApiServer {
    pub(super) fn rendering(&self, target: &Target, call: &Call) -> Rendering {
        Rendering {
            resource: Arc::clone(&target.resource),
            form: call.form,
            include: call.include().to_owned(),
            clock: Arc::clone(&self.0.clock),
        }
    }

    pub(super) fn get(&self, target: &Target, name: &str, call: &Call) -> Answer {
        if let Some(text) = call.parameter("resourceVersion") {
            let version = text.parse().map_err(|_| no_version(text, true))?;
            self.not_from_the_future(version)?;
        }
        let found = self.0.store.get(&target.key(name));
        let object = found.ok_or_else(|| ApiError::not_found(&target.resource.full_name(), name))?;
        Ok(self.object_answer(200, target, call, &object))
    }

    /// Errors: 504 for a version that there is not yet, at once: here none is on its way.
    fn not_from_the_future(&self, asked: u64) -> Result<(), ApiError> {
        let newest = self.0.store.version();
        if asked <= newest { Ok(()) } else { Err(ApiError::too_large_version(asked, newest)) }
    }

    /// What a list with these options holds.
    pub(super) fn page(&self, target: &Target, call: &Call) -> Result<Page, ApiError> {
        let options = ListOptions::of(call, false)?;
        let selector = selector(target, call)?;
        let selectors = [call.parameter("labelSelector"), call.parameter("fieldSelector")];
        let question = format!("{} {:?} {selectors:?}", target.resource.full_name(), target.namespace);
        let now = self.0.clock.now();
        if let Some(token) = &options.token {
            return self.0.pages.next(&question, token, options.limit, now);
        }
        let asked = options.version.unwrap_or(0);
        self.not_from_the_future(asked)?;
        let (resource, namespace) = (target.resource.stored_as(), target.namespace.as_deref());
        let exact =
            asked > 0 && (options.matching == Some(Match::Exact) || (options.matching.is_none() && options.limit > 0));
        let Snapshot { version, mut objects } = match exact {
            true => self.0.store.list_at(&resource, namespace, asked).map_err(|_| ApiError::expired(TOO_OLD))?,
            false => self.0.store.list(&resource, namespace),
        };
        if !selector.is_empty() {
            objects.retain(|object| selector.selects_stored(&target.resource, object));
        }
        // Any version is answered at once and as a whole.
        let limit = if options.version == Some(0) { 0 } else { options.limit };
        Ok(self.0.pages.first(&question, version, objects, limit, now))
    }

    pub(super) fn list(&self, target: &Target, call: &Call) -> Answer {
        let Page { version, objects, token, remaining } = self.page(target, call)?;
        let mut about = json!({"resourceVersion": version.to_string()});
        // Lists of custom resources say so even where there is nothing more.
        if target.resource.is_custom() && call.form == Form::Whole {
            about["continue"] = json!("");
        }
        if let Some(token) = token {
            about["continue"] = json!(token);
            if call.parameter("labelSelector").is_none() && call.parameter("fieldSelector").is_none() {
                about["remainingItemCount"] = json!(remaining);
            }
        }
        Ok(self.rendering(target, call).list(&about, objects))
    }

    pub(super) fn watch(&self, target: &Target, call: &Call) -> Answer {
        let options = ListOptions::of(call, true)?;
        let selector = selector(target, call)?;
        let asked = options.version.unwrap_or(0);
        let seconds = options.timeout.unwrap_or_else(|| WATCH_SECONDS + rand::random_range(0..WATCH_SECONDS));
        let begins = match (options.initial_events, asked) {
            (Some(true), _) | (None, 0) => Begin::WithWhatExists,
            (Some(false), 0) => Begin::Now,
            (_, version) => Begin::After(version),
        };
        let rendering = self.rendering(target, call);
        if options.initial_events == Some(true)
            && let Err(error) = self.not_from_the_future(asked)
        {
            return Ok(stream_answer(watch::refusal(&error)));
        }
        let wanted = WatchOptions {
            rendering,
            namespace: target.namespace.clone(),
            selector,
            begins,
            bookmarks: options.bookmarks,
            timeout: Duration::from_secs(seconds),
        };
        // What is found out about the past is told within the stream, as by a server that has begun to answer.
        match watch::watch(&self.0.store, wanted) {
            Ok(lines) => Ok(stream_answer(lines)),
            Err(error) => Ok(stream_answer(watch::refusal(&error.into()))),
        }
    }

    /// One object of the store or of a dry run in the form that was asked for.
    pub(super) fn object_answer(
        &self,
        status: u16,
        target: &Target,
        call: &Call,
        object: &Value,
    ) -> hyper::Response<AnswerBody> {
        json_answer(status, &self.rendering(target, call).one(&target.shown(object)))
    }
}
