//! Definitions of custom resources: what is filled in, and the rules for names, group and versions. Pure.
use serde_json::{Value, json};

use super::causes;
use super::names::{dns1035_problem, subdomain_problem};
use super::naming;
use super::schema::Cause;
use super::structural;
use super::tidy::fill;
use super::versionparts;

/// Groups of Kubernetes itself, in which others need its consent.
const PROTECTED: [&str; 2] = ["k8s.io", "kubernetes.io"];
const APPROVAL: &str = "api-approved.kubernetes.io";

pub fn fill_in(object: &mut Value) {
    let spec = &mut object["spec"];
    if !spec.is_object() {
        return;
    }
    fill(spec, "conversion", json!({"strategy": "None"}));
    let names = &mut spec["names"];
    if let Some(kind) = names["kind"].as_str().filter(|kind| !kind.is_empty()).map(str::to_owned) {
        fill(names, "singular", json!(kind.to_lowercase()));
        fill(names, "listKind", json!(format!("{kind}List")));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn problems(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &object["spec"];
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let mut found = Vec::new();
    if let Some(old) = old {
        // What has never been served may still become something else, but for its own name.
        let served = naming::is_true(&old["status"]["conditions"], "Established");
        let fixed = [
            ("spec.group", "/spec/group", true),
            ("spec.scope", "/spec/scope", served),
            ("spec.names.kind", "/spec/names/kind", served),
            ("spec.names.plural", "/spec/names/plural", true),
        ];
        for (field, pointer, _) in fixed.into_iter().filter(|(.., fixed)| *fixed) {
            let new = object.pointer(pointer).cloned().unwrap_or_default();
            if old.pointer(pointer) != Some(&new) {
                found.push(causes::immutable(field, &new));
            }
        }
        if !found.is_empty() {
            return found;
        }
    }
    let name = &object["metadata"]["name"];
    if text(name) != format!("{plural}.{group}") {
        found.push(causes::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    found.extend(group_problem(object, group));
    match text(&spec["scope"]) {
        "Cluster" | "Namespaced" => {}
        "" => found.push(causes::required("spec.scope", "")),
        _ => found.push(causes::unsupported("spec.scope", &spec["scope"], &["Cluster", "Namespaced"])),
    }
    if spec["preserveUnknownFields"] == true {
        let words =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        found.push(causes::invalid("spec.preserveUnknownFields", &json!(true), words));
    }
    let stored = versions(spec, &mut found);
    names(&spec["names"], &mut found);
    match text(&spec["conversion"]["strategy"]) {
        "None" => {}
        // Real servers can ask a webhook; this one has none to ask.
        "Webhook" => found.push(causes::unsupported("spec.conversion.strategy", &json!("Webhook"), &["None"])),
        _ => found.push(causes::unsupported(
            "spec.conversion.strategy",
            &spec["conversion"]["strategy"],
            &["None", "Webhook"],
        )),
    }
    if old.is_some() {
        stored_versions(object, &mut found);
    } else if !stored {
        found.push(causes::invalid("status.storedVersions", &Value::Null, "must have at least one stored version"));
    }
    found
}

/// Adds the version in which objects are kept from now on to those in which some may be.
pub fn remember_storage(definition: &mut Value) {
    let mut versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let Some(name) = versions.find(|version| version["storage"] == true).map(|version| version["name"].clone()) else {
        return;
    };
    let mut known = definition["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    if !known.contains(&name) {
        known.push(name);
        definition["status"]["storedVersions"] = Value::Array(known);
    }
}

/// Every version in which objects may be kept has to be one of the definition, and the present one is among them.
fn stored_versions(definition: &Value, found: &mut Vec<Cause>) {
    let field = "status.storedVersions";
    let listed = &definition["status"]["storedVersions"];
    let stored = listed.as_array().map_or(&[][..], Vec::as_slice);
    if stored.is_empty() {
        return found.push(causes::invalid(field, listed, "must have at least one stored version"));
    }
    let versions = definition["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
    for version in versions.iter().filter(|version| version["storage"] == true && !stored.contains(&version["name"])) {
        let words = format!("must have the storage version {}", text(&version["name"]));
        found.push(causes::invalid(field, listed, &words));
    }
    for (index, name) in stored.iter().enumerate() {
        if versions.iter().any(|version| version["name"] == *name) {
            continue;
        }
        let shown = text(name);
        let words = format!(
            "missing from spec.versions; {shown} was previously a storage version, and must remain in spec.versions until a storage \
             migration ensures no data remains persisted in {shown} and removes {shown} from status.storedVersions"
        );
        found.push(causes::invalid(&format!("{field}[{index}]"), name, &words));
    }
}

fn group_problem(object: &Value, group: &str) -> Option<Cause> {
    let shown = json!(group);
    if group.is_empty() {
        return Some(causes::required("spec.group", ""));
    }
    if let Some(words) = subdomain_problem(group) {
        return Some(causes::invalid("spec.group", &shown, &words));
    }
    if !group.contains('.') {
        return Some(causes::invalid("spec.group", &shown, "should be a domain with at least one dot"));
    }
    let protected = PROTECTED.iter().any(|end| group == *end || group.ends_with(&format!(".{end}")));
    if protected && object["metadata"]["annotations"][APPROVAL].is_null() {
        let words = format!(
            "protected groups must have approval annotation \"{APPROVAL}\", see https://github.com/kubernetes/enhancements/pull/1111"
        );
        return Some(causes::required(&format!("metadata.annotations[{APPROVAL}]"), &words));
    }
    None
}

/// The rules for the list of versions; whether one of them is the stored one.
fn versions(spec: &Value, found: &mut Vec<Cause>) -> bool {
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let shown = || match spec["versions"].is_null() {
        true => "null".to_owned(),
        false => format!("[{}]", versions.iter().map(as_go_shows).collect::<Vec<_>>().join(",")),
    };
    let mut wrong = |words: &str| {
        let message = format!("Invalid value: {}: {words}", shown());
        found.push(Cause { reason: "FieldValueInvalid", field: "spec.versions".to_owned(), message });
    };
    let stored = versions.iter().filter(|version| version["storage"] == true).count();
    if (1..versions.len()).any(|index| versions[..index].iter().any(|other| other["name"] == versions[index]["name"])) {
        wrong("must contain unique version names");
    }
    if stored != 1 {
        wrong("must have exactly one version marked as storage version");
    }
    for (index, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{index}]");
        let name = &version["name"];
        found.extend(dns1035_problem(text(name)).map(|words| causes::invalid(&format!("{at}.name"), name, &words)));
        let schema = &version["schema"]["openAPIV3Schema"];
        let own = format!("{at}.schema.openAPIV3Schema");
        // The only version's schema is told as that of the whole definition.
        let field = if versions.len() == 1 { "spec.validation.openAPIV3Schema" } else { &own };
        if schema.is_object() {
            found.extend(structural::problems(schema, field));
        } else {
            found.push(causes::required(&own, ""));
        }
        found.extend(versionparts::problems(version, if versions.len() == 1 { "spec" } else { &at }));
    }
    stored > 0
}

/// A version as the server's own type shows it, without its larger parts.
fn as_go_shows(version: &Value) -> String {
    format!(
        "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":null,\"Schema\":null,\
         \"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}}",
        version["name"],
        version["served"] == true,
        version["storage"] == true,
        version["deprecated"] == true
    )
}

fn names(names: &Value, found: &mut Vec<Cause>) {
    let mut check = |field: &str, required: bool, mixed_case: bool| {
        let at = format!("spec.names.{field}");
        let name = text(&names[field]);
        if name.is_empty() {
            if required {
                found.push(causes::required(&at, ""));
            }
            return;
        }
        let (compared, prefix) = match mixed_case {
            true => (name.to_lowercase(), "may have mixed case, but should otherwise match: "),
            false => (name.to_owned(), ""),
        };
        if let Some(words) = dns1035_problem(&compared) {
            found.push(causes::invalid(&at, &names[field], &format!("{prefix}{words}")));
        }
    };
    check("plural", true, false);
    check("singular", true, false);
    check("kind", true, true);
    check("listKind", true, true);
    if !names["kind"].is_null() && names["kind"] == names["listKind"] {
        found.push(causes::invalid("spec.names.listKind", &names["listKind"], "kind and listKind may not be the same"));
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in names[field].as_array().into_iter().flatten().enumerate() {
            let at = format!("spec.names.{field}[{index}]");
            found.extend(dns1035_problem(text(name)).map(|words| causes::invalid(&at, name, &words)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_in_which_objects_may_be_kept_are_remembered_and_have_to_fit() {
        let versions = |stored: &str| json!([{"name": "v1", "storage": stored == "v1"}, {"name": "v2", "storage": stored == "v2"}]);
        let mut definition = json!({"spec": {"versions": versions("v1")}});
        remember_storage(&mut definition);
        definition["spec"]["versions"] = versions("v2");
        remember_storage(&mut definition);
        remember_storage(&mut definition);
        assert_eq!(definition["status"]["storedVersions"], json!(["v1", "v2"]));
        let told = |listed: Value| {
            let mut found = Vec::new();
            stored_versions(&json!({"spec": definition["spec"], "status": {"storedVersions": listed}}), &mut found);
            found.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>()
        };
        assert_eq!(told(json!(["v2"])), [""; 0]);
        assert_eq!(
            told(json!([])),
            ["status.storedVersions: Invalid value: []: must have at least one stored version"]
        );
        let [missing, unknown] = told(json!(["v3"])).try_into().unwrap();
        assert_eq!(missing, "status.storedVersions: Invalid value: [\"v3\"]: must have the storage version v2");
        assert!(
            unknown.starts_with("status.storedVersions[0]: Invalid value: \"v3\": missing from spec.versions; v3 was")
        );
    }
}
