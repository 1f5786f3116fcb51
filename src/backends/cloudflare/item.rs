//! A DNS record as the planner sees it.
use serde_json::{Value, json};

use super::zones::Zone;
use crate::api::HostName;
use crate::plan::{Intent, Item, Mark, Observed, Ownership};

/// A record that stands at, or may stand at, a portal's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Full name, lower case.
    pub name: String,
    /// `CNAME`, or whatever a foreign record is.
    pub kind: String,
    /// Lower case, without trailing dot.
    pub content: String,
    pub proxied: bool,
    /// Seconds; 1 is automatic, and what every proxied record reads back.
    pub ttl: u32,
    /// Where it stands, unless that is the zone in which its name belongs.
    pub stray: Option<Stray>,
}

/// The zone of a record that was made before its name got a zone of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    pub zone_id: String,
    /// The record's name with the zone's: nothing that is wanted has this key.
    key: String,
}

/// Where the CNAME record at this name leads, as words about it say: those of a change, or of a conflict. Words about
/// another name say nothing.
pub fn content_in(words: &str, name: &HostName) -> Option<HostName> {
    words.split([' ', ':']).find(|word| *word == name.as_str())?;
    let (_, rest) = words.split_once("CNAME record to ")?;
    HostName::parse(rest.split([' ', ',', ';', ')']).next()?).ok()
}

impl Item for Record {
    fn key(&self) -> &str {
        self.stray.as_ref().map_or(&self.name, |stray| &stray.key)
    }
    fn satisfies(&self, desired: &Self) -> bool {
        self == desired
    }
    fn describe(&self) -> String {
        let proxied = if self.proxied { ", proxied" } else { "" };
        format!("{} record to {}{proxied}", self.kind, self.content)
    }
}

impl Record {
    /// The portal's CNAME, already in the form in which Cloudflare reads it back.
    pub fn desired(intent: &Intent) -> Option<Self> {
        let target = intent.cname_target.as_ref()?;
        Some(Self {
            name: intent.host.to_string(),
            kind: "CNAME".to_owned(),
            content: target.to_string(),
            proxied: intent.proxied,
            ttl: if intent.proxied { 1 } else { intent.ttl },
            stray: None,
        })
    }

    /// Body of a create or an update, with the mark as its comment.
    pub fn body(&self, mark: &Mark) -> Value {
        json!({
            "type": self.kind,
            "name": self.name,
            "content": self.content,
            "proxied": self.proxied,
            "ttl": self.ttl,
            "comment": mark.to_string(),
        })
    }

    /// Reads an API record; `None` where a field that every record has is missing.
    pub fn parse(value: &Value) -> Option<Observed<Self>> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let lower = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
        let proxied = value.get("proxied").and_then(Value::as_bool).unwrap_or(false);
        let ttl = value.get("ttl").and_then(Value::as_u64).and_then(|ttl| u32::try_from(ttl).ok()).unwrap_or(1);
        let kind = text("type")?.to_ascii_uppercase();
        let content = text("content").unwrap_or_default();
        Some(Observed {
            id: text("id")?.to_owned(),
            ownership: match text("comment") {
                // A mark is only ever put on a CNAME; on anything else somebody copied it.
                Some(comment) if kind == "CNAME" => Mark::from_text(comment),
                _ => Ownership::Foreign,
            },
            item: Self {
                name: lower(text("name")?),
                content: if kind == "CNAME" { lower(content) } else { content.to_owned() },
                kind,
                proxied,
                ttl: if proxied { 1 } else { ttl },
                stray: None,
            },
        })
    }

    /// The same record, known to stand in a zone in which its name does not belong any more.
    pub fn strayed(self, zone: &Zone) -> Self {
        let key = format!("{} in the zone {}", self.name, zone.name);
        Self { stray: Some(Stray { zone_id: zone.id.clone(), key }), ..self }
    }

    /// Whether the record stands in the way of a CNAME at its name: CNAME, A, AAAA and NS do.
    pub fn blocks(&self) -> bool {
        matches!(self.kind.as_str(), "CNAME" | "A" | "AAAA" | "NS")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PortalKey;
    use crate::plan::{Change, InstallationId};

    #[test]
    fn where_a_record_leads_is_read_from_the_words_of_what_would_be_changed() {
        let name = |text: &str| HostName::parse(text).unwrap();
        let record = |at: &str, to: &str, proxied| Record {
            name: at.into(),
            kind: "CNAME".into(),
            content: to.into(),
            proxied,
            ttl: 1,
            stray: None,
        };
        let portal = PortalKey { namespace: "mail".into(), name: "acme".into() };
        let mark = Mark::new(&InstallationId::parse("0123456789abcdef").unwrap(), &portal);
        let update = |from: Record| {
            let to = record("reset.acme.example", "a.example.com", true);
            Change::Update { portal: portal.clone(), mark: mark.clone(), id: "1".into(), from, to }.describe()
        };
        let read = |words: &str| content_in(words, &name("reset.acme.example")).map(|name| name.to_string());
        // another content, and the same with something else in it
        assert_eq!(
            read(&update(record("reset.acme.example", "b.example.com", true))).as_deref(),
            Some("b.example.com")
        );
        let ttl = Record { ttl: 300, ..record("reset.acme.example", "a.example.com", true) };
        assert_eq!(read(&format!("cloudflare: {}", update(ttl))).as_deref(), Some("a.example.com"));
        // what is not there, what is no CNAME, and what is at another name
        assert_eq!(read("cloudflare: delete old.acme.example (CNAME record to b.example.com, proxied)"), None);
        assert_eq!(read("reset.acme.example is taken by something that is not ours: A record to 192.0.2.1"), None);
        let taken =
            "reset.acme.example is taken by something that is not ours: CNAME record to b.example.com; remove it";
        assert_eq!(read(taken).as_deref(), Some("b.example.com"));
    }
}
