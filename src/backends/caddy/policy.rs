//! Caddy's TLS policy for certificates by a DNS challenge at Cloudflare: one for all names, the last of all. Pure.
//!
//! Caddy takes the first policy that fits a name, and one without names fits every name: at the end it serves whatever
//! nobody else's policy does, and a portal needs no policy of its own. It tries the issuers in order: one for each token,
//! and then its own normal way, since other people's sites on this Caddy may be in zones that no token can write.
use serde_json::{Value, json};

use super::challenges::Tokens;
use crate::config::Secret;
use crate::plan::InstallationId;

/// The module that Caddy must have been built with.
pub const MODULE: &str = "dns.providers.cloudflare";
/// What a Caddy says that was built without it.
pub const MODULE_MISSING: &str = "unknown module: dns.providers.cloudflare";
/// What stands before the module's own words where it refuses its settings: a token by its form, since version 0.2.
pub const MODULE_REFUSES: &str = "provision dns.providers.cloudflare: ";

const TOKEN: &str = "/challenges/dns/provider/api_token";

/// `@id` of an installation's policy.
pub fn id(installation: &InstallationId) -> String {
    format!("pk1-{}-tls", installation.as_str())
}

/// The policy. Each token is an API token, or a placeholder that Caddy fills in.
fn desired(id: &str, tokens: &[&str]) -> Value {
    let by_dns = |token: &&str| {
        let provider = json!({"name": "cloudflare", "api_token": token});
        json!({"module": "acme", "challenges": {"dns": {"provider": provider}}})
    };
    let issuers: Vec<Value> = tokens.iter().map(by_dns).chain([json!({"module": "acme"})]).collect();
    json!({"@id": id, "issuers": issuers})
}

fn tokens_of(policy: &Value) -> impl Iterator<Item = &str> {
    let issuers = policy["issuers"].as_array().into_iter().flatten();
    issuers.filter_map(|issuer| issuer.pointer(TOKEN)?.as_str())
}

/// Those among the tokens that our policy does not have yet.
pub fn new_tokens(policies: &[Value], id: &str, tokens: &Tokens) -> Vec<Secret> {
    let there: Vec<&str> = policies.iter().filter(|policy| policy["@id"] == id).flat_map(tokens_of).collect();
    tokens.known.iter().filter(|token| !there.contains(&token.expose())).cloned().collect()
}

/// What is to be done about the policies as they are.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Nothing,
    /// Ours is not there, and is not wanted.
    Absent,
    /// These instead.
    Write(Vec<Value>),
    /// These instead: without ours, which nobody wants any more.
    Remove(Vec<Value>),
    /// Somebody else's policy is for all names already; two of them Caddy does not take.
    Foreign,
}

/// What the tokens mean for the policies. Without `may_make` ours is put right where it is, and not made.
pub fn step(policies: &[Value], id: &str, tokens: &Tokens, may_make: bool) -> Step {
    let there = policies.iter().find(|policy| policy["@id"] == id);
    if there.is_none() && !may_make {
        return Step::Absent;
    }
    // While not every class is heard, nothing is taken away or put into another order: each write makes Caddy start anew.
    let kept = there.into_iter().flat_map(tokens_of).filter(|_| tokens.others);
    let mut wanted: Vec<&str> = Vec::new();
    for token in kept.chain(tokens.known.iter().map(|token| token.expose())) {
        if !wanted.contains(&token) {
            wanted.push(token);
        }
    }
    match (wanted.is_empty(), without(policies, id)) {
        (false, _) => ensure(policies, &desired(id, &wanted)),
        (true, Some(rest)) if !tokens.others => Step::Remove(rest),
        (true, Some(_)) => Step::Nothing,
        (true, None) => Step::Absent,
    }
}

fn for_all(policy: &Value) -> bool {
    policy["subjects"].as_array().is_none_or(Vec::is_empty)
}

/// Puts the policy at the end, or leaves it there.
fn ensure(policies: &[Value], wanted: &Value) -> Step {
    let ours = |policy: &&Value| policy["@id"] == wanted["@id"];
    if policies.iter().any(|policy| for_all(policy) && !ours(&policy)) {
        return Step::Foreign;
    }
    if policies.iter().filter(ours).count() == 1 && policies.last() == Some(wanted) {
        return Step::Nothing;
    }
    let mut all: Vec<Value> = policies.iter().filter(|policy| !ours(policy)).cloned().collect();
    all.push(wanted.clone());
    Step::Write(all)
}

/// The policies without ours; `None` where it is not among them.
pub fn without(policies: &[Value], id: &str) -> Option<Vec<Value>> {
    let rest: Vec<Value> = policies.iter().filter(|policy| policy["@id"] != id).cloned().collect();
    (rest.len() < policies.len()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "pk1-00c0ffee00c0ffee-tls";

    fn tokens(known: &[&str], others: bool) -> Tokens {
        Tokens { known: known.iter().map(|token| Secret::new(*token)).collect(), others }
    }

    #[test]
    fn the_policy_stands_once_and_last_and_others_stay_as_they_are() {
        let wanted = desired(OURS, &["t"]);
        let theirs = json!({"subjects": ["www.acme.example"], "issuers": [{"module": "internal"}], "odd": 1});
        let step = |policies: &[Value]| step(policies, OURS, &tokens(&["t"], false), true);
        assert_eq!(step(&[]), Step::Write(vec![wanted.clone()]));
        let both = vec![theirs.clone(), wanted.clone()];
        assert_eq!(step(std::slice::from_ref(&theirs)), Step::Write(both.clone()));
        assert_eq!(step(&both), Step::Nothing);
        let mixed = [wanted.clone(), theirs.clone(), desired(OURS, &["old"])];
        assert_eq!(step(&mixed), Step::Write(both.clone()));
        for foreign in [json!({"issuers": []}), json!({"subjects": []}), desired("pk1-0000000000000000-tls", &["t"])] {
            assert_eq!(step(&[theirs.clone(), foreign]), Step::Foreign);
        }
        assert_eq!(without(&both, OURS), Some(vec![theirs.clone()]));
        assert_eq!(without(&[theirs], OURS), None);
    }

    #[test]
    fn a_token_that_no_class_has_goes_once_every_class_is_heard() {
        let both = [desired(OURS, &["old", "t"])];
        assert_eq!(both[0]["issuers"][2], json!({"module": "acme"}), "Caddy's normal way comes last");
        let to = |wanted: &[&str]| Step::Write(vec![desired(OURS, wanted)]);
        // before that it may be of a class that is still to come
        assert_eq!(step(&both, OURS, &tokens(&["t"], true), true), Step::Nothing);
        assert_eq!(step(&both, OURS, &tokens(&["new", "t"], true), true), to(&["old", "t", "new"]));
        assert_eq!(step(&both, OURS, &tokens(&["old", "t"], true), false), Step::Nothing);
        assert_eq!(step(&both, OURS, &tokens(&[], true), false), Step::Nothing);
        // then it is nobody's
        assert_eq!(step(&both, OURS, &tokens(&["t"], false), false), to(&["t"]));
        assert_eq!(step(&both, OURS, &tokens(&[], false), false), Step::Remove(vec![]));
        // and a class without a challenge makes no policy
        assert_eq!(step(&[], OURS, &tokens(&["t"], false), false), Step::Absent);
        assert_eq!(step(&[], OURS, &tokens(&[], false), true), Step::Absent);
    }

    #[test]
    fn a_policy_without_tokens_that_somebody_made_of_ours_stays_until_every_class_is_heard() {
        let odd = [json!({"@id": OURS, "issuers": [{"module": "internal"}]})];
        assert_eq!(step(&odd, OURS, &tokens(&[], true), false), Step::Nothing);
        assert_eq!(step(&odd, OURS, &tokens(&[], false), false), Step::Remove(vec![]));
    }
}
