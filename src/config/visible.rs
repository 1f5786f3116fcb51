//! Texts of other systems, as they may be shown.

/// The text without characters that a terminal would obey: line ends and tabs are blanks, others are seen as what they
/// are. What remote systems say goes into conditions and events, and from there to terminals.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => shown.push(' '),
            c if c.is_control() => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// The same in no more than so many characters, with a mark where something is left out: what another system says is not
/// to fill our status.
pub fn shortened(text: &str, longest: usize) -> String {
    let shown = visible(text);
    match shown.char_indices().nth(longest) {
        Some(_) => shown.chars().take(longest.saturating_sub(1)).chain(['…']).collect(),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::{shortened, visible};

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(visible("größer – fine"), "größer – fine");
        assert_eq!(visible("a\r\nb\tc"), "a  b c");
        assert_eq!((shortened("größer", 6), shortened("größer!", 6)), ("größer".to_owned(), "größe…".to_owned()));
        assert_eq!(visible("\u{1b}[31mred\u{7}\u{9b}x\u{7f}"), r"\u{1b}[31mred\u{7}\u{9b}x\u{7f}");
    }
}
