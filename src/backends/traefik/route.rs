//! A route as the planner sees it, and what the files of the folder say in these terms. Pure.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::folder::{File, Kind};
use super::foreign::Foreign;
use super::fragment::{self, Entry};
use crate::backends::origin_ca::certified::Certified;
use crate::backends::origin_ca::kept::{Own, Tls};
use crate::backends::{BackendError, ErrorClass};
use crate::plan::{Item, Observed, Ownership};

/// A route as the planner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub host: String,
    pub body: Body,
    pub tls: Tls,
}

/// What stands behind a host.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// With the file that it stands in.
    Ours(String, Entry),
    /// Ours by name and first line, and not to be read; the words say why.
    Damaged(String),
    /// A certificate of ours for this host that has no route.
    Leftover(String),
    Theirs {
        words: String,
        /// The file's text, where the file holds nothing but this route and nobody else uses what it holds.
        whole: Option<Arc<str>>,
    },
}

impl Item for Route {
    fn key(&self) -> &str {
        &self.host
    }
    fn satisfies(&self, desired: &Self) -> bool {
        match (&self.body, &desired.body) {
            (Body::Ours(here, have), Body::Ours(there, want)) => {
                here == there && have.canonical() == want.canonical() && self.tls.satisfies(&desired.tls)
            }
            _ => false,
        }
    }
    /// A file goes whole when its route is taken over, and a router of another provider is out of reach.
    fn adoptable(&self) -> bool {
        !matches!(self.body, Body::Theirs { whole: None, .. })
    }
    fn certificate(&self) -> Option<String> {
        self.tls.describe().filter(|_| self.tls == Tls::Wanted)
    }
    fn describe(&self) -> String {
        match &self.body {
            Body::Ours(file, entry) => {
                let route = format!("route to {} in {file}", entry.target());
                self.tls.describe().map_or(route.clone(), |tls| format!("{route} {tls}"))
            }
            Body::Leftover(_) => "an unused certificate of Cloudflare's Origin CA".to_owned(),
            Body::Damaged(why) => format!("a damaged file of ours: {why}"),
            Body::Theirs { words, .. } => words.clone(),
        }
    }
}

impl Certified for Route {
    fn host(&self) -> &str {
        &self.host
    }
    fn tls(&self) -> &Tls {
        &self.tls
    }
    fn set_tls(&mut self, tls: Tls) {
        self.tls = tls;
    }
    fn leftover(own: &Own) -> Self {
        Self::of(format!("certificate for {}", own.host), Body::Leftover(own.host.clone()))
    }
}

impl Route {
    pub fn of(host: String, body: Body) -> Self {
        Self { host, body, tls: Tls::Elsewhere }
    }
}

/// File and entry as one id, for status and for finding it again.
pub fn id(file: &str, entry: &str) -> String {
    format!("{file} {entry}")
}

/// What the files say, one item per router and host.
pub fn observed(files: &[File]) -> Result<Vec<Observed<Route>>, BackendError> {
    let mut found = Vec::new();
    let shared = Shared::among(files);
    for file in files {
        match file.kind.as_ref() {
            Kind::Ours(Ok(contents)) => {
                for (name, entry) in &contents.entries {
                    let ownership = fragment::owner_of(name);
                    let host = entry.host(name).unwrap_or_else(|| name.clone());
                    let body = match ownership {
                        Ownership::Marked(_) => Body::Ours(file.name.clone(), entry.clone()),
                        Ownership::Foreign => Body::Theirs { words: their_words(name, &file.name), whole: None },
                    };
                    found.push(Observed { id: id(&file.name, name), ownership, item: Route::of(host, body) });
                }
            }
            Kind::Ours(Err(why)) => {
                let name = file.name.trim_end_matches(".yml");
                let Ownership::Marked(mark) = fragment::owner_of(name) else {
                    // What other portals have in it is not known, so it is not written anew.
                    let message = format!(
                        "our file {} was damaged ({why}); remove it, and the routes are written anew",
                        file.name
                    );
                    return Err(BackendError::new(ErrorClass::Unavailable, "FileDamaged", message));
                };
                let item = Route::of(name.to_owned(), Body::Damaged(why.clone()));
                found.push(Observed { id: id(&file.name, name), ownership: Ownership::Marked(mark), item });
            }
            Kind::Foreign(foreign) => {
                let whole = (foreign.simple && !shared.needs(foreign)).then(|| Arc::clone(&file.text));
                for (name, hosts) in &foreign.routers {
                    found.extend(hosts.iter().map(|host| {
                        let whole = whole.clone();
                        let body = Body::Theirs { words: their_words(name, &file.name), whole };
                        let item = Route::of(host.clone(), body);
                        Observed { id: id(&file.name, name), ownership: Ownership::Foreign, item }
                    }));
                }
            }
        }
    }
    Ok(found)
}

/// Names that the files of other people use. All files of a folder are one configuration: a file that is taken over
/// whole must not take a service or a middleware from a router elsewhere.
struct Shared<'a> {
    /// In how many files each stands.
    uses: HashMap<&'a str, usize>,
    /// Of these nobody knows what they use before Traefik has run them.
    templates: Vec<&'a str>,
}

impl<'a> Shared<'a> {
    fn among(files: &'a [File]) -> Self {
        let (mut uses, mut templates) = (HashMap::new(), Vec::new());
        for file in files {
            let Kind::Foreign(foreign) = file.kind.as_ref() else { continue };
            let names: HashSet<&str> = foreign.uses.iter().map(String::as_str).collect();
            names.into_iter().for_each(|name| *uses.entry(name).or_default() += 1);
            if foreign.template {
                templates.push(file.text.as_ref());
            }
        }
        Self { uses, templates }
    }
    /// Whether another file uses what this one makes.
    fn needs(&self, foreign: &Foreign) -> bool {
        foreign.makes.iter().any(|name| {
            let own = usize::from(foreign.uses.contains(name));
            self.uses.get(name.as_str()).is_some_and(|count| *count > own)
                || self.templates.iter().any(|text| text.contains(name.as_str()))
        })
    }
}

fn their_words(router: &str, file: &str) -> String {
    match router {
        "?" => format!("a router in the file {file}"),
        router => format!("the router {router} in the file {file}"),
    }
}
