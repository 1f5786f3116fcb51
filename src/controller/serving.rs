//! The portal's page: what is published of it, and the proof that it is reached.
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;

use super::classes::fingerprint;
use super::context::{Context, Proof};
use super::error::{ControllerError, is_code};
use super::logo::picture;
use super::outside::Outside;
use super::probe::{Probe, probe};
use super::runtime::ClassRuntime;
use super::validate::{Mode, ValidPortal};
use crate::api::condition::{Finding, LIVE, Truth};
use crate::api::{HostName, ResetPortal};
use crate::http::double::lock;
use crate::reset::{ByHand, Logo, ServedPortal};

impl Context {
    pub(super) async fn logo(&self, portal: &ResetPortal) -> Result<Option<Logo>, ControllerError> {
        let Some(reference) = &portal.spec.branding.logo else { return Ok(None) };
        let key = portal.key();
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
        let map = match maps.get_opt(&reference.config_map_name).await {
            Ok(map) => map,
            Err(error) if is_code(&error, 403) => None,
            Err(error) => return Err(error.into()),
        };
        match picture(map.as_ref(), &reference.config_map_name, &reference.key) {
            Ok(picture) => {
                let etag = fingerprint(&[&String::from_utf8_lossy(&picture.bytes)]);
                Ok(Some(Logo { bytes: picture.bytes, content_type: picture.content_type, etag }))
            }
            // A missing logo is no reason not to serve the page; the event says what is wrong with it.
            Err(words) => {
                let note = format!("spec.branding.logo: {words}; the page is served without a logo");
                self.reports
                    .event(portal, kube::runtime::events::EventType::Warning, "LogoUnusable", "Serve", &note)
                    .await;
                Ok(None)
            }
        }
    }

    pub(super) fn publish(&self, class: &ClassRuntime, valid: &ValidPortal, former: &[HostName], logo: Option<Logo>) {
        let reset = &class.class.spec.reset;
        self.directory.publish(ServedPortal {
            key: valid.key.clone(),
            uid: valid.uid.clone(),
            hosts: std::iter::once(&valid.host).chain(former).cloned().collect(),
            domain: valid.domain.clone(),
            url: valid.url.clone(),
            branding: valid.branding.clone(),
            logo,
            link_minutes: reset.link_minutes,
            minimum_password_length: reset.minimum_password_length,
            account: class.account.clone(),
            mailer: class.mailer.clone(),
            from: valid.from.clone(),
            reply_to: valid.reply_to.clone(),
            by_hand: ByHand {
                origin: class.class.spec.origin().to_owned(),
                cname_target: class.class.spec.cname_target.as_deref().and_then(|name| HostName::parse(name).ok()),
                proxied: valid.proxied,
            },
        });
    }

    /// `Live`, by a proof that is at most as old as the probing interval and about this very address.
    pub(super) async fn live(
        &self,
        class: &ClassRuntime,
        valid: &ValidPortal,
        outside: &Outside,
        fresh_only: bool,
    ) -> Finding {
        let spec = &class.class.spec;
        if !spec.probe.enabled {
            return Finding::new(LIVE, Truth::Unknown, "ProbeDisabled", "probing is switched off in the class");
        }
        if !outside.programmed() && valid.mode == Mode::Full {
            lock(&self.memory).entry(valid.key.clone()).or_default().proof = None;
            return Finding::new(LIVE, Truth::False, "NotProgrammed", "waits for record and route");
        }
        let now = self.clock.now();
        let print = fingerprint(&[&class.class.fingerprint, &valid.uid, &valid.generation.to_string()]);
        let interval = SignedDuration::try_from(self.timing.probe_every).unwrap_or(SignedDuration::MAX);
        if !fresh_only
            && outside.changes.is_empty()
            && let Some(proof) = lock(&self.memory).get(&valid.key).and_then(|memory| memory.proof.clone())
            && proof.url == valid.url
            && proof.fingerprint == print
            && now >= proof.at
            && now.duration_since(proof.at) < interval
        {
            return Finding::new(
                LIVE,
                Truth::True,
                "Proved",
                format!("{} answered with this portal's proof", valid.url),
            );
        }
        let mut finding = probe(&Probe {
            key: self.store.probe_key(),
            url: &valid.url,
            host: &valid.host,
            uid: &valid.uid,
            address: spec.probe.address.as_deref(),
        })
        .await;
        let proof =
            (finding.truth == Truth::True).then(|| Proof { url: valid.url.clone(), fingerprint: print, at: now });
        lock(&self.memory).entry(valid.key.clone()).or_default().proof = proof;
        if finding.truth != Truth::True && spec.proxy.manual.is_some() {
            let message = format!(
                "record and route are made by hand: see `portalkeeper snippets {}`. Not there yet: {}",
                valid.host, finding.message
            );
            finding = Finding::new(LIVE, Truth::False, "AwaitingOperator", message);
        }
        finding
    }
}
