//! Proof of life: a signed echo of a fresh nonce. Who can make it has the installation's key and serves
//! this very portal at this very host.
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Where a portal answers.
pub use crate::api::PROOF_PATH as PATH;
use crate::config::Secret;

/// Header of the pages' own redirect to https. Whoever is sent to where it came from learns by it that no proxy is at
/// fault that insists on https, but that the pages did not take its question for one.
pub const REDIRECT_HEADER: &str = "x-portalkeeper-redirect";

/// The proof for a nonce, in hexadecimal.
pub fn proof(key: &Secret, host: &str, uid: &str, nonce: &str) -> String {
    sign(key, &["live", host, uid, nonce])
}

/// Whether a proof is right, in constant time.
pub fn verify(key: &Secret, host: &str, uid: &str, nonce: &str, given: &str) -> bool {
    proof(key, host, uid, nonce).as_bytes().ct_eq(given.as_bytes()).into()
}

/// What a portal answers. Host and nonce stand in it only to tell what an answer was for that proves nothing: an old one
/// of a cache, or one for another host.
pub fn echo(key: &Secret, host: &str, uid: &str, nonce: &str) -> Value {
    json!({"portal": uid, "host": host, "nonce": nonce, "proof": proof(key, host, uid, nonce)})
}

/// Whether a nonce has the form that this program asks with: 16 to 64 hexadecimal digits. Anything else is
/// not echoed, so that nobody makes this endpoint sign texts of their own making.
pub fn is_nonce(text: &str) -> bool {
    (16..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A fresh nonce of 32 hexadecimal digits.
pub fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// HMAC-SHA256 over the parts, each with its length, in hexadecimal.
pub(super) fn sign(key: &Secret, parts: &[&str]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()) else { return String::new() };
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_key_host_portal_and_nonce_only() {
        let (key, other) = (Secret::new("k1"), Secret::new("k2"));
        let given = proof(&key, "reset.acme.example", "u1", "00ff00ff00ff00ff");
        assert_eq!(given.len(), 64);
        assert!(verify(&key, "reset.acme.example", "u1", "00ff00ff00ff00ff", &given));
        assert!(!verify(&other, "reset.acme.example", "u1", "00ff00ff00ff00ff", &given));
        assert!(!verify(&key, "reset.acme.example", "u2", "00ff00ff00ff00ff", &given));
        assert!(!verify(&key, "reset.acme.exampl", "eu1", "00ff00ff00ff00ff", &given));
        assert!(!verify(&key, "reset.acme.example", "u1", "00ff00ff00ff00fe", &given));
        assert!(is_nonce(&nonce()) && nonce() != nonce());
        assert!(!is_nonce("short") && !is_nonce(&"g".repeat(32)) && !is_nonce(&"0".repeat(65)));
    }
}
