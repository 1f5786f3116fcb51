//! Caddy's TLS policy for certificates by a DNS challenge at Cloudflare: one for all names, the last of all. Pure.
//!
//! Caddy takes the first policy that fits a name, and one without names fits every name: at the end it serves whatever
//! nobody else's policy does, and a portal needs no policy of its own.
use serde_json::{Value, json};

use crate::plan::InstallationId;

/// The module that Caddy must have been built with.
pub const MODULE: &str = "dns.providers.cloudflare";

/// `@id` of an installation's policy.
pub fn id(installation: &InstallationId) -> String {
    format!("pk1-{}-tls", installation.as_str())
}

/// The policy. `token` is the API token, or a placeholder that Caddy fills in.
pub fn desired(id: &str, token: &str) -> Value {
    let provider = json!({"name": "cloudflare", "api_token": token});
    json!({"@id": id, "issuers": [{"module": "acme", "challenges": {"dns": {"provider": provider}}}]})
}

/// What is to be done about the policies as they are.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Nothing,
    /// These instead.
    Write(Vec<Value>),
    /// Somebody else's policy is for all names already; two of them Caddy does not take.
    Foreign,
}

fn for_all(policy: &Value) -> bool {
    policy["subjects"].as_array().is_none_or(Vec::is_empty)
}

/// Puts the policy at the end, or leaves it there.
pub fn ensure(policies: &[Value], wanted: &Value) -> Step {
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

    #[test]
    fn the_policy_stands_once_and_last_and_others_stay_as_they_are() {
        let wanted = desired("pk1-00c0ffee00c0ffee-tls", "t");
        let theirs = json!({"subjects": ["www.acme.example"], "issuers": [{"module": "internal"}], "odd": 1});
        assert_eq!(ensure(&[], &wanted), Step::Write(vec![wanted.clone()]));
        let both = vec![theirs.clone(), wanted.clone()];
        assert_eq!(ensure(std::slice::from_ref(&theirs), &wanted), Step::Write(both.clone()));
        assert_eq!(ensure(&both, &wanted), Step::Nothing);
        let mixed = [wanted.clone(), theirs.clone(), desired("pk1-00c0ffee00c0ffee-tls", "old")];
        assert_eq!(ensure(&mixed, &wanted), Step::Write(both.clone()));
        for foreign in [json!({"issuers": []}), json!({"subjects": []}), desired("pk1-0000000000000000-tls", "t")] {
            assert_eq!(ensure(&[theirs.clone(), foreign], &wanted), Step::Foreign);
        }
        assert_eq!(without(&both, "pk1-00c0ffee00c0ffee-tls"), Some(vec![theirs.clone()]));
        assert_eq!(without(&[theirs], "pk1-00c0ffee00c0ffee-tls"), None);
    }
}
