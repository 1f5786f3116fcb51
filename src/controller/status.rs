//! Writing status and events; a status that says nothing new is not written.
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Mutex;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use serde_json::{Value, json};

use super::error::{ControllerError, is_code};
use super::outside::Written;
use super::places::Standing;
use super::times::stamp;
use crate::api::condition::{DNS_PROGRAMMED, Finding, LOADING, READY, Truth, conditions};
use crate::api::portal::{MadeResource, Move, QueuePlace, ResetPortalStatus, Verified};
use crate::api::{FIELD_MANAGER, ResetPortal};
use crate::config::{shortened, visible};
use crate::http::double::lock;

/// Longest note of an event, by the API's own limit.
const LONGEST_NOTE: usize = 1000;
/// Longest line of what is pending, in characters.
const LONGEST_LINE: usize = 1000;

/// What a look at a portal found.
#[derive(Debug, Default)]
pub struct Found {
    pub findings: Vec<Finding>,
    pub host: Option<String>,
    pub url: Option<String>,
    pub class_name: Option<String>,
    pub backend: Option<String>,
    pub resources: Vec<MadeResource>,
    pub verified: Vec<Verified>,
    pub queue: Option<QueuePlace>,
    pub pending: Vec<String>,
    pub last_proof: Option<Timestamp>,
    pub standing: Standing,
    /// The status has been written since the look began.
    pub noted: bool,
    /// Why no password can be reset though the page is there, in words.
    pub no_resets: Option<String>,
    /// What was written outside, in words; each becomes an event.
    pub changes: Vec<Written>,
}

impl Found {
    /// Does not forget what was made on the way, however the look ends.
    pub fn keep(&mut self, made: &[MadeResource]) {
        let new = made
            .iter()
            .filter(|new| !self.resources.iter().any(|old| old.system == new.system && old.name == new.name));
        let new: Vec<MadeResource> = new.cloned().collect();
        self.resources.extend(new);
    }
}

/// Writes status and events.
pub struct Reports {
    client: Client,
    /// By what they tell: a recorder counts what it takes for a repetition and keeps its first words for ever, though a
    /// portal's next change has words of its own.
    recorders: Mutex<HashMap<u64, Recorder>>,
}

/// Different notes that are remembered, so that a repetition is counted.
const NOTES: usize = 256;

impl Reports {
    pub fn new(client: Client) -> Self {
        Self { client, recorders: Mutex::default() }
    }

    fn recorder(&self, note: &str) -> Recorder {
        let mut hasher = std::hash::DefaultHasher::new();
        note.hash(&mut hasher);
        let mut recorders = lock(&self.recorders);
        if recorders.len() >= NOTES {
            recorders.clear();
        }
        let new = || {
            let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: None };
            Recorder::new(self.client.clone(), reporter)
        };
        recorders.entry(hasher.finish()).or_insert_with(new).clone()
    }

    /// Brings the portal's status up to what was found, and tells what is new as events.
    pub async fn report(&self, portal: &ResetPortal, found: Found, now: Timestamp) -> Result<(), ControllerError> {
        let old = portal.status.clone().unwrap_or_default();
        let generation = portal.metadata.generation.unwrap_or_default();
        let ready_before =
            old.conditions.iter().find(|c| c.type_ == READY).map(|c| (c.status.clone(), c.reason.clone()));
        let new = ResetPortalStatus {
            observed_generation: Some(generation),
            host: found.host,
            url: found.url,
            class_name: found.class_name,
            backend: found.backend,
            conditions: conditions(&old.conditions, &found.findings, generation, now),
            resources: found.resources,
            verified: found.verified,
            queue: found.queue,
            pending: found.pending.iter().map(|words| shortened(words, LONGEST_LINE)).collect(),
            last_proof: found.last_proof.map(stamp),
            place: found.standing.home,
            moving: found.standing.moving,
            leaving: found.standing.leaving,
            left_behind: found.standing.left_behind,
            record_seconds: found.standing.record_seconds,
            record_until: found.standing.record_until.clone(),
        };
        for written in &found.changes {
            self.written(portal, written).await;
        }
        if new == old && !found.noted {
            return Ok(());
        }
        let key = portal.key();
        let api: Api<ResetPortal> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = json!({"status": merge(&old, &new)});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_status(&key.name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => {}
            Err(error) if is_code(&error, 404) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if let Some(ready) = new.conditions.iter().find(|c| c.type_ == READY)
            && ready_before != Some((ready.status.clone(), ready.reason.clone()))
            // That passes by itself, and what comes of it is told.
            && ready.reason != LOADING
        {
            let expected = ready.status == "True" || ready.reason == "Moving";
            let kind = if expected { EventType::Normal } else { EventType::Warning };
            tracing::info!(portal = %key, ready = %ready.status, reason = %ready.reason, "{}", ready.message);
            self.event(portal, kind, &ready.reason, "Reconcile", &ready.message).await;
        }
        Ok(())
    }

    /// Tells of a new portal that the first look at it takes its time.
    pub async fn begun(&self, portal: &ResetPortal, now: Timestamp) -> Result<(), ControllerError> {
        if portal.status.is_some() {
            return Ok(());
        }
        let words = "record and route are being made; a system is slow to answer";
        let finding = Finding::new(READY, Truth::Unknown, "Working", words);
        let generation = portal.metadata.generation.unwrap_or_default();
        let host = portal.spec.public_host().ok().map(String::from);
        let patch = json!({"status": {"host": host, "conditions": conditions(&[], &[finding], generation, now)}});
        let key = portal.key();
        let api: Api<ResetPortal> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_status(&key.name, &params, &Patch::Merge(&patch)).await {
            Err(error) if !is_code(&error, 404) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Writes down where the portal stands and what it has, before anything else is done about it outside.
    pub async fn note(&self, portal: &ResetPortal, found: &mut Found) -> Result<(), ControllerError> {
        let key = portal.key();
        let api: Api<ResetPortal> = Api::namespaced(self.client.clone(), &key.namespace);
        let Standing { home, moving, leaving, left_behind, record_seconds, record_until } = found.standing.clone();
        let standing = ResetPortalStatus {
            place: home,
            moving,
            leaving,
            left_behind,
            record_seconds,
            record_until,
            resources: found.resources.clone(),
            ..Default::default()
        };
        let patch = json!({"status": standing_patch(&standing)});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        found.noted = true;
        match api.patch_status(&key.name, &params, &Patch::Merge(&patch)).await {
            Err(error) if !is_code(&error, 404) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Tells of one write.
    pub async fn written(&self, portal: &ResetPortal, written: &Written) {
        if let Some(reason) = written.remark {
            return self.event(portal, EventType::Warning, reason, "Program", &written.words).await;
        }
        // Reasons differ by system, because events of one reason are counted instead of listed.
        let reason = match (written.repaired, written.condition == DNS_PROGRAMMED) {
            (false, true) => "RecordChanged",
            (false, false) => "RouteChanged",
            (true, true) => "RecordRepaired",
            (true, false) => "RouteRepaired",
        };
        self.event(portal, EventType::Normal, reason, "Program", &written.words).await;
    }

    /// Publishes one event. An event that cannot be published is logged and no reason to stop.
    pub async fn event(&self, portal: &ResetPortal, type_: EventType, reason: &str, action: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(visible(note).chars().take(LONGEST_NOTE).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        let reference: ObjectReference = portal.object_ref(&());
        if let Err(error) = self.recorder(note).publish(&event, &reference).await {
            tracing::warn!(portal = %portal.key(), reason, %error, "an event could not be published");
        }
    }
}

/// Where the portal stands and what it has, with what it does not have said to be absent: whatever is there now, it goes.
fn standing_patch(status: &ResetPortalStatus) -> serde_json::Map<String, Value> {
    let list = |empty: bool, value: Value| if empty { Value::Null } else { value };
    let mut moving = json!(status.moving);
    if let Some(fields) = moving.as_object_mut() {
        for name in Move::OPTIONAL {
            fields.entry(name).or_insert(Value::Null);
        }
    }
    [
        ("place".to_owned(), json!(status.place)),
        ("moving".to_owned(), moving),
        ("leaving".to_owned(), list(status.leaving.is_empty(), json!(status.leaving))),
        ("recordSeconds".to_owned(), json!(status.record_seconds)),
        ("recordUntil".to_owned(), json!(status.record_until)),
        ("leftBehind".to_owned(), list(status.left_behind.is_empty(), json!(status.left_behind))),
        ("resources".to_owned(), list(status.resources.is_empty(), json!(status.resources))),
    ]
    .into_iter()
    .collect()
}

/// A merge patch from old to new: what is gone is null.
fn merge(old: &ResetPortalStatus, new: &ResetPortalStatus) -> Value {
    let as_map = |status: &ResetPortalStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let mut patch = as_map(new);
    for name in as_map(old).into_iter().map(|(name, _)| name) {
        patch.entry(name).or_insert(Value::Null);
    }
    patch.extend(standing_patch(new));
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::portal::{MoveStage, Place};

    #[test]
    fn fields_that_are_gone_are_patched_away() {
        let old = ResetPortalStatus { host: Some("a".into()), url: Some("u".into()), ..Default::default() };
        let new = ResetPortalStatus { host: Some("b".into()), ..Default::default() };
        let nowhere = json!({"host": "b", "url": null, "place": null, "moving": null, "leaving": null, "leftBehind": null, "recordSeconds": null, "recordUntil": null, "resources": null});
        assert_eq!(merge(&old, &new), nowhere);
        // and so are those of a move, whose times are not those of the one before
        let to = Place { class_name: "b".into(), settings: String::new() };
        let (stage, since) = (MoveStage::Proving, "2026-01-01T00:00:00Z".to_owned());
        let moving = Some(Move {
            to,
            stage,
            since,
            generation: 1,
            host: None,
            from: None,
            from_seconds: None,
            flipped: None,
            one_proxy: None,
            served: false,
            decided_by: None,
            note: None,
        });
        let patch = merge(&old, &ResetPortalStatus { moving, ..new });
        let fields = patch["moving"].as_object().unwrap();
        assert!(Move::OPTIONAL.iter().all(|name| fields.get(*name) == Some(&Value::Null)), "{fields:?}");
    }
}
