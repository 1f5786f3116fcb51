//! Answers in the form of a proof, and what is known of one that is not this portal's. Pure.
//!
//! Anybody can send such a form, so that words go as far as the signature, and no farther.
use serde_json::Value;

use super::sighting::Asked;
use crate::api::HostName;
use crate::reset::live;

/// Reason of an answer that comes out of a cache.
pub(super) const CACHED: &str = "CachedAnswer";
pub(super) const CACHE_ADVICE: &str = "switch caching off for /.well-known/portalkeeper/*";

/// The parts of the answer.
pub(super) struct Echo<'a> {
    portal: &'a str,
    proof: &'a str,
    /// What it says that it was asked for; older versions do not.
    host: Option<HostName>,
    nonce: Option<&'a str>,
}

impl<'a> Echo<'a> {
    /// The answer, if it has the form.
    pub fn read(answer: &'a Value) -> Option<Self> {
        let text = |name: &str| answer[name].as_str().filter(|text| !text.is_empty());
        let host = text("host").and_then(|host| HostName::parse(host).ok());
        Some(Self { portal: text("portal")?, proof: text("proof")?, host, nonce: text("nonce") })
    }

    /// Whether this very portal gives it for this very question.
    pub fn proves(&self, asked: &Asked) -> bool {
        live::verify(asked.key, asked.host, asked.uid, asked.nonce, self.proof)
    }

    /// What it is that is no proof: reason and words.
    pub fn judge(&self, asked: &Asked) -> (&'static str, String) {
        // The parts come from outside; with our own signature over them, they are ours.
        let ours = |host: &str, nonce: &str| live::verify(asked.key, host, self.portal, nonce, self.proof);
        let nonce = self.nonce.unwrap_or(asked.nonce);
        let host = self.host.as_ref().map_or(asked.host, HostName::as_str);
        if ours(asked.host, asked.nonce) {
            let words = "the proof of a former object of this name (another uid); another replica still serves it";
            ("FormerPortal", words.to_owned())
        } else if nonce != asked.nonce && ours(host, nonce) {
            let words = format!("an old answer of this installation, as a cache would give it; {CACHE_ADVICE}");
            (CACHED, words)
        } else if ours(host, nonce) {
            let words = format!(
                "this installation's proof for the host {host}: something before the pages changes the Host header, which \
                 must come through as it is"
            );
            ("HostChanged", words)
        } else if nonce == asked.nonce && self.nonce.is_some() && is_signature(self.proof) {
            let words = "a proof for this question that is signed with another key: another installation of Portalkeeper \
                         seems to serve the same host, or this one has lost its data; remove the portal there, or give this \
                         installation the other one's data";
            ("OtherInstallation", words.to_owned())
        } else {
            let words = format!(
                "something in the form of a proof that this installation did not sign for this question; whose it is cannot \
                 be told: an old answer out of a cache ({CACHE_ADVICE}), or another program or installation of Portalkeeper \
                 that serves the same host"
            );
            ("UnknownProof", words)
        }
    }
}

/// 64 hexadecimal digits, as every signature has.
fn is_signature(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Secret;

    const HOST: &str = "reset.acme.example";
    const NONCE: &str = "00ff00ff00ff00ff";

    /// What is made of an answer to portal `u1` of the installation with the key `k1`.
    fn judged(answer: &Value) -> (&'static str, String) {
        let key = Secret::new("k1");
        let url = "https://reset.acme.example";
        let asked = Asked { url, shown: url, host: HOST, uid: "u1", nonce: NONCE, key: &key };
        let echo = Echo::read(answer).expect("the form of a proof");
        assert!(!echo.proves(&asked), "{answer}");
        echo.judge(&asked)
    }

    #[test]
    fn what_our_own_key_signed_for_another_question_is_told_as_such() {
        let ours = |host: &str, uid: &str, nonce: &str| live::echo(&Secret::new("k1"), host, uid, nonce);
        // when a cache replays an answer, also one of a former object of the portal or for another host
        for old in [
            ours(HOST, "u1", "aaaaaaaaaaaaaaaa"),
            ours(HOST, "u0", "aaaaaaaaaaaaaaaa"),
            ours("other.acme.example", "u1", "aaaaaaaaaaaaaaaa"),
        ] {
            let (reason, words) = judged(&old);
            assert_eq!(reason, "CachedAnswer");
            assert!(words.contains("old answer of this installation") && words.contains(CACHE_ADVICE), "{words}");
        }
        // when the proxy asks for another host
        let (reason, words) = judged(&ours("other.acme.example", "u2", NONCE));
        assert_eq!(reason, "HostChanged");
        assert!(words.contains("other.acme.example") && words.contains("Host header"), "{words}");
        assert_eq!(judged(&ours(HOST, "u0", NONCE)).0, "FormerPortal");
    }

    #[test]
    fn of_what_we_did_not_sign_no_more_is_claimed_than_is_known() {
        let (reason, words) = judged(&live::echo(&Secret::new("k2"), HOST, "u1", NONCE));
        assert_eq!(reason, "OtherInstallation");
        assert!(words.contains("seems to serve"), "{words}");
        let signed = live::proof(&Secret::new("k1"), HOST, "u1", "aaaaaaaaaaaaaaaa");
        for unknown in [
            json!({"portal": "shop", "proof": "of purchase"}),
            json!({"portal": "shop", "proof": "of purchase", "nonce": NONCE}),
            // as an older version gives it, old or of somebody else
            json!({"portal": "u1", "proof": signed}),
            // a nonce that it was not signed for
            json!({"portal": "u1", "proof": signed, "nonce": "bbbbbbbbbbbbbbbb"}),
        ] {
            let (reason, words) = judged(&unknown);
            assert_eq!(reason, "UnknownProof");
            assert!(words.contains("cannot be told"), "{words}");
        }
    }
}
