//! The rules for metadata, which are the same for every kind. Pure.
use std::collections::HashSet;

use serde_json::{Value, json};

use super::catalog::Resource;
use super::names::{dns_label_problem, label_value_problem, qualified_problem, subdomain_problem};
use super::schema::Cause;
use super::tidy::members;
use super::{causes, gofmt};

/// Annotations of one object, in bytes.
const ANNOTATIONS: usize = 256 * 1024;
/// What a generated name ends with: no vowels, nothing that is read for something else.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
const LONGEST_GENERATED: usize = 63;

/// Metadata that a client cannot change. The deletion's are set by the server alone.
const FIXED: [&str; 5] = ["name", "namespace", "uid", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// A name that begins with `prefix` and is not easily guessed.
pub fn generated_name(prefix: &str) -> String {
    let mut random = uuid::Uuid::new_v4().as_u128() >> 64;
    let kept: String = prefix.chars().take(LONGEST_GENERATED - SUFFIX_LENGTH).collect();
    let suffix = (0..SUFFIX_LENGTH).map(|_| {
        let letter = SUFFIX[usize::try_from(random % SUFFIX.len() as u128).unwrap_or(0)];
        random /= SUFFIX.len() as u128;
        char::from(letter)
    });
    kept + &suffix.collect::<String>()
}

fn name_problem(resource: &Resource, name: &str) -> Option<String> {
    let label = resource.group.is_empty() && matches!(resource.plural.as_str(), "namespaces" | "services");
    match label {
        // The message about dots is a better one.
        true if name.contains('.') => Some("must not contain dots".to_owned()),
        true => dns_label_problem(name),
        false => subdomain_problem(name),
    }
}

fn text<'a>(metadata: &'a Value, field: &str) -> &'a str {
    metadata[field].as_str().unwrap_or_default()
}

/// Everything wrong with an object's metadata.
pub fn problems(resource: &Resource, metadata: &Value) -> Vec<Cause> {
    let mut found = Vec::new();
    let (name, prefix) = (text(metadata, "name"), text(metadata, "generateName"));
    if !prefix.is_empty() {
        // A dash at the end is what most begin their names with.
        let whole =
            format!("{}{}", prefix.strip_suffix('-').unwrap_or(prefix), if prefix.ends_with('-') { "a" } else { "" });
        found.extend(
            name_problem(resource, &whole)
                .map(|words| causes::invalid("metadata.generateName", &json!(prefix), &words)),
        );
    }
    if name.is_empty() {
        found.push(causes::required("metadata.name", "name or generateName is required"));
    } else {
        found.extend(name_problem(resource, name).map(|words| causes::invalid("metadata.name", &json!(name), &words)));
    }
    for (key, value) in members(&metadata["labels"]) {
        let field = "metadata.labels";
        found.extend(qualified_problem(key).map(|words| causes::invalid(field, &json!(key), &words)));
        let wrong = label_value_problem(value.as_str().unwrap_or_default());
        found.extend(wrong.map(|words| causes::invalid(field, value, &words)));
    }
    let mut size = 0;
    for (key, value) in members(&metadata["annotations"]) {
        size += key.len() + value.as_str().map_or(0, str::len);
        let wrong = qualified_problem(&key.to_lowercase());
        found.extend(wrong.map(|words| causes::invalid("metadata.annotations", &json!(key), &words)));
    }
    if size > ANNOTATIONS {
        found.push(causes::too_long("metadata.annotations", ANNOTATIONS));
    }
    owners(metadata, &mut found);
    finalizers(resource, metadata, &mut found);
    found
}

fn owners(metadata: &Value, found: &mut Vec<Cause>) {
    let field = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        let version = text(owner, "apiVersion");
        if version.rsplit('/').next().unwrap_or_default().is_empty() {
            found.push(causes::invalid(
                &format!("{field}.apiVersion"),
                &owner["apiVersion"],
                "version must not be empty",
            ));
        }
        for part in ["kind", "name", "uid"] {
            if text(owner, part).is_empty() {
                found.push(causes::invalid(&format!("{field}.{part}"), &json!(""), "must not be empty"));
            }
        }
        if version == "v1" && owner["kind"] == "Event" {
            let message =
                format!("Invalid value: {}: /v1, Kind=Event is disallowed from being an owner", gofmt::owner(owner));
            found.push(Cause { reason: "FieldValueInvalid", field: field.to_owned(), message });
        }
        if owner["controller"] == true {
            let named = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            if let Some(first) = &controller {
                let all = metadata["ownerReferences"].as_array().into_iter().flatten();
                let shown = all.map(gofmt::owner).collect::<Vec<_>>().join(",");
                let message = format!(
                    "Invalid value: [{shown}]: Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                     and {named}"
                );
                found.push(Cause { reason: "FieldValueInvalid", field: field.to_owned(), message });
            } else {
                controller = Some(named);
            }
        }
    }
}

fn finalizers(resource: &Resource, metadata: &Value, found: &mut Vec<Cause>) {
    let field = "metadata.finalizers";
    let all = metadata["finalizers"].as_array().map_or(&[][..], Vec::as_slice);
    let (mut orphans, mut foreground) = (false, false);
    for finalizer in all {
        let name = finalizer.as_str().unwrap_or_default();
        found.extend(qualified_problem(name).map(|words| causes::invalid(field, finalizer, &words)));
        orphans |= name == "orphan";
        foreground |= name == "foregroundDeletion";
    }
    if orphans && foreground {
        let words = "finalizer orphan and foregroundDeletion cannot be both set";
        found.push(causes::invalid(field, &metadata["finalizers"], words));
    }
    // Custom resources are warned only.
    if resource.is_custom() {
        return;
    }
    for (index, finalizer) in all.iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        if !is_standard_or_qualified(name) {
            let words = "name is neither a standard finalizer name nor is it fully qualified";
            found.push(causes::invalid(&format!("{field}[{index}]"), finalizer, words));
        }
    }
}

fn is_standard_or_qualified(name: &str) -> bool {
    matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") || name.contains('/')
}

/// What may not change in metadata. `new` has been given what the server keeps by itself.
pub fn changes(old: &Value, new: &Value) -> Vec<Cause> {
    let mut found = Vec::new();
    if !old["deletionTimestamp"].is_null() {
        let listed = |metadata: &Value| -> Vec<String> {
            metadata["finalizers"].as_array().into_iter().flatten().map(Value::to_string).collect()
        };
        let had: HashSet<String> = listed(old).into_iter().collect();
        let added: Vec<String> = listed(new).into_iter().filter(|finalizer| !had.contains(finalizer)).collect();
        if !added.is_empty() {
            let words = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            found.push(causes::forbidden("metadata.finalizers", &words));
        }
    }
    let differs = FIXED.into_iter().filter(|field| old[*field] != new[*field]);
    found.extend(differs.map(|field| causes::immutable(&format!("metadata.{field}"), &new[field])));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_of_bounded_length_and_differ() {
        let (a, b) = (generated_name("portal-"), generated_name("portal-"));
        assert!(a.starts_with("portal-") && a.len() == 12 && a != b, "{a} {b}");
        assert_eq!(generated_name(&"x".repeat(100)).len(), 63);
    }
}
