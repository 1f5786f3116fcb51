//! What a portal had and no longer wants: a disabled one's record and route, a former host, a former class.
use std::time::Duration;

use super::context::Context;
use super::error::ControllerError;
use super::outside::{Outside, program, withdraw};
use super::runtime::ClassRuntime;
use super::status::Found;
use super::validate::{Mode, ValidPortal};
use crate::api::{HostName, ResetPortal};
use crate::http::double::lock;
use crate::plan::Mark;

impl Context {
    /// `enabled: false`: record and route go, the claim stays, the host is served no longer.
    pub(super) async fn clear(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        former: &[HostName],
        found: &mut Found,
    ) -> Result<Option<Duration>, ControllerError> {
        self.directory.withdraw(&valid.key);
        let cleared = lock(&self.memory).get(&valid.key).is_some_and(|memory| memory.cleared == Some(valid.generation));
        if cleared && found.resources.is_empty() {
            return Ok(Some(self.timing.resync));
        }
        if valid.mode != Mode::Full {
            found.pending =
                found.resources.iter().map(|made| format!("delete {} in {}", made.name, made.system)).collect();
            return Ok(Some(self.timing.resync));
        }
        let hosts: Vec<HostName> = former.iter().chain([&valid.host]).cloned().collect();
        let mark = Mark::new(self.store.installation(), &valid.key);
        let mut outside = withdraw(class, &mark, &valid.key, &hosts, false).await;
        let moved = self.leave_former_class(portal, class, valid, found).await?;
        found.changes.append(&mut outside.changes);
        if outside.findings.is_empty() && !moved {
            return Ok(Some(self.backoff(&valid.key)));
        }
        if outside.findings.is_empty() {
            found.resources.clear();
            lock(&self.memory).entry(valid.key.clone()).or_default().cleared = Some(valid.generation);
            self.claims.release(&valid.key, &valid.uid, Some((&valid.host, &valid.domain))).await?;
            found.class_name = Some(class.class.name.clone());
            found.backend = Some(class.class.spec.backend_name().to_owned());
            return Ok(Some(self.timing.resync));
        }
        found.findings.append(&mut outside.findings);
        Ok(Some(outside.wait.unwrap_or_else(|| self.backoff(&valid.key))))
    }

    /// The new host is proved: what stands at the former ones goes, then the claims on them.
    pub(super) async fn leave_former(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        former: &[HostName],
        programmed: Outside,
        found: &mut Found,
    ) -> Result<Outside, ControllerError> {
        let mut outside = program(class, valid, self.store.installation(), &[], former).await;
        found.changes.append(&mut outside.changes);
        if !outside.programmed() {
            return Ok(outside);
        }
        self.claims.release(&valid.key, &valid.uid, Some((&valid.host, &valid.domain))).await?;
        let logo = self.logo(portal).await?;
        self.publish(class, valid, &[], logo);
        Ok(Outside { findings: programmed.findings, ..outside })
    }

    /// Removes what the portal had under another class. `false` while that is not done.
    pub(super) async fn leave_former_class(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        found: &mut Found,
    ) -> Result<bool, ControllerError> {
        let before = portal.status.as_ref();
        let Some(was) = before.and_then(|status| status.class_name.as_deref()).filter(|was| *was != class.class.name)
        else {
            return Ok(true);
        };
        if valid.mode != Mode::Full {
            return Ok(false);
        }
        let former = match self.class(Some(was)).await? {
            Ok(former) => former,
            // The former class is gone and its credentials with it: nothing can be done there any more but say so.
            Err(finding) => {
                let left: Vec<String> = before
                    .iter()
                    .flat_map(|status| &status.resources)
                    .map(|made| format!("{} in {}", made.name, made.system))
                    .collect();
                let note =
                    format!("what PortalClass {was:?} made may remain ({}): {}", left.join(", "), finding.message);
                let kind = kube::runtime::events::EventType::Warning;
                self.reports.event(portal, kind, "LeftBehind", "Reconcile", &note).await;
                return Ok(true);
            }
        };
        // The same instance under both classes holds what the portal has now.
        let same = |a: &Option<super::runtime::Shared>, b: &Option<super::runtime::Shared>| matches!((a, b), (Some(a), Some(b)) if a.worker.instance() == b.worker.instance());
        let old = ClassRuntime {
            class: former.class.clone(),
            dns: former.dns.clone().filter(|_| !same(&former.dns, &class.dns)),
            proxy: former.proxy.clone().filter(|_| !same(&former.proxy, &class.proxy)),
            account: None,
            mailer: None,
            facts: Default::default(),
        };
        let hosts = super::remove::hosts(portal);
        let mark = Mark::new(self.store.installation(), &valid.key);
        let mut outside = withdraw(&old, &mark, &valid.key, &hosts, false).await;
        found.changes.append(&mut outside.changes);
        Ok(outside.findings.is_empty())
    }
}
