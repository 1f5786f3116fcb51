//! What would change outside, without changing anything.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ListParams};

use super::ahead::Stand;
use super::alike::is_there_already;
use super::clearing::{going, is_cleared};
use super::context::Context;
use super::error::ControllerError;
use super::outside::program;
use super::places::Standing;
use super::remove::WAITING;
use super::validate::Mode;
use crate::api::condition::{Finding, LIVE, READY, Truth};
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
        if portal.metadata.deletion_timestamp.is_some() {
            plan.changes =
                status.resources.iter().map(|made| format!("{}: delete {}", made.system, made.name)).collect();
            // What a deletion waits for is in the status of the last try.
            let waits = |condition: &&Condition| condition.type_ == READY && condition.message.starts_with(WAITING);
            let waiting = status.conditions.iter().filter(waits);
            plan.problems = waiting.map(|condition| format!("{}: {}", condition.reason, condition.message)).collect();
            return Ok(plan);
        }
        let (class, mut looking) = match self.accept(portal).await? {
            Ok(accepted) => accepted,
            Err(finding) => {
                plan.problems.push(words(&finding));
                return Ok(plan);
            }
        };
        if !looking.enabled {
            if !is_cleared(portal) {
                plan.changes = status.resources.iter().map(|made| going(&class, made)).collect();
            }
            return Ok(plan);
        }
        looking.mode = Mode::ObserveOnly;
        let claimed = self.claims.hosts(&looking.uid).await?;
        let former = super::reconcile::former_hosts(&status.resources, claimed, &looking.host);
        let installation = self.store.installation();
        let outside = program(&class, &looking, installation, &former, &[]).await;
        let is_live = |condition: &Condition| condition.type_ == LIVE && condition.status == "True";
        let (standing, proved) = (Standing::of(&status), status.conditions.iter().any(is_live));
        let there = is_there_already(&class, &looking.host, &outside, &status.resources, &status.left_behind);
        let (standing, made, moves) = (&standing, &status.resources, former.is_empty());
        let stand = Stand { standing, made, former: &[], moves, proved, there };
        let mut ahead = self.ahead(&class, &looking, stand).await?;
        if !former.is_empty() {
            // What would go as well, if the former names were not kept.
            let all = program(&class, &looking, installation, &[], &former).await.pending;
            ahead.then(all.into_iter().filter(|line| !outside.pending.contains(line)));
        }
        plan.problems.append(&mut ahead.lost);
        plan.changes = ahead.in_order(&class, outside.pending);
        let pending = |finding: &&Finding| finding.reason != "ChangePending" && finding.truth != Truth::True;
        plan.problems.extend(outside.findings.iter().filter(pending).map(words));
        Ok(plan)
    }
}

fn words(finding: &Finding) -> String {
    format!("{}: {}", finding.reason, finding.message)
}
