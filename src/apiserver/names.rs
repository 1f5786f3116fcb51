//! What Kubernetes demands of names, labels and other metadata, with its messages. Pure.
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::catalog::Resource;
use super::schema::Cause;

const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const NAME_PART: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
/// Annotations of one object, in bytes.
const ANNOTATIONS: usize = 256 * 1024;

/// A rule with its pattern, compiled once.
struct Rule(LazyLock<Option<Regex>>);

impl Rule {
    fn holds(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

fn whole(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

static SUBDOMAIN_RULE: Rule = Rule(LazyLock::new(|| whole(SUBDOMAIN)));
static LABEL_RULE: Rule = Rule(LazyLock::new(|| whole(LABEL)));
static NAME_PART_RULE: Rule = Rule(LazyLock::new(|| whole(NAME_PART)));
static LABEL_VALUE_RULE: Rule = Rule(LazyLock::new(|| whole(LABEL_VALUE)));
static KEY_RULE: Rule = Rule(LazyLock::new(|| whole("[-._a-zA-Z0-9]+")));

fn invalid(field: &str, value: &str, words: &str) -> Cause {
    let shown = Value::String(value.to_owned());
    Cause { reason: "FieldValueInvalid", field: field.to_owned(), message: format!("Invalid value: {shown}: {words}") }
}

fn subdomain_problem(text: &str) -> Option<String> {
    if text.len() > 253 {
        return Some("must be no more than 253 characters".to_owned());
    }
    (!SUBDOMAIN_RULE.holds(text)).then(|| {
        format!(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
             with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')"
        )
    })
}

fn label_problem(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    (!LABEL_RULE.holds(text)).then(|| {
        format!(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
             alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
        )
    })
}

/// What is wrong with a label's name where it stands in a selector.
pub fn selector_key_problem(key: &str) -> Option<String> {
    if key.matches('/').count() > 1 {
        return Some(format!(
            "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
             character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{NAME_PART}') with an optional DNS \
             subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ));
    }
    qualified_problem(key)
}

/// `prefix/name` or `name`.
fn qualified_problem(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Some("prefix part must be non-empty".to_owned());
        }
        if let Some(problem) = subdomain_problem(prefix) {
            return Some(format!("prefix part {problem}"));
        }
    }
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 bytes".to_owned());
    }
    (!NAME_PART_RULE.holds(name)).then(|| {
        format!(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
             (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{NAME_PART}')"
        )
    })
}

pub fn label_value_problem(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 bytes".to_owned());
    }
    (!LABEL_VALUE_RULE.holds(text)).then(|| {
        format!(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
             an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '{LABEL_VALUE}')"
        )
    })
}

/// Everything wrong with an object's metadata.
pub fn metadata_problems(resource: &Resource, object: &Value) -> Vec<Cause> {
    let metadata = &object["metadata"];
    let mut causes = Vec::new();
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(Cause {
            reason: "FieldValueRequired",
            field: "metadata.name".to_owned(),
            message: "Required value: name or generateName is required".to_owned(),
        });
    } else {
        let label = matches!(resource.plural.as_str(), "namespaces" | "services") && resource.group.is_empty();
        let problem = if label { label_problem(name) } else { subdomain_problem(name) };
        causes.extend(problem.map(|words| invalid("metadata.name", name, &words)));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        causes.extend(qualified_problem(key).map(|words| invalid("metadata.labels", key, &words)));
        let text = value.as_str().unwrap_or_default();
        causes.extend(label_value_problem(text).map(|words| invalid("metadata.labels", text, &words)));
    }
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        causes.extend(qualified_problem(&key.to_lowercase()).map(|words| invalid("metadata.annotations", key, &words)));
    }
    if size > ANNOTATIONS {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            field: "metadata.annotations".to_owned(),
            message: format!("Too long: may not be more than {ANNOTATIONS} bytes"),
        });
    }
    for finalizer in metadata["finalizers"].as_array().into_iter().flatten() {
        let text = finalizer.as_str().unwrap_or_default();
        let standard = matches!(text, "kubernetes" | "orphan" | "foregroundDeletion");
        if let Some(words) = qualified_problem(text) {
            causes.push(invalid("metadata.finalizers", text, &words));
        } else if !standard && !text.contains('/') && !text.contains('.') {
            let words = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(invalid("metadata.finalizers", text, words));
        }
    }
    if resource.group.is_empty() && matches!(resource.plural.as_str(), "secrets" | "configmaps") {
        causes.extend(data_problems(object));
    }
    causes
}

/// Keys and size of a Secret's or ConfigMap's data.
fn data_problems(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            if key.len() > 253 || !KEY_RULE.holds(key) || key == "." || key == ".." {
                let words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  \
                             or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                causes.push(invalid(&format!("{field}[{key}]"), key, words));
            }
        }
    }
    if size > (1 << 20) * 4 / 3 {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            field: "data".to_owned(),
            message: format!("Too long: may not be more than {} bytes", 1 << 20),
        });
    }
    causes
}

/// Everything wrong with a definition of custom resources.
pub fn definition_problems(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let name = text(&object["metadata"]["name"]);
    let mut causes = Vec::new();
    if name != format!("{plural}.{group}") {
        causes.push(invalid("metadata.name", &name, "must be spec.names.plural+\".\"+spec.group"));
    }
    let versions = spec["versions"].as_array().cloned().unwrap_or_default();
    let stored = versions.iter().filter(|version| version["storage"] == true).count();
    if stored != 1 {
        let shown = Value::Array(versions.iter().map(|version| version["name"].clone()).collect());
        let message = format!("Invalid value: {shown}: must have exactly one version marked as storage version");
        causes.push(Cause { reason: "FieldValueInvalid", field: "spec.versions".to_owned(), message });
    }
    for (index, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            let message = "Required value: schemas are required".to_owned();
            causes.push(Cause { reason: "FieldValueRequired", field, message });
        } else if version["schema"]["openAPIV3Schema"]["type"] != "object" {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema.type");
            let shown = &version["schema"]["openAPIV3Schema"]["type"];
            let message = format!("Invalid value: {shown}: must be object at the root");
            causes.push(Cause { reason: "FieldValueInvalid", field, message });
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_follow_kubernetes() {
        for good in ["a", "a.b/c", "example.com/My_Name.x", "123-abc"] {
            assert_eq!(qualified_problem(good), None, "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "a b", "UPPER.example/x", &"a".repeat(64)] {
            assert!(qualified_problem(bad).is_some(), "{bad}");
        }
        for good in ["", "a", "A.b_c-1"] {
            assert_eq!(label_value_problem(good), None, "{good}");
        }
        for bad in ["a b", "-a", "a-", "ä", &"a".repeat(64)] {
            assert!(label_value_problem(bad).is_some(), "{bad}");
        }
        assert!(subdomain_problem("a..b").is_some() && subdomain_problem("a.b-c.d").is_none());
    }
}
