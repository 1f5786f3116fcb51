//! What a mail host demands of a password, checked here first so that the visitor hears it in plain words.
use crate::api::MailAddress;

/// A host's rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordPolicy {
    /// In characters.
    pub minimum: usize,
    pub upper_case: bool,
    pub lower_case: bool,
    pub digit: bool,
}

impl PasswordPolicy {
    /// The rule as a sentence.
    pub fn describe(&self) -> String {
        let mut needs = Vec::new();
        for (needed, words) in [
            (self.upper_case, "an upper-case letter"),
            (self.lower_case, "a lower-case letter"),
            (self.digit, "a digit"),
        ] {
            if needed {
                needs.push(words);
            }
        }
        match needs.split_last() {
            None => format!("It needs at least {} characters.", self.minimum),
            Some((last, [])) => format!("It needs at least {} characters with {last}.", self.minimum),
            Some((last, rest)) => {
                format!("It needs at least {} characters with {} and {last}.", self.minimum, rest.join(", "))
            }
        }
    }

    /// Checks a password for a mailbox. The error is a sentence for the visitor.
    pub fn check(&self, password: &str, address: &MailAddress) -> Result<(), String> {
        let met = password.chars().count() >= self.minimum
            && (!self.upper_case || password.chars().any(|c| c.is_ascii_uppercase()))
            && (!self.lower_case || password.chars().any(|c| c.is_ascii_lowercase()))
            && (!self.digit || password.chars().any(|c| c.is_ascii_digit()));
        if !met {
            return Err(format!("This password is too simple for the mail server. {}", self.describe()));
        }
        // Hosts suspend mailboxes whose password is the user name with a few digits.
        let folded = password.to_lowercase();
        if folded.contains(address.local()) || folded.contains(address.domain().as_str()) {
            return Err("The password must not contain the mailbox's name or domain.".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_sentence() {
        let policy = PasswordPolicy { minimum: 8, upper_case: true, lower_case: true, digit: true };
        let address = MailAddress::parse("ann@acme.example").unwrap();
        assert!(policy.check("Correct-horse-7", &address).is_ok());
        let words = "This password is too simple for the mail server. It needs at least 8 characters with an upper-case letter, a lower-case letter and a digit.";
        for weak in ["Sh0rt", "correct-horse-7", "CORRECT-HORSE-7", "Correct-horse"] {
            assert_eq!(policy.check(weak, &address).unwrap_err(), words, "{weak}");
        }
        for near in ["Ann-12345678", "Xacme.example7"] {
            assert_eq!(
                policy.check(near, &address).unwrap_err(),
                "The password must not contain the mailbox's name or domain.",
                "{near}"
            );
        }
    }
}
