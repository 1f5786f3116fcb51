//! The pages' HTML. Pure; everything from outside is escaped.
use maud::{DOCTYPE, Markup, html};

use super::assets;
use crate::reset::ServedPortal;

/// Something the visitor has to mend.
pub struct Problem<'a> {
    /// Id of the field at fault.
    pub field: &'static str,
    pub words: &'a str,
}

fn frame(portal: &ServedPortal, title: &str, problem: Option<&Problem<'_>>, content: &Markup) -> String {
    let style = assets::version(&assets::style(&portal.branding));
    let script = assets::version(assets::SCRIPT);
    let branding = &portal.branding;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1";
                meta name="robots" content="noindex";
                title { @if problem.is_some() { "Error: " } (title) " – " (portal.title()) }
                link rel="stylesheet" href={ "/style.css?v=" (style) };
                @if let Some(logo) = &portal.logo { link rel="icon" href={ "/logo?v=" (logo.etag) }; }
                @else { link rel="icon" href="data:,"; }
                script src={ "/app.js?v=" (script) } defer {}
            }
            body {
                main {
                    div.card {
                        div.brand {
                            @if let Some(logo) = &portal.logo { img src={ "/logo?v=" (logo.etag) } alt=""; }
                            p { (portal.title()) }
                        }
                        h1 { (title) }
                        @if let Some(problem) = problem {
                            div.problem #problem role="alert" tabindex="-1" {
                                strong { "That did not work" }
                                a href={ "#" (problem.field) } { (problem.words) }
                            }
                        }
                        (content)
                    }
                }
                @if branding.support_text.is_some() || branding.support_link.is_some() {
                    footer {
                        @if let Some(text) = &branding.support_text { p { (text) } }
                        @if let Some(link) = &branding.support_link {
                            p { "Help: " a href=(link) rel="noopener noreferrer" { (host_of(link)) } }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

/// What is shown of a link: its host, so that nobody is led astray.
fn host_of(link: &str) -> String {
    url::Url::parse(link).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| link.to_owned())
}

fn inline(problem: Option<&Problem<'_>>, field: &str) -> Markup {
    html! {
        @if let Some(problem) = problem.filter(|problem| problem.field == field) {
            p.wrong id={ (field) "-wrong" } { (problem.words) }
        }
    }
}

fn described(problem: Option<&Problem<'_>>, field: &str, hint: &str) -> String {
    match problem.filter(|problem| problem.field == field) {
        Some(_) => format!("{field}-wrong {hint}"),
        None => hint.to_owned(),
    }
}

/// The first page: which mailbox?
pub fn start(portal: &ServedPortal, token: &str, mailbox: &str, problem: Option<&Problem<'_>>) -> String {
    let content = html! {
        p { "Enter your mailbox. We send a link to the recovery address that is known for it." }
        form method="post" action="/request" {
            input type="hidden" name="form" value=(token);
            div.field {
                label for="mailbox" { "Mailbox" }
                p.hint #mailbox-hint { "Your whole address, like name@" (portal.domain) }
                (inline(problem, "mailbox"))
                input #mailbox name="mailbox" type="email" autocomplete="username" autocapitalize="none" spellcheck="false"
                    inputmode="email" required value=(mailbox) aria-describedby=(described(problem, "mailbox", "mailbox-hint"))
                    aria-invalid=(if problem.is_some() { "true" } else { "false" });
            }
            button.main type="submit" { "Send me a link" }
        }
    };
    frame(portal, "Forgot your password?", problem, &content)
}

/// After a request: the same words for everybody.
pub fn sent(portal: &ServedPortal) -> String {
    let content = html! {
        p { "If this mailbox has a recovery address, a mail with a link is on its way to it. It works once and for " (portal.link_minutes) " minutes." }
        p { "Nothing came? Look into the spam folder of your recovery address, and wait ten minutes before you ask again." }
        p { "Got a code instead of a link? " a href="/r" { "Enter it here" } "." }
    };
    frame(portal, "Look into your mail", None, &content)
}

/// The page behind a link.
pub fn choose(portal: &ServedPortal, token: &str, code: &str, problem: Option<&Problem<'_>>) -> String {
    let least = portal.minimum_password_length;
    let rule = portal.account.as_ref().map(|account| account.provider.policy());
    let known = if code.is_empty() { "no" } else { "yes" };
    let content = html! {
        form method="post" action="/reset" {
            input type="hidden" name="form" value=(token);
            div.field #code-field {
                label for="code" { "Code from the mail" }
                p.hint #code-hint { "Capitals, blanks and dashes do not matter." }
                (inline(problem, "code"))
                input #code name="code" type="text" autocomplete="one-time-code" autocapitalize="none" spellcheck="false"
                    required value=(code) data-known=(known) aria-describedby=(described(problem, "code", "code-hint"));
            }
            div.field {
                label for="password" { "New password" }
                p.hint #password-hint {
                    "At least " (least) " characters."
                    @if let Some(rule) = rule {
                        @if rule.upper_case && rule.lower_case && rule.digit { " With a capital, a small letter and a digit." }
                    }
                }
                (inline(problem, "password"))
                div.row {
                    input #password name="password" type="password" autocomplete="new-password" autocapitalize="none"
                        spellcheck="false" required aria-describedby=(described(problem, "password", "password-hint"));
                    button.side #show type="button" aria-controls="password" aria-pressed="false" hidden { "Show" }
                }
            }
            button.main type="submit" { "Set the password" }
        }
    };
    frame(portal, "Choose a new password", problem, &content)
}

/// Done.
pub fn changed(portal: &ServedPortal) -> String {
    let content = html! {
        p { "The new password works now. Enter it in your phone, your mail programs and wherever else you read your mail." }
        p { "Programs that are connected at the moment keep working until they connect again." }
    };
    frame(portal, "Your password is changed", None, &content)
}

/// The link cannot be used.
pub fn dead_link(portal: &ServedPortal) -> String {
    let content = html! {
        p { "This link or code was used already, is too old, or was replaced by a newer one. Your password has not been changed by it now." }
        p { a href="/" { "Ask for a new link" } }
    };
    frame(portal, "This link does not work any more", None, &content)
}

/// Not the visitor's fault.
pub fn later(portal: &ServedPortal) -> String {
    let content = html! {
        p { "The mail server cannot set the password at the moment. Your link stays valid; please try again in a few minutes." }
    };
    frame(portal, "Please try again later", None, &content)
}

/// A form that is not ours, damaged, or was open for too long.
pub fn stale(portal: &ServedPortal) -> String {
    let content = html! {
        p { "The page was open for too long, or your browser sent something we cannot read. Nothing was changed." }
        p { a href="/" { "Start again" } }
    };
    frame(portal, "Please start again", None, &content)
}

/// Nothing at this address.
pub fn nothing(portal: &ServedPortal) -> String {
    let content = html! { p { a href="/" { "Reset a mailbox password" } } };
    frame(portal, "There is no such page", None, &content)
}
