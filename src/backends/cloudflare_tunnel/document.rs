//! A tunnel's configuration as data: raw JSON that is carried over as it came, and a typed view of our own rules only.
//! Pure.
use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::ledger::{Book, Entry};
use crate::api::condition::Truth;
use crate::backends::{BackendError, ErrorClass, Scope};
use crate::plan::{Change, Item, Mark, Observed, Ownership, Plan};

/// Numbers from here on are not carried over exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// What the connector answers for hosts without a rule, where a configuration does not say it yet.
const CATCH_ALL: &str = "http_status:404";

/// A rule for all of a host, as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub host: String,
    pub service: String,
    /// It stands where it gets the host's requests.
    pub reached: bool,
}

impl Item for Rule {
    fn key(&self) -> &str {
        &self.host
    }
    fn satisfies(&self, desired: &Self) -> bool {
        self == desired
    }
    fn describe(&self) -> String {
        let behind = if self.reached { "" } else { ", behind a rule that takes its requests" };
        format!("tunnel rule to {}{behind}", shown(&self.service))
    }
}

/// The `config` object of a tunnel.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Everything but the rules.
    rest: Map<String, Value>,
    rules: Vec<Value>,
}

fn odd(what: impl std::fmt::Display) -> BackendError {
    BackendError::new(ErrorClass::Unavailable, "OddAnswer", format!("the tunnel's configuration {what}"))
}

/// Path of a number that reading has rounded, if there is one.
fn rounded(value: &Value, path: &str) -> Option<String> {
    match value {
        Value::Number(number) => {
            let lost = number.is_f64() && number.as_f64().is_some_and(|number| number.abs() >= EXACT);
            lost.then(|| path.to_owned())
        }
        Value::Array(all) => all.iter().enumerate().find_map(|(at, one)| rounded(one, &format!("{path}[{at}]"))),
        Value::Object(all) => all.iter().find_map(|(key, one)| rounded(one, &format!("{path}.{key}"))),
        _ => None,
    }
}

impl Config {
    /// Takes what the API gives; nothing at all is an empty configuration. Errors: not of the documented form, so that
    /// writing it back would lose something.
    pub fn parse(value: &Value) -> Result<Self, BackendError> {
        if let Some(path) = rounded(value, "config") {
            return Err(odd(format!("has a number at {path} that is too large to be carried over exactly")));
        }
        let mut rest = match value {
            Value::Null => Map::new(),
            Value::Object(fields) => fields.clone(),
            _ => return Err(odd("is no object")),
        };
        let rules = match rest.remove("ingress") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(rules)) => rules,
            Some(_) => return Err(odd("has an `ingress` that is no list")),
        };
        if let Some(at) = rules.iter().position(|rule| !rule.is_object()) {
            return Err(odd(format!("has a rule that is no object, at ingress[{at}]")));
        }
        Ok(Self { rest, rules })
    }

    /// The whole object as it is sent.
    pub fn to_value(&self) -> Value {
        let mut fields = self.rest.clone();
        fields.insert("ingress".to_owned(), Value::Array(self.rules.clone()));
        Value::Object(fields)
    }

    /// Rules in order, ours and others'.
    pub fn rules(&self) -> &[Value] {
        &self.rules
    }
}

fn text<'a>(rule: &'a Value, field: &str) -> &'a str {
    rule[field].as_str().unwrap_or_default()
}
fn whole(rule: &Value) -> bool {
    text(rule, "path").is_empty()
}
/// Somebody's text for people: not too long, and without what stands before an `@`, which may be a password.
fn shown(text: &str) -> String {
    let open = match text.rsplit_once('@') {
        Some((before, host)) => {
            format!("{}…@{host}", before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://")))
        }
        None => text.to_owned(),
    };
    open.chars().filter(|c| !c.is_control()).take(100).collect()
}
/// The host that a rule names, as the connector compares it with requests: beside the text itself it takes the form in
/// A-labels, so `Reset.Acme.Example` and `bücher.example` are for hosts of ours, too. It leaves wildcards as they are written,
/// and a trailing dot makes another host.
fn named(rule: &Value) -> Cow<'_, str> {
    let name = text(rule, "hostname");
    let canonical = name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    match name {
        _ if canonical || name.contains('*') => Cow::Borrowed(name),
        _ => idna::domain_to_ascii(name).map_or(Cow::Borrowed(name), Cow::Owned),
    }
}
/// The rule is for all paths of exactly this host.
fn is_for(rule: &Value, host: &str) -> bool {
    whole(rule) && named(rule) == host
}
/// The connector would take a request for the host to this rule, if the path fits, too.
fn covers(rule: &Value, host: &str) -> bool {
    match named(rule).as_ref() {
        "" | "*" => true,
        name => {
            name == host
                || name.strip_prefix("*.").is_some_and(|below| {
                    host.strip_suffix(below).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
                })
        }
    }
}
fn is_catch_all(rule: &Value) -> bool {
    matches!(text(rule, "hostname"), "" | "*") && whole(rule)
}

/// Where our rule for the host stands, and its entry. The first one that is as we wrote it; another one after it gets no
/// requests and is left alone.
fn own<'a>(rules: &[Value], book: &'a Book, host: &str) -> Option<(usize, &'a Entry)> {
    let entries = book.of(host);
    if entries.is_empty() {
        return None;
    }
    rules.iter().enumerate().filter(|(_, rule)| is_for(rule, host)).find_map(|(at, rule)| {
        entries.iter().find(|entry| entry.service == text(rule, "service")).map(|entry| (at, entry))
    })
}

/// Where a rule for the host belongs among the others: before what would take its requests, a wildcard or the catch-all,
/// but not before somebody's rules for single paths of this host, which it would cut off. `now` is where it stands; it
/// stays there if that is right, and also behind somebody else's rule for the same host, which is not ours to pass.
fn seat(others: &[&Value], host: &str, now: Option<usize>) -> usize {
    let before = |end: usize| others.iter().take(end);
    let end = others.iter().position(|rule| covers(rule, host) && whole(rule)).unwrap_or(others.len());
    let own_paths = |rule: &&Value| !whole(rule) && named(rule) == host;
    let first = before(end).rposition(own_paths).map_or(0, |at| at + 1);
    let wildcard = before(end).position(|rule| covers(rule, host) && named(rule) != host);
    let last = wildcard.unwrap_or(end).max(first);
    match now {
        Some(now) if before(now).any(|rule| is_for(rule, host)) || (first..=last).contains(&now) => now,
        _ => last,
    }
}

fn without(rules: &[Value], at: usize) -> Vec<&Value> {
    rules.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, rule)| rule).collect()
}

/// Rules for the whole of each host in scope. Those for single paths are nobody's whole host and are left out.
pub fn observe(config: &Config, book: &Book, scope: &Scope) -> Vec<Observed<Rule>> {
    let mut hosts: Vec<&str> = scope.hosts.iter().map(|host| host.as_str()).collect();
    hosts.extend(scope.marks.iter().flat_map(|mark| book.hosts_of(mark)));
    hosts.sort_unstable();
    hosts.dedup();
    let rules = config.rules();
    let mut found = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let Ok(at) = hosts.binary_search(&named(rule).as_ref()) else { continue };
        let host = hosts[at];
        if !whole(rule) {
            continue;
        }
        let service = text(rule, "service").to_owned();
        found.push(match own(rules, book, host) {
            Some((own, entry)) if own == index => {
                let reached = seat(&without(rules, index), host, Some(index)) == index;
                Observed {
                    id: host.to_owned(),
                    ownership: Ownership::Marked(entry.mark.clone()),
                    item: Rule { host: host.to_owned(), service, reached },
                }
            }
            _ => Observed {
                id: format!("rule {index}"),
                ownership: Ownership::Foreign,
                item: Rule { host: host.to_owned(), service, reached: true },
            },
        });
    }
    found
}

/// A configuration with a plan's changes in it.
#[derive(Debug)]
pub struct Merged {
    pub config: Config,
    /// Of each change, in order.
    pub outcomes: Vec<Result<Option<String>, BackendError>>,
    /// Entries that must be kept before the configuration is written.
    pub noted: Vec<Entry>,
    /// Entries that are of no use once it is written.
    pub stale: Vec<Entry>,
}

/// The configuration after the plan. All other rules keep value and order, and so does everything beside them. Each change
/// is judged against this very configuration, so the function may be run again on a newer one.
pub fn merge(config: &Config, book: &Book, plan: &Plan<Rule>) -> Merged {
    let (noted, stale) = (Vec::new(), Vec::new());
    let mut merged = Merged { config: config.clone(), outcomes: Vec::new(), noted, stale };
    for change in &plan.changes {
        let outcome = merged.one(book, change);
        merged.outcomes.push(outcome);
    }
    let rules = &mut merged.config.rules;
    // The API takes no configuration without it.
    if *rules != config.rules && !rules.last().is_some_and(is_catch_all) {
        rules.push(json!({"service": CATCH_ALL}));
    }
    merged
}

impl Merged {
    fn one(&mut self, book: &Book, change: &Change<Rule>) -> Result<Option<String>, BackendError> {
        let host = change.key();
        let ours = own(&self.config.rules, book, host);
        if let Some((_, entry)) = ours.filter(|(_, entry)| entry.mark != *change.mark()) {
            let message = format!("{host} is held by another portal: tunnel rule to {}", entry.service);
            return Err(BackendError::new(ErrorClass::Conflict, "ForeignRule", message));
        }
        match (change, ours) {
            (
                Change::Create { mark, item, .. }
                | Change::Update { mark, to: item, .. }
                | Change::Adopt { mark, to: item, .. },
                Some((at, _)),
            ) => self.settle(book, at, mark, item),
            (Change::Adopt { mark, from, to, .. }, None) => {
                let at = self.only_one_like(from)?;
                self.config.rules[at] = json!({"hostname": to.host, "service": to.service});
                self.settle(book, at, mark, to);
            }
            (Change::Create { mark, item, .. } | Change::Update { mark, to: item, .. }, None) => {
                if let Some(other) = self.config.rules.iter().find(|rule| is_for(rule, host)) {
                    let service = shown(text(other, "service"));
                    let message = format!("{host} is taken by something that is not ours: tunnel rule to {service}");
                    return Err(BackendError::new(ErrorClass::Conflict, "ForeignRule", message));
                }
                let others: Vec<&Value> = self.config.rules.iter().collect();
                let at = seat(&others, host, None);
                self.config.rules.insert(at, json!({"hostname": item.host, "service": item.service}));
                self.note(book, mark, item);
            }
            (Change::Delete { mark, .. }, ours) => {
                if let Some((at, _)) = ours {
                    self.config.rules.remove(at);
                }
                self.forget(book, host, mark);
                return Ok(None);
            }
            (Change::Release { mark, .. }, _) => {
                self.forget(book, host, mark);
                return Ok(None);
            }
        }
        Ok(Some(host.to_owned()))
    }

    /// The rule at this place becomes the wanted one, keeps what somebody added to it, and moves to where it belongs.
    fn settle(&mut self, book: &Book, at: usize, mark: &Mark, item: &Rule) {
        let mut rule = self.config.rules.remove(at);
        rule["service"] = Value::String(item.service.clone());
        let others: Vec<&Value> = self.config.rules.iter().collect();
        let place = seat(&others, &item.host, Some(at));
        self.config.rules.insert(place, rule);
        self.note(book, mark, item);
    }

    fn only_one_like(&self, from: &Rule) -> Result<usize, BackendError> {
        let all = self.config.rules.iter().enumerate().filter(|(_, rule)| is_for(rule, &from.host));
        let alike: Vec<(usize, &Value)> = all.collect();
        match alike.as_slice() {
            [(at, rule)] if text(rule, "service") == from.service => Ok(*at),
            _ => {
                let message = format!(
                    "the tunnel rule for {} changed while it was taken over; the next try looks again",
                    from.host
                );
                Err(BackendError::new(ErrorClass::Conflict, "ForeignRule", message))
            }
        }
    }

    fn note(&mut self, book: &Book, mark: &Mark, item: &Rule) {
        let known = book.of(&item.host);
        let entry = Entry { host: item.host.clone(), service: item.service.clone(), mark: mark.clone() };
        if !known.contains(&entry) {
            self.noted.push(entry);
        }
        self.stale.extend(known.iter().filter(|entry| entry.service != item.service).cloned());
    }

    fn forget(&mut self, book: &Book, host: &str, mark: &Mark) {
        self.stale.extend(book.of(host).iter().filter(|entry| entry.mark == *mark).cloned());
    }
}

/// What keeps requests from our rule for the host although it is written, or some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    pub truth: Truth,
    pub reason: &'static str,
    pub message: String,
}

/// Looks for rules of others before ours that take the host's requests.
pub fn shadow(config: &Config, book: &Book, host: &str) -> Option<Shadow> {
    let (at, _) = own(config.rules(), book, host)?;
    let before = config.rules().iter().take(at).filter(|rule| covers(rule, host));
    let mut paths = Vec::new();
    for rule in before {
        let (path, service) = (text(rule, "path"), shown(text(rule, "service")));
        let path_shown = shown(path);
        if path.is_empty() {
            let message = format!(
                "{host} has two rules in the tunnel, and the one that is not ours (to {service}) stands before ours, so ours gets no request; remove one of them"
            );
            return Some(Shadow { truth: Truth::False, reason: "ForeignRule", message });
        }
        // The connector's expressions are Go's, which are these in all that matters here.
        if regex::Regex::new(path).is_ok_and(|path| path.is_match("/")) {
            let message = format!(
                "requests for {host} go to {service} by a tunnel rule of somebody else with the path `{path_shown}`, which the portal's pages match, too; remove that rule or narrow its path"
            );
            return Some(Shadow { truth: Truth::False, reason: "ShadowedByPath", message });
        }
        paths.push(format!("`{path_shown}` to {service}"));
    }
    (!paths.is_empty()).then(|| Shadow {
        truth: Truth::True,
        reason: "PathsElsewhere",
        message: format!("some paths of {host} go elsewhere by tunnel rules of somebody else: {}", paths.join(", ")),
    })
}
