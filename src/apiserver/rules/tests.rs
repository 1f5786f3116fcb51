//! Rules asked in the way that writes ask them.
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn broken_within(schema: Value, old: Option<Value>, object: Value, budget: Budget) -> Vec<String> {
    let mut causes = Vec::new();
    let rules = Rules::of(&Arc::new(schema)).expect("rules");
    check_within(&rules, old.as_ref(), &object, &mut causes, budget).expect("rules can be asked");
    causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

fn broken(schema: Value, old: Option<Value>, object: Value) -> Vec<String> {
    broken_within(schema, old, object, Budget::default())
}

/// What an object with a text, a number, a list and a map breaks of one rule.
fn asked(rule: &str, object: Value) -> Vec<String> {
    broken(schema(rule), None, object)
}

fn schema(rule: &str) -> Value {
    json!({"type": "object", "properties": {"s": {"type": "string"}, "n": {"type": "integer"},
        "l": {"type": "array", "maxItems": 400, "items": {"type": "string"}},
        "m": {"type": "object", "maxProperties": 100, "additionalProperties": {"type": "string"}},
        "t": {"type": "string", "format": "date-time"}, "my_field": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": rule, "message": "broken"}]})
}

#[test]
fn rules_tell_the_value_unless_it_is_a_structure_and_spare_what_has_not_changed() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string",
        "x-kubernetes-validations": [{"rule": "self != 'x'", "message": "not x"}]}},
        "x-kubernetes-validations": [{"rule": "self.a != 'y'", "fieldPath": ".a", "reason": "FieldValueForbidden", "message": "not y"}]});
    assert_eq!(broken(schema.clone(), None, json!({"a": "x"})), ["a: Invalid value: \"x\": not x"]);
    assert_eq!(broken(schema.clone(), None, json!({"a": "y"})), ["a: Forbidden: not y"]);
    assert_eq!(broken(schema, Some(json!({"a": "x"})), json!({"a": "x", "b": 1})), [""; 0]);
}

#[test]
fn what_rules_can_say_is_evaluated() {
    let object =
        json!({"s": "ab", "n": 2, "l": ["a", "b", "c"], "m": {"k": "v"}, "t": "2026-01-02T03:04:05Z", "my_field": "x"});
    for holds in [
        "self.l.all(i, i != '') && self.l.exists(i, i == 'b') && self.l.exists_one(i, i == 'c')",
        "self.l.map(i, i + '!') == ['a!', 'b!', 'c!']",
        "self.l.map(i, i != 'b', i) == ['a', 'c']",
        "self.l.filter(i, i in ['a', 'c']).size() == 2",
        "self.m.all(k, self.m[k] == 'v') && 'k' in self.m && has(self.m.k) && !has(self.m.z)",
        "self.l.all(i, self.l.exists(j, j == i))",
        "{'a': self.n, 'b': 3}['a'] == 2 && [self.n, 3][0] == 2",
        "self.t > timestamp('2026-01-01T00:00:00Z') && self.t.getHours() == 3",
        "self.my_field == 'x'",
        "cel.bind(twice, self.n * 2, twice == 4 && twice != 5)",
        "sets.contains(self.l, ['a']) && self.l.isSorted() && 'x,y'.split(',').size() == 2",
        "self.n > 1 ? self.s.startsWith('a') : false",
        "dyn(self.n) == 2 && string(self.n) == '2' && int('3') == 3 && -self.n == 0 - 2",
        "self.s.matches('^a') && 'a%s%d'.format([self.s, self.n]) == 'aab2'",
        "self.missing == 'a' || true",
        "lists.range(3) == [0, 1, 2] && math.greatest(1, 2) == 2 && quantity('1Gi').isGreaterThan(quantity('1M'))",
        "isURL('https://a.example') && url('https://a.example/x').getHost() == 'a.example'",
    ] {
        assert_eq!(asked(holds, object.clone()), [""; 0], "{holds}");
        let turned = format!("!({holds})");
        assert_eq!(asked(&turned, object.clone()), ["<nil>: Invalid value: broken"], "{turned}");
    }
    let failed = |rule: &str| asked(rule, object.clone()).remove(0);
    assert_eq!(
        failed("self.l[9] == ''"),
        "<nil>: Invalid value: \"object\": index out of bounds: 9 evaluating rule: broken"
    );
    assert_eq!(failed("self.m.z == ''"), "<nil>: Invalid value: \"object\": no such key: z evaluating rule: broken");
}

#[test]
fn transition_rules_know_items_by_their_keys_and_may_be_asked_of_new_ones() {
    let schema = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
        "items": {"type": "object", "properties": {"id": {"type": "string"}, "v": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "smaller"}]}});
    let (old, new) =
        (json!([{"id": "a", "v": 5}, {"id": "b", "v": 1}]), json!([{"id": "b", "v": 2}, {"id": "a", "v": 4}]));
    assert_eq!(broken(schema.clone(), Some(old), new.clone()), ["[1]: Invalid value: smaller"]);
    assert_eq!(broken(schema, None, new), [""; 0]);
    let rule = json!([{"rule": "oldSelf.hasValue() || self == 1", "optionalOldSelf": true, "message": "begin with 1"}]);
    let schema = json!({"type": "integer", "x-kubernetes-validations": rule});
    assert_eq!(broken(schema.clone(), None, json!(2)), ["<nil>: Invalid value: 2: begin with 1"]);
    assert_eq!(broken(schema, Some(json!(1)), json!(2)), [""; 0]);
}

/// Rules that once took the program down, or the memory of the machine.
#[test]
fn what_the_interpreter_does_wrong_is_an_error_of_the_rule() {
    for rule in [
        "-(-9223372036854775807 - 1) == 1",
        "quantity('1E99').isGreaterThan(quantity('1'))",
        "'%.999999999f'.format([1.0]) == ''",
        "lists.range(1000000000).size() > 0",
        "'aaaa'.replace('', self.s).size() > 0 && self.l.map(a, self.l.map(b, self.l.map(c, a + b + c))).size() > 0",
        "self.l.map(a, self.l).map(a, self.l.map(b, self.l)).size() > 0",
    ] {
        let long = "x".repeat(10_000);
        let object = json!({"s": long, "l": vec!["x".repeat(1_000); 200]});
        let found = asked(rule, object);
        assert!(found.len() == 1 && found[0].contains("Invalid value: \"object\": "), "{rule}: {found:?}");
    }
    assert!(asked("Foo{} == 1", json!({}))[0].contains("undeclared reference to 'Foo'"));
}

#[test]
fn what_costs_too_much_ends_and_no_more_rules_are_asked() {
    let items: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let budget = Budget { rule: 5_000, ..Budget::default() };
    let loops = schema("self.l.all(a, self.l.all(b, self.l.all(c, a != 'x' || b != c)))");
    let found = broken_within(loops, None, json!({"l": items}), budget);
    assert_eq!(
        found,
        [
            "<nil>: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: broken"
        ]
    );
    // errors within `||` do not keep it running
    let loops = schema("self.l.exists(a, self.l.exists(b, self.l.exists(c, a + b == c || 1 / 0 == 1)))");
    assert_eq!(broken_within(loops, None, json!({"l": items}), budget).len(), 1);
    let budget = Budget { all: 50, ..Budget::default() };
    let found = broken_within(schema("self.l.all(a, a != 'x')"), None, json!({"l": items}), budget);
    let words = "validation failed due to running out of cost budget, no further validation rules will be run";
    assert_eq!(found, [format!("<nil>: Invalid value: \"object\": {words}")]);
    let budget = Budget { time: std::time::Duration::ZERO, ..Budget::default() };
    assert_eq!(broken_within(schema("self.l.all(a, a != 'x')"), None, json!({"l": items}), budget).len(), 1);
}

/// Everything that nests or chains: what opens, what is within, what closes.
const NESTED: &[(&str, &str, &str)] = &[
    ("(", "true", ")"),
    ("!(", "true", ")"),
    ("[", "1", "]"),
    ("{'a': ", "1", "}"),
    ("true ? ", "true", " : false"),
    ("true ? false : ", "true", ""),
    ("", "self.l", "[0]"),
    ("", "1", " + 1"),
    ("", "self", ".a"),
    ("", "self.s", ".trim()"),
    ("", "self.s", " + self.s"),
    ("-", "1", ""),
    ("!", "true", ""),
    ("size([", "1", "])"),
    ("[1].all(a, ", "true", ")"),
    ("self.l.map(a, ", "a", ")"),
    ("[1].exists(a, [a].all(b, ", "true", "))"),
    ("", "true", " && true"),
    ("", "true", " || false"),
    ("cel.bind(a, ", "1", ", a)"),
    ("'' + (", "''", ")"),
    ("has(self.", "a", ")"),
    ("", "1", " == 1"),
    ("", "1", " in [1]"),
    ("self.l.filter(a, ", "true", ").size() > 0"),
    ("dyn(", "1", ")"),
];

fn layered((open, middle, close): (&str, &str, &str), times: usize, text: &str) -> String {
    let inner = if text.is_empty() { middle } else { text };
    format!("{}{inner}{}", open.repeat(times), close.repeat(times))
}

/// Nestings up to the bound and past it.
fn nested() -> impl Strategy<Value = String> {
    let layer = (proptest::sample::select(NESTED), 1_usize..130);
    proptest::collection::vec(layer, 1..4)
        .prop_map(|layers| layers.into_iter().fold(String::new(), |text, (kind, times)| layered(kind, times, &text)))
}

#[test]
fn whatever_is_as_deep_as_it_may_be_is_answered() {
    let object = json!({"s": "a", "n": 1, "l": ["a", "b"], "m": {"a": "b"}});
    for kind in NESTED.iter().copied() {
        let deepest = (1..=260).rev().map(|times| layered(kind, times, "")).find(|rule| cel::within_bounds(rule));
        let _ = asked(&deepest.expect("one that is not too deep"), object.clone());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn however_deep_a_rule_is_it_is_answered(rule in nested()) {
        let _ = asked(&rule, json!({"s": "a", "n": 1, "l": ["a", "b"], "m": {"a": "b"}}));
    }

    #[test]
    fn any_rule_holds_or_not_on_any_object(rule in "[a-c.()\\[\\]!=<>&|?:'\"0-9 self-]{0,30}", text in "[a-c]{0,3}") {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}},
            "x-kubernetes-validations": [{"rule": rule}]});
        let _ = broken(schema, None, json!({"a": text}));
    }
}
