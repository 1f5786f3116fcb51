//! What is told of a portal on its way from one proxy to another. Pure. A class without DNS, or without a target, has no
//! record of ours that leads anywhere; then only the routes are spoken of.
use super::deciding::{Undecided, word};
use super::places::place_of;
use super::runtime::ClassRuntime;
use super::validate::ValidPortal;
use crate::api::portal::{Decider, Place};
use crate::api::{ANNOTATION_MOVED_BY_HAND, HostName};

/// Where the record leads that is made through this account; `None` where there is no such record.
pub(super) fn record<'a>(class: &ClassRuntime, target: &'a Option<HostName>) -> Option<&'a HostName> {
    target.as_ref().filter(|_| class.dns.is_some())
}

/// Whence and where to, as the begin of a line.
pub(super) fn way(from: &str, to: &str, old: &Option<HostName>, new: &Option<HostName>) -> String {
    match (old, new) {
        (Some(old), Some(new)) if from == to => format!("from {old} to {new} in {to}"),
        _ => format!("from {from} to {to}"),
    }
}

/// The record could not be changed yet.
pub(super) fn to_be_flipped(way: &str, record: Option<&HostName>) -> String {
    let change = match record {
        Some(target) => format!("the record is to be changed to {target} and is not yet"),
        None => "the new route is to prove itself".to_owned(),
    };
    format!("{way}: {change}; the former route stays until then")
}

/// The new route is not proved yet; `waiting` says what is waited for.
/// Whether the record is `seen` to lead to the former one is another matter: it may have led elsewhere before.
pub(super) fn proving(way: &str, record: Option<&HostName>, seen: bool, waiting: &str) -> String {
    match record {
        Some(target) if !seen => {
            format!("{way}: the record is to lead to {target}, which it is not seen to do yet, until {waiting}")
        }
        Some(target) => format!("{way}: the record leads to {target} until {waiting}"),
        None => format!("{way}: served by the former route until {waiting}"),
    }
}

/// The new route has to prove itself through the public host.
///
/// Before the time `settled`, what is seen may come the former way.
pub(super) fn flipped(way: &str, record: Option<&HostName>, since: &str, settled: &str) -> String {
    let state = match record {
        Some(target) => format!("the record leads to {target} since {since}"),
        None => format!("the new route is being proved since {since}"),
    };
    format!("{way}: {state}; the proof of life decides, which counts from {settled} on")
}

/// It is proved. `note` is why it was not before the change that visitors see.
pub(super) fn moved(way: &str, record: Option<&HostName>, note: Option<&str>) -> String {
    match (note, record) {
        (Some(note), Some(_)) => format!("moved {way}; before the record was changed: {note}"),
        (Some(note), None) => format!("moved {way}; before the new route was to prove itself: {note}"),
        (None, _) => format!("moved {way}"),
    }
}

/// What somebody has to do where that is wrong.
pub(super) fn taken_for_one(from: &str, host: &HostName) -> String {
    format!(
        "; the route was there before anything was made, so both addresses are taken for one proxy; if they are two, remove the \
         route for {host} from {from} by hand"
    )
}

/// A person has to lead the visitors to the new proxy, or to say when they are.
/// `record` is where the record leads, if one was made for the portal.
pub(super) fn by_hand(way: &str, class: &ClassRuntime, record: Option<&HostName>, decider: Decider) -> String {
    let name = &class.class.name;
    let say = say(&place_of(&class.class));
    if decider == Decider::Person {
        let made = match class.proxy {
            Some(_) => format!("the route of PortalClass {name:?}"),
            None => format!("the route of PortalClass {name:?} is made by hand and"),
        };
        return format!(
            "{way}: {made} has the public address of the former one, so that it cannot be seen from here which of them \
             serves visitors; the former one stays until you {say}, which you do when visitors come to the new proxy"
        );
    }
    let to = class.class.spec.cname_target.as_deref().unwrap_or("the new proxy");
    let stays = match record {
        Some(target) => {
            format!("the record stays as it was made and leads to {target}, where the former route serves visitors")
        }
        None => "it cannot be seen from here where the record leads, and the former route stays".to_owned(),
    };
    format!(
        "{way}: PortalClass {name:?} has no Cloudflare account, so {stays}; lead it to {to} by hand, and the former route goes \
         when the portal is proved there; where that cannot be seen from here, {say}; or give the class an account"
    )
}

/// It is proved, but the way that the proof came is not known.
pub(super) fn undecided(way: &str, to: &Place, why: &Undecided) -> String {
    let (seen, until) = match why {
        Undecided::NoAnswer => (
            "the resolver gives no answer for the names of both proxies".to_owned(),
            "they can be looked up, or until ",
        ),
        Undecided::AtTheEdge(name) => {
            (format!("{name} leads to Cloudflare's edge, which hides the machine behind it"), "")
        }
    };
    format!(
        "{way}: proved, but {seen}: both proxies may be on one machine, where a proof of life may come through the former \
         route; it stays until {until}you {}, which you do when visitors come to the new proxy",
        say(to)
    )
}

/// What removals wait for where a person has to say something, as the beginning of a line.
pub(super) fn when_said(class: &ClassRuntime, decider: Decider) -> String {
    match (decider, &class.class.spec.cname_target) {
        (Decider::Record, Some(target)) => format!("when the record is led to {target} by hand, "),
        _ => format!("when {ANNOTATION_MOVED_BY_HAND}={} says so, ", word(&place_of(&class.class))),
    }
}

/// What somebody has to do who says that visitors come to a place.
pub(super) fn say(place: &Place) -> String {
    format!("annotate the portal with {ANNOTATION_MOVED_BY_HAND}={}", word(place))
}

/// It was not proved in time. `record` is where it is to lead again, and whether it does.
pub(super) fn rolled_back(way: &str, record: Option<(&HostName, bool)>, to: &str, seen: &str, again: &str) -> String {
    let state = match record {
        Some((target, true)) => format!("The record leads to {target} again and the route in {to} stays"),
        Some((target, false)) => {
            return format!(
                "{way}: {seen}. The record is to lead to {target} again and is not changed back yet, which is tried on and \
                 on; the route in {to} stays"
            );
        }
        None => format!("The former route stays, and so does the one in {to}"),
    };
    format!("{way}: {seen}. {state}; the next try is at {again}, or when the portal or its class is changed")
}

/// The command that prints what a person has to make, with what the class says of it.
pub(super) fn snippets(class: &ClassRuntime, valid: &ValidPortal) -> String {
    let edge = if valid.proxied { "" } else { " --edge direct" };
    let target = class.class.spec.proxy_name().map(|name| format!(" --cname-target {name}")).unwrap_or_default();
    format!("portalkeeper snippets {} --origin {}{target}{edge}", valid.host, class.class.spec.origin())
}

/// A move is called off, and both proxies may be one machine. `home` is where the portal stands.
pub(super) fn called_off(home: &Place) -> String {
    format!(
        "a move to a proxy that has, or may have, the same public address is called off, and it cannot be seen from here which of \
         both serves visitors; its route stays until you {}, which you do when visitors come to the proxy of PortalClass {:?}",
        say(home),
        home.class_name
    )
}

/// The change of the record that is still to come.
pub(super) fn record_to_come(host: &HostName, from: Option<&HostName>, to: Option<&HostName>) -> Option<String> {
    match (from, to) {
        (Some(from), Some(to)) if from == to => None,
        (Some(from), Some(to)) => Some(format!("update {host} from CNAME record to {from} to CNAME record to {to}")),
        (None, Some(to)) => Some(format!("create {host} (CNAME record to {to})")),
        (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: &str = "from caddy/a to caddy/b";

    fn all(record: Option<&HostName>) -> [String; 4] {
        [
            proving(WAY, record, true, "the new route is proved"),
            flipped(WAY, record, "2026-01-01T00:00:00Z", "2026-01-01T00:00:30Z"),
            moved(WAY, record, Some("both routes have the same address")),
            rolled_back(WAY, record.map(|target| (target, true)), "caddy/b", "404", "2026-01-01T06:00:00Z"),
        ]
    }

    #[test]
    fn where_there_is_a_record_it_is_told_where_it_leads() {
        let target = HostName::parse("b.example.com").unwrap();
        assert_eq!(
            all(Some(&target)),
            [
                "from caddy/a to caddy/b: the record leads to b.example.com until the new route is proved",
                "from caddy/a to caddy/b: the record leads to b.example.com since 2026-01-01T00:00:00Z; the proof of life \
                 decides, which counts from 2026-01-01T00:00:30Z on",
                "moved from caddy/a to caddy/b; before the record was changed: both routes have the same address",
                "from caddy/a to caddy/b: 404. The record leads to b.example.com again and the route in caddy/b stays; the \
                 next try is at 2026-01-01T06:00:00Z, or when the portal or its class is changed",
            ]
        );
    }

    #[test]
    fn a_move_within_one_proxy_is_told_by_its_targets() {
        let target = |text: &str| HostName::parse(text).ok();
        let (a, b) = (target("a.example.com"), target("b.example.com"));
        assert_eq!(way("caddy/x", "caddy/x", &a, &b), "from a.example.com to b.example.com in caddy/x");
        assert_eq!(way("caddy/x", "caddy/y", &a, &b), "from caddy/x to caddy/y");
        assert_eq!(way("caddy/x", "caddy/x", &a, &None), "from caddy/x to caddy/x");
    }

    #[test]
    fn where_there_is_no_record_only_the_routes_are_spoken_of() {
        let told = all(None);
        assert_eq!(
            told,
            [
                "from caddy/a to caddy/b: served by the former route until the new route is proved",
                "from caddy/a to caddy/b: the new route is being proved since 2026-01-01T00:00:00Z; the proof of life \
                 decides, which counts from 2026-01-01T00:00:30Z on",
                "moved from caddy/a to caddy/b; before the new route was to prove itself: both routes have the same address",
                "from caddy/a to caddy/b: 404. The former route stays, and so does the one in caddy/b; the next try is at \
                 2026-01-01T06:00:00Z, or when the portal or its class is changed",
            ]
        );
        assert!(told.iter().all(|words| !words.contains("record") && !words.contains("nowhere")));
    }

    #[test]
    fn a_record_that_is_not_there_yet_is_made_and_not_updated_from_nowhere() {
        let [host, a, b] = ["reset.example.com", "a.example.com", "b.example.com"].map(|n| HostName::parse(n).unwrap());
        assert_eq!(
            record_to_come(&host, Some(&a), Some(&b)).unwrap(),
            "update reset.example.com from CNAME record to a.example.com to CNAME record to b.example.com"
        );
        assert_eq!(
            record_to_come(&host, None, Some(&b)).unwrap(),
            "create reset.example.com (CNAME record to b.example.com)"
        );
        assert_eq!(record_to_come(&host, Some(&a), None), None);
    }
}
