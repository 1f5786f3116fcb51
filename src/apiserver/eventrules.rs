//! The rules for events: strict for those of `events.k8s.io/v1`, lenient for core ones that have no `eventTime`.
//! Pure.
use serde_json::{Value, json};

use super::causes;
use super::names::qualified_problem;
use super::schema::Cause;

const LONGEST_WORD: usize = 128;
const LONGEST_NOTE: usize = 1024;

/// Field of a kept event, and what refusals call it.
const FIXED: [(&str, &str); 11] = [
    ("regarding", "involvedObject"),
    ("reason", "reason"),
    ("note", "message"),
    ("type", "type"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("reportingController", "reportingController"),
    ("reportingInstance", "reportingInstance"),
    ("action", "action"),
    ("related", "related"),
];

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

/// `core` for one that is written as `v1`.
pub fn problems(event: &Value, old: Option<&Value>, core: bool) -> Vec<Cause> {
    let mut found = common(event, core);
    if core {
        return found;
    }
    if let Some(old) = old {
        for (field, called) in FIXED {
            if event[field] != old[field] {
                found.push(causes::immutable(called, &event[field]));
            }
        }
        if event["eventTime"] != old["eventTime"] {
            found.push(causes::immutable("eventTime", &event["eventTime"]));
        }
        if event["deprecatedCount"] != old["deprecatedCount"] {
            found.push(causes::immutable("count", &event["deprecatedCount"]));
        }
        return found;
    }
    if event["eventTime"].is_null() {
        found.push(causes::required("eventTime", ""));
    }
    if !matches!(text(event, "type"), "Normal" | "Warning") {
        found.push(causes::invalid("type", &json!(""), &format!("has invalid value: {}", text(event, "type"))));
    }
    let set = [
        ("firstTimestamp", event["deprecatedFirstTimestamp"].is_string()),
        ("lastTimestamp", event["deprecatedLastTimestamp"].is_string()),
        ("count", event["deprecatedCount"].as_i64().unwrap_or(0) != 0),
        ("source", event["deprecatedSource"].as_object().is_some_and(|source| !source.is_empty())),
    ];
    for (field, _) in set.into_iter().filter(|(_, set)| *set) {
        found.push(causes::invalid(field, &json!(""), "needs to be unset"));
    }
    found
}

/// What holds for both versions.
fn common(event: &Value, core: bool) -> Vec<Cause> {
    let mut found = Vec::new();
    let (own, regarding) = (text(&event["metadata"], "namespace"), text(&event["regarding"], "namespace"));
    let other = if regarding.is_empty() { own != "default" } else { core && own != regarding };
    if other && !own.is_empty() {
        let words = "does not match event.namespace";
        found.push(causes::invalid("involvedObject.namespace", &json!(regarding), words));
    }
    if event["eventTime"].is_null() {
        return found;
    }
    let controller = if core { "reportingComponent" } else { "reportingController" };
    let name = text(event, "reportingController");
    if name.is_empty() {
        found.push(causes::required(controller, ""));
        found.push(causes::invalid(controller, &json!(""), "name part must be non-empty"));
    }
    found.extend(qualified_problem(name).map(|words| causes::invalid(controller, &json!(name), &words)));
    for field in ["reportingInstance", "action", "reason"] {
        let word = text(event, field);
        if word.is_empty() {
            found.push(causes::required(field, ""));
        } else if word.len() > LONGEST_WORD {
            let words = format!("can have at most {LONGEST_WORD} characters");
            found.push(causes::invalid(field, &json!(""), &words));
        }
    }
    if text(event, "note").len() > LONGEST_NOTE {
        let words = format!("can have at most {LONGEST_NOTE} characters");
        found.push(causes::invalid("message", &json!(""), &words));
    }
    let series = &event["series"];
    if !series.is_null() {
        if series["count"].as_i64().unwrap_or(0) < 2 {
            found.push(causes::invalid("series.count", &json!(""), "should be at least 2"));
        }
        if series["lastObservedTime"].is_null() {
            found.push(causes::required("series.lastObservedTime", ""));
        }
    }
    found
}
