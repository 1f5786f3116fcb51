//! How long and how deep an expression may be. It is asked before a parser sees the text: parser and interpreter
//! call themselves for everything nested, and a stack that ends takes the whole program with it. Pure.

/// Longest expression, in bytes.
pub const LONGEST: usize = 10_000;
/// Most steps, one within or after another, before the tree of an expression ends: brackets, operators, fields.
pub const DEEPEST: usize = 250;

/// Why an expression is not looked at, in the words of a real server's compiler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundsError {
    #[error("ERROR: <input>:-1:0: expression code point size exceeds limit: size: {0}, limit {LONGEST}")]
    Long(usize),
    #[error("ERROR: <input>:-1:0: expression recursion limit exceeded: {DEEPEST}")]
    Deep,
    /// Where the lexer would go on within the text is not known, and so neither is the depth.
    #[error("ERROR: <input>:1:{0}: Syntax error: token recognition error: the text that begins here does not end well")]
    Text(usize),
}

/// What is open: where the tree stood before the bracket, and where each of its parts begins.
struct Open {
    before: usize,
    start: usize,
    part: usize,
}

/// Errors: [`BoundsError`].
pub fn check(expression: &str) -> Result<(), BoundsError> {
    if expression.len() > LONGEST {
        return Err(BoundsError::Long(expression.len()));
    }
    let bytes = expression.as_bytes();
    let mut open = vec![Open { before: 0, start: 0, part: 0 }];
    let (mut depth, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at).copied() {
        let rest = &bytes[at..];
        if let Some(prefix) = text_prefix(rest) {
            at += prefix
                + text_length(&rest[prefix..], rest[..prefix].iter().any(|b| b"rR".contains(b)))
                    .ok_or(BoundsError::Text(at + 1))?;
            continue;
        }
        let mut length = 1;
        match byte {
            b'/' if rest.starts_with(b"//") => {
                at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                continue;
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                length = rest.iter().position(|b| !is_name(*b)).unwrap_or(rest.len());
                if &rest[..length] == b"in" {
                    depth += 1;
                }
            }
            b'(' | b'[' | b'{' => {
                open.push(Open { before: depth, start: depth + 1, part: depth + 1 });
                depth += 1;
            }
            b')' | b']' | b'}' => {
                // One that closes nothing is the parser's to tell.
                if open.len() > 1
                    && let Some(closed) = open.pop()
                {
                    depth = closed.before + 1;
                }
            }
            b',' => {
                if let Some(inner) = open.last_mut() {
                    inner.part = inner.start;
                    depth = inner.part;
                }
            }
            // The other branches of a choice stand within its last one.
            b'?' | b':' => {
                if let Some(inner) = open.last_mut() {
                    inner.part += 1;
                    depth = inner.part;
                }
            }
            // Members of `&&` and `||` stand side by side.
            b'&' | b'|' => {
                length = if rest.starts_with(b"&&") || rest.starts_with(b"||") { 2 } else { 1 };
                depth = open.last().map_or(0, |inner| inner.part + 1);
            }
            b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' | b'!' => {
                length = if rest.get(1) == Some(&b'=') { 2 } else { 1 };
                depth += 1;
            }
            _ => {}
        }
        if depth > DEEPEST {
            return Err(BoundsError::Deep);
        }
        at += length;
    }
    Ok(())
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The letters before the quote of a text that begins here; `None` where none begins.
fn text_prefix(rest: &[u8]) -> Option<usize> {
    let letters = rest.iter().position(|byte| !is_name(*byte)).unwrap_or(rest.len());
    let known = matches!(&rest[..letters], b"" | b"r" | b"R" | b"b" | b"B" | b"br" | b"bR" | b"Br" | b"BR");
    (known && matches!(rest.get(letters), Some(b'"' | b'\''))).then_some(letters)
}

/// Bytes of a text from its first quote to its last; `None` where it does not end or has an escape that is none.
fn text_length(rest: &[u8], raw: bool) -> Option<usize> {
    let quote = *rest.first()?;
    let triple = rest.starts_with(&[quote; 3]);
    let mut at = if triple { 3 } else { 1 };
    loop {
        let here = rest.get(at..)?;
        match *here.first()? {
            byte if byte == quote && !triple => return Some(at + 1),
            byte if byte == quote && here.starts_with(&[quote; 3]) => return Some(at + 3),
            b'\n' | b'\r' if !triple => return None,
            b'\\' if !raw => at += escape_length(here)?,
            _ => at += 1,
        }
    }
}

fn escape_length(rest: &[u8]) -> Option<usize> {
    let (digits, wanted): (usize, fn(&u8) -> bool) = match *rest.get(1)? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => return Some(2),
        b'0'..=b'3' => (2, |byte| (b'0'..=b'7').contains(byte)),
        b'x' | b'X' => (2, u8::is_ascii_hexdigit),
        b'u' => (4, u8::is_ascii_hexdigit),
        b'U' => (8, u8::is_ascii_hexdigit),
        _ => return None,
    };
    rest.get(2..2 + digits)?.iter().all(wanted).then_some(2 + digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_or_chained_counts_and_what_stands_side_by_side_does_not() {
        let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
        for (open, close) in [("(", ")"), ("[", "]"), ("{1:", "}"), ("true?1:", ""), ("!", ""), ("f(", ")"), ("-", "")]
        {
            assert_eq!(check(&nested(open, close, 80)), Ok(()), "{open}");
            assert_eq!(check(&nested(open, close, 251)), Err(BoundsError::Deep), "{open}");
        }
        for step in ["+1", ".a", "[0]", ".f()", " in a", "==1", "<=1"] {
            assert_eq!(check(&format!("a{}", step.repeat(80))), Ok(()), "{step}");
            assert_eq!(check(&format!("a{}", step.repeat(251))), Err(BoundsError::Deep), "{step}");
        }
        for (begin, part, end) in
            [("[", "1+1,", "1]"), ("", "a.b == 1 && ", "b"), ("", "a || ", "b"), ("f(", "a.b[1],", "1)")]
        {
            assert_eq!(check(&format!("{begin}{}{end}", part.repeat(500))), Ok(()), "{part}");
        }
    }

    #[test]
    fn brackets_in_texts_and_comments_do_not_count() {
        let many = "(".repeat(300);
        for text in [
            format!("'{many}'"),
            format!("\"\\\"{many}\""),
            format!("'''\n'{many}'''"),
            format!("r'{many}\\'"),
            format!("b'{many}' // {many}\n == 1"),
        ] {
            assert_eq!(check(&text), Ok(()), "{text}");
        }
        // a text that the lexer would give up on hides nothing
        for text in [format!("'\\q{many}'"), format!("'a\n{many}'"), format!("'{many}"), format!("'\\u12{many}'")] {
            assert_eq!(check(&text), Err(BoundsError::Text(1)), "{text}");
        }
        assert_eq!(check(&format!("bar'x'{many}")), Err(BoundsError::Deep));
    }

    #[test]
    fn an_expression_is_only_so_long() {
        assert_eq!(check(&"a ".repeat(5_000)), Ok(()));
        assert_eq!(check(&"a ".repeat(5_001)), Err(BoundsError::Long(10_002)));
    }
}
