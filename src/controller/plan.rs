//! What would change outside, without changing anything.
use kube::api::{Api, ListParams};

use super::context::Context;
use super::error::ControllerError;
use super::outside::program;
use super::validate::Mode;
use crate::api::condition::{Finding, Truth};
use crate::api::{PortalKey, ResetPortal};

/// What one portal's next look would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalPlan {
    pub portal: PortalKey,
    /// Writes, in words; none where everything is as wanted.
    pub changes: Vec<String>,
    /// What is in the way.
    pub problems: Vec<String>,
}

/// Plans every portal of the API. Reads only.
pub async fn plan(deps: super::Deps) -> Result<Vec<PortalPlan>, ControllerError> {
    let context = Context::new(deps);
    let portals: Api<ResetPortal> = Api::all(context.client.clone());
    let mut plans = Vec::new();
    for portal in portals.list(&ListParams::default()).await?.items {
        plans.push(context.plan_one(&portal).await?);
    }
    Ok(plans)
}

impl Context {
    async fn plan_one(&self, portal: &ResetPortal) -> Result<PortalPlan, ControllerError> {
        let mut plan = PortalPlan { portal: portal.key(), changes: Vec::new(), problems: Vec::new() };
        let status = portal.status.clone().unwrap_or_default();
        let leaving = portal.metadata.deletion_timestamp.is_some() || !portal.spec.enabled;
        if leaving {
            plan.changes =
                status.resources.iter().map(|made| format!("{}: delete {}", made.system, made.name)).collect();
            return Ok(plan);
        }
        let (class, mut looking) = match self.accept(portal).await? {
            Ok(accepted) => accepted,
            Err(finding) => {
                plan.problems.push(words(&finding));
                return Ok(plan);
            }
        };
        looking.mode = Mode::ObserveOnly;
        let claimed = self.claims.hosts(&looking.uid).await?;
        let former = super::reconcile::former_hosts(&status.resources, claimed, &looking.host);
        let outside = program(&class, &looking, self.store.installation(), &[], &former).await;
        plan.changes = outside.pending;
        let pending = |finding: &&Finding| finding.reason != "ChangePending" && finding.truth != Truth::True;
        plan.problems.extend(outside.findings.iter().filter(pending).map(words));
        Ok(plan)
    }
}

fn words(finding: &Finding) -> String {
    format!("{}: {}", finding.reason, finding.message)
}
