//! Form tokens: forms are taken only from pages that this program served for that host, without cookies.
use jiff::Timestamp;
use subtle::ConstantTimeEq;

use super::live::sign;
use crate::config::Secret;

/// Seconds for which a served form can be sent.
const LIFE: i64 = 2 * 60 * 60;

/// A token for a form that is served now: `<second>.<nonce>.<signature>`.
pub fn token(key: &Secret, host: &str, now: Timestamp) -> String {
    let second = now.as_second().to_string();
    let nonce = format!("{:016x}", rand::random::<u64>());
    let signature = sign(key, &["form", host, &second, &nonce]);
    format!("{second}.{nonce}.{signature}")
}

/// Whether the token was made for this host within the last two hours.
pub fn check(key: &Secret, host: &str, token: &str, now: Timestamp) -> bool {
    let mut parts = token.splitn(3, '.');
    let (Some(second), Some(nonce), Some(signature)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let genuine: bool = sign(key, &["form", host, second, nonce]).as_bytes().ct_eq(signature.as_bytes()).into();
    // A minute of grace for replicas whose clocks differ.
    genuine && second.parse::<i64>().is_ok_and(|made| (-60..LIFE).contains(&(now.as_second() - made)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_token_is_for_one_host_and_two_hours() {
        let key = Secret::new("key");
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let given = token(&key, "a.example", at(0));
        assert!(check(&key, "a.example", &given, at(7199)));
        assert!(!check(&key, "a.example", &given, at(7200)));
        assert!(!check(&key, "b.example", &given, at(1)));
        assert!(!check(&Secret::new("other"), "a.example", &given, at(1)));
        assert!(!check(&key, "a.example", &format!("{given}0"), at(1)));
        assert!(!check(&key, "a.example", "", at(1)) && !check(&key, "a.example", "1.2", at(1)));
    }
}
