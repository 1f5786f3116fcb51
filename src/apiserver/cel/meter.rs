//! What the evaluation that runs on this thread may still use: time, steps and memory. The interpreter has no such
//! bounds of its own; it asks here at every call and at every turn of a loop.
use std::cell::Cell;
use std::time::{Duration, Instant};

use kube::core::cel::cel::objects::Key;
use kube::core::cel::cel::{ExecutionError, Value};

/// What the rules of one write may use together.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    pub time: Duration,
    /// Steps of one rule, and of all: a call or a turn of a loop is one, and so are [`STEP_BYTES`] that it looks at.
    pub rule: u64,
    pub all: u64,
    /// Bytes that are in use at once or were made by one rule.
    pub memory: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { time: Duration::from_secs(2), rule: 1_000_000, all: 10_000_000, memory: 128 << 20 }
    }
}

/// Bytes that cost as much as a call does.
const STEP_BYTES: usize = 256;
/// Bytes of a value beside its own texts, roughly.
const VALUE_BYTES: usize = 64;

/// Which bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// That of a single rule.
    Rule,
    /// That of all rules together.
    All,
}

struct Meter {
    deadline: Cell<Option<Instant>>,
    rule: Cell<u64>,
    all: Cell<u64>,
    memory: Cell<usize>,
    held: Cell<usize>,
    spent: Cell<Option<Spent>>,
}

thread_local! {
    static METER: Meter = const { Meter {
        deadline: Cell::new(None), rule: Cell::new(0), all: Cell::new(0), memory: Cell::new(0), held: Cell::new(0),
        spent: Cell::new(None),
    } };
}

fn over(meter: &Meter, which: Spent) -> ExecutionError {
    if meter.spent.get().is_none() {
        meter.spent.set(Some(which));
    }
    ExecutionError::function_error("cost", "operation cancelled: actual cost limit exceeded")
}

/// Begins a write.
pub fn begin(budget: Budget) {
    METER.with(|meter| {
        meter.deadline.set(Some(Instant::now() + budget.time));
        meter.all.set(budget.all);
        meter.spent.set(None);
    });
}

/// Begins a rule.
pub fn begin_rule(budget: Budget) {
    METER.with(|meter| {
        meter.rule.set(budget.rule);
        meter.memory.set(budget.memory);
        meter.held.set(0);
        if meter.spent.get() == Some(Spent::Rule) {
            meter.spent.set(None);
        }
    });
}

/// Which bound was reached since the write began. What an evaluation says after that means nothing.
pub fn spent() -> Option<Spent> {
    METER.with(|meter| meter.spent.get())
}

/// Takes steps. Errors: there are not as many left, or the time is over.
pub fn step(steps: u64) -> Result<(), ExecutionError> {
    METER.with(|meter| {
        if let Some(which) = meter.spent.get() {
            return Err(over(meter, which));
        }
        let (rule, all) = (meter.rule.get().checked_sub(steps), meter.all.get().checked_sub(steps));
        let (Some(left), Some(all)) = (rule, all) else {
            return Err(over(meter, if all.is_none() { Spent::All } else { Spent::Rule }));
        };
        meter.rule.set(left);
        meter.all.set(all);
        if meter.deadline.get().is_some_and(|deadline| Instant::now() > deadline) {
            return Err(over(meter, Spent::All));
        }
        Ok(())
    })
}

/// Steps for looking at so many bytes.
pub fn look(bytes: usize) -> Result<(), ExecutionError> {
    step((bytes / STEP_BYTES) as u64)
}

/// Memory that is in use until this goes.
pub struct Held(usize);

impl Drop for Held {
    fn drop(&mut self) {
        METER.with(|meter| meter.held.set(meter.held.get().saturating_sub(self.0)));
    }
}

/// Memory for as long as the answer lives. Errors: too much is in use.
pub fn hold(bytes: usize) -> Result<Held, ExecutionError> {
    METER.with(|meter| {
        let held = meter.held.get().saturating_add(bytes);
        if held > meter.memory.get() {
            return Err(over(meter, Spent::Rule));
        }
        meter.held.set(held);
        Ok(Held(bytes))
    })
}

/// Memory of a result, which lives for as long as the interpreter keeps it. Errors: too much was made.
pub fn make(bytes: usize) -> Result<(), ExecutionError> {
    METER.with(|meter| match meter.memory.get().checked_sub(bytes) {
        Some(left) => {
            meter.memory.set(left);
            Ok(())
        }
        None => Err(over(meter, Spent::Rule)),
    })
}

/// About how many bytes a value takes.
pub fn size(value: &Value) -> usize {
    VALUE_BYTES
        + match value {
            Value::List(items) => items.iter().map(size).sum(),
            Value::Map(map) => map.map.iter().map(|(key, value)| VALUE_BYTES + key_size(key) + size(value)).sum(),
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
}

fn key_size(key: &Key) -> usize {
    match key {
        Key::String(text) => text.len(),
        _ => 0,
    }
}
