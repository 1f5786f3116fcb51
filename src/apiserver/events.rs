//! Events have two versions with other field names. They are kept as `events.k8s.io/v1` and shown as either.
//! Pure.
use serde_json::{Value, json};

use super::tidy::{fill, remove};

/// Field in `events.k8s.io/v1`, field in `v1`.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn renamed(event: &Value, names: impl Iterator<Item = (&'static str, &'static str)>) -> Value {
    let mut event = event.clone();
    if let Some(fields) = event.as_object_mut() {
        for (from, to) in names {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        }
    }
    event
}

/// A kept event as a core one.
pub fn to_core(event: &Value) -> Value {
    let mut core = renamed(event, NAMES.into_iter());
    core["apiVersion"] = json!("v1");
    core["kind"] = json!("Event");
    // Always written, unlike in the newer version.
    fill(&mut core, "involvedObject", json!({}));
    fill(&mut core, "reportingComponent", json!(""));
    fill(&mut core, "reportingInstance", json!(""));
    core
}

/// A core event as it is kept.
pub fn from_core(event: &Value) -> Value {
    let mut kept = renamed(event, NAMES.into_iter().map(|(new, old)| (old, new)));
    kept["apiVersion"] = json!("events.k8s.io/v1");
    for field in ["reportingController", "reportingInstance"] {
        if kept[field] == "" {
            remove(&mut kept, field);
        }
    }
    kept
}

/// Fields that every event shows, be they empty.
pub fn fill_in(event: &mut Value) {
    for field in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime"] {
        if event[field].is_null() {
            event[field] = Value::Null;
        }
    }
    fill(event, "deprecatedSource", json!({}));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_the_same_in_both_versions() {
        let kept = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "words",
            "regarding": {"kind": "ResetPortal", "name": "acme"}, "reportingController": "portalkeeper",
            "eventTime": "2026-11-24T10:00:00.123456Z", "type": "Normal",
        });
        let core = to_core(&kept);
        assert_eq!(core["message"], "words");
        assert_eq!(core["involvedObject"]["name"], "acme");
        assert_eq!(core["reportingComponent"], "portalkeeper");
        let back = from_core(&core);
        assert_eq!((&back["note"], &back["regarding"]), (&kept["note"], &kept["regarding"]));
    }
}
