//! The fuse over class-wide changes: where one edit of a class would change much of what its portals have outside, the
//! portals stay where they are until somebody approves it. What the portals themselves ask for is never held.
use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::Store as Reflected;

use super::classes::fingerprint;
use super::context::Context;
use super::error::ControllerError;
use super::places::{Standing, effect, place_of};
use super::runtime::ClassRuntime;
use super::validate::{Mode, ValidPortal, validate};
use crate::api::class::HeldPlan;
use crate::api::condition::{Finding, MOVED, Truth};
use crate::api::portal::Place;
use crate::api::{ANNOTATION_APPROVE_PLAN, PortalClass, ResetPortal};
use crate::http::double::lock;
use crate::plan::fuse;

/// How long a count of the portals is good for: a thousand looks of one burst count once.
const COUNTED: SignedDuration = SignedDuration::from_secs(1);

/// A portal that stays where it is for now.
pub struct HeldBack {
    pub class: Arc<ClassRuntime>,
    pub valid: ValidPortal,
    pub place: Place,
    pub finding: Finding,
}

/// What a change of a class would do to its portals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    pub owned: usize,
    pub changing: usize,
    /// The first of them.
    names: Vec<String>,
}

/// Counted effects, by class and digest of the new settings.
#[derive(Default)]
pub struct Counted(HashMap<(String, String), (Timestamp, Effect)>);

/// Names the plan: the same change of the same class has the same name, however far it has come.
pub fn plan_id(place: &Place) -> String {
    fingerprint(&["class change", &place.class_name, &place.settings]).chars().take(12).collect()
}

impl Context {
    /// What the class's present settings change for portals that did not ask for it.
    pub(super) fn effect(&self, class: &PortalClass, here: &Place) -> Effect {
        let now = self.clock.now();
        let key = (here.class_name.clone(), here.settings.clone());
        if let Some((at, effect)) = lock(&self.counted).0.get(&key)
            && now >= *at
            && now.duration_since(*at) < COUNTED
        {
            return effect.clone();
        }
        let Some(portals) = self.portals.get() else { return Effect::default() };
        let mut effect = Effect::default();
        // Portals of one place differ alike.
        let mut known: HashMap<String, bool> = HashMap::new();
        for portal in portals.state() {
            let Some(status) = portal.status.as_ref().filter(|status| !status.resources.is_empty()) else { continue };
            let Some(home) = Standing::of(status).home.filter(|home| home.class_name == here.class_name) else {
                continue;
            };
            effect.owned += 1;
            let asked = status.observed_generation != portal.metadata.generation;
            if asked || status.moving.is_some() {
                continue;
            }
            if *known.entry(home.settings.clone()).or_insert_with(|| self.differs(class, &home, here)) {
                effect.changing += 1;
                if effect.names.len() < 5 {
                    effect.names.push(portal.key().to_string());
                }
            }
        }
        let mut counted = lock(&self.counted);
        counted.0.retain(|(name, digest), _| *name != key.0 || *digest == key.1);
        counted.0.insert(key, (now, effect.clone()));
        effect
    }

    /// Whether something outside differs between two places of a class; where Secrets are kept does not count.
    fn differs(&self, class: &PortalClass, home: &Place, here: &Place) -> bool {
        if home.settings.is_empty() || home.settings == here.settings {
            return false;
        }
        let kept = class.status.as_ref().and_then(|status| status.settings.get(&home.settings));
        kept.is_none_or(|kept| effect(kept) != super::places::effect_of(&class.spec))
    }

    /// The plan of a class-wide change that is too much to be made without approval.
    pub(super) fn held_plan(&self, class: &PortalClass, here: &Place) -> Option<HeldPlan> {
        let effect = self.effect(class, here);
        let approved = approval(class);
        let id = plan_id(here);
        if !fuse::blows(effect.owned, effect.changing) || approved.as_ref() == Some(&id) {
            return None;
        }
        Some(HeldPlan {
            id,
            what: format!("the class was changed, which changes records or routes of {} portals", effect.changing),
            owned: count(effect.owned),
            changing: count(effect.changing),
            portals: effect.names,
        })
    }

    /// Keeps a portal where it is while the change of its class is held.
    pub(super) async fn hold_back(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
    ) -> Result<Option<HeldBack>, ControllerError> {
        let status = portal.status.clone().unwrap_or_default();
        let standing = Standing::of(&status);
        let here = place_of(&class.class);
        let Some(home) = standing.home.filter(|home| home.class_name == here.class_name && *home != here) else {
            return Ok(None);
        };
        let asked = status.observed_generation != portal.metadata.generation;
        if asked || standing.moving.is_some() || home.settings.is_empty() || valid.mode != Mode::Full {
            return Ok(None);
        }
        let Some(object) = self.class_object(&here.class_name).await? else { return Ok(None) };
        if !self.differs(&object, &home, &here) {
            return Ok(None);
        }
        let Some(plan) = self.held_plan(&object, &here) else { return Ok(None) };
        let Ok(former) = self.at_place(&home).await? else { return Ok(None) };
        let Ok(valid) = validate(portal, &former.class, &self.policy) else { return Ok(None) };
        let words = format!(
            "the portal stays as it was: {} of the {} portals of PortalClass {:?} would change at once by an edit of the class; \
             to let them, annotate it with {ANNOTATION_APPROVE_PLAN}={}",
            plan.changing, plan.owned, here.class_name, plan.id
        );
        let finding = Finding::new(MOVED, Truth::False, "ChangesHeld", words);
        Ok(Some(HeldBack { class: former, valid, place: home, finding }))
    }

    /// Plans of a class that wait for approval: its own change, and repairs in its instances.
    pub(super) fn held_plans(&self, class: &PortalClass, running: Option<&ClassRuntime>) -> Vec<HeldPlan> {
        let Some(running) = running else { return Vec::new() };
        let repairs = running.dns.iter().chain(&running.proxy).filter_map(|shared| {
            let held = shared.worker.held()?;
            Some(HeldPlan {
                what: format!("somebody else changed {} things in {}", held.changing, shared.worker.instance()),
                id: held.id,
                owned: count(held.owned),
                changing: count(held.changing),
                portals: held.words,
            })
        });
        self.held_plan(class, &place_of(&running.class)).into_iter().chain(repairs).collect()
    }

    /// Whether an approval has nothing left to do.
    pub(super) fn approval_is_spent(&self, class: &PortalClass, running: &ClassRuntime, approved: &str) -> bool {
        let here = place_of(&running.class);
        let by_class = plan_id(&here) == approved && self.effect(class, &here).changing > 0;
        let held = |shared: &super::runtime::Shared| shared.worker.held().is_some_and(|held| held.id == approved);
        !by_class && !running.dns.iter().chain(&running.proxy).any(held)
    }

    pub(super) fn watch_portals(&self, portals: Reflected<ResetPortal>) {
        let _ = self.portals.set(portals);
    }
}

/// The plan that a class's annotation approves.
pub fn approval(class: &PortalClass) -> Option<String> {
    class.metadata.annotations.as_ref()?.get(ANNOTATION_APPROVE_PLAN).map(|id| id.trim().to_owned())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
