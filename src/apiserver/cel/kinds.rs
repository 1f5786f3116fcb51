//! Kinds of the values in an expression, as far as schemas and the language tell them: enough to find rules that are
//! no questions and comparisons that cannot hold. What is not known is not held against a rule. Pure.
use kube::core::cel::cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, operators};
use kube::core::cel::cel::parser::Expression;
use serde_json::Value;

use super::super::store::LARGEST_OBJECT;
use super::program::{place_of, told};

#[derive(Debug, Clone, PartialEq)]
pub enum Kind<'s> {
    /// Not known, or to be found out when it runs.
    Any,
    /// `bool`, `int`, `uint`, `double`, `string`, `bytes`, `timestamp`, `duration` or `null_type`.
    Plain(&'static str),
    /// What is in it, and how many there can be; 1 where that is not known.
    List(Box<Kind<'s>>, u64),
    Map(Box<Kind<'s>>, u64),
    /// A structure of named fields.
    Fields(&'s Value),
}

pub const BOOL: Kind<'static> = Kind::Plain("bool");
pub const TEXT: Kind<'static> = Kind::Plain("string");
const INT: Kind<'static> = Kind::Plain("int");

impl<'s> Kind<'s> {
    /// The kind of what a schema describes.
    pub fn of(schema: &'s Value) -> Self {
        if schema["x-kubernetes-int-or-string"] == true {
            return Self::Any;
        }
        match (schema["type"].as_str().unwrap_or_default(), schema["format"].as_str().unwrap_or_default()) {
            ("boolean", _) => BOOL,
            ("integer", _) => INT,
            ("number", _) => Self::Plain("double"),
            ("string", "date" | "date-time") => Self::Plain("timestamp"),
            ("string", "duration") => Self::Plain("duration"),
            ("string", "byte") => Self::Plain("bytes"),
            ("string", _) => TEXT,
            ("array", _) => {
                let most = most(schema["maxItems"].as_u64(), least_size(&schema["items"]));
                Self::List(Box::new(Self::of(&schema["items"])), most)
            }
            ("object", _) if schema["additionalProperties"].is_object() => {
                let inner = &schema["additionalProperties"];
                Self::Map(Box::new(Self::of(inner)), most(schema["maxProperties"].as_u64(), least_size(inner) + 3))
            }
            ("object", _) if schema["properties"].is_object() => Self::Fields(schema),
            _ => Self::Any,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Any => "dyn".to_owned(),
            Self::Plain(name) => (*name).to_owned(),
            Self::List(items, _) => format!("list({})", items.words()),
            Self::Map(values, _) => format!("map(string, {})", values.words()),
            Self::Fields(_) => "object".to_owned(),
        }
    }

    /// Whether one may turn out to be the other.
    fn may_be(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) | (Self::Fields(_), Self::Fields(_)) => true,
            // Fields may be null, and structures are written as maps.
            (Self::Plain("null_type"), _) | (_, Self::Plain("null_type")) => true,
            (Self::Fields(_), Self::Map(..)) | (Self::Map(..), Self::Fields(_)) => true,
            (Self::List(one, _), Self::List(other, _)) | (Self::Map(one, _), Self::Map(other, _)) => one.may_be(other),
            (one, other) => one == other,
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Plain("int" | "uint" | "double"))
    }
}

/// Bytes of JSON that a value of a schema takes at least.
fn least_size(schema: &Value) -> u64 {
    match schema["type"].as_str() {
        Some("string" | "array") => 2,
        Some("boolean") => 4,
        Some("object") => {
            let names = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            names.map(|name| name.len() as u64 + 4 + least_size(&schema["properties"][name])).sum::<u64>() + 2
        }
        _ => 1,
    }
}

/// How many items there can be in a request, each of them with a comma.
fn most(limit: Option<u64>, each: u64) -> u64 {
    limit.unwrap_or(u64::MAX).min(LARGEST_OBJECT as u64 / (each + 1))
}

/// Most turns that loops within loops may take. Cheaper rules may still run out of what they may use.
const MOST_TURNS: u64 = 10_000_000;
pub const TOO_DEAR: &str = "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, \
    or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";

/// Errors: what does not fit, as a compiler tells it, or [`TOO_DEAR`].
pub fn check(text: &str, expression: &Expression, own: &Kind<'_>, wanted: &Kind<'_>) -> Result<(), String> {
    let known = vec![("self".to_owned(), own.clone()), ("oldSelf".to_owned(), old_of(own))];
    let found = Checker { text, known, turns: 1 }.kind(expression)?;
    match found.may_be(wanted) && found != Kind::Plain("null_type") {
        true => Ok(()),
        false => Err(format!("cel expression must evaluate to a {}", wanted.words())),
    }
}

/// What was there before may have been anything: an optional value, or none.
fn old_of<'s>(own: &Kind<'s>) -> Kind<'s> {
    match own {
        Kind::List(..) | Kind::Map(..) | Kind::Fields(_) => own.clone(),
        _ => Kind::Any,
    }
}

struct Checker<'t, 's> {
    text: &'t str,
    known: Vec<(String, Kind<'s>)>,
    /// Turns of the loops that the place is in, at most.
    turns: u64,
}

impl<'s> Checker<'_, 's> {
    fn kind(&mut self, expression: &Expression) -> Result<Kind<'s>, String> {
        Ok(match &expression.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => BOOL,
                LiteralValue::Bytes(_) => Kind::Plain("bytes"),
                LiteralValue::Double(_) => Kind::Plain("double"),
                LiteralValue::Int(_) => INT,
                LiteralValue::Null => Kind::Plain("null_type"),
                LiteralValue::String(_) => TEXT,
                LiteralValue::UInt(_) => Kind::Plain("uint"),
            },
            Expr::Ident(name) => {
                let found = self.known.iter().rev().find(|(known, _)| known == name);
                found.map_or(Kind::Any, |(_, kind)| kind.clone())
            }
            Expr::Select(select) => {
                let operand = self.kind(&select.operand)?;
                match operand {
                    _ if select.test => BOOL,
                    Kind::Fields(schema) => Kind::of(&schema["properties"][&select.field]),
                    Kind::Map(values, _) => *values,
                    Kind::Any => Kind::Any,
                    other => {
                        let at = place_of(self.text, &select.field, "").saturating_sub(1);
                        let words = format!("type '{}' does not support field selection", other.words());
                        return Err(told(self.text, at, &words));
                    }
                }
            }
            Expr::List(list) => {
                let kinds = list.elements.iter().map(|element| self.kind(element)).collect::<Result<Vec<_>, _>>()?;
                let first = kinds.first().cloned().unwrap_or(Kind::Any);
                let kind = if kinds.iter().all(|kind| *kind == first) { first } else { Kind::Any };
                Kind::List(Box::new(kind), kinds.len() as u64)
            }
            Expr::Comprehension(inner) => self.turns(inner)?,
            Expr::Call(call) => self.call(call)?,
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => Kind::Any,
        })
    }

    fn turns(&mut self, inner: &ComprehensionExpr) -> Result<Kind<'s>, String> {
        let (item, most) = match self.kind(&inner.iter_range)? {
            Kind::List(items, most) => (*items, most),
            Kind::Map(_, most) => (TEXT, most),
            Kind::Fields(_) => (TEXT, 1),
            Kind::Any => (Kind::Any, 1),
            other => {
                let words = format!("expression of type '{}' cannot be range of a comprehension", other.words());
                return Err(told(self.text, 0, &words));
            }
        };
        let first = self.kind(&inner.accu_init)?;
        let (before, outer) = (self.known.len(), self.turns);
        self.turns = outer.saturating_mul(most.max(1));
        if self.turns > MOST_TURNS {
            return Err(TOO_DEAR.to_owned());
        }
        self.known.push((inner.accu_var.clone(), first));
        self.known.push((inner.iter_var.clone(), item));
        let step = self.kind(&inner.loop_step)?;
        self.known[before].1 = step;
        let result = self.kind(&inner.result)?;
        self.known.truncate(before);
        self.turns = outer;
        Ok(result)
    }

    fn call(&mut self, call: &CallExpr) -> Result<Kind<'s>, String> {
        if call.func_name == "bind" {
            return Ok(Kind::Any);
        }
        let kinds = call.args.iter().map(|argument| self.kind(argument)).collect::<Result<Vec<_>, _>>()?;
        let target = call.target.as_deref().map(|target| self.kind(target)).transpose()?;
        let name = call.func_name.as_str();
        let fits = match (name, kinds.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, both) => both.iter().all(|kind| kind.may_be(&BOOL)),
            (operators::LOGICAL_NOT, [one]) | (operators::CONDITIONAL, [one, ..]) => one.may_be(&BOOL),
            (operators::EQUALS | operators::NOT_EQUALS, [one, other]) => one.may_be(other),
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                [one, other],
            ) => one.may_be(other) || one.is_number() && other.is_number(),
            (operators::ADD, [one, other]) => one.may_be(other) || is_time(one) && is_time(other),
            _ => true,
        };
        if !fits {
            let shown: Vec<String> = kinds.iter().map(Kind::words).collect();
            let sign = name.trim_matches('_').trim_start_matches('@');
            let at = self.text.find(sign.split('_').next().unwrap_or_default()).unwrap_or(0);
            let words = format!("found no matching overload for '{name}' applied to '({})'", shown.join(", "));
            return Err(told(self.text, at, &words));
        }
        Ok(match name {
            operators::CONDITIONAL => match kinds.as_slice() {
                [_, one, other] if one == other => one.clone(),
                _ => Kind::Any,
            },
            operators::INDEX => match kinds.into_iter().next() {
                Some(Kind::List(inner, _) | Kind::Map(inner, _)) => *inner,
                _ => Kind::Any,
            },
            operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO => {
                match kinds.as_slice() {
                    [one, other] if one == other && !is_time(one) => one.clone(),
                    [Kind::List(..), Kind::List(..)] => Kind::List(Box::new(Kind::Any), 1),
                    _ => Kind::Any,
                }
            }
            operators::NEGATE => kinds.into_iter().next().unwrap_or(Kind::Any),
            // Some accumulators are only asked whether they are false.
            operators::NOT_STRICTLY_FALSE => BOOL,
            name if name.starts_with(['_', '!', '@']) => BOOL,
            name => result_of(name, target.is_some()),
        })
    }
}

fn is_time(kind: &Kind<'_>) -> bool {
    matches!(kind, Kind::Plain("timestamp" | "duration"))
}

/// The kind that a function answers with, where it does not depend on what it is given.
fn result_of(name: &str, method: bool) -> Kind<'static> {
    match name {
        "contains" | "startsWith" | "endsWith" | "matches" | "hasValue" | "isSorted" | "containsIP"
        | "containsCIDR" | "equivalent" | "intersects" | "isURL" | "isIP" | "isCIDR" | "isQuantity" | "isSemver" => {
            BOOL
        }
        "size" | "indexOf" | "lastIndexOf" | "compareTo" => INT,
        "int" if !method => INT,
        "string" | "lowerAscii" | "upperAscii" | "trim" | "replace" | "substring" | "charAt" | "join" => TEXT,
        _ => Kind::Any,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::cel::cel::parser::Parser;
    use serde_json::json;

    use super::*;

    fn checked(text: &str, wanted: &Kind<'_>) -> Result<(), String> {
        let schema = json!({"type": "object", "properties": {"s": {"type": "string"}, "n": {"type": "integer"},
            "l": {"type": "array", "items": {"type": "string"}}, "m": {"type": "object", "additionalProperties": {"type": "integer"}},
            "x": {"x-kubernetes-int-or-string": true}, "t": {"type": "string", "format": "date-time"},
            "o": {"type": "object", "properties": {"a": {"type": "string"}}}}});
        let parsed = Parser::new().parse(text).unwrap();
        check(text, &parsed, &Kind::of(&schema), wanted)
    }

    #[test]
    fn rules_have_to_be_questions() {
        for good in [
            "self.s == 'a'",
            "self.l.all(i, i != '')",
            "self.l.exists_one(i, i == 'a')",
            "self.l.map(i, i + 'x') == ['ax']",
            "self.l.filter(i, i in ['a']).size() > 0",
            "self.m.all(k, self.m[k] > 0)",
            "self.x == 1 || self.x == 'a'",
            "has(self.o) ? self.o.a == '' : true",
            "self.o == {'a': 'b'}",
            "self.s == null",
            "self.n < 1.5",
            "self.t + duration('1h') > self.t",
            "cel.bind(a, self.s, a == 'x')",
            "!(self.s in self.l)",
            "quantity('1').isLessThan(quantity('2'))",
        ] {
            assert_eq!(checked(good, &BOOL), Ok(()), "{good}");
        }
        for bad in ["self", "1", "self.s", "self.n + 1", "self.l.map(i, i)", "null", "self.n == 1 ? 'a' : 'b'"] {
            assert_eq!(checked(bad, &BOOL).unwrap_err(), "cel expression must evaluate to a bool", "{bad}");
        }
        assert_eq!(checked("'a' + self.s", &TEXT), Ok(()));
        assert_eq!(checked("self.n", &TEXT).unwrap_err(), "cel expression must evaluate to a string");
    }

    #[test]
    fn loops_within_loops_over_lists_without_bounds_are_too_dear() {
        let loops = |many: Value| {
            let schema = json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": many, "items": {"type": "string"}}}});
            let text = "self.l.all(a, self.l.all(b, a == b))";
            check(text, &Parser::new().parse(text).unwrap(), &Kind::of(&schema), &BOOL)
        };
        assert_eq!(loops(json!(100)), Ok(()));
        assert_eq!(loops(Value::Null), Err(TOO_DEAR.to_owned()));
        assert_eq!(checked("self.l.all(a, a != '') && self.l.all(a, a != 'x')", &BOOL), Ok(()));
    }

    #[test]
    fn what_cannot_be_compared_is_found() {
        let told = "ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(string, int)'\n | self.s == 1\n | .......^";
        assert_eq!(checked("self.s == 1", &BOOL).unwrap_err(), told);
        for bad in [
            "self.n + 'a' == 'a'",
            "self.s && true",
            "!self.n",
            "self.l == 'a'",
            "self.l.all(i, i == 1)",
            "self.s < 1",
            "self.s.a == 1",
            "self.n.all(i, true)",
        ] {
            assert!(checked(bad, &BOOL).unwrap_err().starts_with("ERROR: <input>:1:"), "{bad}");
        }
    }
}
