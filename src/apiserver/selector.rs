//! Label and field selectors, read as Kubernetes reads them, with its words about what cannot be read. Pure.
use serde_json::Value;

use super::catalog::Resource;
use super::fieldlabels;
use super::labelparser;
use super::render::shown;
use super::status::ApiError;
use super::store::Object;

/// One requirement on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    Exists(bool),
    OneOf(Vec<String>),
    /// Also met where the label is absent.
    NoneOf(Vec<String>),
    Above(i64),
    Below(i64),
}

/// One requirement on a field; a field that is not there counts as the empty text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldTerm {
    field: String,
    equal: bool,
    value: String,
}

/// What a list or watch is narrowed to. Empty selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<(String, Requirement)>,
    fields: Vec<FieldTerm>,
}

impl Selector {
    /// Parses `labelSelector` and `fieldSelector`. Errors: a 400 that says what was found where.
    pub fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Self, ApiError> {
        let labels = labelparser::parse(labels.unwrap_or_default()).map_err(ApiError::bad_request)?;
        Ok(Self { labels, fields: field_terms(fields.unwrap_or_default()).map_err(ApiError::bad_request)? })
    }

    /// The same, for fields by which this resource can be selected. Errors: 400.
    pub fn of(resource: &Resource, labels: Option<&str>, fields: Option<&str>) -> Result<Self, ApiError> {
        let selector = Self::parse(labels, fields)?;
        for term in &selector.fields {
            fieldlabels::check(resource, &term.field)?;
        }
        Ok(selector)
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
        self.fields.iter().all(|term| match term.field.as_str() {
            "metadata.name" => term.met(object.name()),
            "metadata.namespace" => term.met(object.namespace()),
            field => {
                let value = value.get_or_insert_with(|| shown(resource, object.value()));
                term.met(&fieldlabels::value(value, field))
            }
        })
    }

    pub fn selects(&self, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"].get(name).and_then(Value::as_str);
        self.labels.iter().all(|(name, wanted)| wanted.met(label(name)))
            && self.fields.iter().all(|term| term.met(&fieldlabels::value(object, &term.field)))
    }
}

impl FieldTerm {
    fn met(&self, text: &str) -> bool {
        (text == self.value) == self.equal
    }
}

impl Requirement {
    fn met(&self, text: Option<&str>) -> bool {
        let number = || text.and_then(|text| text.parse::<i64>().ok());
        match self {
            Self::Exists(wanted) => text.is_some() == *wanted,
            Self::OneOf(values) => text.is_some_and(|text| values.iter().any(|value| value == text)),
            Self::NoneOf(values) => text.is_none_or(|text| values.iter().all(|value| value != text)),
            Self::Above(limit) => number().is_some_and(|number| number > *limit),
            Self::Below(limit) => number().is_some_and(|number| number < *limit),
        }
    }
}

fn field_terms(text: &str) -> Result<Vec<FieldTerm>, String> {
    let mut parts = split_terms(text);
    parts.sort_unstable();
    let mut terms = Vec::new();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let (field, equal, value) =
            split_term(part).ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
        let value = unescape(value)?;
        // `=` alone asks for nothing.
        if !(field.is_empty() && value.is_empty()) {
            terms.push(FieldTerm { field: field.to_owned(), equal, value });
        }
    }
    Ok(terms)
}

/// Splits at commas that have no backslash before them.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(part: &str) -> Option<(&str, bool, &str)> {
    for (at, _) in part.char_indices() {
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = part[at..].strip_prefix(operator) {
                return Some((&part[..at], equal, value));
            }
        }
    }
    None
}

/// A value with its backslashes resolved.
fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut escaped = false;
    for c in text.chars() {
        match c {
            '\\' | ',' | '=' if escaped => {
                plain.push(c);
                escaped = false;
            }
            c if escaped => return Err(format!("invalid field selector: invalid escape sequence: \\{c}")),
            '\\' => escaped = true,
            ',' | '=' => {
                return Err(format!("invalid field selector: unescaped character in value: {}", u32::from(c)));
            }
            c => plain.push(c),
        }
    }
    if escaped { Err("invalid field selector: invalid escape sequence: \\".to_owned()) } else { Ok(plain) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_select_by_labels_and_fields() {
        let object = json!({"metadata": {"name": "a", "labels": {"app": "x", "tier": "web", "n": "5"}}, "involvedObject": {"kind": "Pod"}});
        let selects = |labels, fields| Selector::parse(Some(labels), Some(fields)).unwrap().selects(&object);
        for labels in [
            "",
            "app",
            "app=x",
            "app==x,tier!=db",
            "app in (x, y)",
            "tier notin (db),!gone",
            "gone!=x",
            "n>4",
            "n<6,n > 3",
            "app in(x)",
            " app = x ",
            "gone=,gone!=",
            "gone notin ()",
        ] {
            assert_eq!(selects(labels, "metadata.name=a"), !labels.starts_with("gone=,"), "{labels}");
        }
        for labels in ["gone", "!app", "app=y", "app in (y,z)", "app notin (x)", "n>5", "app<5"] {
            assert!(!selects(labels, ""), "{labels}");
        }
        assert!(selects("", "involvedObject.kind=Pod,metadata.name!=b"));
        assert!(!selects("", "metadata.name=b"));
        assert!(!selects("", "metadata.name=a\\,b"));
    }

    #[test]
    fn what_cannot_be_read_is_told_in_the_words_of_kubernetes() {
        let refused = |labels, fields| Selector::parse(Some(labels), Some(fields)).unwrap_err().message;
        assert_eq!(
            refused("a b=c", ""),
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
        );
        assert_eq!(refused("a,", ""), "found '', expected: identifier after ','");
        assert_eq!(refused("a=(x)", ""), "unable to parse requirement: found '(', expected: identifier");
        assert_eq!(refused("", "x"), "invalid selector: 'x'; can't understand 'x'");
        assert_eq!(refused("", "a=b=c"), "invalid field selector: unescaped character in value: 61");
        assert_eq!(refused("", "a=b\\c"), "invalid field selector: invalid escape sequence: \\c");
    }
}
