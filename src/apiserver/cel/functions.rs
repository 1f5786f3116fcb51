//! The functions that rules may call, and how every call and every loop is made to pass the meter.
//!
//! The interpreter evaluates what it holds and tells nobody how much that is. So an expression is rewritten before it
//! runs ([`super::program`]): a call becomes [`CALL`], which evaluates the arguments, looks at them and only then
//! lets the interpreter make the call with them; a loop becomes [`LOOP`] or [`COLLECT`], which turn here.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kube::core::cel::KubeCelExt;
use kube::core::cel::cel::common::ast::{Expr, operators};
use kube::core::cel::cel::objects::OptionalValue;
use kube::core::cel::cel::parser::Expression;
use kube::core::cel::cel::{Context, ExecutionError, FunctionContext, ResolveResult, Value};

use super::meter;

/// `@call(argument…, the call with @0, @1… for its arguments)`. No name in a rule can begin with `@`.
pub const CALL: &str = "@call";
/// `@loop(range, variable, accumulator, its first value, condition, step, result)`
pub const LOOP: &str = "@loop";
/// `@collect(range, variable, element[, condition])`: a loop that makes a list.
pub const COLLECT: &str = "@collect";
/// `@bind(variable, value, expression)`
pub const BIND: &str = "@bind";

/// What can be called with a name before it that is no value: `math.abs(x)`.
const QUALIFIED: [&str; 42] = [
    "base64.decode",
    "base64.encode",
    "format.byte",
    "format.date",
    "format.datetime",
    "format.dns1035Label",
    "format.dns1035LabelPrefix",
    "format.dns1123Label",
    "format.dns1123LabelPrefix",
    "format.dns1123Subdomain",
    "format.dns1123SubdomainPrefix",
    "format.labelValue",
    "format.named",
    "format.qualifiedName",
    "format.uri",
    "format.uuid",
    "ip.isCanonical",
    "jsonpatch.escapeKey",
    "lists.range",
    "math.abs",
    "math.bitAnd",
    "math.bitNot",
    "math.bitOr",
    "math.bitShiftLeft",
    "math.bitShiftRight",
    "math.bitXor",
    "math.ceil",
    "math.floor",
    "math.greatest",
    "math.isFinite",
    "math.isInf",
    "math.isNaN",
    "math.least",
    "math.round",
    "math.sign",
    "math.sqrt",
    "math.trunc",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "sets.contains",
    "sets.equivalent",
];

/// Whether a function with a name before its own is there.
pub fn is_qualified(prefix: &str, name: &str) -> bool {
    let full = format!("{prefix}.{name}");
    QUALIFIED.contains(&full.as_str()) || ["sets.intersects", "strings.quote"].contains(&full.as_str())
}

/// What can be called on a value, or with it as the first argument.
const PLAIN: &str = "contains size max min startsWith endsWith string bytes double int uint value hasValue or orValue \
    matches duration timestamp getFullYear getMonth getDayOfYear getDayOfMonth getDate getDayOfWeek getHours \
    getMinutes getSeconds getMilliseconds indexOf lastIndexOf isGreaterThan isLessThan compareTo ip reverse format isIP \
    family isLoopback isUnspecified isLinkLocalMulticast isLinkLocalUnicast isGlobalUnicast cidr isCIDR containsIP \
    containsCIDR prefixLength masked isSorted sum slice sort flatten distinct first last validate quantity \
    isQuantity isInteger asInteger asApproximateFloat sign add sub find findAll semver isSemver major minor patch charAt \
    lowerAscii upperAscii replace split substring trim join url isURL getScheme getHost getHostname getPort \
    getEscapedPath getQuery dyn";

/// Whether a function is there.
pub fn is_known(name: &str) -> bool {
    PLAIN.split_ascii_whitespace().any(|known| known == name)
}

/// Everything that a rule can call.
pub fn context() -> Context<'static> {
    let mut context = Context::default().with_all();
    let mut add = |name: &str, function: fn(&mut FunctionContext<'_, '_>) -> ResolveResult| {
        let function: Box<dyn Fn(&mut FunctionContext<'_, '_>) -> ResolveResult + Send + Sync> = Box::new(function);
        context.add_function(name, function);
    };
    add(CALL, call);
    add(LOOP, turns);
    add(COLLECT, collect);
    add(BIND, bind);
    // Values have no types here that would have to be forgotten.
    add("dyn", |call| match call.args {
        [only] => Value::resolve(only, call.ptx),
        _ => Err(misused()),
    });
    context
}

/// A value that may be missing, as `oldSelf` is to rules that are asked in any case.
pub fn optional(value: Option<Value>) -> Value {
    Value::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of)))
}

/// A call that no parser makes.
fn misused() -> ExecutionError {
    ExecutionError::NoSuchOverload
}

/// The name of an argument's place.
pub fn slot(index: usize) -> String {
    format!("@{index}")
}

/// Evaluates an expression, whose value is held until the answer's second part goes.
fn held(expression: &Expression, context: &Context<'_>) -> Result<(Value, meter::Held, usize), ExecutionError> {
    let value = Value::resolve(expression, context)?;
    let size = meter::size(&value);
    meter::look(size)?;
    Ok((value, meter::hold(size)?, size))
}

fn call(call: &mut FunctionContext<'_, '_>) -> ResolveResult {
    meter::step(1)?;
    let Some((then, given)) = call.args.split_last() else { return Err(misused()) };
    let mut scope = call.ptx.new_inner_scope();
    let (mut values, mut holds) = (Vec::with_capacity(given.len()), Vec::with_capacity(given.len()));
    for (index, argument) in given.iter().enumerate() {
        let (value, hold, _) = held(argument, call.ptx)?;
        holds.push(hold);
        values.push(value.clone());
        scope.add_variable_from_value(slot(index), value);
    }
    if let Expr::Call(inner) = &then.expr {
        guard(&inner.func_name, &values)?;
    }
    drop(values);
    // Some functions give up instead of failing.
    let result = catch_unwind(AssertUnwindSafe(|| Value::resolve(then, &scope)))
        .unwrap_or_else(|_| Err(ExecutionError::function_error("failed", "a function gave up on what it was given")))?;
    if !matches!(result, Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Null) {
        meter::make(meter::size(&result))?;
    }
    Ok(result)
}

/// What calls would cost that are more than looking at their arguments once, and those that would end badly.
fn guard(name: &str, values: &[Value]) -> Result<(), ExecutionError> {
    let text = |index: usize| match values.get(index) {
        Some(Value::String(text)) => text.as_str(),
        _ => "",
    };
    let count = |index: usize| match values.get(index) {
        Some(Value::List(items)) => items.len(),
        _ => 0,
    };
    let each = |index: usize| values.get(index).map_or(0, meter::size);
    match name {
        operators::NEGATE if values.first() == Some(&Value::Int(i64::MIN)) => {
            Err(ExecutionError::Overflow("negate", Value::Int(i64::MIN), Value::Null))
        }
        "range" => match values.first() {
            Some(Value::Int(many)) => {
                let bytes = usize::try_from(*many).unwrap_or(0).saturating_mul(each(0));
                meter::look(bytes)?;
                meter::hold(bytes).map(drop)
            }
            _ => Ok(()),
        },
        "replace" => {
            let found = text(0).matches(text(1)).count();
            meter::hold(found.saturating_mul(text(2).len())).map(drop)
        }
        "join" => meter::hold(count(0).saturating_mul(text(1).len())).map(drop),
        // Every item of one with every item of the other.
        "contains" | "equivalent" | "intersects" if count(1) > 0 => meter::look(count(0).saturating_mul(each(1))),
        "distinct" => meter::look(count(0).saturating_mul(each(0))),
        // A pattern is compiled at every call, which takes about as long as a hundred others.
        "matches" | "find" | "findAll" => {
            meter::step(100)?;
            meter::look(text(0).len().saturating_mul(text(1).len()) / 4)
        }
        "format" if precision(text(0)) > 100 => {
            Err(ExecutionError::function_error("format", "invalid precision: must not be greater than 100"))
        }
        _ => Ok(()),
    }
}

/// The largest precision that a text for `format` asks for: `%.3f`.
fn precision(text: &str) -> u64 {
    let digits = |part: &str| -> u64 {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        if end > 9 { u64::MAX } else { part[..end].parse().unwrap_or(0) }
    };
    text.split("%.").skip(1).map(digits).max().unwrap_or(0)
}

/// The items that a loop goes over.
fn items(range: &Value) -> Result<Vec<Value>, ExecutionError> {
    match range {
        Value::List(items) => Ok(items.to_vec()),
        Value::Map(map) => Ok(map.map.keys().map(Value::from).collect()),
        _ => Err(misused()),
    }
}

fn name(expression: &Expression) -> Result<&str, ExecutionError> {
    match &expression.expr {
        Expr::Ident(name) => Ok(name),
        _ => Err(misused()),
    }
}

fn turns(call: &mut FunctionContext<'_, '_>) -> ResolveResult {
    let [range, variable, accumulator, first, condition, step, result] = call.args else { return Err(misused()) };
    let (variable, accumulator) = (name(variable)?, name(accumulator)?);
    let (range, _hold, _) = held(range, call.ptx)?;
    let mut scope = call.ptx.new_inner_scope();
    scope.add_variable_from_value(accumulator, Value::resolve(first, call.ptx)?);
    for item in items(&range)? {
        meter::step(1)?;
        match Value::resolve(condition, &scope)? {
            Value::Bool(true) => {}
            Value::Bool(false) => break,
            _ => return Err(misused()),
        }
        scope.add_variable_from_value(variable, item);
        let next = Value::resolve(step, &scope)?;
        scope.add_variable_from_value(accumulator, next);
    }
    Value::resolve(result, &scope)
}

fn collect(call: &mut FunctionContext<'_, '_>) -> ResolveResult {
    let (range, variable, element, condition) = match call.args {
        [range, variable, element] => (range, name(variable)?, element, None),
        [range, variable, element, condition] => (range, name(variable)?, element, Some(condition)),
        _ => return Err(misused()),
    };
    let (range, _hold, _) = held(range, call.ptx)?;
    let mut scope = call.ptx.new_inner_scope();
    let mut made = Vec::new();
    for item in items(&range)? {
        meter::step(1)?;
        scope.add_variable_from_value(variable, item);
        let wanted = condition.map_or(Ok(Value::Bool(true)), |condition| Value::resolve(condition, &scope))?;
        match wanted {
            Value::Bool(true) => {
                let value = Value::resolve(element, &scope)?;
                meter::make(meter::size(&value))?;
                made.push(value);
            }
            Value::Bool(false) => {}
            _ => return Err(misused()),
        }
    }
    Ok(Value::List(Arc::new(made)))
}

fn bind(call: &mut FunctionContext<'_, '_>) -> ResolveResult {
    let [variable, value, expression] = call.args else { return Err(misused()) };
    let (value, _hold, _) = held(value, call.ptx)?;
    let mut scope = call.ptx.new_inner_scope();
    scope.add_variable_from_value(name(variable)?, value);
    Value::resolve(expression, &scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_that_is_told_to_be_there_is() {
        use kube::core::cel::cel::Program;
        let context = context();
        let missing = |call: String| match Program::compile(&call).unwrap().execute(&context) {
            Err(ExecutionError::UndeclaredReference(name)) => Some(name.to_string()),
            _ => None,
        };
        let qualified = QUALIFIED.iter().copied().chain(["sets.intersects", "strings.quote"]);
        for name in PLAIN.split_ascii_whitespace().chain(qualified) {
            assert_eq!(missing(format!("{name}('1')")), None);
        }
        assert_eq!(missing("nosuch('1')".to_owned()).as_deref(), Some("nosuch"));
    }

    #[test]
    fn the_precision_of_a_format_is_found() {
        assert_eq!((precision("%.3f %s %.12e"), precision("100%. %d"), precision("")), (12, 0, 0));
        assert_eq!(precision("%.99999999999f"), u64::MAX);
    }
}
