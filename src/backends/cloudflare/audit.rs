//! The account's audit log as a hint: who changed which record, long before the rolling sweep would see it. The log may have
//! gaps and comes late, so it is never a proof: it only says where to look.
use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// How far back each question reaches beyond the last one, because entries come late.
const OVERLAP: SignedDuration = SignedDuration::from_mins(5);
/// How long after a call of ours an entry of the API about the same record is taken for its trace.
const OWN: SignedDuration = SignedDuration::from_mins(2);
/// Until a log that the token may not read is asked for again.
const REFUSED: SignedDuration = SignedDuration::from_hours(24);
/// Entries that are remembered as seen.
const SEEN: usize = 4096;

/// Who changed a record last, as the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub who: String,
    pub when: Timestamp,
}

/// What is remembered of the log.
#[derive(Debug, Default)]
pub struct Feed {
    /// Up to when it has been read.
    until: Option<Timestamp>,
    /// Not asked before this.
    paused_until: Option<Timestamp>,
    seen: VecDeque<String>,
    /// When we wrote what, by name of the record.
    own: HashMap<String, Timestamp>,
    actors: HashMap<String, Actor>,
}

impl Feed {
    /// The span to ask for; `None` while it is no use.
    pub fn span(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        let since = self.until.unwrap_or(now).checked_sub(OVERLAP).unwrap_or(now);
        Some((since, now))
    }

    /// The token may not read the log.
    pub fn refused(&mut self, now: Timestamp) {
        self.paused_until = now.checked_add(REFUSED).ok();
    }

    /// We have written this record.
    pub fn wrote(&mut self, name: &str, now: Timestamp) {
        self.own.retain(|_, at| now.duration_since(*at) < OVERLAP + OWN);
        self.own.insert(name.to_owned(), now);
    }

    /// Names of records that others have changed, of new entries only.
    pub fn read(&mut self, entries: &[Value], until: Timestamp) -> Vec<String> {
        self.until = Some(until);
        let mut names = Vec::new();
        for entry in entries {
            let Some(id) = entry["id"].as_str() else { continue };
            if self.seen.iter().any(|seen| seen == id) {
                continue;
            }
            self.seen.push_back(id.to_owned());
            if self.seen.len() > SEEN {
                self.seen.pop_front();
            }
            let kind = entry["resource"]["type"].as_str().unwrap_or_default().to_ascii_lowercase();
            let failed = entry["action"]["result"] == false;
            let Some(name) = entry["metadata"]["name"].as_str().filter(|_| kind.contains("record") && !failed) else {
                continue;
            };
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let when: Timestamp = entry["when"].as_str().and_then(|when| when.parse().ok()).unwrap_or(until);
            let by_api = entry["interface"].as_str().is_some_and(|interface| interface.eq_ignore_ascii_case("api"));
            let ours = self.own.get(&name).is_some_and(|at| when.duration_since(*at).abs() < OWN);
            if by_api && ours {
                continue;
            }
            let who = entry["actor"]["email"].as_str().or(entry["actor"]["type"].as_str()).unwrap_or("somebody");
            let who: String = who.chars().filter(|c| !c.is_control()).take(100).collect();
            self.actors.insert(name.clone(), Actor { who, when });
            names.push(name);
        }
        names
    }

    /// Who changed the record last.
    pub fn actor(&self, name: &str) -> Option<Actor> {
        self.actors.get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(id: &str, name: &str, interface: &str, when: &str) -> Value {
        json!({
            "id": id, "when": when, "interface": interface, "action": {"type": "rec_set", "result": true},
            "actor": {"type": "user", "email": "eve@example.com"}, "resource": {"type": "DNS_record", "id": "r"},
            "metadata": {"zone_name": "acme.example", "name": name},
        })
    }

    #[test]
    fn others_changes_are_told_once_and_our_own_never() {
        let mut feed = Feed::default();
        let now: Timestamp = "2026-02-02T10:00:00Z".parse().unwrap();
        feed.wrote("ours.acme.example", now);
        let entries = [
            entry("1", "Theirs.acme.example", "UI", "2026-02-02T10:00:01Z"),
            entry("2", "ours.acme.example", "API", "2026-02-02T10:00:01Z"),
            entry("3", "ours.acme.example", "UI", "2026-02-02T10:00:30Z"),
            entry("4", "other.acme.example", "API", "2026-02-02T10:00:01Z"),
            json!({"id": "5", "resource": {"type": "zone"}, "metadata": {"name": "x"}}),
            json!({"odd": true}),
        ];
        assert_eq!(feed.read(&entries, now), ["theirs.acme.example", "ours.acme.example", "other.acme.example"]);
        assert_eq!(feed.read(&entries, now), Vec::<String>::new());
        assert_eq!(feed.actor("theirs.acme.example").unwrap().who, "eve@example.com");
        let later = now + SignedDuration::from_mins(1);
        assert_eq!(feed.span(later), Some((now - OVERLAP, later)));
        feed.refused(later);
        assert_eq!(feed.span(later + SignedDuration::from_hours(23)), None);
        assert!(feed.span(later + SignedDuration::from_hours(24)).is_some());
    }
}
