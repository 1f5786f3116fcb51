//! From a mail to its bytes.
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};

use super::{Mail, MailError};
use crate::api::MailAddress;

/// Longest display name and subject, in characters.
const LONGEST: usize = 78;

/// Marks a mail as written by a program, so that nobody's out-of-office answers it (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }
    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }
    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// The same for Microsoft's servers.
#[derive(Clone)]
struct SuppressResponses;

impl Header for SuppressResponses {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("X-Auto-Response-Suppress")
    }
    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }
    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "All".to_owned())
    }
}

/// Text that may stand in a header: no control, direction or zero-width characters, and not too long. The
/// library panics on a line break in a name.
fn clean(text: &str) -> String {
    let hidden =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).filter(|c| !hidden(*c)).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}

fn mailbox(name: Option<&str>, address: &MailAddress) -> Result<Mailbox, MailError> {
    let parsed: Address = address.to_string().parse().map_err(|error| MailError::Message(format!("{error}")))?;
    Ok(Mailbox::new(name.map(clean).filter(|name| !name.is_empty()), parsed))
}

/// Builds the message with `Date`, `Message-ID` and the headers that keep programs from answering.
pub fn build(mail: &Mail) -> Result<Message, MailError> {
    let id = format!("<{:032x}@{}>", rand::random::<u128>(), mail.from.domain());
    let mut builder = Message::builder()
        .from(mailbox(mail.from_name.as_deref(), &mail.from)?)
        .to(mailbox(None, &mail.to)?)
        .subject(clean(&mail.subject))
        .message_id(Some(id))
        .header(AutoSubmitted)
        .header(SuppressResponses);
    if let Some(reply_to) = &mail.reply_to {
        builder = builder.reply_to(mailbox(None, reply_to)?);
    }
    let built = match &mail.html {
        None => builder.singlepart(SinglePart::plain(mail.text.clone())),
        Some(html) => builder.multipart(MultiPart::alternative_plain_html(mail.text.clone(), html.clone())),
    };
    built.map_err(|error| MailError::Message(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_break_headers_are_cleaned() {
        let mail = Mail {
            from: MailAddress::parse("reset@acme.example").unwrap(),
            from_name: Some("Acme\r\nBcc: x@y.example\u{0}\u{202e}".into()),
            reply_to: None,
            to: MailAddress::parse("ann@home.example").unwrap(),
            subject: format!("Hello\r\nX-Evil: 1 {}", "x".repeat(2000)),
            text: "text".into(),
            html: None,
        };
        let raw = String::from_utf8(build(&mail).unwrap().formatted()).unwrap();
        let head = raw.split("\r\n\r\n").next().unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc:") || line.starts_with("X-Evil:")), "{head}");
        assert!(head.contains("Message-ID: <") && head.contains("Auto-Submitted: auto-generated"), "{head}");
        assert!(head.lines().all(|line| line.len() < 200));
    }
}
