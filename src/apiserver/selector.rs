//! Label and field selectors.
use serde_json::Value;

use super::catalog::Resource;
use super::render::shown;
use super::status::ApiError;
use super::store::Object;

/// One requirement on a text that may be absent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Exists(bool),
    OneOf(Vec<String>),
    NoneOf(Vec<String>),
}

/// What a list or watch is narrowed to. Empty selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<(String, Requirement)>,
    fields: Vec<(String, Requirement)>,
}

impl Selector {
    /// Parses `labelSelector` and `fieldSelector`. Errors: a 400 that quotes the part at fault.
    pub fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Self, ApiError> {
        let parsed = |text: Option<&str>| -> Result<Vec<_>, ApiError> {
            split(text.unwrap_or_default()).into_iter().map(requirement).collect()
        };
        Ok(Self { labels: parsed(labels)?, fields: parsed(fields)? })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Like [`Self::selects`] for a stored object, whose text is read only where names and labels do not decide.
    pub fn selects_stored(&self, resource: &Resource, object: &Object) -> bool {
        if !self.labels.iter().all(|(name, wanted)| wanted.met(object.label(name))) {
            return false;
        }
        let mut value = None;
        self.fields.iter().all(|(name, wanted)| match name.as_str() {
            "metadata.name" => wanted.met(Some(object.name())),
            "metadata.namespace" => wanted.met(Some(object.namespace())),
            _ => {
                let value = value.get_or_insert_with(|| shown(resource, object.value()));
                wanted.met(Some(field(value, name)))
            }
        })
    }

    pub fn selects(&self, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"].get(name).and_then(Value::as_str);
        self.labels.iter().all(|(name, wanted)| wanted.met(label(name)))
            && self.fields.iter().all(|(name, wanted)| wanted.met(Some(field(object, name))))
    }
}

/// A field's text; one that is not there counts as empty, as Kubernetes has it.
fn field<'a>(object: &'a Value, name: &str) -> &'a str {
    object.pointer(&format!("/{}", name.replace('.', "/"))).and_then(Value::as_str).unwrap_or_default()
}

impl Requirement {
    fn met(&self, text: Option<&str>) -> bool {
        match self {
            Self::Exists(wanted) => text.is_some() == *wanted,
            Self::OneOf(values) => text.is_some_and(|text| values.iter().any(|value| value == text)),
            Self::NoneOf(values) => text.is_none_or(|text| values.iter().all(|value| value != text)),
        }
    }
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn requirement(part: &str) -> Result<(String, Requirement), ApiError> {
    let bad = || ApiError::bad_request(format!("unable to parse requirement: {part}"));
    let named = |name: &str, wanted| {
        let name = name.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if name.is_empty() || !name.chars().all(plain) { Err(bad()) } else { Ok((name.to_owned(), wanted)) }
    };
    let set = |rest: &str| -> Result<Vec<String>, ApiError> {
        let inner = rest.trim().strip_prefix('(').and_then(|r| r.strip_suffix(')')).ok_or_else(bad)?;
        Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some((name, rest)) = part.split_once(" notin ") {
        return named(name, Requirement::NoneOf(set(rest)?));
    }
    if let Some((name, rest)) = part.split_once(" in ") {
        return named(name, Requirement::OneOf(set(rest)?));
    }
    if let Some((name, value)) = part.split_once("!=") {
        return named(name, Requirement::NoneOf(vec![value.trim().to_owned()]));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return named(name, Requirement::OneOf(vec![value.trim().to_owned()]));
    }
    match part.strip_prefix('!') {
        Some(name) => named(name, Requirement::Exists(false)),
        None => named(part, Requirement::Exists(true)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_select_by_labels_and_fields() {
        let object = json!({"metadata": {"name": "a", "labels": {"app": "x", "tier": "web"}}, "involvedObject": {"kind": "Pod"}});
        let selects = |labels, fields| Selector::parse(Some(labels), Some(fields)).unwrap().selects(&object);
        for labels in ["", "app", "app=x", "app==x,tier!=db", "app in (x, y)", "tier notin (db),!gone", "gone!=x"] {
            assert!(selects(labels, "metadata.name=a"), "{labels}");
        }
        for labels in ["gone", "!app", "app=y", "app in (y,z)", "app notin (x)"] {
            assert!(!selects(labels, ""), "{labels}");
        }
        assert!(selects("", "involvedObject.kind=Pod,metadata.name!=b"));
        assert!(!selects("", "metadata.name=b"));
        let error = Selector::parse(Some("a b=c"), None).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, "unable to parse requirement: a b=c"));
    }
}
