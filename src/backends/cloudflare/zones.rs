//! Which zone a host belongs to: longest suffix over a cached list.
use serde_json::Value;

use crate::api::HostName;
use crate::backends::{BackendError, ErrorClass};

/// A zone as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    pub id: String,
    pub name: String,
    pub status: String,
    pub paused: bool,
}

impl Zone {
    /// Reads an API zone.
    pub fn parse(value: &Value) -> Option<Self> {
        Some(Self {
            id: value["id"].as_str()?.to_owned(),
            name: value["name"].as_str()?.to_ascii_lowercase(),
            status: value["status"].as_str()?.to_owned(),
            paused: value["paused"].as_bool().unwrap_or(false),
        })
    }
}

/// The zone of the longest name that is the host's or a parent's; among equals, an active one. `None`
/// where the token sees no such zone.
pub fn zone_of<'a>(zones: &'a [Zone], host: &HostName) -> Option<&'a Zone> {
    let covers = |zone: &&Zone| {
        host.as_str().strip_suffix(&zone.name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    zones.iter().filter(covers).max_by_key(|zone| (zone.name.len(), zone.status == "active"))
}

/// The zone, if records in it can be served.
pub fn usable<'a>(zones: &'a [Zone], host: &HostName, proxied: bool) -> Result<&'a Zone, BackendError> {
    let zone = zone_of(zones, host).ok_or_else(|| {
        BackendError::new(
            ErrorClass::Permanent,
            "ZoneNotFound",
            format!("no Cloudflare zone that the token can see holds {host}; add the domain to the account, or widen the token"),
        )
    })?;
    let refuse = |what: String| {
        let message = format!("the Cloudflare zone {} {what}", zone.name);
        Err(BackendError::new(ErrorClass::Permanent, "ZoneNotActive", message))
    };
    if zone.status != "active" {
        return refuse(format!("is {}, not active; finish its set-up at the registrar first", zone.status));
    }
    if zone.paused && proxied {
        return refuse("is paused, so nothing in it is proxied; resume it in the dashboard".to_owned());
    }
    Ok(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, status: &str) -> Zone {
        Zone { id: name.to_owned(), name: name.to_owned(), status: status.to_owned(), paused: false }
    }

    #[test]
    fn the_longest_suffix_on_a_label_border_wins() {
        let zones =
            [zone("customer.co.uk", "active"), zone("mail.customer.co.uk", "active"), zone("tomer.co.uk", "active")];
        let found = |host: &str| zone_of(&zones, &HostName::parse(host).unwrap()).map(|z| z.name.clone());
        assert_eq!(found("reset.customer.co.uk").as_deref(), Some("customer.co.uk"));
        assert_eq!(found("reset.mail.customer.co.uk").as_deref(), Some("mail.customer.co.uk"));
        assert_eq!(found("reset.other.co.uk"), None);
    }

    #[test]
    fn a_zone_that_cannot_serve_is_named_with_its_state() {
        let host = HostName::parse("reset.acme.example").unwrap();
        let error = usable(&[zone("acme.example", "pending")], &host, true).unwrap_err();
        assert_eq!(error.reason, "ZoneNotActive");
        assert_eq!(
            error.message,
            "the Cloudflare zone acme.example is pending, not active; finish its set-up at the registrar first"
        );
        assert_eq!(usable(&[], &host, true).unwrap_err().reason, "ZoneNotFound");
    }
}
