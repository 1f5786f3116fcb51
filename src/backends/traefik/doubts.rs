//! What speaks against a route that is written: Traefik's own word, and files of other people that may be in the way.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::folder::{File, Kind};
use super::foreign::Foreign;
use super::live::{NOT_LOADED, SERVICE_DIFFERS, Trouble};
use super::{Body, Route, Traefik, beside, certificates};
use crate::api::condition::{LOADING, Truth};
use crate::backends::Doubt;

/// How long Traefik may take to load a file: it gathers changes for two seconds (`providersThrottleDuration`), and more
/// where somebody has set that.
const TAKES: Duration = Duration::from_secs(10);
/// Most files that are named as where to look.
const NAMED: usize = 5;

impl Traefik {
    /// A written file proves nothing: Traefik may not have read it, and reads none while one of them is broken.
    pub(super) async fn doubted(&self, items: &[Route]) -> Vec<Doubt> {
        let files = match self.scan().await {
            Ok(files) => files,
            Err(error) => {
                let unseen = |item: &Route| Doubt {
                    key: item.host.clone(),
                    truth: Truth::Unknown,
                    reason: error.reason,
                    message: error.message.clone(),
                };
                return items.iter().map(unseen).collect();
            }
        };
        let folder = self.folder.path().display().to_string();
        let (broken, suspects) = (broken(&files, &folder), suspects(&files, &folder));
        let mut doubts = Vec::new();
        for item in items {
            let Body::Ours(file, entry) = &item.body else { continue };
            let name = entry.router["service"].as_str().unwrap_or_default();
            let found = match &self.live {
                Some(live) => live.against(name, entry, &self.routing.entry_points).await,
                None => Some(Trouble {
                    truth: Truth::Unknown,
                    reason: "NotConfirmed",
                    message: "the file is written; without Traefik's API, proxy.traefik.apiUrl (TRAEFIK_API_URL), only the proof of life tells \
                              whether Traefik uses it"
                        .to_owned(),
                }),
            };
            let key = item.host.clone();
            doubts.extend(match (found, &broken) {
                (Some(found), Some(broken)) => {
                    let message = format!("{}; {broken}", found.message);
                    Some(Doubt { key, truth: found.truth, reason: "ForeignFileBroken", message })
                }
                (Some(found), None) if self.is_loading(&found, file).await => {
                    let message = format!(
                        "the file is written; Traefik has not loaded it yet, which takes up to {} seconds",
                        TAKES.as_secs()
                    );
                    Some(Doubt { key, truth: Truth::Unknown, reason: LOADING, message })
                }
                (Some(found), None) => {
                    let suspects = suspects.as_deref().filter(|_| found.reason == NOT_LOADED).unwrap_or_default();
                    let message = format!("{}{suspects}", found.message);
                    Some(Doubt { key, truth: found.truth, reason: found.reason, message })
                }
                (None, Some(broken)) => {
                    let message = format!("in place; {broken}");
                    Some(Doubt { key, truth: Truth::True, reason: "ForeignFileBroken", message })
                }
                (None, None) => None,
            });
        }
        doubts
    }

    /// Whether nothing but time may be missing: the file was put there so shortly ago.
    async fn is_loading(&self, found: &Trouble, file: &str) -> bool {
        if ![NOT_LOADED, SERVICE_DIFFERS].contains(&found.reason) {
            return false;
        }
        let (folder, file) = (Arc::clone(&self.folder), file.to_owned());
        // The file tells its age after a restart, too.
        let written = beside(move || Ok(folder.path().join(file).metadata().and_then(|meta| meta.modified()))).await;
        let age = written.ok().and_then(Result::ok).and_then(|at| SystemTime::now().duration_since(at).ok());
        age.is_some_and(|age| age < TAKES)
    }
}

/// The files of other people. Our certificates are none, though they hold no routes of ours.
fn foreign(files: &[File]) -> impl Iterator<Item = (&str, &Foreign)> {
    files.iter().filter_map(|file| match file.kind.as_ref() {
        Kind::Foreign(foreign) if !certificates::is_ours(file) => Some((file.name.as_str(), foreign)),
        _ => None,
    })
}

/// The first file that Traefik cannot read for certain.
fn broken(files: &[File], folder: &str) -> Option<String> {
    foreign(files).find_map(|(name, foreign)| {
        let why = foreign.broken.as_ref()?;
        Some(format!(
            "the file {name} in {folder} is broken ({why}): Traefik takes no change of any file until it is repaired, and \
             after a restart has no route of any file"
        ))
    })
}

/// Where to look when something is not loaded and nothing is known to be broken: the likely ones first, because only
/// Traefik itself knows everything that it refuses.
fn suspects(files: &[File], folder: &str) -> Option<String> {
    let mut named: Vec<(u8, String)> = foreign(files)
        .map(|(name, foreign)| match &foreign.suspect {
            Some(why) => (0, format!("{name} ({why})")),
            None if foreign.template => (1, format!("{name} (a template)")),
            None => (2, name.to_owned()),
        })
        .collect();
    // Those of one rank stay in the order of their names.
    named.sort_by_key(|(rank, _)| *rank);
    let more = named.len().saturating_sub(NAMED);
    let names: Vec<String> = named.into_iter().take(NAMED).map(|(_, words)| words).collect();
    let listed = match (names.split_last(), more) {
        (None, _) => return None,
        (Some((last, [])), 0) => last.clone(),
        (Some((last, before)), 0) => format!("{} and {last}", before.join(", ")),
        _ => format!("{} and {more} more", names.join(", ")),
    };
    Some(format!(
        "; one file that Traefik cannot read stops every change of any file, and its log names that file: look in {folder} at \
         {listed}"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::folder::judge;
    use super::*;

    fn given(files: &[(&str, &str)]) -> Vec<File> {
        let file = |(name, text): &(&str, &str)| File {
            name: (*name).to_owned(),
            kind: Arc::new(judge(name, text)),
            text: (*text).into(),
        };
        files.iter().map(file).collect()
    }

    fn looked_at(files: &[(&str, &str)]) -> Option<String> {
        suspects(&given(files), "/dyn").map(|words| words.rsplit_once("look in ").unwrap().1.to_owned())
    }

    #[test]
    fn where_to_look_is_told_with_the_likely_files_first_and_not_all_of_them() {
        let (plain, template) = ("http:\n", "# {{ env \"A\" }}\n");
        let odd = "http: {routers: {x: {rule: 'Host(`a.example`)', bogus: 1}}}";
        assert_eq!(looked_at(&[]), None);
        assert_eq!(looked_at(&[("a.yml", plain)]).as_deref(), Some("/dyn at a.yml"));
        assert_eq!(
            looked_at(&[("a.yml", plain), ("b.yml", template), ("c.yml", odd)]).as_deref(),
            Some(
                "/dyn at c.yml (http.routers.x.bogus is no field of a router up to Traefik 3.7), b.yml (a template) and a.yml"
            )
        );
        let many = ["a.yml", "b.yml", "c.yml", "d.yml", "e.yml", "f.yml"].map(|name| (name, plain));
        assert_eq!(looked_at(&many).as_deref(), Some("/dyn at a.yml, b.yml, c.yml, d.yml, e.yml and 1 more"));
        assert_eq!(
            looked_at(&[&many[..], &[("g.yml", template)]].concat()).as_deref(),
            Some("/dyn at g.yml (a template), a.yml, b.yml, c.yml, d.yml and 2 more")
        );
    }
}
