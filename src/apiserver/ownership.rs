//! What becomes of an object by what is known of its owners. Pure.
use jiff::Timestamp;
use serde_json::{Value, json};

use super::collector::FOREGROUND;
use super::store::{Change, Key};
use super::tidy;
use super::write::{Propagation, whole_seconds};

/// What there is to say of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    Staying(Key),
    /// There, but ending once everything that it owns is gone.
    Waiting(Key),
    /// Not there, or another one of the same name.
    Gone,
    /// Of a kind that is not served.
    Unknown,
    /// In a namespace, while what it is said to own is in none: which one is meant, nobody can say.
    Nowhere,
}

/// What is to be done with an object that has owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Stay,
    /// It stays, without the references to these uids.
    Drop(Vec<String>),
    Go(Propagation),
}

pub fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}

pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

pub fn has_finalizer(object: &Value, name: &str) -> bool {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().any(|finalizer| finalizer == name)
}

/// Whether an object is ending and waits for what it owns.
pub fn waits(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null() && has_finalizer(object, FOREGROUND)
}

/// `named` are the owners with the uids they are named by; `owns`, whether the object owns others itself.
pub fn verdict(named: &[(&str, Owner)], owns: bool) -> Verdict {
    if named.is_empty() || named.iter().any(|(_, owner)| matches!(owner, Owner::Unknown | Owner::Nowhere)) {
        return Verdict::Stay;
    }
    let ending = |owner: &Owner| matches!(owner, Owner::Gone | Owner::Waiting(_));
    let dead: Vec<String> = named.iter().filter(|(_, owner)| ending(owner)).map(|(uid, _)| (*uid).to_owned()).collect();
    if dead.len() < named.len() {
        return if dead.is_empty() { Verdict::Stay } else { Verdict::Drop(dead) };
    }
    let waited_for = named.iter().any(|(_, owner)| matches!(owner, Owner::Waiting(_)));
    // What owns something itself waits for that as well.
    Verdict::Go(if waited_for && owns { Propagation::Foreground } else { Propagation::Unsaid })
}

/// An object without the references to owners of these uids.
pub fn without_owners(object: &Value, of: impl Fn(&str) -> bool) -> Change {
    let mut new = object.clone();
    let Some(references) = new["metadata"]["ownerReferences"].as_array_mut() else { return Change::Keep };
    references.retain(|reference| !of(reference["uid"].as_str().unwrap_or_default()));
    if references.is_empty() {
        tidy::remove(&mut new["metadata"], "ownerReferences");
    }
    if new == *object { Change::Keep } else { Change::Put(new) }
}

/// The event about an object in no namespace that names an owner in one. Its name is the same each time.
pub fn misplaced(object: &Value, now: Timestamp) -> Value {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let at = whole_seconds(now);
    let named: Vec<String> = owners(object)
        .map(|owner| {
            let text = |field: &str| owner[field].as_str().unwrap_or_default();
            let (version, kind, name, uid) = (text("apiVersion"), text("kind"), text("name"), text("uid"));
            format!("[{version}/{kind}, namespace: , name: {name}, uid: {uid}]")
        })
        .collect();
    let mut short: String = uid(object).chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    short.make_ascii_lowercase();
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {
            "name": format!("{name}.{short}"), "namespace": "default", "creationTimestamp": at,
            "uid": uuid::Uuid::new_v4().to_string(),
        },
        "regarding": {
            "apiVersion": object["apiVersion"], "kind": object["kind"], "name": name, "uid": object["metadata"]["uid"],
        },
        "type": "Warning", "reason": "OwnerRefInvalidNamespace",
        "note": format!("ownerRef {} does not exist in namespace \"\"", named.join(", ")),
        "reportingController": "garbage-collector-controller",
        "deprecatedSource": {"component": "garbage-collector-controller"},
        "deprecatedFirstTimestamp": at, "deprecatedLastTimestamp": at, "deprecatedCount": 1, "eventTime": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_goes_only_when_every_owner_is_known_not_to_stay() {
        let key = || Key { resource: "configmaps".to_owned(), namespace: "n".to_owned(), name: "o".to_owned() };
        let (stays, waits) = (Owner::Staying(key()), Owner::Waiting(key()));
        let go = Verdict::Go(Propagation::Unsaid);
        let drop = |uid: &str| Verdict::Drop(vec![uid.to_owned()]);
        for (named, owns, expected) in [
            (vec![], false, Verdict::Stay),
            (vec![("a", stays.clone())], false, Verdict::Stay),
            (vec![("a", stays.clone()), ("b", Owner::Gone)], false, drop("b")),
            (vec![("a", waits.clone()), ("b", stays)], true, drop("a")),
            (vec![("a", Owner::Gone), ("b", Owner::Gone)], true, go.clone()),
            (vec![("a", waits.clone())], false, go),
            (vec![("a", waits), ("b", Owner::Gone)], true, Verdict::Go(Propagation::Foreground)),
            (vec![("a", Owner::Gone), ("b", Owner::Unknown)], false, Verdict::Stay),
            (vec![("a", Owner::Gone), ("b", Owner::Nowhere)], false, Verdict::Stay),
        ] {
            assert_eq!(verdict(&named, owns), expected, "{named:?}");
        }
    }
}
