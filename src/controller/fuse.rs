//! The fuse over class-wide changes: where one edit of a class would change much of what its portals have outside, the
//! portals stay where they are until somebody approves it. What the portals themselves ask for is never held.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::Store as Reflected;

use super::alike::mixed;
use super::classes::fingerprint;
use super::context::Context;
use super::error::ControllerError;
use super::places::{CLASS_GONE, Standing, effect, effect_of, place_of};
use super::runtime::ClassRuntime;
use super::validate::{Mode, ValidPortal, validate};
use crate::api::class::HeldPlan;
use crate::api::condition::{Finding, MOVED, Truth};
use crate::api::portal::{Move, Place};
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
    /// The settings of that place are not known any more, as when the class was deleted and made anew, or a Secret of it is
    /// missing: then nothing is looked at outside, because every look would be under other settings.
    pub frozen: bool,
}

/// What a change of a class would do to its portals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    pub owned: usize,
    pub changing: usize,
    /// The first of them.
    names: Vec<String>,
}

/// Effects by the class in which the portals are now.
type Effects = BTreeMap<String, Effect>;

/// Counted effects, by class, digest of the new settings, and whether it is the default.
#[derive(Default)]
pub struct Counted(HashMap<(String, String, bool), (Timestamp, Effects)>);

/// Names the plan: the same change has the same name, however far it has come. `origin` is the class in which the portals
/// are now.
pub fn plan_id(place: &Place, origin: &str) -> String {
    let Place { class_name, settings } = place;
    let print = match origin == class_name {
        true => fingerprint(&["class change", class_name, settings]),
        false => fingerprint(&["default class", origin, class_name, settings]),
    };
    print.chars().take(12).collect()
}

impl Context {
    /// What the class's present settings change for portals that did not ask for it. `default`: portals that name no class
    /// come to this one.
    fn effects(&self, class: &PortalClass, here: &Place, default: bool) -> Effects {
        let now = self.clock.now();
        let key = (here.class_name.clone(), here.settings.clone(), default);
        if let Some((at, effects)) = lock(&self.counted).0.get(&key)
            && now >= *at
            && now.duration_since(*at) < COUNTED
        {
            return effects.clone();
        }
        let Some(portals) = self.portals.get() else { return Effects::new() };
        let mut effects = Effects::new();
        // Portals of one place differ alike.
        let mut known: HashMap<String, bool> = HashMap::new();
        for portal in portals.state() {
            let Some(status) = portal.status.as_ref().filter(|status| !status.resources.is_empty()) else { continue };
            let Some(home) = Standing::of(status).home else { continue };
            let effect = effects.entry(home.class_name.clone()).or_default();
            effect.owned += 1;
            let stays = home.class_name == here.class_name;
            let comes = default && portal.spec.class_name.is_none() && !stays;
            let asked = status.observed_generation != portal.metadata.generation;
            if !(stays || comes) || asked || on_its_way(status.moving.as_ref(), here) {
                continue;
            }
            let changes = match stays {
                true => *known.entry(home.settings.clone()).or_insert_with(|| differs(class, &home, class, here)),
                false => home.settings != here.settings,
            };
            if changes {
                effect.changing += 1;
                if effect.names.len() < 5 {
                    effect.names.push(portal.key().to_string());
                }
            }
        }
        let mut counted = lock(&self.counted);
        counted.0.retain(|(name, digest, _), _| *name != key.0 || *digest == key.1);
        counted.0.insert(key, (now, effects.clone()));
        effects
    }

    /// The plans of class-wide changes that are too much to be made without approval, by the class whose portals change.
    fn held_changes(&self, class: &PortalClass, here: &Place, default: bool) -> BTreeMap<String, HeldPlan> {
        let approved = approval(class);
        let mut held = BTreeMap::new();
        for (origin, effect) in self.effects(class, here, default) {
            let id = plan_id(here, &origin);
            if !fuse::blows(effect.owned, effect.changing) || approved.as_ref() == Some(&id) {
                continue;
            }
            let what = match origin == here.class_name {
                true => {
                    format!("the class was changed, which changes records or routes of {} portals", effect.changing)
                }
                false => format!(
                    "the class was made the default, which moves {} portals here from PortalClass {origin:?}",
                    effect.changing
                ),
            };
            let (owned, changing) = (count(effect.owned), count(effect.changing));
            held.insert(origin, HeldPlan { id, what, owned, changing, portals: effect.names });
        }
        held
    }

    /// Keeps a portal where it is while the change of its class, or of the default class, is held.
    pub(super) async fn hold_back(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
    ) -> Result<Option<HeldBack>, ControllerError> {
        let status = portal.status.clone().unwrap_or_default();
        let standing = Standing::of(&status);
        let here = place_of(&class.class);
        let default = portal.spec.class_name.is_none();
        let concerned = |home: &Place| *home != here && (default || home.class_name == here.class_name);
        let Some(home) = standing.home.filter(concerned) else { return Ok(None) };
        let asked = status.observed_generation != portal.metadata.generation;
        let under_way = on_its_way(standing.moving.as_ref(), &here);
        if asked || under_way || home.settings.is_empty() || valid.mode != Mode::Full {
            return Ok(None);
        }
        let Some(object) = self.class_object(&here.class_name).await? else { return Ok(None) };
        if home.class_name == here.class_name && !differs(&object, &home, &object, &here) {
            return Ok(None);
        }
        let Some(plan) = self.held_changes(&object, &here, default).remove(&home.class_name) else { return Ok(None) };
        let (former, valid, frozen) = match self.at_place(&home).await? {
            Ok(former) => match validate(portal, &former.class, &self.policy) {
                // The host is the one that is looked at, which may not be the one that is wanted.
                Ok(there) => {
                    let (host, url) = (valid.host.clone(), former.class.spec.public_url(&valid.host));
                    (former, ValidPortal { host, url, ..there }, false)
                }
                Err(_) => (Arc::new(mixed(class, &None, &None)), valid.clone(), true),
            },
            Err(finding) if finding.reason == CLASS_GONE => return Ok(None),
            Err(_) => (Arc::new(mixed(class, &None, &None)), valid.clone(), true),
        };
        let cause = match home.class_name == here.class_name {
            true => "an edit of the class".to_owned(),
            false => format!("making PortalClass {:?} the default", here.class_name),
        };
        let words = format!(
            "the portal stays as it was: {} of the {} portals of PortalClass {:?} would change at once by {cause}; \
             to let them, annotate PortalClass {:?} with {ANNOTATION_APPROVE_PLAN}={}",
            plan.changing, plan.owned, home.class_name, here.class_name, plan.id
        );
        let finding = Finding::new(MOVED, Truth::False, "ChangesHeld", words);
        Ok(Some(HeldBack { class: former, valid, place: home, finding, frozen }))
    }

    /// Plans of a class that wait for approval: its own change, and repairs in its instances.
    pub(super) fn held_plans(
        &self,
        class: &PortalClass,
        running: Option<&ClassRuntime>,
        default: bool,
    ) -> Vec<HeldPlan> {
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
        self.held_changes(class, &place_of(&running.class), default).into_values().chain(repairs).collect()
    }

    /// Whether an approval has nothing left to do.
    pub(super) fn approval_is_spent(
        &self,
        class: &PortalClass,
        running: &ClassRuntime,
        approved: &str,
        default: bool,
    ) -> bool {
        let here = place_of(&running.class);
        let by_class = |(origin, effect): (&String, &Effect)| plan_id(&here, origin) == approved && effect.changing > 0;
        let held = |shared: &super::runtime::Shared| shared.worker.held().is_some_and(|held| held.id == approved);
        !self.effects(class, &here, default).iter().any(by_class) && !running.dns.iter().chain(&running.proxy).any(held)
    }

    pub(super) fn watch_portals(&self, portals: Reflected<ResetPortal>) {
        let _ = self.portals.set(portals);
    }
}

/// Whether something outside differs between a portal's place, of which its class keeps the settings, and a place under a
/// class as it is now; where Secrets are kept does not count.
fn differs(former: &PortalClass, home: &Place, class: &PortalClass, here: &Place) -> bool {
    if home.settings.is_empty() || home.settings == here.settings {
        return false;
    }
    let kept = former.status.as_ref().and_then(|status| status.settings.get(&home.settings));
    kept.is_none_or(|kept| effect(kept) != effect_of(&class.spec))
}

/// A move that was begun to this very place goes on.
fn on_its_way(moving: Option<&Move>, here: &Place) -> bool {
    moving.is_some_and(|moving| moving.to == *here)
}

/// The plan that a class's annotation approves.
pub fn approval(class: &PortalClass) -> Option<String> {
    class.metadata.annotations.as_ref()?.get(ANNOTATION_APPROVE_PLAN).map(|id| id.trim().to_owned())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
