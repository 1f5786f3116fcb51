//! CEL, the language of the rules in schemas, within bounds: how long and deep an expression may be, how long it may
//! run and how much it may make, and what it may call. What it does wrong is its own error, never the server's end.
mod bounds;
mod functions;
mod kinds;
mod meter;
mod program;
mod threads;
mod values;

pub use functions::{context, optional};
pub use kinds::{BOOL, Kind, TEXT, TOO_DEAR};
pub use meter::{Budget, Spent, begin, begin_rule, spent, step};
pub use program::{Program, told};
pub use threads::{WorkError, run};
pub use values::value;

pub use kube::core::cel::cel::{Context, Value};

/// Whether an expression would be given to the parser.
#[cfg(test)]
pub fn within_bounds(expression: &str) -> bool {
    bounds::check(expression).is_ok()
}
