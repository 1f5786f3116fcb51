//! The secret of a link: 160 random bits, written in Crockford's base 32 so that it can also be typed.
use std::fmt;

/// Digits and lower-case letters without i, l, o and u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Random bytes of a secret.
const BYTES: usize = 20;

/// A link's secret. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkSecret([u8; BYTES]);

impl fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl LinkSecret {
    /// A fresh secret from the system's random source.
    pub fn random() -> Self {
        Self(rand::random())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// 32 characters.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(BYTES * 8 / 5);
        for chunk in self.0.chunks(5) {
            let bits = chunk.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            text.extend((0..8).rev().map(|at| char::from(ALPHABET[(bits >> (5 * at) & 31) as usize])));
        }
        text
    }

    /// The text in groups of four, as it stands in a mail: `k3x9-…`.
    pub fn code(&self) -> String {
        let text = self.text();
        let groups: Vec<&str> = (0..text.len()).step_by(4).map(|at| &text[at..at + 4]).collect();
        groups.join("-")
    }

    /// Reads a secret as linked or typed: capitals, blanks and dashes do not matter, and letters that are not
    /// used stand for the digits they look like.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 200 {
            return None;
        }
        let mut values = Vec::with_capacity(BYTES * 8 / 5);
        for c in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let c = match c.to_ascii_lowercase() {
                'o' => '0',
                'i' | 'l' => '1',
                c => c,
            };
            values.push(ALPHABET.iter().position(|a| char::from(*a) == c)? as u64);
        }
        if values.len() != BYTES * 8 / 5 {
            return None;
        }
        let mut bytes = [0; BYTES];
        for (group, chunk) in values.chunks(8).zip(bytes.chunks_mut(5)) {
            let bits = group.iter().fold(0_u64, |bits, value| bits << 5 | value);
            chunk.copy_from_slice(&bits.to_be_bytes()[3..]);
        }
        Some(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_writing_and_typing() {
        for _ in 0..100 {
            let secret = LinkSecret::random();
            assert_eq!(secret.text().len(), 32);
            assert_eq!(LinkSecret::parse(&secret.text()), Some(secret.clone()));
            assert_eq!(LinkSecret::parse(&secret.code().to_uppercase().replace('-', " ")), Some(secret.clone()));
            assert_eq!(LinkSecret::parse(&secret.code().replace('0', "O").replace('1', "l")), Some(secret));
        }
        for text in ["", "abc", &"u".repeat(32), &"0".repeat(33), &"é".repeat(32), &"0".repeat(1000)] {
            assert_eq!(LinkSecret::parse(text), None, "{text}");
        }
        assert_eq!(format!("{:?}", LinkSecret::random()), "[redacted]");
    }
}
