//! Zones and what people do to them and to their records.
use serde_json::{Value, json};

use super::{ACCOUNT, CloudflareDouble, State, Token, paged};
use crate::http::double::{DoubleRequest, DoubleResponse, lock};

impl CloudflareDouble {
    pub fn add_zone(&self, name: &str) {
        self.add_zone_with(name, "active", false);
    }

    /// A zone in any state. Adding one that is there changes its state.
    pub fn add_zone_with(&self, name: &str, status: &str, paused: bool) {
        let mut state = lock(&self.state);
        if let Some(zone) = state.zones.iter_mut().find(|zone| zone["name"] == name) {
            zone["status"] = json!(status);
            zone["paused"] = json!(paused);
            return;
        }
        let id = state.id(0xc0ff_ee00);
        state.zones.push(json!({
            "id": id, "name": name, "status": status, "paused": paused, "type": "full",
            "account": {"id": ACCOUNT, "name": "Example"}, "plan": {"legacy_id": "free", "name": "Free Website"},
            "owner": {"id": ACCOUNT, "name": "Example", "type": "organization"}, "meta": {"step": 4},
            "name_servers": ["ada.ns.cloudflare.com", "bob.ns.cloudflare.com"], "development_mode": 0,
            "original_name_servers": ["ns1.example.com", "ns2.example.com"], "original_registrar": null,
            "original_dnshost": null, "created_on": "2026-01-01T00:00:00Z", "modified_on": "2026-01-01T00:00:00Z",
            "activated_on": "2026-01-01T00:00:00Z",
        }));
    }

    /// Puts a zone on a plan: `free`, `pro`, `business` or `enterprise`.
    pub fn set_plan(&self, zone: &str, plan: &str) {
        for zone in lock(&self.state).zones.iter_mut().filter(|z| z["name"] == zone) {
            zone["plan"] = json!({"legacy_id": plan, "name": plan});
        }
    }

    /// Changes any field of a zone: `account`, `type`, or `record_quota`, which the zone list does not show.
    pub fn set_zone(&self, zone: &str, field: &str, value: Value) {
        for zone in lock(&self.state).zones.iter_mut().filter(|z| z["name"] == zone) {
            zone[field] = value.clone();
        }
    }

    /// The zone leaves the account, with its records.
    pub fn remove_zone(&self, name: &str) {
        let mut state = lock(&self.state);
        state.records.retain(|record| record["zone_name"] != name);
        state.zones.retain(|zone| zone["name"] != name);
    }

    /// Every record, as the API gives it.
    pub fn records(&self) -> Vec<Value> {
        lock(&self.state).records.clone()
    }

    /// A record made by somebody else.
    pub fn put_foreign(&self, name: &str, kind: &str, content: &str) {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let zone = state.zones.iter().rfind(|z| name.ends_with(z["name"].as_str().unwrap_or("\0")));
        let Some(zone) = zone.and_then(|zone| zone["id"].as_str()).map(str::to_owned) else { return };
        let body = json!({"type": kind, "name": name, "content": content, "proxied": false, "ttl": 300});
        let record = state.stored(&zone, &body, None);
        state.person(now, "rec_add", &record);
        state.records.push(record);
    }

    /// A person removes whatever stands at the name.
    pub fn remove(&self, name: &str) {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let gone: Vec<Value> = state.records.iter().filter(|record| record["name"] == name).cloned().collect();
        state.records.retain(|record| record["name"] != name);
        for record in gone {
            state.person(now, "rec_del", &record);
        }
    }

    /// A person edits one field of the records at the name.
    pub fn edit(&self, name: &str, field: &str, value: Value) {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let mut edited = Vec::new();
        for record in state.records.iter_mut().filter(|record| record["name"] == name) {
            record[field] = value.clone();
            edited.push(record.clone());
        }
        for record in edited {
            state.person(now, "rec_set", &record);
        }
    }

    /// A person edits the comment at the name.
    pub fn edit_comment(&self, name: &str, comment: &str) {
        self.edit(name, "comment", json!(comment));
    }

    /// Calls of a token that came while its rate limit had it blocked.
    pub fn calls_while_blocked(&self, token: &str) -> u32 {
        lock(&self.state).limits.while_blocked(token)
    }

    /// The token's rate limit is used up from now on, by whatever else it is used for.
    pub fn block(&self, token: &str) {
        let now = self.clock.now();
        lock(&self.state).limits.block(token, now);
    }
}

impl State {
    fn person(&mut self, now: jiff::Timestamp, action: &str, record: &Value) {
        let zone = record["zone_name"].as_str().unwrap_or_default().to_owned();
        self.note(now, "somebody@example.com", action, &zone, record);
    }

    pub(super) fn sees(&self, token: &Token, zone: &str) -> bool {
        self.zones.iter().any(|z| z["id"] == zone && token.may_see(z))
    }

    pub(super) fn list_zones(&self, request: &DoubleRequest, token: &Token) -> DoubleResponse {
        let wanted = request.parameter("name").map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let account = request.parameter("account.id");
        let fits = |zone: &&Value| {
            token.may_see(zone)
                && wanted.as_ref().is_none_or(|wanted| zone["name"] == **wanted)
                && account.is_none_or(|account| zone["account"]["id"] == account)
        };
        let zones: Vec<_> = self.zones.iter().filter(fits).cloned().collect();
        paged(request, &zones, 20, 50)
    }
}

impl Token {
    fn may_see(&self, zone: &Value) -> bool {
        self.zones.as_ref().is_none_or(|zones| zones.iter().any(|name| zone["name"] == **name))
    }
}
