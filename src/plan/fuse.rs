//! The fuse: many changes that nobody asked for one by one are held until somebody approves them.

/// Fewer things than this are never held.
pub const SMALLEST: usize = 10;
/// Share of what is owned, in per cent, above which unexplained changes are held.
pub const MOST_PERCENT: usize = 30;

/// Whether `changing` of `owned` things may change without a reason of their own. An edit or a deletion of the very
/// portal is a reason of its own and is not counted.
pub fn blows(owned: usize, changing: usize) -> bool {
    owned >= SMALLEST && changing.saturating_mul(100) > owned.saturating_mul(MOST_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_things_and_small_shares_pass() {
        for (owned, changing, held) in [
            (0, 0, false),
            (9, 9, false),
            (10, 3, false),
            (10, 4, true),
            (100, 30, false),
            (100, 31, true),
            (1000, 300, false),
            (1000, 1000, true),
        ] {
            assert_eq!(blows(owned, changing), held, "{changing} of {owned}");
        }
    }
}
