//! Expressions, read once: checked for what is not there, and rewritten so that all they do passes the meter.
use std::panic::{AssertUnwindSafe, catch_unwind};

use kube::core::cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, ListExpr, MapEntryExpr, MapExpr, SelectExpr,
    operators,
};
use kube::core::cel::cel::parser::{Expression, Parser};
use kube::core::cel::cel::{Context, ExecutionError, Value};

use super::functions::{self, slot};
use super::kinds::{self, Kind};
use super::{bounds, meter};

/// What is said where the interpreter gives up in a way that is not an error of its own.
const FAILED: &str = "the interpreter failed at this expression";

/// Most of a function's own words that is told, in characters.
const LONGEST_REASON: usize = 200;

/// An expression that can be evaluated.
#[derive(Debug)]
pub struct Program {
    expression: Expression,
    /// Whether it asks what was there before.
    pub about_changes: bool,
}

impl Program {
    /// Reads an expression. Errors: why it cannot be used, as a compiler tells it.
    pub fn compile(text: &str) -> Result<Self, String> {
        Self::within_bounds(text, |_| Ok(()))
    }

    /// Reads an expression that is new, whose `self` is of this kind and whose value is to be of the other. Those that
    /// were taken once are not asked so much of. Errors: the same, and what does not fit.
    pub fn compile_new(text: &str, own: &Kind<'_>, wanted: &Kind<'_>) -> Result<Self, String> {
        Self::within_bounds(text, |parsed| kinds::check(text, parsed, own, wanted))
    }

    fn within_bounds(text: &str, fits: impl Fn(&Expression) -> Result<(), String>) -> Result<Self, String> {
        bounds::check(text).map_err(|error| error.to_string())?;
        let read = || Self::read(text, fits);
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(format!("ERROR: <input>:1:1: {FAILED}")))
    }

    fn read(text: &str, fits: impl Fn(&Expression) -> Result<(), String>) -> Result<Self, String> {
        let deepest = u16::try_from(bounds::DEEPEST).unwrap_or(u16::MAX);
        let parsed = Parser::new().max_recursion_depth(deepest).parse(text).map_err(|errors| {
            let words = errors.to_string();
            if words.starts_with("ERROR") { words } else { format!("ERROR: {words}") }
        })?;
        let mut names = Names { text, known: vec!["self".to_owned(), "oldSelf".to_owned()], about_changes: false };
        names.check(&parsed)?;
        fits(&parsed)?;
        Ok(Self { expression: rewritten(parsed), about_changes: names.about_changes })
    }

    /// Errors: what the expression failed at; nothing that it was given is in the words.
    pub fn evaluate(&self, context: &Context<'_>) -> Result<Value, String> {
        let run = || meter::step(1).and_then(|()| Value::resolve(&self.expression, context));
        let done = catch_unwind(AssertUnwindSafe(run)).map_err(|_| FAILED.to_owned())?;
        done.map_err(|error| words(&error))
    }
}

/// An error as a real server has it.
fn words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::IndexOutOfBounds(Value::Int(index)) => format!("index out of bounds: {index}"),
        ExecutionError::IndexOutOfBounds(_) => "index out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("no such attribute(s): {name}"),
        ExecutionError::FunctionError { function, message } => {
            // Some functions quote all that they were given.
            let message: String = message.chars().take(LONGEST_REASON).collect();
            format!("{function}: {message}")
        }
        _ => "no such overload".to_owned(),
    }
}

/// What a compiler says about a place of an expression, `at` bytes from its beginning.
pub fn told(text: &str, at: usize, words: &str) -> String {
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count();
    let column = before.chars().rev().take_while(|c| *c != '\n').count();
    let shown = text.lines().nth(line).unwrap_or_default();
    format!("ERROR: <input>:{}:{}: {words}\n | {shown}\n | {}^", line + 1, column + 1, ".".repeat(column))
}

/// Where a name stands first as a word of its own, with `after` behind it; else the beginning.
pub fn place_of(text: &str, name: &str, after: &str) -> usize {
    let is_name = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = text.as_bytes();
    let own = |at: &usize| {
        let (start, end) = (*at, at + name.len());
        !is_name(start.checked_sub(1).and_then(|before| bytes.get(before)))
            && !is_name(bytes.get(end))
            && text.get(end..).is_some_and(|rest| rest.trim_start().starts_with(after))
    };
    text.match_indices(name).map(|(at, _)| at).find(own).unwrap_or(0)
}

/// The check of names: everything that is called or read has to be there.
struct Names<'t> {
    text: &'t str,
    known: Vec<String>,
    about_changes: bool,
}

impl Names<'_> {
    fn missing(&self, name: &str, called: bool) -> String {
        let at = place_of(self.text, name, if called { "(" } else { "" });
        let at = if called { at + name.len() } else { at };
        told(self.text, at, &format!("undeclared reference to '{name}' (in container '')"))
    }

    fn within(&mut self, name: &str, inner: &[&Expression]) -> Result<(), String> {
        self.known.push(name.to_owned());
        let checked = inner.iter().try_for_each(|expression| self.check(expression));
        self.known.pop();
        checked
    }

    fn check(&mut self, expression: &Expression) -> Result<(), String> {
        match &expression.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                self.about_changes |=
                    name == "oldSelf" && self.known.iter().filter(|known| *known == name).count() == 1;
                let known = name.starts_with('@') || self.known.contains(name);
                if known { Ok(()) } else { Err(self.missing(name.trim_start_matches('.'), false)) }
            }
            Expr::Select(select) => self.check(&select.operand),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.check(element)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => self.check(&entry.key).and_then(|()| self.check(&entry.value)),
                EntryExpr::StructField(field) => self.check(&field.value),
            }),
            Expr::Comprehension(inner) if inner.iter_var2.is_none() => {
                self.check(&inner.iter_range)?;
                self.check(&inner.accu_init)?;
                self.within(&inner.iter_var, &[&inner.loop_cond, &inner.loop_step, &inner.result])
            }
            Expr::Call(call) => self.call(call),
            Expr::Struct(made) => Err(self.missing(made.type_name.trim_start_matches('.'), false)),
            Expr::Comprehension(_) | Expr::Unspecified => Err("ERROR: <input>:1:1: Syntax error".to_owned()),
        }
    }

    fn call(&mut self, call: &CallExpr) -> Result<(), String> {
        if let Some((variable, [value, inner])) = bound(call) {
            self.check(value)?;
            return self.within(variable, &[inner]);
        }
        let arguments = call.args.iter();
        if !is_operator(&call.func_name) {
            let there = qualified(call) || functions::is_known(&call.func_name);
            if !there {
                return Err(self.missing(&call.func_name, true));
            }
        }
        if let Some(target) = call.target.as_deref().filter(|_| !qualified(call)) {
            self.check(target)?;
        }
        arguments.into_iter().try_for_each(|argument| self.check(argument))
    }
}

fn is_operator(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_alphabetic()) && !name.is_empty() && name != "_" || name.starts_with('@')
}

/// Whether the call is of a function with a name before its own.
fn qualified(call: &CallExpr) -> bool {
    match call.target.as_deref().map(|target| &target.expr) {
        Some(Expr::Ident(prefix)) => functions::is_qualified(prefix, &call.func_name),
        _ => false,
    }
}

/// `cel.bind(name, value, expression)`
fn bound(call: &CallExpr) -> Option<(&str, &[Expression; 2])> {
    let Some(Expr::Ident(prefix)) = call.target.as_deref().map(|target| &target.expr) else { return None };
    match call.args.as_slice() {
        [name, inner @ ..] if prefix == "cel" && call.func_name == "bind" => match &name.expr {
            Expr::Ident(name) => Some((name, inner.try_into().ok()?)),
            _ => None,
        },
        _ => None,
    }
}

fn ided(expr: Expr) -> Expression {
    IdedExpr { id: 0, expr }
}

fn ident(name: &str) -> Expression {
    ided(Expr::Ident(name.to_owned()))
}

fn called(name: &str, args: Vec<Expression>) -> Expression {
    ided(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
}

/// Arguments on their way to [`functions::CALL`].
#[derive(Default)]
struct Arguments(Vec<Expression>);

impl Arguments {
    /// Takes an argument and leaves its place's name.
    fn slot(&mut self, argument: Expression) -> Expression {
        self.0.push(rewritten(argument));
        ident(&slot(self.0.len() - 1))
    }

    fn then(mut self, expr: Expr) -> Expression {
        self.0.push(ided(expr));
        called(functions::CALL, self.0)
    }
}

fn rewritten(expression: Expression) -> Expression {
    match expression.expr {
        Expr::Call(call) => rewritten_call(call),
        Expr::Comprehension(inner) => rewritten_loop(*inner),
        Expr::Select(select) => {
            let operand = Box::new(rewritten(*select.operand));
            ided(Expr::Select(SelectExpr { operand, ..select }))
        }
        // What is written out cannot grow.
        Expr::List(list) if list.elements.iter().all(|element| matches!(element.expr, Expr::Literal(_))) => {
            ided(Expr::List(list))
        }
        Expr::List(list) => {
            let mut arguments = Arguments::default();
            let elements = list.elements.into_iter().map(|element| arguments.slot(element)).collect();
            arguments.then(Expr::List(ListExpr { elements, optional_indices: list.optional_indices }))
        }
        Expr::Map(map) => {
            let mut arguments = Arguments::default();
            let entries = map.entries.into_iter().map(|entry| IdedEntryExpr {
                id: entry.id,
                expr: match entry.expr {
                    EntryExpr::MapEntry(entry) => EntryExpr::MapEntry(MapEntryExpr {
                        key: arguments.slot(entry.key),
                        value: arguments.slot(entry.value),
                        optional: entry.optional,
                    }),
                    other => other,
                },
            });
            let entries = entries.collect();
            arguments.then(Expr::Map(MapExpr { entries }))
        }
        other => ided(other),
    }
}

fn rewritten_call(mut call: CallExpr) -> Expression {
    let lazy = [
        operators::CONDITIONAL,
        operators::LOGICAL_AND,
        operators::LOGICAL_OR,
        operators::LOGICAL_NOT,
        operators::NOT_STRICTLY_FALSE,
    ];
    if lazy.contains(&call.func_name.as_str()) {
        let args = call.args.into_iter().map(rewritten).collect();
        return ided(Expr::Call(CallExpr { args, ..call }));
    }
    if bound(&call).is_some() {
        return called(functions::BIND, call.args.into_iter().map(rewritten).collect());
    }
    let mut arguments = Arguments::default();
    if !qualified(&call) {
        call.target = call.target.map(|target| Box::new(arguments.slot(*target)));
    }
    call.args = call.args.into_iter().map(|argument| arguments.slot(argument)).collect();
    arguments.then(Expr::Call(call))
}

fn rewritten_loop(inner: ComprehensionExpr) -> Expression {
    let range = rewritten(inner.iter_range);
    let variable = ident(&inner.iter_var);
    match collected(inner.loop_step, &inner.accu_var) {
        Ok((element, condition)) => {
            let mut args = vec![range, variable, rewritten(element)];
            args.extend(condition.map(rewritten));
            called(functions::COLLECT, args)
        }
        Err(step) => {
            let parts = [inner.accu_init, inner.loop_cond, step, inner.result].map(rewritten);
            let mut args = vec![range, variable, ident(&inner.accu_var)];
            args.extend(parts);
            called(functions::LOOP, args)
        }
    }
}

/// The element and the condition of a loop that only adds to a list; else its step as it was. Adding to a list copies
/// it, so that such a loop would take the square of its turns.
fn collected(step: Expression, list: &str) -> Result<(Expression, Option<Expression>), Expression> {
    let adds = |expression: &Expression| match &expression.expr {
        Expr::Call(call) if call.func_name == operators::ADD => match call.args.as_slice() {
            [Expression { expr: Expr::Ident(to), .. }, Expression { expr: Expr::List(added), .. }] => {
                to == list && added.elements.len() == 1
            }
            _ => false,
        },
        _ => false,
    };
    let element = |adding: Expression| match adding.expr {
        Expr::Call(mut call) => match call.args.pop().map(|added| added.expr) {
            Some(Expr::List(mut added)) => added.elements.pop(),
            _ => None,
        },
        _ => None,
    };
    if adds(&step) {
        return element(step.clone()).map(|element| (element, None)).ok_or(step);
    }
    match &step.expr {
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => match call.args.as_slice() {
            [condition, adding, Expression { expr: Expr::Ident(kept), .. }] if kept == list && adds(adding) => {
                let found = element(adding.clone()).map(|element| (element, Some(condition.clone())));
                found.ok_or(step)
            }
            _ => Err(step),
        },
        _ => Err(step),
    }
}
