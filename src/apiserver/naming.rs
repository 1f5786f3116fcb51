//! Names of definitions: those that another one of the group has already are not given a second time, and a
//! definition is served once it has got its own. Pure but for the last part.
use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::catalog::DEFINITIONS;
use super::managed;
use super::managers::Writer;
use super::rest::{ApiServer, Target};
use super::status::ApiError;
use super::store::Change;
use super::tidy;
use super::write::whole_seconds;

/// The names of a definition and what a clash of each is called; of several clashes the last one is told.
const NAMES: [(&str, &str); 5] = [
    ("plural", "PluralConflict"),
    ("singular", "SingularConflict"),
    ("shortNames", "ShortNamesConflict"),
    ("kind", "KindConflict"),
    ("listKind", "ListKindConflict"),
];
/// Who writes the status of definitions.
const MANAGER: &str = "kube-apiserver";

/// One name or several.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) if !text.is_empty() => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The names that definitions of a group have got.
#[derive(Debug, Default)]
pub struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    pub fn in_group<'a>(group: &Value, definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut taken = Self::default();
        for definition in definitions.filter(|definition| definition["spec"]["group"] == *group) {
            for (name, _) in NAMES {
                let got = texts(&definition["status"]["acceptedNames"][name]).into_iter().map(str::to_owned);
                taken.of(name).extend(got);
            }
        }
        taken
    }
    fn of(&mut self, name: &str) -> &mut BTreeSet<String> {
        if matches!(name, "kind" | "listKind") { &mut self.kinds } else { &mut self.resources }
    }
}

/// Gives a definition the names it wants as far as they are free or its own already, and says so in its status.
pub fn settle(definition: &mut Value, mut taken: Taken, now: Timestamp) {
    let wanted = definition["spec"]["names"].clone();
    let had = definition["status"]["acceptedNames"].clone();
    let mut got = if had.is_object() { had.clone() } else { json!({}) };
    let mut clash = None;
    for (name, reason) in NAMES {
        let mut own = texts(&had[name]);
        if name == "shortNames" {
            own.extend([&had["plural"], &had["singular"]].into_iter().flat_map(texts));
        }
        let used = taken.of(name);
        let clashes: Vec<String> = texts(&wanted[name])
            .into_iter()
            .filter(|text| !own.contains(text) && used.contains(*text))
            .map(|text| format!("\"{text}\" is already in use"))
            .collect();
        match clashes.as_slice() {
            [] => take(&mut got, &wanted, name),
            [one] => clash = Some((reason, one.clone())),
            several => clash = Some((reason, format!("[{}]", several.join(", ")))),
        }
    }
    take(&mut got, &wanted, "categories");
    let status = &mut definition["status"];
    status["acceptedNames"] = got;
    let conditions = &mut status["conditions"];
    let established = is_true(conditions, "Established");
    match clash {
        None => set(conditions, "NamesAccepted", true, ("NoConflicts", "no conflicts found"), now),
        Some((reason, words)) => set(conditions, "NamesAccepted", false, (reason, &words), now),
    }
    if established {
        return;
    }
    if is_true(conditions, "NamesAccepted") {
        let words = ("InitialNamesAccepted", "the initial names have been accepted");
        set(conditions, "Established", true, words, now);
    } else {
        set(conditions, "Established", false, ("NotAccepted", "not all names are accepted"), now);
    }
}

fn take(got: &mut Value, wanted: &Value, name: &str) {
    match &wanted[name] {
        Value::Null => tidy::remove(got, name),
        value => got[name] = value.clone(),
    }
}

/// Whether a condition of this type says yes.
pub fn is_true(conditions: &Value, kind: &str) -> bool {
    let mut all = conditions.as_array().into_iter().flatten();
    all.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn set(conditions: &mut Value, kind: &str, holds: bool, (reason, words): (&str, &str), now: Timestamp) {
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(all) = conditions.as_array_mut() else { return };
    let status = if holds { "True" } else { "False" };
    let mut new = json!({
        "type": kind, "status": status, "reason": reason, "message": words, "lastTransitionTime": whole_seconds(now),
    });
    match all.iter_mut().find(|condition| condition["type"] == kind) {
        Some(old) => {
            if old["status"] == status {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => all.push(new),
    }
}

/// A settled definition whose manager is told.
fn settled(target: &super::catalog::Resource, definition: &Value, taken: Taken, now: Timestamp) -> Value {
    let mut new = definition.clone();
    settle(&mut new, taken, now);
    if new["status"] != definition["status"] {
        let writer = Writer { manager: MANAGER.to_owned(), apply: false, subresource: "status", now };
        managed::track(target, Some(definition), &mut new, &writer);
    }
    new
}

impl ApiServer {
    /// The names taken in a group by what is stored.
    fn taken(&self, group: &Value) -> Taken {
        let definitions: Vec<Value> = self.0.store.list(DEFINITIONS, None).objects.iter().map(|d| d.value()).collect();
        Taken::in_group(group, definitions.iter())
    }

    /// A new object as it is stored: a definition has got its names by then, or says why it has not.
    pub(super) fn named(&self, target: &Target, made: Value) -> Value {
        if target.resource.full_name() != DEFINITIONS {
            return made;
        }
        let taken = self.taken(&made["spec"]["group"]);
        settled(&target.resource, &made, taken, self.0.clock.now())
    }

    /// After a change of one definition: it and the others of its group may get names that they could not have.
    pub(super) async fn settle_names(&self, changed: &Value) -> Result<(), ApiError> {
        let group = &changed["spec"]["group"];
        let Some(resource) =
            self.0.catalog.find(&self.0.store, "apiextensions.k8s.io", "v1", "customresourcedefinitions")
        else {
            return Ok(());
        };
        for definition in self.0.store.list(DEFINITIONS, None).objects {
            if definition.value()["spec"]["group"] != *group {
                continue;
            }
            let settle = |old: Option<&Value>| {
                let Some(old) = old else { return Ok(Change::Keep) };
                let new = settled(&resource, old, self.taken(group), self.0.clock.now());
                Ok(if new["status"] == old["status"] { Change::Keep } else { Change::Put(new) })
            };
            self.0.store.transact::<ApiError>(&definition.key(), settle).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        let mut names =
            json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")});
        if !short.is_empty() {
            names["shortNames"] = json!(short);
        }
        json!({"spec": {"group": "a.example", "names": names}})
    }

    fn told(definition: &Value) -> Vec<String> {
        let conditions = definition["status"]["conditions"].as_array().unwrap();
        let text = |condition: &Value, field: &str| condition[field].as_str().unwrap().to_owned();
        conditions.iter().map(|c| format!("{} {} {}", text(c, "type"), text(c, "status"), text(c, "reason"))).collect()
    }

    #[test]
    fn a_name_is_given_once_in_a_group_and_stays_with_who_has_it() {
        let now = Timestamp::UNIX_EPOCH;
        let mut first = definition("as", "A", &["x"]);
        settle(&mut first, Taken::default(), now);
        assert_eq!(told(&first), ["NamesAccepted True NoConflicts", "Established True InitialNamesAccepted"]);
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        // given another one with the same short names, then it gets its other names and is not served
        let taken = |of: &[&Value]| Taken::in_group(&json!("a.example"), of.iter().copied());
        let mut second = definition("bs", "B", &["x", "y", "as"]);
        settle(&mut second, taken(&[&first]), now);
        assert_eq!(told(&second), ["NamesAccepted False ShortNamesConflict", "Established False NotAccepted"]);
        let words = &second["status"]["conditions"][0]["message"];
        assert_eq!(words, "[\"x\" is already in use, \"as\" is already in use]");
        let got = &second["status"]["acceptedNames"];
        assert_eq!((&got["kind"], &got["shortNames"]), (&json!("B"), &Value::Null));
        // another group does not matter, and the first keeps what it has
        assert!(Taken::in_group(&json!("b.example"), [&first].into_iter()).kinds.is_empty());
        let before = first.clone();
        settle(&mut first, taken(&[&before, &second]), now);
        assert_eq!(first, before);
        // once the names are free the second gets them; later clashes do not end its service
        let free = taken(&[&second]);
        settle(&mut second, free, now);
        assert_eq!(told(&second), ["NamesAccepted True NoConflicts", "Established True InitialNamesAccepted"]);
        second["spec"]["names"]["shortNames"] = json!(["b", "a"]);
        let clashing = taken(&[&second, &before]);
        settle(&mut second, clashing, now);
        assert_eq!(told(&second), ["NamesAccepted False ShortNamesConflict", "Established True InitialNamesAccepted"]);
        assert_eq!(second["status"]["acceptedNames"]["shortNames"], json!(["x", "y", "as"]));
    }
}
