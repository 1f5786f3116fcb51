//! The mails: the link, and the notice after a change. Plain text with a small HTML twin.
use jiff::Timestamp;
use maud::{DOCTYPE, html};

use super::directory::ServedPortal;
use super::link::LinkSecret;
use crate::api::MailAddress;
use crate::mail::Mail;

fn clock_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn support(portal: &ServedPortal) -> String {
    let branding = &portal.branding;
    match (&branding.support_text, &branding.support_link) {
        (Some(text), Some(link)) => format!("\n{text}\n{link}\n"),
        (Some(text), None) => format!("\n{text}\n"),
        (None, Some(link)) => format!("\nHelp: {link}\n"),
        (None, None) => String::new(),
    }
}

fn mail(portal: &ServedPortal, to: &MailAddress, subject: String, text: String, html: Option<String>) -> Mail {
    Mail {
        from: portal.from.clone(),
        from_name: Some(portal.title().to_owned()),
        reply_to: portal.reply_to.clone(),
        to: to.clone(),
        subject,
        text,
        html,
    }
}

/// The mail with the link, for the recovery address.
pub fn link(
    portal: &ServedPortal,
    mailbox: &MailAddress,
    to: &MailAddress,
    secret: &LinkSecret,
    expires: Timestamp,
) -> Mail {
    let address = format!("{}/r#{}", portal.url, secret.text());
    let (title, code, until) = (portal.title(), secret.code(), clock_time(expires));
    let minutes = portal.link_minutes;
    let text = format!(
        "Somebody asked to set a new password for the mailbox {mailbox}.\n\n\
         Open this link to choose it:\n\n{address}\n\n\
         Or open {url}/r and enter this code:\n\n{code}\n\n\
         The link works once and until {until} ({minutes} minutes). If this was not you, ignore this mail: nothing \
         changes unless the link is used.\n{support}",
        url = portal.url,
        support = support(portal),
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Set a new password" } }
            body style="font-family:sans-serif;line-height:1.5;max-width:36em" {
                h1 style="font-size:1.2em" { (title) }
                p { "Somebody asked to set a new password for the mailbox " strong { (mailbox.to_string()) } "." }
                p { a href=(address) { "Choose a new password" } }
                p { "Or open " a href={ (portal.url) "/r" } { (portal.url) "/r" } " and enter this code:" }
                p style="font-family:monospace" { (code) }
                p { "The link works once and until " (until) " (" (minutes) " minutes). If this was not you, ignore this mail: nothing changes unless the link is used." }
            }
        }
    };
    mail(portal, to, format!("Set a new password for {mailbox}"), text, Some(page.into_string()))
}

/// The notice after a change. It holds nothing that acts.
pub fn changed(portal: &ServedPortal, mailbox: &MailAddress, to: &MailAddress, at: Timestamp) -> Mail {
    let when = clock_time(at);
    let text = format!(
        "The password of the mailbox {mailbox} was changed at {host} on {when}.\n\n\
         Enter the new password in your phone and mail programs. Those that are connected keep working until they \
         connect again.\n\n\
         If this was not you, tell your mail administrator at once.\n{support}",
        host = portal.hosts.first().map(ToString::to_string).unwrap_or_default(),
        support = support(portal),
    );
    mail(portal, to, format!("The password of {mailbox} was changed"), text, None)
}
