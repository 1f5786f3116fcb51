//! What a call is for. Where a budget is short, the most urgent goes first.

/// The most urgent first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// A deletion, or what somebody has just edited.
    #[default]
    Edit,
    /// Something new, or something that was not looked at since the start.
    Create,
    /// A look whether all is still as it was left, and repairs.
    Drift,
}
