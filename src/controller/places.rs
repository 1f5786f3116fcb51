//! Where portals are made: a class with the settings that it had then. Settings are kept in the class's status, so
//! that what was made under former ones can still be removed after a restart. They stay out of the portals' status,
//! which other people may write: an address from there would be given our credentials.
use std::collections::{BTreeMap, HashSet};

use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::classes::fingerprint;
use super::context::Context;
use super::error::{ControllerError, is_code};
use super::runtime::ClassRuntime;
use crate::api::class::{CloudflareSettings, PublicScheme};
use crate::api::condition::{ACCEPTED, Finding, Truth};
use crate::api::portal::{Leaving, MadeResource, Move, Place, ResetPortalStatus};
use crate::api::proxy::ProxySettings;
use crate::api::{FIELD_MANAGER, PortalClass, PortalClassSpec, ResetPortal};
use crate::http::double::lock;

/// The settings of a class that say where its portals are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    cloudflare: Option<CloudflareSettings>,
    cname_target: Option<String>,
    proxy: ProxySettings,
    public_scheme: PublicScheme,
    /// Where its portals are asked for their proof; says nothing about where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probe_address: Option<String>,
}

impl Settings {
    fn of(spec: &PortalClassSpec) -> Self {
        Self {
            // How often things are looked at says nothing about where they are.
            cloudflare: spec.cloudflare.clone().map(|cloudflare| CloudflareSettings {
                sweep_hours: 24,
                audit_log: true,
                ..cloudflare
            }),
            cname_target: spec.cname_target.clone(),
            proxy: spec.proxy.clone(),
            public_scheme: spec.public_scheme,
            probe_address: spec.probe.address.clone(),
        }
    }
    /// What tells the place from others.
    fn identity(&self) -> String {
        Self { probe_address: None, ..self.clone() }.text()
    }
    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
    /// The class as it was with these settings, as far as records and routes are concerned.
    fn restored(self, mut class: PortalClass) -> PortalClass {
        let Self { cloudflare, cname_target, proxy, public_scheme, probe_address } = self;
        class.spec =
            PortalClassSpec { cloudflare, cname_target, proxy, public_scheme, mailbox: None, smtp: None, ..class.spec };
        class.spec.probe.address = probe_address;
        class
    }
}

/// What kept settings mean outside: where Secrets are kept does not count.
pub fn effect(text: &str) -> serde_json::Value {
    fn bare(value: &mut serde_json::Value) {
        if let Some(fields) = value.as_object_mut() {
            let counts = |name: &str| !name.ends_with("SecretRef") && name != "probeAddress";
            fields.retain(|name, value| counts(name) && !value.is_null());
            fields.values_mut().for_each(bare);
        }
    }
    let mut value = serde_json::from_str(text).unwrap_or_default();
    bare(&mut value);
    value
}

/// The same of a class as it is.
pub fn effect_of(spec: &PortalClassSpec) -> serde_json::Value {
    effect(&Settings::of(spec).identity())
}

/// Digest of the settings.
pub fn digest(spec: &PortalClassSpec) -> String {
    fingerprint(&[&Settings::of(spec).identity()])
}

/// Where a portal of this class is made now.
pub fn place_of(class: &super::classes::ResolvedClass) -> Place {
    Place { class_name: class.name.clone(), settings: digest(&class.spec) }
}

/// Where a portal stands, as its status tells it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    pub home: Option<Place>,
    pub moving: Option<Move>,
    pub leaving: Vec<Leaving>,
    pub left_behind: Vec<MadeResource>,
    /// See [`ResetPortalStatus::record_seconds`].
    pub record_seconds: Option<i64>,
    /// See [`ResetPortalStatus::record_until`].
    pub record_until: Option<String>,
}

impl Standing {
    pub fn of(status: &ResetPortalStatus) -> Self {
        // Earlier versions noted the name of the class only.
        let named = || {
            let class_name = status.class_name.clone().filter(|_| !status.resources.is_empty())?;
            Some(Place { class_name, settings: String::new() })
        };
        Self {
            home: status.place.clone().or_else(named),
            moving: status.moving.clone(),
            leaving: status.leaving.clone(),
            left_behind: status.left_behind.clone(),
            record_seconds: status.record_seconds,
            record_until: status.record_until.clone(),
        }
    }

    /// Every place in which something may stand, each once.
    pub fn places(&self) -> Vec<Place> {
        let moving = self.moving.iter().map(|moving| &moving.to);
        let all = self.home.iter().chain(moving).chain(self.leaving.iter().map(|leaving| &leaving.place));
        let mut places: Vec<Place> = Vec::new();
        for place in all {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
        places
    }

    /// The portal stands there from now on. Of other places it is known whether they are the proxy of the former one by
    /// another address, which says nothing about this one, but where this is that proxy as well.
    pub fn settle_in(&mut self, home: Place, one_proxy: bool) {
        self.leaving.iter_mut().for_each(|leaving| leaving.one_proxy &= one_proxy);
        self.home = Some(home);
    }

    /// What may remain for good, each once.
    pub fn leave_behind(&mut self, remains: Vec<MadeResource>) {
        for one in remains {
            if !self.left_behind.contains(&one) {
                self.left_behind.push(one);
            }
        }
    }

    /// Nothing stands anywhere else than in `here`.
    pub fn settled(&self, here: &Place) -> bool {
        self.moving.is_none() && self.leaving.is_empty() && self.home.as_ref().is_none_or(|home| home == here)
    }
}

impl Context {
    /// Keeps the class's present settings, before anything is made under them.
    pub(super) async fn keep_settings(&self, class: &ClassRuntime) -> Result<(), ControllerError> {
        let settings = Settings::of(&class.class.spec).text();
        let place = place_of(&class.class);
        let key = (place.class_name, place.settings);
        // One at a time: a thousand portals of a class note its settings once.
        let mut kept = self.kept_settings.lock().await;
        if kept.contains(&key) {
            return Ok(());
        }
        let api: Api<PortalClass> = Api::all(self.client.clone());
        let patch = json!({"status": {"settings": {&key.1: settings}}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_status(&key.0, &params, &Patch::Merge(&patch)).await {
            Ok(_) => {
                kept.insert(key);
                Ok(())
            }
            Err(error) if is_code(&error, 404) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The class as it is or was at that place, and whether that is as it is now; or why that is not known any more.
    pub(super) async fn class_at(
        &self,
        place: &Place,
    ) -> Result<Result<(PortalClass, bool), Finding>, ControllerError> {
        let Place { class_name, settings } = place;
        let lost = |reason: &str, message: String| Ok(Err(Finding::new(ACCEPTED, Truth::False, reason, message)));
        let classes: Api<PortalClass> = Api::all(self.client.clone());
        let Some(class) = classes.get_opt(class_name).await? else {
            return lost(CLASS_GONE, format!("PortalClass {class_name:?} does not exist"));
        };
        if settings.is_empty() || digest(&class.spec) == *settings {
            return Ok(Ok((class, true)));
        }
        let kept = class.status.as_ref().and_then(|status| status.settings.get(settings));
        let Some(kept) = kept.and_then(|text| serde_json::from_str::<Settings>(text).ok()) else {
            return lost(SETTINGS_GONE, format!("the former settings of PortalClass {class_name:?} are not known"));
        };
        Ok(Ok((kept.restored(class), false)))
    }

    /// The same with what it works with, or why it cannot be used any more, as while a Secret of it is missing.
    pub(super) async fn at_place(
        &self,
        place: &Place,
    ) -> Result<Result<std::sync::Arc<ClassRuntime>, Finding>, ControllerError> {
        let Place { class_name, settings } = place;
        let former = match self.class_at(place).await? {
            Ok((_, true)) => return self.class(Some(class_name)).await,
            Ok((former, false)) => former,
            Err(finding) => return Ok(Err(finding)),
        };
        match self.resolve(&former).await? {
            Ok(mut resolved) => {
                resolved.name = format!("{class_name}@{settings}");
                Ok(self.registry.get(resolved))
            }
            // Where a Secret was all that was wrong, the present one does.
            Err(finding) => {
                let present = self.class_object(class_name).await?;
                match present.filter(|class| effect_of(&class.spec) == effect_of(&former.spec)) {
                    Some(_) => self.class(Some(class_name)).await,
                    None => Ok(Err(finding)),
                }
            }
        }
    }

    /// What is to be changed in a class's kept settings: the present ones are added where they got lost although portals
    /// stand under them; those go that no portal needs, seen at two reports in a row, because a portal that is just
    /// being made may have noted its place between the two reads of one report.
    pub(super) fn tidy_settings(
        &self,
        class: &PortalClass,
        portals: &[std::sync::Arc<ResetPortal>],
        tombstones: &[Place],
    ) -> BTreeMap<String, Option<String>> {
        let (name, present) = (class.name_any(), Settings::of(&class.spec).text());
        let now = digest(&class.spec);
        let statuses = portals.iter().filter_map(|portal| portal.status.as_ref());
        let left = tombstones.iter().cloned();
        let places = statuses.flat_map(|status| Standing::of(status).places()).chain(left);
        let needed: HashSet<String> =
            places.filter(|place| place.class_name == name).map(|place| place.settings).collect();
        let kept = class.status.as_ref().map(|status| status.settings.clone()).unwrap_or_default();
        let unused: HashSet<String> =
            kept.keys().filter(|digest| !needed.contains(*digest) && **digest != now).cloned().collect();
        let before = lock(&self.unused_settings).insert(name, unused.clone()).unwrap_or_default();
        let gone = unused.into_iter().filter(|digest| before.contains(digest)).map(|digest| (digest, None));
        let mut changes: BTreeMap<String, Option<String>> = gone.collect();
        if needed.contains(&now) && kept.get(&now) != Some(&present) {
            changes.insert(now, Some(present));
        }
        changes
    }
}

/// Reason of a place whose class was deleted.
pub const CLASS_GONE: &str = "ClassNotFound";
/// Reason of a place whose settings were not kept.
pub const SETTINGS_GONE: &str = "SettingsUnknown";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(spec: serde_json::Value) -> PortalClass {
        PortalClass::new("prod", serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn former_settings_come_back_with_what_the_class_has_now() {
        let old = class(json!({
            "cloudflare": {"apiTokenSecretRef": {"name": "cf", "key": "token"}}, "cnameTarget": "a.example.com",
            "proxy": {"caddy": {"adminUrl": "http://127.0.0.1:2019", "origin": "127.0.0.1:5000"}},
        }));
        let new = class(json!({"cnameTarget": "b.example.com", "proxy": {"manual": {}}, "probe": {"enabled": false}}));
        assert_ne!(digest(&old.spec), digest(&new.spec));
        let text = Settings::of(&old.spec).text();
        let restored = serde_json::from_str::<Settings>(&text).unwrap().restored(new);
        assert_eq!(digest(&restored.spec), digest(&old.spec));
        assert!(!restored.spec.probe.enabled, "what does not say where a portal is made is as it is now");
        // where its portals are asked is kept, and is no other place either
        let mut asked = old.clone();
        asked.spec.probe.address = Some("192.0.2.1:443".to_owned());
        assert_eq!(digest(&asked.spec), digest(&old.spec));
        assert_eq!(effect(&Settings::of(&asked.spec).text()), effect_of(&old.spec));
        let kept = serde_json::from_str::<Settings>(&Settings::of(&asked.spec).text()).unwrap();
        assert_eq!(kept.restored(old.clone()).spec.probe.address, asked.spec.probe.address);
        // and a change of anything else is no other place
        let mut renewed = old.clone();
        renewed.spec.reset.link_minutes = 45;
        assert_eq!(digest(&renewed.spec), digest(&old.spec));
    }

    #[test]
    fn a_status_of_an_earlier_version_names_its_class() {
        let mut status = ResetPortalStatus { class_name: Some("prod".into()), ..Default::default() };
        assert_eq!(Standing::of(&status).home, None);
        status.resources = vec![MadeResource { system: "cloudflare".into(), name: "a.example".into(), id: None }];
        assert_eq!(Standing::of(&status).home, Some(Place { class_name: "prod".into(), settings: String::new() }));
    }
}
