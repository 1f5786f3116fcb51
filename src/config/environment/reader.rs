//! Reads single variables and notes what is wrong with them.
use url::Url;

use super::ConfigError;
use crate::config::rules::TextRule;
use crate::config::secret::{NO_TOKEN, Secret};

pub(super) struct Reader<'a> {
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    pub errors: Vec<ConfigError>,
}

impl Reader<'_> {
    /// A set, non-empty text without blanks around it.
    pub fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }
    pub fn invalid(&mut self, name: &'static str, shown: &str, allowed: impl Into<String>) {
        // What stands before an @ may be a password.
        let open = shown.rsplit_once('@').map_or(shown.to_owned(), |(_, host)| format!("…@{host}"));
        let visible = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
        let shown = open.chars().take(80).map(visible).collect();
        self.errors.push(ConfigError::Invalid { name, shown, allowed: allowed.into() });
    }
    /// A text that the rule is for. One that breaks it is noted, and comes back so that it does not count as missing.
    pub fn fitting(&mut self, name: &'static str, rule: &TextRule) -> Option<String> {
        let text = self.text(name)?;
        if !rule.admits(&text) {
            self.invalid(name, &text, rule.words);
        }
        Some(text)
    }
    pub fn unusable(&mut self, name: &'static str, why: impl Into<String>) {
        self.errors.push(ConfigError::Unusable { name, why: why.into() });
    }
    pub fn missing<T: Default>(&mut self, name: &'static str, why: impl Into<String>) -> T {
        self.errors.push(ConfigError::Missing { name, why: why.into() });
        T::default()
    }
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        let text = self.text(name)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => {
                self.invalid(name, &text, "allowed are true and false");
                None
            }
        }
    }
    pub fn number<T: std::str::FromStr>(
        &mut self,
        name: &'static str,
        allowed: &str,
        fits: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| fits(number));
        if number.is_none() {
            self.invalid(name, &text, allowed);
        }
        number
    }
    pub fn url(&mut self, name: &'static str) -> Option<Url> {
        let text = self.text(name)?;
        let url = Url::parse(&text).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.host_str().is_some());
        if text.contains('@') {
            // It would stand in the class for everybody to read, and the value is not repeated here either.
            self.invalid(
                name,
                "…@…",
                "an address must not hold a name or a password; there are variables of their own for those",
            );
            return None;
        }
        if url.is_none() {
            self.invalid(name, &text, "allowed is an address that begins with http:// or https://");
        }
        url
    }
    /// The variable itself, or the content of the file that `NAME_FILE` names.
    pub fn secret(&mut self, name: &'static str) -> Option<Secret> {
        let file = self.text(&format!("{name}_FILE"));
        if let Some(text) = self.text(name) {
            if file.is_some() {
                self.unusable(name, format!("{name}_FILE is set, too: leave one of them out"));
            }
            return Some(Secret::new(text));
        }
        let path = file?;
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Some(Secret::new(text.trim())),
            Ok(_) => {
                self.unusable(name, format!("the file {path} is empty"));
                None
            }
            Err(error) => {
                self.unusable(name, format!("the file {path} cannot be read: {error}"));
                None
            }
        }
    }
    /// A secret that is sent in a header.
    pub fn token(&mut self, name: &'static str) -> Option<Secret> {
        let token = self.secret(name)?;
        if !token.is_token() {
            self.unusable(name, NO_TOKEN);
        }
        Some(token)
    }

    /// A variable that a backend cannot do without.
    pub fn needed(&mut self, name: &'static str, why: &str) {
        if self.text(name).is_none() {
            self.missing::<()>(name, why);
        }
    }
    /// A plain name, as entry points and resolvers have.
    pub fn word(&mut self, name: &'static str, text: &str) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let fits = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= 64 && text.chars().all(plain);
        if !fits {
            self.invalid(name, text, "allowed are letters, digits, hyphens, underscores and dots");
        }
        fits.then(|| text.to_owned())
    }
}
