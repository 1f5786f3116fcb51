//! The frame of the sandbox's own pages: index and inbox.
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = "
:root{color-scheme:light dark;--line:light-dark(#d8dde3,#39414b);--soft:light-dark(#5a6570,#9aa6b2);--card:light-dark(#fff,#1b2026);--back:light-dark(#f4f6f8,#12161a);--link:light-dark(#0b5cad,#7fb8f0)}
*{box-sizing:border-box}body{margin:0;background:var(--back);font:16px/1.5 system-ui,sans-serif;color:light-dark(#1c2430,#e6ebf0)}
header,main{max-width:60rem;margin:0 auto;padding:1rem 1.25rem}header{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;align-items:baseline}
header strong{font-size:1.1rem;margin-right:auto}a{color:var(--link)}h1{font-size:1.4rem;margin:.5rem 0 1rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem 1.25rem;margin:0 0 1rem;overflow-wrap:anywhere}
.soft{color:var(--soft)}pre{white-space:pre-wrap;font:inherit;margin:.75rem 0 0}code,.mono{font-family:ui-monospace,monospace;font-size:.92em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1rem;margin:0}dt{color:var(--soft)}dd{margin:0}
@media(max-width:34rem){dl{grid-template-columns:1fr}dt{margin-top:.4rem}}";

/// A whole page with the sandbox's navigation.
pub fn frame(title: &str, content: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1";
                title { (title) " · Portalkeeper sandbox" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    strong { "Portalkeeper sandbox" }
                    a href="/" { "Overview" }
                    a href="/inbox" { "Inbox" }
                    a href="/cloudflare/records/ui" { "DNS records" }
                    a href="/mxroute/ui" { "Mailboxes" }
                    a href="/caddy/config/" { "Caddy configuration" }
                }
                main { h1 { (title) } (content) }
            }
        }
    }
    .into_string()
}

/// Text with its http(s) addresses made links.
pub fn linked(text: &str) -> Markup {
    html! {
        @for (index, word) in text.split_inclusive(char::is_whitespace).enumerate() {
            @let bare = word.trim_end();
            @if bare.starts_with("http://") || bare.starts_with("https://") {
                a href=(bare) data-index=(index) { (bare) }
                (&word[bare.len()..])
            } @else {
                (word)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_links_and_markup_stays_text() {
        let shown = linked("Open\n\nhttp://reset.acme.localhost:5000/r#abc\n\n<b>now</b>").into_string();
        assert!(shown.contains(r#"<a href="http://reset.acme.localhost:5000/r#abc""#), "{shown}");
        assert!(shown.contains("&lt;b&gt;now&lt;/b&gt;"), "{shown}");
    }
}
