//! Certificates in Caddy's configuration (`load_pem`): ours carry the mark and the host as a tag. Pure.
//!
//! Caddy orders nothing for a host that a loaded certificate is for.
use jiff::Timestamp;
use serde_json::{Value, json};

use super::identity::{own_part, route_id};
use crate::backends::origin_ca::Signed;
use crate::backends::origin_ca::kept::{Own, judge};
use crate::config::Secret;
use crate::plan::{Mark, Ownership};

/// Begins the tag that names the certificate at Cloudflare.
const ID: &str = "cloudflare-origin-ca:";

fn tags(entry: &Value) -> impl Iterator<Item = &str> {
    entry["tags"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Mark and host of an entry of ours.
fn owner(entry: &Value) -> Option<(Mark, &str)> {
    tags(entry).find_map(|tag| match Mark::from_identifier(own_part(tag)) {
        Ownership::Marked(mark) => Some((mark, tag.split_once('.')?.1)),
        Ownership::Foreign => None,
    })
}

/// Cloudflare's id of an entry's certificate.
fn id(entry: &Value) -> Option<String> {
    tags(entry).find_map(|tag| tag.strip_prefix(ID)).map(str::to_owned)
}

/// Those of ours among the entries.
pub fn ours(entries: &[Value], now: Timestamp) -> Vec<Own> {
    let secret = |value: &Value| Secret::new(value.as_str().unwrap_or_default());
    let own = |entry: &Value| {
        let (mark, host) = owner(entry)?;
        let signed = Signed { certificate: secret(&entry["certificate"]), key: secret(&entry["key"]), id: id(entry) };
        let state = judge(signed.certificate.expose(), signed.key.expose(), host, now);
        Some(Own { mark, host: host.to_owned(), signed, state })
    };
    entries.iter().filter_map(own).collect()
}

fn is_of(entry: &Value, mark: &Mark, host: &str) -> bool {
    owner(entry).is_some_and(|(owner, of)| owner == *mark && of == host)
}

/// The entries with this certificate for the portal's host, instead of the one that may be there.
pub fn with(entries: &[Value], mark: &Mark, host: &str, signed: &Signed) -> Vec<Value> {
    let mut tags = vec![route_id(mark, host)];
    tags.extend(signed.id.iter().map(|id| format!("{ID}{id}")));
    let (certificate, key) = (signed.certificate.expose(), signed.key.expose());
    let mut entries = without(entries, mark, host);
    entries.push(json!({"certificate": certificate, "key": key, "tags": tags}));
    entries
}

/// The entries without the certificate for the portal's host.
pub fn without(entries: &[Value], mark: &Mark, host: &str) -> Vec<Value> {
    entries.iter().filter(|entry| !is_of(entry, mark, host)).cloned().collect()
}

/// The entries with that certificate, but without our tags on it.
pub fn released(entries: &[Value], mark: &Mark, host: &str) -> Vec<Value> {
    let mut entries = entries.to_vec();
    for entry in entries.iter_mut().filter(|entry| is_of(entry, mark, host)) {
        let tag = route_id(mark, host);
        if let Some(tags) = entry["tags"].as_array_mut() {
            tags.retain(|other| *other != tag && !other.as_str().is_some_and(|other| other.starts_with(ID)));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PortalKey;
    use crate::backends::origin_ca::kept::State;
    use crate::plan::InstallationId;

    #[test]
    fn ours_come_and_go_and_others_stay_as_they_are() {
        let installation = InstallationId::parse("0123456789abcdef").unwrap();
        let mark = Mark::new(&installation, &PortalKey { namespace: "mail".into(), name: "acme".into() });
        let signed = |text: &str| {
            let (certificate, key) = (Secret::new(text), Secret::new("key"));
            Signed { certificate, key, id: Some("4711".to_owned()) }
        };
        let theirs = json!({"certificate": "theirs", "key": "k", "tags": ["mine"], "odd": 1});
        let host = "reset.acme.example";
        let one = with(std::slice::from_ref(&theirs), &mark, host, &signed("first"));
        let two = with(&one, &mark, host, &signed("second"));
        assert_eq!((two.len(), &two[0], &two[1]["certificate"]), (2, &theirs, &json!("second")));
        let found = ours(&two, Timestamp::UNIX_EPOCH);
        assert_eq!((found.len(), found[0].host.as_str(), found[0].signed.id.as_deref()), (1, host, Some("4711")));
        assert_eq!(found[0].mark, mark);
        assert!(matches!(found[0].state, State::Unusable(_)));
        assert_eq!(without(&two, &mark, "reset.globex.example"), two);
        assert_eq!(without(&two, &mark, host), std::slice::from_ref(&theirs));
        let left = released(&two, &mark, host);
        assert_eq!((left.len(), &left[1]["tags"]), (2, &json!([])));
        assert_eq!(ours(&left, Timestamp::UNIX_EPOCH), []);
    }
}
