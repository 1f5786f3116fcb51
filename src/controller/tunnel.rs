//! From a class to its tunnel, and the store as the ledger of the rules made in it.
use async_trait::async_trait;

use super::classes::{ResolvedClass, fingerprint};
use crate::api::proxy::CloudflareTunnelSettings;
use crate::api::{PortalClassSpec, TunnelError, TunnelId, TunnelOrigin};
use crate::backends::cloudflare_tunnel::{Entry, Ledger, TunnelOptions, Turn};
use crate::config::Secret;
use crate::config::environment::named;
use crate::store::{Store, TunnelRule};

/// The account that the class's tunnel, if it has one, and its zones are in.
pub fn account(spec: &PortalClassSpec) -> Option<&str> {
    let of_tunnel = spec.proxy.cloudflare_tunnel.as_ref().and_then(|tunnel| tunnel.account_id.as_deref());
    of_tunnel.or(spec.cloudflare.as_ref().and_then(|cloudflare| cloudflare.account_id.as_deref()))
}

/// What tells this worker from others: the settings and the account's token. Another one is another worker; the turn
/// keeps both from writing at once.
pub fn key(class: &ResolvedClass, settings: &CloudflareTunnelSettings) -> String {
    fingerprint(&[
        "cloudflare_tunnel",
        &serde_json::to_string(settings).unwrap_or_default(),
        &serde_json::to_string(&class.spec.cloudflare).unwrap_or_default(),
        class.secrets.cf_api_token.as_ref().map_or("", Secret::expose),
    ])
}

/// The options, each checked. The error says which setting cannot work.
pub fn options(
    class: &ResolvedClass,
    settings: &CloudflareTunnelSettings,
    turn: Turn,
) -> Result<TunnelOptions, String> {
    let account = account(&class.spec)
        .ok_or_else(|| format!("a tunnel belongs to an account; set {}", named("cloudflare.accountId")))?
        .to_owned();
    if let Some(zones) = class.spec.cloudflare.as_ref().and_then(|cloudflare| cloudflare.account_id.as_ref())
        && *zones != account
    {
        return Err(format!(
            "the zones are in account {zones} and the tunnel in {account}, but a record reaches only a tunnel of its own account"
        ));
    }
    let told = |field: &str, error: TunnelError| format!("{}: {error}", named(field));
    let tunnel =
        TunnelId::parse(&settings.tunnel_id).map_err(|error| told("proxy.cloudflareTunnel.tunnelId", error))?;
    let origin = TunnelOrigin::parse(&settings.origin).map_err(|error| told("proxy.cloudflareTunnel.origin", error))?;
    Ok(TunnelOptions { account, tunnel, origin, turn })
}

/// The store's table of rules.
pub struct StoreLedger(pub Store);

fn rules(entries: &[Entry]) -> Vec<TunnelRule> {
    let rule = |Entry { host, service, mark }: Entry| TunnelRule { host, service, mark };
    entries.iter().cloned().map(rule).collect()
}

#[async_trait]
impl Ledger for StoreLedger {
    async fn entries(&self, tunnel: &str) -> Result<Vec<Entry>, String> {
        let rules = self.0.tunnel_rules(tunnel).await.map_err(|error| error.to_string())?;
        Ok(rules.into_iter().map(|TunnelRule { host, service, mark }| Entry { host, service, mark }).collect())
    }
    async fn put(&self, tunnel: &str, entries: &[Entry]) -> Result<(), String> {
        self.0.tunnel_rules_put(tunnel, &rules(entries)).await.map_err(|error| error.to_string())
    }
    async fn remove(&self, tunnel: &str, entries: &[Entry]) -> Result<(), String> {
        self.0.tunnel_rules_remove(tunnel, &rules(entries)).await.map_err(|error| error.to_string())
    }
}
