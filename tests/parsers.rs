//! Selectors against a plain reading of what they mean.
use std::collections::BTreeMap;

use portalkeeper::apiserver::selector::Selector;
use proptest::prelude::*;
use serde_json::json;

/// One requirement on a label, as a person would say it.
#[derive(Debug, Clone)]
enum Wanted {
    There(String),
    Absent(String),
    Is(String, String),
    IsNot(String, String),
    OneOf(String, Vec<String>),
    NoneOf(String, Vec<String>),
}

impl Wanted {
    /// In the words of a label selector.
    fn words(&self) -> String {
        match self {
            Self::There(label) => label.clone(),
            Self::Absent(label) => format!("!{label}"),
            Self::Is(label, value) => format!("{label}={value}"),
            Self::IsNot(label, value) => format!("{label} != {value}"),
            Self::OneOf(label, values) => format!("{label} in ({})", values.join(", ")),
            Self::NoneOf(label, values) => format!("{label} notin ({})", values.join(",")),
        }
    }
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::There(label) => labels.contains_key(label),
            Self::Absent(label) => !labels.contains_key(label),
            Self::Is(label, value) => labels.get(label) == Some(value),
            Self::IsNot(label, value) => labels.get(label) != Some(value),
            Self::OneOf(label, values) => labels.get(label).is_some_and(|value| values.contains(value)),
            Self::NoneOf(label, values) => labels.get(label).is_none_or(|value| !values.contains(value)),
        }
    }
}

fn label() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["a", "b", "example.com/c", "in"]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["x", "y", "z-1", "notin"]).prop_map(str::to_owned)
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let values = || proptest::collection::vec(value(), 1..3);
    prop_oneof![
        label().prop_map(Wanted::There),
        label().prop_map(Wanted::Absent),
        (label(), value()).prop_map(|(label, value)| Wanted::Is(label, value)),
        (label(), value()).prop_map(|(label, value)| Wanted::IsNot(label, value)),
        (label(), values()).prop_map(|(label, values)| Wanted::OneOf(label, values)),
        (label(), values()).prop_map(|(label, values)| Wanted::NoneOf(label, values)),
    ]
}

proptest! {
    #[test]
    fn label_selectors_select_what_they_say(
        wanted in proptest::collection::vec(wanted(), 0..4),
        labels in proptest::collection::btree_map(label(), value(), 0..4),
    ) {
        let words = wanted.iter().map(Wanted::words).collect::<Vec<_>>().join(",");
        let selector = Selector::parse(Some(&words), None).unwrap();
        let object = json!({"metadata": {"name": "a", "labels": labels}});
        let expected = wanted.iter().all(|one| one.holds(&labels));
        prop_assert_eq!(selector.selects(&object), expected, "{} {:?}", words, labels);
    }

    #[test]
    fn field_selectors_select_what_they_say(name in "[ab]", given in "[abc]{0,1}", equal: bool) {
        let words = format!("metadata.name{}{given}", if equal { "=" } else { "!=" });
        let selector = Selector::parse(None, Some(&words)).unwrap();
        let object = json!({"metadata": {"name": name}});
        prop_assert_eq!(selector.selects(&object), (name == given) == equal);
    }

    #[test]
    fn any_text_is_a_selector_or_is_refused(text in "[ab,!=<>() \\\\in.@/-]{0,30}") {
        for refused in [Selector::parse(Some(&text), None).err(), Selector::parse(None, Some(&text)).err()].into_iter().flatten() {
            prop_assert_eq!(refused.code, 400);
        }
    }
}
