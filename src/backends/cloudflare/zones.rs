//! Which zone a host belongs to: the longest suffix that the account has, over a cached list.
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::api::HostName;
use crate::backends::cloudflare_api::Api;
use crate::backends::{BackendError, ErrorClass, Reach};
use crate::http::double::lock;

/// For this long it is not doubted which zones there are.
const FRESH: SignedDuration = SignedDuration::from_hours(1);
/// Most zones a page of the zone list may hold.
const PER_PAGE: usize = 50;

/// A zone as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    pub id: String,
    pub name: String,
    pub status: String,
    pub paused: bool,
    /// `full`, `partial`, `secondary` or `internal`.
    pub kind: String,
    /// Operations that a batch may hold.
    pub batch: usize,
}

impl Zone {
    /// Reads an API zone; `None` where a field that every zone has is missing.
    pub fn parse(value: &Value) -> Option<Self> {
        // Free zones take 200, others 3,500; an unknown plan is taken for the smallest.
        let paid = matches!(value["plan"]["legacy_id"].as_str(), Some("pro" | "business" | "enterprise"));
        Some(Self {
            id: value["id"].as_str()?.to_owned(),
            // Hosts are A-labels, and so are zones here, however the API spells them.
            name: idna::domain_to_ascii(value["name"].as_str()?).ok()?,
            status: value["status"].as_str()?.to_owned(),
            paused: value["paused"].as_bool().unwrap_or(false),
            kind: value["type"].as_str().unwrap_or("full").to_owned(),
            batch: if paid { 3500 } else { 200 },
        })
    }

    /// Why no record can be made in the zone.
    pub fn unusable(&self) -> Option<BackendError> {
        let (reason, what) = match (self.status.as_str(), self.kind.as_str()) {
            ("active", "secondary") => (
                "ZoneSecondary",
                "is a secondary zone, which copies its records from elsewhere; make the record at its primary"
                    .to_owned(),
            ),
            ("active", _) => return None,
            ("initializing" | "pending", _) => {
                ("ZonePending", format!("is {}, not active; finish its set-up at the registrar first", self.status))
            }
            (status, _) => {
                ("ZoneMoved", format!("is {status}; the domain is served elsewhere, or was taken out of the account"))
            }
        };
        Some(self.error(reason, &what))
    }

    /// Nothing is in the way, as far as is known.
    pub fn serves(&self) -> bool {
        self.unusable().is_none() && !self.paused
    }

    /// Why nothing in the zone is proxied.
    pub fn unproxied(&self) -> Option<BackendError> {
        let what = "is paused, so nothing in it is proxied; resume it in the dashboard";
        self.paused.then(|| self.error("ZonePaused", what))
    }

    fn error(&self, reason: &'static str, what: &str) -> BackendError {
        BackendError::new(ErrorClass::Permanent, reason, format!("the Cloudflare zone {} {what}", self.name))
    }

    /// What to do where the host lies too deep for the certificate that every zone has: it covers the zone and one label.
    pub fn too_deep(&self, host: &str) -> Option<String> {
        let below = host.strip_suffix(&self.name)?.trim_end_matches('.');
        let labels = below.split('.').filter(|label| !label.is_empty()).count();
        (labels > 1).then(|| {
            format!(
                "{host} lies {labels} labels below the zone {}, and Universal SSL covers one: browsers get a certificate error unless the zone has Total TLS or an advanced certificate (Advanced Certificate Manager); or choose a host with one label",
                self.name
            )
        })
    }
}

#[derive(Default)]
struct Book {
    zones: HashMap<String, Zone>,
    /// The whole list was read.
    complete: bool,
    /// Names that were asked for and are no zones.
    absent: HashSet<String>,
    /// Names that must be asked for again, whatever the list said.
    doubtful: HashSet<String>,
    /// Hosts that were asked for, by zone id.
    hosts: HashMap<String, HashSet<String>>,
    /// When a zone was read, by name.
    read: HashMap<String, Timestamp>,
}

/// The zones that are known.
#[derive(Default)]
pub struct Zones(Mutex<Book>);

/// The host and its parents down to two labels, the longest first.
fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    let starts = std::iter::once(0).chain(host.match_indices('.').map(|(at, _)| at + 1));
    starts.map(|at| &host[at..]).filter(|suffix| suffix.contains('.'))
}

impl Book {
    fn of(&self, host: &str) -> Option<&Zone> {
        for name in suffixes(host) {
            if let Some(zone) = self.zones.get(name) {
                return Some(zone);
            }
            // A longer zone may be there as long as nobody has looked.
            if (!self.complete && !self.absent.contains(name)) || self.doubtful.contains(name) {
                return None;
            }
        }
        None
    }

    fn add(&mut self, zone: Zone, now: Timestamp) {
        self.read.insert(zone.name.clone(), now);
        self.absent.remove(&zone.name);
        self.doubtful.remove(&zone.name);
        // Of two accounts' zones of one name, the active one is meant.
        match self.zones.get(&zone.name) {
            Some(known) if known.status == "active" && zone.status != "active" && known.id != zone.id => {}
            _ => {
                self.zones.insert(zone.name.clone(), zone);
            }
        }
    }
}

impl Zones {
    /// The known zone of a host.
    pub fn of(&self, host: &str) -> Option<Zone> {
        let mut book = lock(&self.0);
        let zone = book.of(host)?.clone();
        book.hosts.entry(zone.id.clone()).or_default().insert(host.to_owned());
        Some(zone)
    }

    /// How many hosts of a zone were asked for.
    pub fn hosts(&self, zone: &str) -> usize {
        lock(&self.0).hosts.get(zone).map_or(0, HashSet::len)
    }

    /// Forgets a host's zone where it was not read of late: another may have taken its place, such as a child zone.
    pub fn doubt(&self, host: &str, now: Timestamp) {
        let old = {
            let book = lock(&self.0);
            let read = book.of(host).and_then(|zone| book.read.get(&zone.name));
            read.is_some_and(|read| now.duration_since(*read) >= FRESH)
        };
        if old {
            self.forget(host);
        }
    }

    /// Forgets a zone that cannot be found any more.
    pub fn forget(&self, host: &str) {
        let mut book = lock(&self.0);
        if let Some(zone) = book.of(host).cloned() {
            book.zones.remove(&zone.name);
            for name in suffixes(host) {
                book.absent.remove(name);
                // Whether what is next in length is the longest now is not known either.
                book.doubtful.insert(name.to_owned());
            }
        }
    }

    /// Known zones of shorter names in which the host may have been before it got one of its own.
    pub fn around(&self, host: &str, zone: &Zone) -> Vec<Zone> {
        let book = lock(&self.0);
        suffixes(host)
            .filter(|name| name.len() < zone.name.len())
            .filter_map(|name| book.zones.get(name).cloned())
            .collect()
    }

    /// The known zone of this id.
    pub fn by_id(&self, id: &str) -> Option<Zone> {
        lock(&self.0).zones.values().find(|zone| zone.id == id).cloned()
    }

    /// Finds the zones of hosts that are not known, or not known to be usable: by one list, or name by name where that is
    /// cheaper. `around`: also the zones of shorter names.
    pub async fn discover(&self, api: &Api, account: Option<&str>, hosts: &[HostName], around: bool) -> Vec<Reach> {
        let filter: Vec<(&str, &str)> = account.iter().map(|id| ("account.id", *id)).collect();
        let unknown = |host: &&HostName| lock(&self.0).of(host.as_str()).is_none_or(|zone| !zone.serves());
        let mut failed = None;
        if !lock(&self.0).complete && hosts.iter().any(|host| unknown(&host)) {
            match self.begin_list(api, &filter, hosts.len()).await {
                Ok(()) => {}
                Err(error) => failed = Some(error),
            }
        }
        let mut answers = Vec::with_capacity(hosts.len());
        for host in hosts {
            if unknown(&host)
                && failed.is_none()
                && let Err(error) = self.ask(api, &filter, host, around).await
            {
                if error.class == ErrorClass::Permanent {
                    answers.push(Reach::Nowhere(error));
                    continue;
                }
                failed = Some(error);
            }
            let known = lock(&self.0).of(host.as_str()).cloned();
            answers.push(match (known.map(|zone| zone.unusable()), &failed) {
                (Some(None), _) => Reach::Open,
                (_, Some(error)) => Reach::Nowhere(error.clone()),
                (Some(Some(unusable)), None) => Reach::Closed(unusable),
                (None, None) => Reach::Nowhere(not_found(host)),
            });
        }
        answers
    }

    /// Reads the first page, and the others where they are fewer than the names that would be asked for.
    async fn begin_list(&self, api: &Api, filter: &[(&str, &str)], hosts: usize) -> Result<(), BackendError> {
        let first = api.page("/zones", filter, 1, PER_PAGE).await?;
        let pages = first.total.div_ceil(PER_PAGE);
        let mut complete = first.items.len() == first.total;
        // A host costs two look-ups as a rule: its own name and its parent.
        let listed = if complete || hosts.saturating_mul(2) <= pages {
            first.items
        } else {
            complete = true;
            api.rest("/zones", filter, PER_PAGE, first).await?
        };
        if !complete {
            // A part of the list may hold a zone whose child is in another part.
            return Ok(());
        }
        let mut book = lock(&self.0);
        book.complete = true;
        listed.iter().filter_map(Zone::parse).for_each(|zone| book.add(zone, api.budget().now()));
        Ok(())
    }

    /// Asks for the zone of one host, the longest name first; `around`: for those of shorter names as well.
    async fn ask(&self, api: &Api, filter: &[(&str, &str)], host: &HostName, around: bool) -> Result<(), BackendError> {
        for name in suffixes(host.as_str()) {
            let query: Vec<(&str, &str)> = filter.iter().copied().chain([("name", name)]).collect();
            let found = api.page("/zones", &query, 1, PER_PAGE).await?;
            let zones: Vec<Zone> =
                found.items.iter().filter_map(Zone::parse).filter(|zone| zone.name == name).collect();
            if !zones.is_empty() {
                let mut book = lock(&self.0);
                book.zones.remove(name);
                zones.into_iter().for_each(|zone| book.add(zone, api.budget().now()));
                if around {
                    continue;
                }
                return Ok(());
            }
            // If it was there once, the name is free for a shorter one.
            let mut book = lock(&self.0);
            book.zones.remove(name);
            book.doubtful.remove(name);
            book.absent.insert(name.to_owned());
        }
        Ok(())
    }
}

pub fn not_found(host: &HostName) -> BackendError {
    let message = format!(
        "no Cloudflare zone that the token can see holds {host}; add the domain to the account, or widen the token"
    );
    BackendError::new(ErrorClass::Permanent, "ZoneNotFound", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, status: &str) -> Zone {
        let value = serde_json::json!({"id": format!("{name} {status}"), "name": name, "status": status});
        Zone::parse(&value).unwrap()
    }

    fn book(zones: &[Zone]) -> Book {
        let mut book = Book { complete: true, ..Book::default() };
        zones.iter().cloned().for_each(|zone| book.add(zone, Timestamp::UNIX_EPOCH));
        book
    }

    #[test]
    fn the_longest_suffix_on_a_label_border_wins() {
        let book = book(&[
            zone("customer.co.uk", "active"),
            zone("mail.customer.co.uk", "active"),
            zone("tomer.co.uk", "active"),
        ]);
        let found = |host: &str| book.of(host).map(|zone| zone.name.clone());
        assert_eq!(found("reset.customer.co.uk").as_deref(), Some("customer.co.uk"));
        assert_eq!(found("reset.mail.customer.co.uk").as_deref(), Some("mail.customer.co.uk"));
        assert_eq!(found("customer.co.uk").as_deref(), Some("customer.co.uk"));
        assert_eq!(found("reset.other.co.uk"), None);
        assert_eq!(
            suffixes("reset.customer.co.uk").collect::<Vec<_>>(),
            ["reset.customer.co.uk", "customer.co.uk", "co.uk"]
        );
    }

    #[test]
    fn an_internationalised_zone_is_found_however_it_is_spelled() {
        for spelling in ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"] {
            let book = book(&[zone(spelling, "active")]);
            assert_eq!(book.of("reset.xn--bcher-kva.example").unwrap().name, "xn--bcher-kva.example", "{spelling}");
        }
    }

    #[test]
    fn of_two_zones_of_one_name_the_active_one_is_meant() {
        for order in [["active", "pending"], ["pending", "active"]] {
            let book = book(&order.map(|status| zone("acme.example", status)));
            assert_eq!(book.of("reset.acme.example").unwrap().status, "active");
        }
    }

    #[test]
    fn a_zone_that_cannot_serve_is_named_with_its_state() {
        let words = |status| zone("acme.example", status).unusable().map(|error| (error.reason, error.message));
        assert_eq!(words("active"), None);
        assert_eq!(
            words("pending").unwrap(),
            (
                "ZonePending",
                "the Cloudflare zone acme.example is pending, not active; finish its set-up at the registrar first"
                    .to_owned()
            )
        );
        assert_eq!(words("moved").unwrap().0, "ZoneMoved");
        assert_eq!(words("deleted").unwrap().0, "ZoneMoved");
        let secondary = Zone { kind: "secondary".to_owned(), ..zone("acme.example", "active") };
        assert_eq!(secondary.unusable().unwrap().reason, "ZoneSecondary");
        let paused = Zone { paused: true, ..zone("acme.example", "active") };
        assert_eq!((paused.unusable(), paused.unproxied().unwrap().reason), (None, "ZonePaused"));
    }

    #[test]
    fn a_host_below_universal_ssl_is_told_what_to_do() {
        let zone = zone("acme.example", "active");
        assert_eq!(zone.too_deep("reset.acme.example"), None);
        assert_eq!(zone.too_deep("acme.example"), None);
        let words = zone.too_deep("reset.mail.acme.example").unwrap();
        assert!(
            words.contains("2 labels below the zone acme.example") && words.contains("Advanced Certificate Manager")
        );
    }
}
