//! `portalkeeper plan`: what would change, without changing anything.
use std::path::PathBuf;
use std::sync::Arc;

use super::connect::{Connection, connect};
use super::daemon::{AppError, environment, policy};
use super::data::existing_store;
use crate::api::clock::SystemClock;
use crate::config::visible;
use crate::controller::{ControllerError, Deps, PortalPlan, Readiness, Timing, plan};
use crate::http::PublicNames;
use crate::http::shutdown::Shutdown;
use crate::reset::Directory;
use crate::store::Store;

/// What `plan` was asked.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    pub data: PathBuf,
    /// Without it: the one in the data directory, or the usual places.
    pub kubeconfig: Option<PathBuf>,
    pub namespace: String,
}

/// The plan as text; the number is that of the changes.
pub async fn text(options: PlanOptions) -> Result<(String, usize), AppError> {
    crate::http::install_crypto_provider();
    let environment = environment()?;
    let standalone = options.kubeconfig.is_none() && options.data.join("kubeconfig").exists();
    let policy = policy(&environment, &options.namespace, standalone)?;
    let store = Store::open(&existing_store(&options.data)?).await?;
    // The directory of `run` has no kubeconfig: its API is wherever the usual places say.
    let Connection { client, address } = connect(&options.data, false, options.kubeconfig.as_deref()).await?;
    // Dropping the handle ends the workers with this function.
    let (_handle, shutdown) = Shutdown::new();
    let plans = plan(Deps {
        client,
        store,
        directory: Directory::default(),
        clock: Arc::new(SystemClock),
        environment: environment.class.as_ref().map(super::environment::class),
        policy,
        timing: Timing::default(),
        names: Arc::new(PublicNames),
        readiness: Readiness::default(),
        shutdown,
    })
    .await
    .map_err(|error| match error {
        ControllerError::Api(inner) => AppError::of_call(*inner, &address),
        other => other.into(),
    })?;
    Ok(render(&plans))
}

fn render(plans: &[PortalPlan]) -> (String, usize) {
    let mut text = String::new();
    let count = plans.iter().map(|plan| plan.changes.len()).sum();
    for plan in plans {
        text.push_str(&format!("{}\n", plan.portal));
        for change in &plan.changes {
            text.push_str(&format!("  would  {}\n", visible(change)));
        }
        for problem in &plan.problems {
            text.push_str(&format!("  held   {}\n", visible(problem)));
        }
        if plan.changes.is_empty() && plan.problems.is_empty() {
            text.push_str("  as wanted\n");
        }
    }
    text.push_str(&format!("{} portal(s), {count} change(s)\n", plans.len()));
    (text, count)
}
