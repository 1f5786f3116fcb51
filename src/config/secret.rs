//! Text that must not be seen.
use std::fmt;

use serde::{Deserialize, Deserializer};

/// What is wrong with a secret that [`Secret::is_token`] does not take; it does not say what is in it.
pub const NO_TOKEN: &str = "it holds a blank, a line end or another character that no token has";
/// The same for [`Secret::has_control`].
pub const NO_PASSWORD: &str = "it holds a line end or another control character, which no password has";

/// A credential or password. It has no `Display` and no `Serialize`, its `Debug` says `[redacted]`,
/// and it is compared in constant time.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Whether it can be a token, which is sent in a header: visible ASCII characters alone.
    pub fn is_token(&self) -> bool {
        self.0.bytes().all(|byte| byte.is_ascii_graphic())
    }
    /// Whether a line end or another control character is in it, which nobody types into a login.
    pub fn has_control(&self) -> bool {
        self.0.chars().any(char::is_control)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}
impl Eq for Secret {}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// Replaces every occurrence of the given secrets (of four characters and more) in a text.
pub fn redact(text: &str, secrets: &[&Secret]) -> String {
    secrets
        .iter()
        .filter(|secret| secret.0.len() >= 4)
        .fold(text.to_owned(), |text, secret| text.replace(secret.expose(), "[redacted]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_neither_blanks_nor_line_ends() {
        assert!(Secret::new("v1.0-Abc_{env.TOKEN}").is_token());
        for text in ["a b", "a\nb", "a\tb", "a\u{0}b", "ä"] {
            assert!(!Secret::new(text).is_token(), "{text:?}");
        }
        assert!(Secret::new("a\rb").has_control());
        assert!(!Secret::new("correct horse ä").has_control());
    }
}
