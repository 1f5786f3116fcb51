//! The text of our files, from typed parts only, and back again. Pure.
//!
//! Traefik runs each file through Go's templates and each rule through its own grammar, so nothing but validated
//! names gets into one: a host name, an origin and a [`Word`] hold neither braces nor back-ticks nor quotes. What is
//! written reads the same in Traefik 2 and 3: one value in each `Host()`.
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::rules::hosts_of_rule;
use crate::api::{HostName, Origin};
use crate::backends::{BackendError, ErrorClass};
use crate::plan::{InstallationId, Mark, Ownership};

/// Client-made headers that Traefik would pass on.
const DROPPED_HEADERS: [&str; 5] =
    ["CF-Connecting-IP", "Forwarded", "True-Client-IP", "X-Forwarded-Prefix", "X_Forwarded_For"];
/// Before every rule whose priority is its length, which is Traefik's way where none is given.
const PRIORITY: u32 = 100_000;
/// Second line of each of our files.
const NOTE: &str = "# Made by Portalkeeper; edits are undone. Put routes of your own into files of their own.\n";

/// Name of an entry point or a certificate resolver: letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(String);

impl Word {
    /// `None` for anything that could mean something to a template, to YAML or to a rule.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(plain);
        (fits && text.starts_with(|c: char| c.is_ascii_alphanumeric())).then(|| Self(text.to_owned()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What every route of an instance has in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    pub origin: Origin,
    pub entry_points: Vec<Word>,
    /// `None`: TLS with a certificate from elsewhere.
    pub resolver: Option<Word>,
    /// `false`: plain http, without TLS.
    pub https: bool,
}

/// Router, middleware and service of one host; each has the entry's name.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub router: Value,
    pub middleware: Value,
    pub service: Value,
}

/// Name of a portal's entry: its mark, and the host as a hash, because a portal that moves has two.
pub fn entry_name(mark: &Mark, host: &str) -> String {
    format!("{}.{}", mark.identifier(), short_hash(host))
}

/// First eight hex digits of SHA-256.
pub fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Whose an entry of that name is.
pub fn owner_of(name: &str) -> Ownership {
    Mark::from_identifier(name.split('.').next().unwrap_or_default())
}

/// File of an entry that has a file of its own.
pub fn file_name(entry: &str) -> String {
    format!("{entry}.yml")
}

/// File of all entries of an installation.
pub fn merged_file_name(installation: &InstallationId) -> String {
    format!("pk1-{}.yml", installation.as_str())
}

/// The first line of our file of that name; `None` for a name that is not one of ours.
pub fn header_of(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".yml")?;
    let installation = stem.strip_prefix("pk1-").and_then(InstallationId::parse);
    match (installation, owner_of(stem)) {
        (Some(installation), _) => Some(format!("# portalkeeper/v1 {}\n", installation.as_str())),
        (None, Ownership::Marked(mark)) if stem.len() == mark.identifier().len() + 9 => Some(format!("# {mark}\n")),
        _ => None,
    }
}

/// What the portal's route should be.
pub fn entry(name: &str, host: &HostName, routing: &Routing) -> Entry {
    let entry_points: Vec<&str> = routing.entry_points.iter().map(Word::as_str).collect();
    let mut router = json!({
        "rule": format!("Host(`{host}`)"),
        "entryPoints": entry_points,
        "middlewares": [name],
        "priority": PRIORITY,
        "service": name,
    });
    if routing.https {
        router["tls"] = match &routing.resolver {
            Some(resolver) => json!({"certResolver": resolver.as_str()}),
            None => json!({}),
        };
    }
    let dropped: BTreeMap<&str, &str> = DROPPED_HEADERS.iter().map(|name| (*name, "")).collect();
    Entry {
        router,
        middleware: json!({"headers": {"customRequestHeaders": dropped}}),
        service: json!({"loadBalancer": {
            "passHostHeader": true,
            "servers": [{"url": format!("http://{}", routing.origin)}],
        }}),
    }
}

impl Entry {
    /// One text for comparison, whatever the names in it.
    pub fn canonical(&self) -> String {
        json!([self.router, self.middleware, self.service]).to_string()
    }
    /// The host of its rule: the one that the name is made from, or else the first.
    pub fn host(&self, name: &str) -> Option<String> {
        let hosts = hosts_of_rule(self.router["rule"].as_str().unwrap_or_default());
        let named = hosts.iter().find(|host| name.ends_with(&format!(".{}", short_hash(host))));
        named.or(hosts.first()).cloned()
    }
    pub fn target(&self) -> &str {
        self.service["loadBalancer"]["servers"][0]["url"].as_str().unwrap_or("several servers")
    }
    /// The same under another name.
    pub fn renamed(&self, name: &str) -> Self {
        let mut entry = self.clone();
        entry.router["service"] = json!(name);
        entry.router["middlewares"] = json!([name]);
        entry
    }
}

#[derive(Serialize)]
struct Document<'a> {
    http: Http<'a>,
}

#[derive(Serialize)]
struct Http<'a> {
    routers: BTreeMap<&'a str, &'a Value>,
    middlewares: BTreeMap<&'a str, &'a Value>,
    services: BTreeMap<&'a str, &'a Value>,
}

/// The text of a file, read back before it is given away. The error is in words and a fault of this program.
pub fn render(header: &str, entries: &BTreeMap<String, Entry>) -> Result<String, String> {
    let part = |of: fn(&Entry) -> &Value| entries.iter().map(|(name, entry)| (name.as_str(), of(entry))).collect();
    let http =
        Http { routers: part(|e| &e.router), middlewares: part(|e| &e.middleware), services: part(|e| &e.service) };
    let body = serde_saphyr::to_string(&Document { http }).map_err(|error| error.to_string())?;
    // What is left to somebody has no first line of ours, and nobody undoes edits there.
    let note = if header.is_empty() { "" } else { NOTE };
    let text = format!("{header}{note}{body}");
    if text.contains("{{") {
        return Err("a template would be written".to_owned());
    }
    match read(&text) {
        Ok(back) if back.entries == *entries && back.strangers.is_empty() => Ok(text),
        Ok(_) => Err("what would be written reads back as something else".to_owned()),
        Err(error) => Err(error),
    }
}

/// Somebody else has a file of our name.
pub fn not_ours(file: &str, header: &str) -> BackendError {
    let message = format!("the file {file} has our name and not our first line ({}); move it away", header.trim_end());
    BackendError::new(ErrorClass::Conflict, "ForeignRoute", message)
}

/// A file that this program must not write.
pub fn not_rendered(why: &str) -> BackendError {
    let message = format!("a file was not written: {why}; please report this as a fault of Portalkeeper");
    BackendError::new(ErrorClass::Permanent, "NotRendered", message)
}

/// A file as it is read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents {
    pub entries: BTreeMap<String, Entry>,
    /// What is neither router, nor middleware or service of an entry: somebody put it there.
    pub strangers: Vec<String>,
}

/// Reads one of our files. The error says why it is no YAML.
pub fn read(text: &str) -> Result<Contents, String> {
    let value: Value = parse(text)?;
    let mut contents = Contents::default();
    let empty = serde_json::Map::new();
    for (part, inner) in value.as_object().unwrap_or(&empty) {
        if part != "http" {
            contents.strangers.push(part.clone());
            continue;
        }
        let http = inner.as_object().unwrap_or(&empty);
        for (kind, things) in http {
            for name in things.as_object().unwrap_or(&empty).keys() {
                let known = matches!(kind.as_str(), "routers" | "middlewares" | "services");
                if !known || http.get("routers").and_then(|routers| routers.get(name)).is_none() {
                    contents.strangers.push(format!("{kind}.{name}"));
                }
            }
        }
        for name in http.get("routers").and_then(Value::as_object).unwrap_or(&empty).keys() {
            let of = |kind: &str| inner[kind][name].clone();
            let entry = Entry { router: of("routers"), middleware: of("middlewares"), service: of("services") };
            contents.entries.insert(name.clone(), entry);
        }
    }
    Ok(contents)
}

/// The text up to the mark that ends its first document, whatever comes after: Traefik does not read that.
fn first_document(text: &str) -> &str {
    let (mut at, mut begun) = (0, false);
    for line in text.split_inclusive('\n') {
        let mark = line.trim_end() == "---" || line.starts_with("--- ");
        if mark && begun {
            return &text[..at];
        }
        begun |= mark || !(line.trim().is_empty() || line.starts_with(['#', '%']));
        at += line.len();
    }
    text
}

/// YAML as a value; an empty file is null. Of several documents Traefik reads the first.
pub fn parse(text: &str) -> Result<Value, String> {
    let documents: Result<Vec<Value>, _> = serde_saphyr::from_multiple(first_document(text));
    documents.map(|all| all.into_iter().next().unwrap_or(Value::Null)).map_err(|error| {
        let words = error.to_string();
        let words = words.lines().next().unwrap_or_default().trim_start_matches("error: ");
        // What the library advises is for who calls it.
        words.split(", set DuplicateKeyPolicy").next().unwrap_or_default().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PortalKey;

    fn routing() -> Routing {
        Routing {
            origin: Origin::parse("127.0.0.1:5000").unwrap(),
            entry_points: vec![Word::parse("websecure").unwrap()],
            resolver: Word::parse("cloudflare"),
            https: true,
        }
    }

    fn mark() -> Mark {
        let installation = InstallationId::parse("0123456789abcdef").unwrap();
        Mark::new(&installation, &PortalKey { namespace: "mail".into(), name: "acme".into() })
    }

    #[test]
    fn a_fragment_reads_as_written() {
        let host = HostName::parse("reset.acme.example").unwrap();
        let name = entry_name(&mark(), host.as_str());
        let entries = BTreeMap::from([(name.clone(), entry(&name, &host, &routing()))]);
        let text = render(&header_of(&file_name(&name)).unwrap(), &entries).unwrap();
        assert!(text.starts_with("# portalkeeper/v1 0123456789abcdef "), "{text}");
        for line in ["Host(`reset.acme.example`)", "websecure", "certResolver: cloudflare", "http://127.0.0.1:5000"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert_eq!(read(&text).unwrap(), Contents { entries, strangers: Vec::new() });
        assert!(!text.contains('{') || !text.contains("{{"));
    }

    #[test]
    fn no_name_can_hold_a_template_or_a_rule() {
        for text in ["", "{{env}}", "a`b", "a'b", "a\"b", "a b", "a:b", "a\n", "é", "-a", &"a".repeat(65)] {
            assert!(Word::parse(text).is_none(), "{text:?}");
        }
        assert!(Word::parse("web-secure_2.x").is_some());
    }

    #[test]
    fn only_names_in_our_form_are_ours() {
        let name = file_name(&entry_name(&mark(), "reset.acme.example"));
        assert!(header_of(&name).is_some());
        assert!(header_of(&merged_file_name(&mark().installation)).is_some());
        let others = [
            "acme.yml".to_owned(),
            name.replace(".yml", ".yaml"),
            name.replace("pk1-", "pk2-"),
            format!("{}.yml", mark().identifier()),
            format!("copy-{name}"),
            name.replace(".yml", ".old.yml"),
            "pk1-0123456789abcdeg.yml".to_owned(),
        ];
        for other in others {
            assert_eq!(header_of(&other), None, "{other}");
        }
    }

    #[test]
    fn what_somebody_adds_to_our_file_is_seen() {
        let strangers = |text: &str| read(text).unwrap().strangers;
        assert_eq!(strangers("tls: {}"), ["tls"]);
        assert_eq!(strangers("http: {services: {mine: {}}, routers: {a: {rule: x}}}"), ["services.mine"]);
        assert_eq!(strangers("http: {serversTransports: {a: {}}, routers: {a: {}}}"), ["serversTransports.a"]);
    }
}
