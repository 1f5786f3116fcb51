//! A stateful stand-in for Cloudflare's zones and DNS records.
use std::sync::Mutex;

use maud::{DOCTYPE, html};
use serde_json::{Value, json};

use crate::http::double::{Double, DoubleRequest, DoubleResponse, lock};

#[derive(Debug, Default)]
struct State {
    zones: Vec<Value>,
    /// Each with the internal field `zone_id`.
    records: Vec<Value>,
    next: u64,
    /// Accepted tokens; empty accepts any that is not blank.
    tokens: Vec<String>,
}

/// The simulated account.
#[derive(Debug, Default)]
pub struct CloudflareDouble(Mutex<State>);

fn ok(result: Value) -> DoubleResponse {
    DoubleResponse::json(200, &json!({"success": true, "errors": [], "messages": [], "result": result}))
}

fn fail(status: u16, code: i64, message: &str) -> DoubleResponse {
    let errors = json!([{"code": code, "message": message}]);
    DoubleResponse::json(status, &json!({"success": false, "errors": errors, "messages": [], "result": null}))
}

fn fail_chained(code: i64, message: &str, inner: i64, words: &str) -> DoubleResponse {
    let errors = json!([{"code": code, "message": message, "error_chain": [{"code": inner, "message": words}]}]);
    DoubleResponse::json(400, &json!({"success": false, "errors": errors, "messages": [], "result": null}))
}

impl CloudflareDouble {
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on only the accepted tokens are taken.
    pub fn accept_token(&self, token: &str) {
        lock(&self.0).tokens.push(token.to_owned());
    }

    /// Refuses every token that was accepted so far.
    pub fn revoke_tokens(&self) {
        lock(&self.0).tokens = vec![String::new()];
    }

    pub fn add_zone(&self, name: &str) {
        self.add_zone_with(name, "active", false);
    }

    /// A zone in any state. Adding one that is there changes its state.
    pub fn add_zone_with(&self, name: &str, status: &str, paused: bool) {
        let mut state = lock(&self.0);
        if let Some(zone) = state.zones.iter_mut().find(|zone| zone["name"] == name) {
            zone["status"] = json!(status);
            zone["paused"] = json!(paused);
            return;
        }
        state.next += 1;
        let id = format!("{:032x}", 0xc0ff_ee00_u64 + state.next);
        state.zones.push(json!({"id": id, "name": name, "status": status, "paused": paused, "type": "full"}));
    }

    /// Every record, as the API gives it.
    pub fn records(&self) -> Vec<Value> {
        lock(&self.0).records.clone()
    }

    /// A record made by somebody else.
    pub fn put_foreign(&self, name: &str, kind: &str, content: &str) {
        let mut state = lock(&self.0);
        let zone = state.zones.iter().rfind(|z| name.ends_with(z["name"].as_str().unwrap_or("\0")));
        let Some(zone) = zone.and_then(|zone| zone["id"].as_str()).map(str::to_owned) else { return };
        let body = json!({"type": kind, "name": name, "content": content, "proxied": false, "ttl": 300});
        let record = state.stored(&zone, &body, None);
        state.records.push(record);
    }

    /// A person removes whatever stands at the name.
    pub fn remove(&self, name: &str) {
        lock(&self.0).records.retain(|record| record["name"] != name);
    }

    /// A person edits the comment at the name.
    pub fn edit_comment(&self, name: &str, comment: &str) {
        for record in lock(&self.0).records.iter_mut().filter(|record| record["name"] == name) {
            record["comment"] = json!(comment);
        }
    }

    fn page(&self) -> String {
        let state = lock(&self.0);
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width,initial-scale=1";
                    title { "Simulated Cloudflare: DNS records" }
                    style {
                        ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}"
                        "h2{font-size:1.1rem;margin:1.5rem 0 .5rem}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}"
                        "th,td{text-align:left;padding:.4rem .8rem .4rem 0;border-bottom:1px solid #8885}small{opacity:.75}"
                    }
                }
                body {
                    h1 { "DNS records" }
                    p { a href="/" { "Overview" } }
                    @for zone in &state.zones {
                        h2 { (zone["name"].as_str().unwrap_or_default()) " " small { (zone["status"].as_str().unwrap_or_default()) } }
                        @let records: Vec<_> = state.records.iter().filter(|r| r["zone_id"] == zone["id"]).collect();
                        @if records.is_empty() { p { small { "No records." } } }
                        @else {
                            div class="scroll" {
                                table {
                                    thead { tr { th { "Type" } th { "Name" } th { "Content" } th { "Proxied" } th { "Comment" } } }
                                    tbody {
                                        @for record in records {
                                            tr {
                                                td { (record["type"].as_str().unwrap_or_default()) }
                                                td { (record["name"].as_str().unwrap_or_default()) }
                                                td { (record["content"].as_str().unwrap_or_default()) }
                                                td { (if record["proxied"] == true { "yes" } else { "no" }) }
                                                td { small { (record["comment"].as_str().unwrap_or_default()) } }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        .into_string()
    }
}

impl State {
    fn authorise(&self, request: &DoubleRequest) -> Result<(), DoubleResponse> {
        let Some(token) = request.headers.get("authorization").and_then(|h| h.strip_prefix("Bearer ")) else {
            return Err(fail(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers"));
        };
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(fail_chained(6003, "Invalid request headers", 6111, "Invalid format for Authorization header"));
        }
        if self.tokens.is_empty() || self.tokens.iter().any(|accepted| accepted == token) {
            return Ok(());
        }
        Err(fail(403, 10000, "Authentication error"))
    }

    /// The record as it is stored: full lower-case name, normalised ttl, an id.
    fn stored(&mut self, zone: &str, body: &Value, id: Option<&str>) -> Value {
        let zone_name =
            self.zones.iter().find(|z| z["id"] == zone).and_then(|z| z["name"].as_str()).unwrap_or_default();
        let given = body["name"].as_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let name = match given.as_str() {
            "@" => zone_name.to_owned(),
            name if name == zone_name || name.ends_with(&format!(".{zone_name}")) => name.to_owned(),
            relative => format!("{relative}.{zone_name}"),
        };
        let zone_name = zone_name.to_owned();
        let id = id.map_or_else(
            || {
                self.next += 1;
                format!("{:032x}", 0x00d0_0d00_u64 + self.next)
            },
            str::to_owned,
        );
        let proxied = body["proxied"].as_bool().unwrap_or(false);
        let ttl = if proxied { 1 } else { body["ttl"].as_u64().unwrap_or(1) };
        let comment = body["comment"].as_str().filter(|comment| !comment.is_empty());
        json!({
            "id": id, "zone_id": zone, "zone_name": zone_name, "name": name,
            "type": body["type"], "content": body["content"], "proxied": proxied, "proxiable": true, "ttl": ttl,
            "comment": comment, "tags": [], "settings": {}, "meta": {},
            "created_on": "2026-11-01T00:00:00Z", "modified_on": "2026-11-01T00:00:00Z",
        })
    }

    fn invalid(&self, record: &Value) -> Option<DoubleResponse> {
        let comment = record["comment"].as_str().unwrap_or_default();
        if comment.chars().count() > 100 {
            return Some(fail_chained(1004, "DNS Validation Error", 9313, "DNS record comment is too long"));
        }
        let ttl = record["ttl"].as_u64().unwrap_or(0);
        if ttl != 1 && !(60..=86400).contains(&ttl) {
            return Some(fail_chained(
                1004,
                "DNS Validation Error",
                9021,
                "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.",
            ));
        }
        let addressed = |kind: &Value| matches!(kind.as_str(), Some("A" | "AAAA" | "CNAME"));
        let others = self.records.iter().filter(|r| r["id"] != record["id"] && r["name"] == record["name"]);
        for other in others {
            let same = ["type", "content"].iter().all(|field| other[*field] == record[*field]);
            if same {
                return Some(fail(400, 81058, "An identical record already exists."));
            }
            if record["type"] == "CNAME" && addressed(&other["type"]) {
                return Some(fail(400, 81053, "An A, AAAA, or CNAME record with that host already exists."));
            }
            if other["type"] == "CNAME" && addressed(&record["type"]) {
                return Some(fail(400, 81054, "A CNAME record with that host already exists."));
            }
        }
        None
    }
}

fn paged(request: &DoubleRequest, items: &[Value], standard: usize, most: usize) -> DoubleResponse {
    let number = |name: &str, or: usize| request.parameter(name).and_then(|text| text.parse().ok()).unwrap_or(or);
    let page = number("page", 1).max(1);
    let size = number("per_page", standard).clamp(1, most);
    let shown: Vec<_> = items.iter().skip((page - 1) * size).take(size).cloned().collect();
    let info = json!({
        "page": page, "per_page": size, "count": shown.len(), "total_count": items.len(),
        "total_pages": items.len().div_ceil(size),
    });
    DoubleResponse::json(
        200,
        &json!({"success": true, "errors": [], "messages": [], "result": shown, "result_info": info}),
    )
}

impl Double for CloudflareDouble {
    fn name(&self) -> &'static str {
        "cloudflare"
    }

    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        if request.path == "/records/ui" {
            return DoubleResponse::html(200, &self.page());
        }
        let mut state = lock(&self.0);
        let path = request.path.strip_prefix("/client/v4").unwrap_or(&request.path).to_owned();
        if let Err(refusal) = state.authorise(request) {
            return refusal.with_header("ratelimit", "\"default\";r=1100;t=300");
        }
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let answer = match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["zones"]) => {
                let wanted = request.parameter("name").map(|name| name.trim_end_matches('.').to_ascii_lowercase());
                let zones: Vec<_> =
                    state.zones.iter().filter(|z| wanted.as_ref().is_none_or(|w| z["name"] == **w)).cloned().collect();
                paged(request, &zones, 20, 50)
            }
            (_, ["zones", zone, "dns_records", ..]) if !state.zones.iter().any(|z| z["id"] == *zone) => fail(
                404,
                7003,
                &format!("Could not route to /zones/{zone}/dns_records, perhaps your object identifier is invalid?"),
            ),
            ("GET", ["zones", zone, "dns_records"]) => {
                let name = request.parameter("name").map(|name| name.trim_end_matches('.').to_ascii_lowercase());
                let fits = |r: &&Value| r["zone_id"] == *zone && name.as_ref().is_none_or(|name| r["name"] == **name);
                let found: Vec<_> = state.records.iter().filter(fits).cloned().collect();
                paged(request, &found, 100, 5000)
            }
            ("POST", ["zones", zone, "dns_records"]) => {
                let record = state.stored(zone, &request.json().unwrap_or_default(), None);
                match state.invalid(&record) {
                    Some(refusal) => refusal,
                    None => {
                        state.records.push(record.clone());
                        ok(record)
                    }
                }
            }
            (method, ["zones", zone, "dns_records", id]) => {
                let at = state.records.iter().position(|r| r["zone_id"] == *zone && r["id"] == *id);
                match (method, at) {
                    (_, None) => fail(404, 81044, "Record does not exist."),
                    ("GET", Some(at)) => ok(state.records[at].clone()),
                    ("PATCH", Some(at)) => {
                        let mut merged = state.records[at].clone();
                        json_patch::merge(&mut merged, &request.json().unwrap_or_default());
                        let record = state.stored(zone, &merged, Some(id));
                        match state.invalid(&record) {
                            Some(refusal) => refusal,
                            None => {
                                state.records[at] = record.clone();
                                ok(record)
                            }
                        }
                    }
                    ("DELETE", Some(at)) => {
                        state.records.remove(at);
                        ok(json!({"id": id}))
                    }
                    _ => fail(405, 10405, "Method not allowed for this authentication scheme"),
                }
            }
            _ => fail(404, 7000, "No route for that URI"),
        };
        answer.with_header("ratelimit", "\"default\";r=1100;t=300")
    }

    fn snapshot(&self) -> Value {
        let state = lock(&self.0);
        json!({"zones": state.zones, "records": state.records, "next": state.next})
    }

    fn restore(&self, state: Value) {
        let mut own = lock(&self.0);
        if let (Some(zones), Some(records)) = (state["zones"].as_array(), state["records"].as_array()) {
            own.zones.clone_from(zones);
            own.records.clone_from(records);
            own.next = state["next"].as_u64().unwrap_or(own.next).max(own.next);
        }
    }
}
