//! `portalkeeper get` and `describe`: the portals' state, for people without kubectl.
use std::path::PathBuf;

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};

use super::connect::{Connection, connect};
use super::daemon::AppError;
use crate::api::ResetPortal;
use crate::api::condition::READY;
use crate::config::visible;

/// Which API is asked.
#[derive(Debug, Clone)]
pub struct ShowOptions {
    pub data: PathBuf,
    /// Whether the directory was named on the command line: then no other place is looked at.
    pub named: bool,
    pub kubeconfig: Option<PathBuf>,
}

/// Every portal, one a line.
pub async fn list(options: &ShowOptions) -> Result<String, AppError> {
    let Connection { client, address } = connect(&options.data, options.named, options.kubeconfig.as_deref()).await?;
    let portals: Api<ResetPortal> = Api::all(client);
    let portals = portals.list(&ListParams::default()).await.map_err(|error| AppError::of_call(error, &address))?;
    let mut rows = vec![["NAMESPACE", "NAME", "HOST", "BACKEND", "READY", "REASON"].map(str::to_owned)];
    for portal in portals.items {
        let key = portal.key();
        let status = portal.status.unwrap_or_default();
        let ready = status.conditions.iter().find(|condition| condition.type_ == READY);
        rows.push([
            key.namespace,
            key.name,
            status.host.unwrap_or_default(),
            status.backend.unwrap_or_default(),
            ready.map_or("Unknown", |condition| condition.status.as_str()).to_owned(),
            ready.map(|condition| condition.reason.clone()).unwrap_or_default(),
        ]);
    }
    Ok(if rows.len() == 1 { "There is no portal.\n".to_owned() } else { columns(&rows) })
}

/// Text in columns, each as wide as its widest cell.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut text = String::new();
    // Others may write these objects, too.
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| visible(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// One portal: conditions, what was made outside, what waits, and the newest events.
pub async fn describe(options: &ShowOptions, namespace: &str, name: &str) -> Result<String, AppError> {
    let Connection { client, address } = connect(&options.data, options.named, options.kubeconfig.as_deref()).await?;
    let failed = |error| AppError::of_call(error, &address);
    let portals: Api<ResetPortal> = Api::namespaced(client.clone(), namespace);
    let portal = portals
        .get_opt(name)
        .await
        .map_err(failed)?
        .ok_or_else(|| AppError::NoPortal { namespace: namespace.to_owned(), name: name.to_owned() })?;
    let uid = portal.metadata.uid.clone().unwrap_or_default();
    let status = portal.status.unwrap_or_default();
    let mut text = format!("{namespace}/{name}\n");
    for (label, value) in [
        ("domain", Some(portal.spec.domain)),
        ("page", status.url),
        ("class", status.class_name),
        ("backend", status.backend),
        ("last proof", status.last_proof),
    ] {
        text.push_str(&format!("  {label:<11} {}\n", visible(value.as_deref().unwrap_or("–"))));
    }
    text.push_str("\nConditions\n");
    let mut rows = Vec::new();
    for condition in &status.conditions {
        let current = condition.observed_generation == portal.metadata.generation;
        let stale = if current { "" } else { " (of an earlier version)" };
        rows.push([
            format!("  {}", condition.type_),
            condition.status.clone(),
            condition.reason.clone(),
            format!("{}{stale}", condition.message),
        ]);
    }
    text.push_str(&if rows.is_empty() { "  none yet\n".to_owned() } else { columns(&rows) });
    for (heading, lines) in [
        ("Made outside", status.resources.iter().map(|made| format!("{} in {}", made.name, made.system)).collect()),
        ("Waiting", status.pending),
        ("Events", events(client, namespace, &uid).await.map_err(failed)?),
    ] {
        if !lines.is_empty() {
            text.push_str(&format!("\n{heading}\n"));
            lines.iter().for_each(|line| text.push_str(&format!("  {}\n", visible(line))));
        }
    }
    Ok(text)
}

/// The portal's events, oldest first.
async fn events(client: kube::Client, namespace: &str, uid: &str) -> Result<Vec<String>, kube::Error> {
    let api: Api<Event> = Api::namespaced(client, namespace);
    let mut events = api.list(&ListParams::default()).await?.items;
    events.retain(|event| event.regarding.as_ref().and_then(|about| about.uid.as_deref()) == Some(uid));
    events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
    let line = |event: Event| {
        let at = event.event_time.map(|time| time.0.strftime("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default();
        let (reason, note) = (event.reason.unwrap_or_default(), event.note.unwrap_or_default());
        format!("{at}  {}  {reason}  {note}", event.type_.unwrap_or_default())
    };
    Ok(events.into_iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_into_a_portal_does_not_reach_the_terminal() {
        let rows = [["NAME", "REASON"].map(str::to_owned), ["acme\u{1b}[2J", "a\nb"].map(str::to_owned)];
        assert_eq!(columns(&rows), "NAME           REASON\nacme\\u{1b}[2J  a b\n");
    }
}
