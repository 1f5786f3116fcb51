//! Sent forms, read strictly: no repeated fields, no broken text, no control characters. Pure.
use std::collections::HashMap;

/// Why a form is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("a form is expected")]
    WrongType,
    #[error("the form is damaged")]
    Damaged,
}

impl FormError {
    /// Stable CamelCase word.
    pub fn reason(self) -> &'static str {
        match self {
            Self::WrongType => "NotAForm",
            Self::Damaged => "FormDamaged",
        }
    }
}

/// A form's fields.
#[derive(Clone, Default)]
pub struct Form(HashMap<String, String>);

impl Form {
    pub fn parse(content_type: Option<&str>, body: &[u8]) -> Result<Self, FormError> {
        let kind = content_type.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(FormError::WrongType);
        }
        let mut fields = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            // The decoder puts U+FFFD where the bytes are not UTF-8.
            let broken = |text: &str| text.chars().any(|c| c.is_control() || c == '\u{fffd}');
            if broken(&name) || broken(&value) || fields.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(FormError::Damaged);
            }
        }
        Ok(Self(fields))
    }

    /// A field's text; an absent field is empty.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_forms_are_read() {
        let kind = Some("application/x-www-form-urlencoded; charset=utf-8");
        let form = Form::parse(kind, b"mailbox=ann%40acme.example&x=%C3%BC+1").unwrap();
        assert_eq!((form.text("mailbox"), form.text("x"), form.text("y")), ("ann@acme.example", "ü 1", ""));
        for damaged in [&b"a=1&a=2"[..], b"a=%ff", b"a=%00", b"a=x%0d%0aBcc:y", b"%0a=1", b"a=\xff"] {
            assert_eq!(Form::parse(kind, damaged).err(), Some(FormError::Damaged), "{damaged:?}");
        }
        for kind in [None, Some("application/json"), Some("text/plain")] {
            assert_eq!(Form::parse(kind, b"a=1").err(), Some(FormError::WrongType));
        }
    }
}
