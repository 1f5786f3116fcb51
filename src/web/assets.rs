//! Style and script of the pages. The style is per portal, so that pages need no inline styles.
use sha2::{Digest, Sha256};

use crate::api::portal::{Branding, Theme};

/// Accent where the portal names none.
const ACCENT: (u8, u8, u8) = (0x1f, 0x5f, 0xa8);

const STYLE: &str = "
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;min-height:100vh;display:flex;flex-direction:column;font:1.0625rem/1.55 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;background:var(--back);color:var(--ink)}
main{width:100%;max-width:28rem;margin:auto;padding:1.5rem 1rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:1.75rem 1.5rem;border-top:.3rem solid var(--accent);overflow-wrap:anywhere}
.brand{margin:0 0 1.25rem}
.brand img{display:block;max-width:100%;max-height:4.5rem;margin:0 0 .9rem}
.brand p{margin:0;color:var(--soft)}
h1{font-size:1.4rem;line-height:1.25;margin:0 0 .75rem}
p{margin:0 0 1rem}
label{display:block;font-weight:600;margin:0 0 .35rem}
.hint{color:var(--soft);font-size:.95rem;margin:0 0 .5rem}
.field{margin:0 0 1.25rem}
input{font:inherit;color:inherit;background:var(--back);width:100%;padding:.65rem .75rem;border:1px solid var(--edge);border-radius:.4rem}
.row{display:flex;gap:.5rem}
.row input{min-width:0}
button{overflow-wrap:normal;flex:none;font:inherit;font-weight:600;cursor:pointer;border-radius:.4rem;padding:.7rem 1.1rem;border:1px solid transparent}
button.main{width:100%;background:var(--accent);color:var(--on-accent)}
button.side{background:transparent;color:inherit;border-color:var(--edge);font-weight:400}
a{color:inherit}
:focus-visible{outline:.2rem solid var(--ink);outline-offset:.15rem}
.problem{border:1px solid var(--bad);border-left-width:.3rem;border-radius:.4rem;padding:.75rem .9rem;margin:0 0 1.25rem}
.problem strong{display:block}
.wrong{color:var(--bad);font-weight:600;margin:0 0 .35rem}
.wrong+input,.wrong+.row input{border-color:var(--bad)}
footer{max-width:28rem;width:100%;margin:0 auto;padding:0 1rem 1.5rem;color:var(--soft);font-size:.95rem}
[hidden]{display:none!important}
@media (forced-colors:active){.card{border-top-color:CanvasText}}
@media print{body{background:none}.card{border:0}}
";

/// The script: takes a link's secret out of the address bar, and lets passwords be seen.
pub const SCRIPT: &str = r#""use strict";
(function () {
  var code = document.getElementById("code");
  function take() {
    var secret = location.hash.slice(1);
    if (!code || !secret) { return; }
    code.value = secret;
    var box = document.getElementById("code-field");
    if (box) { box.hidden = true; }
    history.replaceState(null, "", location.pathname);
    var password = document.getElementById("password");
    if (password) { password.focus(); }
  }
  take();
  window.addEventListener("hashchange", take);
  if (code && code.value && code.dataset.known === "yes") { document.getElementById("code-field").hidden = true; }
  var show = document.getElementById("show");
  var field = document.getElementById("password");
  if (show && field) {
    show.hidden = false;
    var set = function (visible) {
      field.type = visible ? "text" : "password";
      show.textContent = visible ? "Hide" : "Show";
      show.setAttribute("aria-pressed", visible ? "true" : "false");
    };
    show.addEventListener("click", function () { set(field.type === "password"); });
    field.form.addEventListener("submit", function () { set(false); });
  }
  var problem = document.getElementById("problem");
  if (problem) { problem.focus(); }
})();
"#;

fn accent(branding: &Branding) -> (u8, u8, u8) {
    let parsed = branding.accent_colour.as_deref().and_then(|text| {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii())?;
        let part = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
        Some((part(0)?, part(2)?, part(4)?))
    });
    parsed.unwrap_or(ACCENT)
}

/// Relative luminance (WCAG 2.2).
fn luminance((r, g, b): (u8, u8, u8)) -> f64 {
    let linear = |part: u8| {
        let part = f64::from(part) / 255.0;
        if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}

/// Black or white, whichever is easier to read on a colour; the better one always has at least 4.5:1.
fn readable_on(colour: (u8, u8, u8)) -> &'static str {
    let light = luminance(colour);
    let (on_white, on_black) = (1.05 / (light + 0.05), (light + 0.05) / 0.05);
    if on_white >= on_black { "#ffffff" } else { "#000000" }
}

/// The portal's style sheet.
pub fn style(branding: &Branding) -> String {
    let colour = accent(branding);
    let (r, g, b) = colour;
    let scheme = match branding.theme {
        Theme::Auto => "light dark",
        Theme::Light => "light",
        Theme::Dark => "dark",
    };
    format!(
        ":root{{color-scheme:{scheme};--accent:#{r:02x}{g:02x}{b:02x};--on-accent:{on};--back:light-dark(#f3f5f7,#14181d);\
         --card:light-dark(#ffffff,#1d232a);--ink:light-dark(#18202a,#e8edf2);--soft:light-dark(#4d5966,#a9b4c0);\
         --line:light-dark(#d9dfe5,#333c46);--edge:light-dark(#76818d,#7d8996);--bad:light-dark(#b3261e,#ff8a80)}}{STYLE}",
        on = readable_on(colour),
    )
}

/// Changes when the text does; stands in the address, so that browsers may keep the file.
pub fn version(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn button_text_can_be_read_on_every_accent() {
        for colour in (0..4096).map(|n| ((n & 15) * 17, (n >> 4 & 15) * 17, (n >> 8 & 15) * 17)) {
            let colour = (colour.0 as u8, colour.1 as u8, colour.2 as u8);
            let text = if readable_on(colour) == "#ffffff" { 1.0 } else { 0.0 };
            let (a, b) = (luminance(colour) + 0.05, text + 0.05);
            assert!(f64::max(a, b) / f64::min(a, b) >= 4.5, "{colour:?}");
        }
    }

    #[test]
    fn a_broken_colour_falls_back() {
        let branding = |text: &str| Branding { accent_colour: Some(text.into()), ..Branding::default() };
        assert!(style(&branding("#aa0000")).contains("--accent:#aa0000;"));
        for text in ["red", "#aa00zz", "#ääb", "}body{"] {
            assert!(style(&branding(text)).contains("--accent:#1f5fa8;"), "{text}");
        }
    }
}
