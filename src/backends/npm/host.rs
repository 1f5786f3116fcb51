//! Proxy hosts of Nginx Proxy Manager as data: reading rows, comparing, and the bodies of writes. Pure.
use serde_json::{Map, Value, json};

use super::certificate::{Certificate, Held, Wish};
use super::client::Version;
use crate::api::HostName;
use crate::plan::{Item, Mark, Observed, Ownership};

/// Our part of a host's `meta`. Lower case, because NPM's pages rewrite other keys when they save.
const META_KEY: &str = "portalkeeper";
/// Begins the comment that carries the mark a second time: the pages of NPM 2.12 forget `meta` and keep this.
const COMMENT: &str = "# portalkeeper ";

/// Where a host leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// `http` or `https`.
    pub scheme: String,
    pub host: String,
    pub port: u16,
}

/// The certificate that is wanted, or that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    Wanted(Wish),
    Held(Held),
}

/// A proxy host as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The portal's host, or one name of a foreign row.
    pub name: String,
    /// Every name of the row.
    pub names: Vec<String>,
    pub forward: Forward,
    pub tls: Tls,
    pub ssl_forced: bool,
    pub http2: bool,
    /// Absent before NPM 2.14.
    pub trust_forwarded_proto: Option<bool>,
    /// Disabled in NPM, which then has no file for it in nginx.
    pub off: bool,
    /// What keeps an observed row from serving as it should, in words.
    pub flaws: Vec<String>,
}

/// What the planner handles: hosts, and certificates of ours that nothing uses or that are still being ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Host(Host),
    Leftover { key: String, host: String, certificate: Option<u64> },
}

impl Item for Entry {
    fn key(&self) -> &str {
        match self {
            Self::Host(host) => &host.name,
            Self::Leftover { key, .. } => key,
        }
    }

    /// Compared in the form in which NPM stores it, or each look would write and reload.
    fn satisfies(&self, desired: &Self) -> bool {
        let (Self::Host(has), Self::Host(wants)) = (self, desired) else { return self == desired };
        if wants.off {
            return has.off;
        }
        let certificate = match (&has.tls, &wants.tls) {
            (Tls::Held(held), Tls::Wanted(wish)) => wish.accepts(held, &wants.name),
            (has, wants) => has == wants,
        };
        let trusts = match (has.trust_forwarded_proto, wants.trust_forwarded_proto) {
            (Some(has), Some(wants)) => has == wants,
            _ => true,
        };
        certificate
            && trusts
            && !has.off
            && has.flaws.is_empty()
            && has.names == wants.names
            && has.forward == wants.forward
            && has.ssl_forced == wants.ssl_forced
            && has.http2 == wants.http2
    }

    fn certificate(&self) -> Option<String> {
        match self {
            Self::Host(Host { tls: Tls::Wanted(wish), .. }) if *wish != Wish::None => Some(wish.describe()),
            _ => None,
        }
    }

    fn awaits(&self) -> Option<&str> {
        match self {
            Self::Host(_) => None,
            Self::Leftover { host, .. } => Some(host),
        }
    }

    /// A row that serves other names, too, is somebody's as well (`writes::alone`).
    fn adoptable(&self) -> bool {
        match self {
            Self::Host(host) => host.names.len() <= 1,
            Self::Leftover { .. } => true,
        }
    }

    /// A certificate of Let's Encrypt is not thrown away for a portal that is to come back: there is a limit for new ones.
    fn switched_off(&self, host: &HostName) -> Option<Self> {
        match self {
            Self::Host(own) if own.name == host.as_str() => Some(Self::Host(Host { off: true, ..own.clone() })),
            Self::Leftover { host: own, .. } if own == host.as_str() => Some(self.clone()),
            Self::Host(_) | Self::Leftover { .. } => None,
        }
    }

    fn describe(&self) -> String {
        let host = match self {
            Self::Host(host) => host,
            Self::Leftover { certificate: Some(id), .. } => return format!("unused certificate {id}"),
            Self::Leftover { certificate: None, .. } => return "sent a moment ago".to_owned(),
        };
        let Forward { scheme, host: to, port } = &host.forward;
        let tls = match &host.tls {
            Tls::Wanted(wish) => wish.describe(),
            Tls::Held(held) => held.describe(),
        };
        let mut words = format!("proxy host to {scheme}://{to}:{port} {tls}");
        let others: Vec<&str> = host.names.iter().filter(|n| **n != host.name).map(String::as_str).collect();
        if !others.is_empty() {
            words.push_str(&format!(", also for {}", others.join(", ")));
        }
        if host.off {
            words.push_str(", disabled");
        }
        if !host.flaws.is_empty() {
            words.push_str(&format!(", {}", host.flaws.join(", ")));
        }
        words
    }
}

/// What `meta` says about a host of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub mark: Mark,
    /// The name it was made for.
    pub host: String,
    /// A Let's Encrypt certificate that was ordered for it, and goes with it.
    pub ordered: Option<u64>,
    /// A certificate is being ordered while the host serves, which takes it out of nginx until it is written again.
    pub ordering: bool,
}

/// A row of NPM's list.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub id: u64,
    pub names: Vec<String>,
    pub forward: Forward,
    pub certificate_id: u64,
    pub enabled: bool,
    /// `None`: never configured, or the last write failed.
    pub online: Option<bool>,
    pub nginx_err: Option<String>,
    ssl_forced: bool,
    http2: bool,
    trust_forwarded_proto: Option<bool>,
    caching: bool,
    access_list: u64,
    locations: bool,
    advanced: String,
    meta: Map<String, Value>,
}

/// A name as this program writes it: lower case, A-labels, no trailing dot.
fn canonical(name: &str) -> String {
    let name = name.trim_end_matches('.');
    idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_ascii_lowercase())
}

impl Row {
    /// Reads a row; `None` where it has no id or no names. Whatever else is odd about it shows as a difference.
    pub fn parse(value: &Value) -> Option<Self> {
        let mut names: Vec<String> =
            value["domain_names"].as_array()?.iter().filter_map(Value::as_str).map(canonical).collect();
        names.sort();
        names.dedup();
        // Older databases give 0 and 1.
        let flag = |name: &str| value[name].as_bool().unwrap_or_else(|| value[name].as_u64() == Some(1));
        let meta = value["meta"].as_object().cloned().unwrap_or_default();
        Some(Self {
            id: value["id"].as_u64()?,
            names,
            forward: Forward {
                scheme: value["forward_scheme"].as_str().unwrap_or_default().to_owned(),
                host: value["forward_host"].as_str().unwrap_or_default().to_owned(),
                port: value["forward_port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
            },
            certificate_id: value["certificate_id"].as_u64().unwrap_or(0),
            enabled: flag("enabled"),
            online: meta.get("nginx_online").and_then(Value::as_bool),
            nginx_err: meta.get("nginx_err").and_then(Value::as_str).map(str::to_owned),
            ssl_forced: flag("ssl_forced"),
            http2: flag("http2_support"),
            trust_forwarded_proto: value.get("trust_forwarded_proto").map(|_| flag("trust_forwarded_proto")),
            caching: flag("caching_enabled"),
            access_list: value["access_list_id"].as_u64().unwrap_or(0),
            locations: value["locations"].as_array().is_some_and(|locations| !locations.is_empty()),
            advanced: value["advanced_config"].as_str().unwrap_or_default().to_owned(),
            meta,
        })
    }

    fn noted_in_meta(&self) -> Option<Note> {
        let note = self.meta.get(META_KEY)?;
        let Ownership::Marked(mark) = Mark::from_identifier(note["mark"].as_str()?) else { return None };
        Some(Note {
            mark,
            host: note["host"].as_str()?.to_owned(),
            ordered: note["ordered"].as_u64(),
            ordering: note["ordering"] == true,
        })
    }

    fn noted_in_comment(&self) -> Option<Note> {
        let line = self.advanced.lines().find_map(|line| line.trim().strip_prefix(COMMENT))?;
        let (identifier, host) = line.split_once(' ')?;
        let Ownership::Marked(mark) = Mark::from_identifier(identifier) else { return None };
        Some(Note { mark, host: host.trim().to_owned(), ordered: None, ordering: false })
    }

    /// Our note, where this row is ours: its mark is whole, nothing contradicts it, and the row still serves the
    /// name that it was made for.
    pub fn note(&self) -> Option<Note> {
        let note = match (self.noted_in_meta(), self.noted_in_comment()) {
            (Some(meta), Some(comment)) if (&meta.mark, &meta.host) != (&comment.mark, &comment.host) => return None,
            (Some(meta), _) => meta,
            // A note that is there and cannot be read is damaged, whatever the comment says.
            (None, Some(comment)) if !self.meta.contains_key(META_KEY) => comment,
            (None, _) => return None,
        };
        self.names.contains(&note.host).then_some(note)
    }

    /// Whether the row serves this name and no other.
    pub fn is_only_for(&self, host: &str) -> bool {
        matches!(self.names.as_slice(), [only] if only == host)
    }

    fn flaws(&self, note: Option<&Note>) -> Vec<String> {
        let mut flaws = Vec::new();
        let mut flaw = |there: bool, words: &str| {
            if there {
                flaws.push(words.to_owned());
            }
        };
        let offline = format!("offline: {}", self.nginx_err.as_deref().unwrap_or("nginx refused it").trim());
        match self.online {
            _ if !self.enabled => {}
            Some(true) => {}
            Some(false) => flaw(true, &offline),
            None => flaw(true, "not configured in nginx"),
        }
        flaw(self.caching, "with caching");
        flaw(self.access_list != 0, "behind an access list");
        flaw(self.locations, "with locations of its own");
        if let Some(note) = note {
            flaw(self.noted_in_meta().is_none(), "without our mark in its meta");
            flaw(note.ordering, "taken out of nginx by a certificate order");
            flaw(self.advanced != comment(&note.mark, &note.host), "with another advanced configuration");
        }
        flaws
    }

    fn item(&self, name: &str, note: Option<&Note>, certificates: &[Certificate]) -> Entry {
        Entry::Host(Host {
            name: name.to_owned(),
            names: self.names.clone(),
            forward: self.forward.clone(),
            tls: Tls::Held(Held::find(self.certificate_id, certificates)),
            ssl_forced: self.ssl_forced,
            http2: self.http2,
            trust_forwarded_proto: self.trust_forwarded_proto,
            off: !self.enabled,
            flaws: self.flaws(note),
        })
    }

    /// The row as the planner sees it: ours under the name it was made for, every other name as foreign.
    pub fn observed(&self, certificates: &[Certificate]) -> Vec<Observed<Entry>> {
        let note = self.note();
        let entry = |name: &String| {
            let own = note.as_ref().filter(|note| note.host == *name);
            Observed {
                id: self.id.to_string(),
                ownership: own.map_or(Ownership::Foreign, |note| Ownership::Marked(note.mark.clone())),
                item: self.item(name, own, certificates),
            }
        };
        self.names.iter().map(entry).collect()
    }

    /// `meta` with another note, or without one. NPM's own entries are left out, so that a write which never
    /// reaches nginx can be seen: NPM adds `nginx_online` only when it has configured the host.
    pub fn meta_with(&self, note: Option<&Note>) -> Value {
        let mut meta = self.meta.clone();
        for name in [META_KEY, "nginx_online", "nginx_err"] {
            meta.remove(name);
        }
        if let Some(note) = note {
            // Credentials of an order by NPM's pages stay readable here for ever; a host of ours needs none.
            meta.remove("dns_provider_credentials");
            meta.insert(META_KEY.to_owned(), note.render());
        }
        Value::Object(meta)
    }

    /// The advanced configuration without our comment.
    pub fn advanced_without_mark(&self) -> String {
        let kept = self.advanced.lines().filter(|line| !line.trim().starts_with(COMMENT));
        kept.collect::<Vec<_>>().join("\n")
    }
}

impl Note {
    fn render(&self) -> Value {
        let mut note = json!({"mark": self.mark.identifier(), "host": self.host});
        if let Some(id) = self.ordered {
            note["ordered"] = json!(id);
        }
        if self.ordering {
            note["ordering"] = json!(true);
        }
        note
    }
}

fn comment(mark: &Mark, host: &str) -> String {
    format!("{COMMENT}{} {host}", mark.identifier())
}

/// The body that makes a host what it should be.
pub fn body(host: &Host, note: &Note, certificate: u64, meta: Value, version: Version) -> Value {
    let Forward { scheme, host: to, port } = &host.forward;
    let mut body = json!({
        "domain_names": host.names,
        "forward_scheme": scheme,
        "forward_host": to,
        "forward_port": port,
        "certificate_id": certificate,
        "ssl_forced": host.ssl_forced,
        "http2_support": host.http2,
        "caching_enabled": false,
        "access_list_id": 0,
        "locations": [],
        "advanced_config": comment(&note.mark, &note.host),
        "enabled": true,
        "meta": meta,
    });
    if version >= Version::TRUST_FORWARDED_PROTO {
        body["trust_forwarded_proto"] = json!(host.trust_forwarded_proto.unwrap_or(false));
    }
    body
}

/// `meta` of a host that is not there yet.
pub fn fresh_meta(note: &Note) -> Value {
    json!({META_KEY: note.render()})
}

/// Rows that probably keep nginx from loading its configuration: a certificate that is used and gone. Only
/// certificates that NPM's user may see are known, so the answer is a hint.
pub fn suspects(rows: &[Row], certificates: &[Certificate]) -> Vec<String> {
    let gone = |row: &&Row| {
        let id = row.certificate_id;
        row.enabled && id != 0 && !certificates.iter().any(|certificate| certificate.id == id)
    };
    let words = |row: &Row| {
        format!(
            "proxy host {} ({}) uses certificate {}, which is gone",
            row.id,
            row.names.join(", "),
            row.certificate_id
        )
    };
    rows.iter().filter(gone).map(words).collect()
}

/// Whether nginx's complaint about a host is really about a neighbour that was being written at that moment.
pub fn is_transient(id: u64, nginx_err: &str) -> bool {
    let files = nginx_err.match_indices(".conf").filter_map(|(at, _)| nginx_err[..at].rsplit('/').next());
    let mut numbers = files.filter_map(|name| name.parse::<u64>().ok());
    nginx_err.contains("No such file") || numbers.any(|number| number != id)
}
