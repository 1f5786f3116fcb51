//! Records by the API: rules, conflicts, batches, usage.
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{State, fail, fail_chained, ok, paged};
use crate::http::double::{DoubleRequest, DoubleResponse};

impl State {
    fn zone(&self, id: &str) -> Value {
        self.zones.iter().find(|zone| zone["id"] == id).cloned().unwrap_or_default()
    }

    fn free(&self, zone: &str) -> bool {
        self.zone(zone)["plan"]["legacy_id"] == "free"
    }

    fn record_quota(&self, zone: &str) -> u64 {
        self.zone(zone)["record_quota"].as_u64().unwrap_or(if self.free(zone) { 200 } else { 3500 })
    }

    pub(super) fn records(
        &mut self,
        request: &DoubleRequest,
        zone: &str,
        rest: &[&str],
        now: Timestamp,
    ) -> DoubleResponse {
        let body = request.json().unwrap_or_default();
        match (request.method.as_str(), rest) {
            ("GET", []) => self.list_records(request, zone),
            ("POST", []) => self.create(zone, &body, now).map_or_else(|refusal| refusal, ok),
            ("POST", ["batch"]) => self.batch(zone, &body, now),
            ("GET", ["usage"]) => {
                let used = self.records.iter().filter(|record| record["zone_id"] == zone).count();
                ok(json!({"record_quota": self.record_quota(zone), "record_usage": used}))
            }
            ("GET", [id]) => match self.records.iter().find(|r| r["id"] == *id && r["zone_id"] == zone) {
                Some(record) => ok(record.clone()),
                None => gone(),
            },
            ("PATCH", [id]) => self.change(zone, id, &body, false, now).map_or_else(|refusal| refusal, ok),
            ("PUT", [id]) => self.change(zone, id, &body, true, now).map_or_else(|refusal| refusal, ok),
            ("DELETE", [id]) => {
                self.delete(zone, id, now).map_or_else(|refusal| refusal, |record| ok(json!({"id": record["id"]})))
            }
            _ => fail(405, 10405, "Method not allowed for this authentication scheme"),
        }
    }

    fn list_records(&self, request: &DoubleRequest, zone: &str) -> DoubleResponse {
        let lower = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
        let name = request.parameter("name").or_else(|| request.parameter("name.exact")).map(lower);
        let comment = request.parameter("comment.startswith").map(str::to_ascii_lowercase);
        let fits = |record: &&Value| {
            let has = record["comment"].as_str().unwrap_or_default().to_ascii_lowercase();
            record["zone_id"] == zone
                && name.as_ref().is_none_or(|name| record["name"] == **name)
                && comment.as_ref().is_none_or(|comment| has.starts_with(comment))
        };
        let found: Vec<_> = self.records.iter().filter(fits).cloned().collect();
        paged(request, &found, 100, 5000)
    }

    fn logged(&mut self, now: Timestamp, action: &str, record: &Value) {
        let zone = record["zone_name"].as_str().unwrap_or_default().to_owned();
        self.note(now, "token", action, &zone, record);
    }

    fn create(&mut self, zone: &str, body: &Value, now: Timestamp) -> Result<Value, DoubleResponse> {
        let record = self.stored(zone, body, None);
        if let Some(refusal) = self.invalid(&record) {
            return Err(refusal);
        }
        let quota = self.record_quota(zone);
        let used = || self.records.iter().filter(|other| other["zone_id"] == zone).count() as u64;
        if self.records.len() as u64 >= quota && used() >= quota {
            return Err(fail(400, 81045, "The record quota has been exceeded."));
        }
        self.records.push(record.clone());
        self.logged(now, "rec_add", &record);
        Ok(record)
    }

    fn change(
        &mut self,
        zone: &str,
        id: &str,
        body: &Value,
        whole: bool,
        now: Timestamp,
    ) -> Result<Value, DoubleResponse> {
        let at = self.records.iter().position(|r| r["id"] == id && r["zone_id"] == zone).ok_or_else(gone)?;
        let mut merged = if whole { json!({}) } else { self.records[at].clone() };
        json_patch::merge(&mut merged, body);
        let mut record = self.stored(zone, &merged, Some(id));
        if !whole {
            // What a patch does not name stays, tags and settings above all.
            for field in ["tags", "settings"] {
                record[field] = merged[field].clone();
            }
        }
        if let Some(refusal) = self.invalid(&record) {
            return Err(refusal);
        }
        self.records[at] = record.clone();
        self.logged(now, "rec_set", &record);
        Ok(record)
    }

    fn delete(&mut self, zone: &str, id: &str, now: Timestamp) -> Result<Value, DoubleResponse> {
        let at = self.records.iter().position(|r| r["id"] == id && r["zone_id"] == zone).ok_or_else(gone)?;
        let record = self.records.remove(at);
        self.logged(now, "rec_del", &record);
        Ok(record)
    }

    /// One transaction, always in the order deletes, patches, puts, posts; the first error undoes all of it.
    fn batch(&mut self, zone: &str, body: &Value, now: Timestamp) -> DoubleResponse {
        let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
        let (deletes, patches, puts, posts) = (list("deletes"), list("patches"), list("puts"), list("posts"));
        let count = deletes.len() + patches.len() + puts.len() + posts.len();
        let most = if self.free(zone) { 200 } else { 3500 };
        if count > most {
            return fail(400, 1004, &format!("DNS Validation Error: a batch holds at most {most} operations"));
        }
        let before = (self.records.clone(), self.audit.clone());
        let done = self.batch_steps(zone, [&deletes, &patches, &puts, &posts], now);
        done.unwrap_or_else(|refusal| {
            (self.records, self.audit) = before;
            refusal
        })
    }

    fn batch_steps(
        &mut self,
        zone: &str,
        [deletes, patches, puts, posts]: [&Vec<Value>; 4],
        now: Timestamp,
    ) -> Result<DoubleResponse, DoubleResponse> {
        let id = |operation: &Value| operation["id"].as_str().unwrap_or_default().to_owned();
        let mut result = json!({"deletes": [], "patches": [], "puts": [], "posts": []});
        let mut put = |list: &str, record: Value| {
            if let Some(records) = result[list].as_array_mut() {
                records.push(record);
            }
        };
        for operation in deletes {
            put("deletes", self.delete(zone, &id(operation), now)?);
        }
        for operation in patches {
            put("patches", self.change(zone, &id(operation), operation, false, now)?);
        }
        for operation in puts {
            put("puts", self.change(zone, &id(operation), operation, true, now)?);
        }
        for operation in posts {
            put("posts", self.create(zone, operation, now)?);
        }
        Ok(ok(result))
    }

    /// The record as it is stored: full lower-case name, normalised ttl, an id.
    pub(super) fn stored(&mut self, zone: &str, body: &Value, id: Option<&str>) -> Value {
        let zone_name = self.zone(zone)["name"].as_str().unwrap_or_default().to_owned();
        let given = body["name"].as_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let name = match given.as_str() {
            "@" => zone_name.clone(),
            name if name == zone_name || name.ends_with(&format!(".{zone_name}")) => name.to_owned(),
            relative => format!("{relative}.{zone_name}"),
        };
        let id = id.map_or_else(|| self.id(0x00d0_0d00), str::to_owned);
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
        if comment.chars().count() > 100 || comment.contains(['\n', '\r']) {
            return Some(fail_chained(1004, "DNS Validation Error", 9313, "DNS record comment is too long"));
        }
        let ttl = record["ttl"].as_u64().unwrap_or(0);
        if ttl != 1 && !(60..=86400).contains(&ttl) {
            let words = "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.";
            return Some(fail_chained(1004, "DNS Validation Error", 9021, words));
        }
        let addressed = |kind: &Value| matches!(kind.as_str(), Some("A" | "AAAA" | "CNAME"));
        let (id, name, zone) = (&record["id"], &record["name"], &record["zone_id"]);
        // The name first: it tells nearly all of a large zone's records apart.
        let beside = |r: &&Value| r["name"] == *name && r["id"] != *id && r["zone_id"] == *zone;
        let others = self.records.iter().filter(beside);
        for other in others {
            let same = ["type", "content"].iter().all(|field| other[*field] == record[*field]);
            if same {
                return Some(fail(400, 81058, "An identical record already exists."));
            }
            if record["type"] == "CNAME" && (addressed(&other["type"]) || other["type"] == "NS") {
                return Some(fail(400, 81053, "An A, AAAA, or CNAME record with that host already exists."));
            }
            if other["type"] == "CNAME" && addressed(&record["type"]) {
                return Some(fail(400, 81054, "A CNAME record with that host already exists."));
            }
        }
        None
    }
}

fn gone() -> DoubleResponse {
    fail(404, 81044, "Record does not exist.")
}
