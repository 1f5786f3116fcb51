//! A plan's changes as new contents of files: each file is read, changed and written once.
use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, HashSet};

use super::folder::{Folder, Kind, judge};
use super::fragment::{Entry, entry_name, file_name, header_of, not_ours, owner_of, render, short_hash};
use super::{Body, Route, id};
use crate::backends::{BackendError, ErrorClass};
use crate::plan::{Change, Item, Mark, Ownership};

type Outcome = Result<Option<String>, BackendError>;

/// A file between reading and writing.
struct Draft {
    before: Option<String>,
    entries: BTreeMap<String, Entry>,
    header: String,
}

struct Work<'a> {
    folder: &'a Folder,
    drafts: BTreeMap<String, Draft>,
    /// File and entry of what was put in this run: a later removal of something older there does not mean it.
    put: HashSet<(String, String)>,
    /// Files of other people that were taken over whole, with the text they must still have.
    taken: Vec<(usize, String, String)>,
}

/// Makes the changes; the outcome of each, in order.
pub fn apply(folder: &Folder, changes: &[Change<Route>]) -> Vec<Outcome> {
    let mut work = Work { folder, drafts: BTreeMap::new(), put: HashSet::new(), taken: Vec::new() };
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut touched: Vec<(usize, String)> = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        let mut files = Vec::new();
        outcomes.push(work.change(index, change, &mut files));
        touched.extend(files.into_iter().map(|file| (index, file)));
    }
    // What is new is there before what is old goes.
    let Work { drafts, taken, .. } = work;
    let (gone, kept): (Vec<_>, Vec<_>) = drafts.iter().partition(|(_, draft)| draft.entries.is_empty());
    let mut failures: BTreeMap<&str, BackendError> = BTreeMap::new();
    for (file, draft) in kept {
        if let Err(error) = write(folder, file, draft) {
            failures.insert(file, error);
        }
    }
    for (file, draft) in gone {
        if draft.before.is_some()
            && let Err(error) = folder.remove(file)
        {
            failures.insert(file, error);
        }
    }
    for (index, file) in touched {
        if let (Some(error), Ok(_)) = (failures.get(file.as_str()), &outcomes[index]) {
            outcomes[index] = Err(error.clone());
        }
    }
    for (index, file, text) in taken {
        if outcomes[index].is_ok()
            && let Err(error) = take_over(folder, &file, &text)
        {
            outcomes[index] = Err(error);
        }
    }
    outcomes
}

fn write(folder: &Folder, file: &str, draft: &Draft) -> Result<(), BackendError> {
    let text = render(&draft.header, &draft.entries).map_err(|why| {
        let message = format!("the file {file} was not written: {why}; please report this as a fault of Portalkeeper");
        BackendError::new(ErrorClass::Permanent, "NotRendered", message)
    })?;
    // Every event makes Traefik read the whole folder.
    if draft.before.as_deref() == Some(text.as_str()) { Ok(()) } else { folder.replace(file, &text) }
}

fn take_over(folder: &Folder, file: &str, text: &str) -> Result<(), BackendError> {
    match folder.read(file)? {
        Some(now) if now == text => folder.remove(file),
        None => Ok(()),
        Some(_) => {
            let message = format!("the file {file} changed while it was taken over; the next try looks again");
            Err(BackendError::new(ErrorClass::Conflict, "ForeignRoute", message))
        }
    }
}

impl Work<'_> {
    fn change(&mut self, index: usize, change: &Change<Route>, files: &mut Vec<String>) -> Outcome {
        match change {
            Change::Create { mark, item, .. } => self.put(mark, item, files),
            Change::Update { mark, id: old, to, .. } => {
                let new = self.put(mark, to, files)?;
                // The same route in another file: the layout was changed, or a person moved it.
                if new.as_deref() != Some(old) {
                    self.take(old, files)?;
                }
                Ok(new)
            }
            Change::Adopt { mark, id: old, from, to, .. } => {
                let Body::Theirs { whole: Some(text), .. } = &from.body else {
                    let message = format!(
                        "{} cannot be taken over: {} is for more than this host, or stands together with other things, or is used by \
                         other files; take it out by hand",
                        to.host,
                        from.describe()
                    );
                    return Err(BackendError::new(ErrorClass::Conflict, "ForeignRoute", message));
                };
                let file = old.split(' ').next().unwrap_or_default().to_owned();
                let new = self.put(mark, to, files)?;
                self.taken.push((index, file, text.to_string()));
                Ok(new)
            }
            // There is no route to a certificate that is left over.
            Change::Delete { item: Route { body: Body::Leftover(_), .. }, .. }
            | Change::Release { item: Route { body: Body::Leftover(_), .. }, .. } => Ok(None),
            Change::Delete { id, .. } => self.take(id, files).map(|_| None),
            Change::Release { id, item, .. } => {
                let (Some(entry), Body::Ours(..)) = (self.take(id, files)?, &item.body) else { return Ok(None) };
                let name = format!("portal-{}", short_hash(&item.host));
                let file = file_name(&name);
                if self.folder.read(&file)?.is_some() {
                    let message = format!("{} cannot be left in place: there is a file {file} already", item.host);
                    return Err(BackendError::new(ErrorClass::Conflict, "ForeignRoute", message));
                }
                let entries = BTreeMap::from([(name.clone(), entry.renamed(&name))]);
                self.drafts.insert(file.clone(), Draft { before: None, entries, header: String::new() });
                files.push(file);
                Ok(None)
            }
        }
    }

    fn put(&mut self, mark: &Mark, item: &Route, files: &mut Vec<String>) -> Outcome {
        let Body::Ours(file, entry) = &item.body else {
            return Err(BackendError::new(ErrorClass::Permanent, "NotRendered", "there is no route to write"));
        };
        let name = entry_name(mark, &item.host);
        let draft = self.draft(file)?;
        draft.entries.insert(name.clone(), entry.clone());
        files.push(file.clone());
        self.put.insert((file.clone(), name.clone()));
        Ok(Some(id(file, &name)))
    }

    /// Takes out what the id names, if it is still ours.
    fn take(&mut self, id: &str, files: &mut Vec<String>) -> Result<Option<Entry>, BackendError> {
        let Some((file, name)) = id.split_once(' ').map(|(f, n)| (f.to_owned(), n.to_owned())) else { return Ok(None) };
        if self.put.contains(&(file.clone(), name.clone())) {
            return Ok(None);
        }
        let is_ours = match self.folder.read(&file)? {
            Some(text) => matches!(judge(&file, &text), Kind::Ours(_)),
            None => false,
        };
        if !is_ours && !self.drafts.contains_key(&file) {
            return Ok(None);
        }
        let entry = self.draft(&file)?.entries.remove(&name);
        files.push(file);
        Ok(entry)
    }

    /// The file as it is now, to be changed. Errors: it holds what is not ours.
    fn draft(&mut self, file: &str) -> Result<&mut Draft, BackendError> {
        Ok(match self.drafts.entry(file.to_owned()) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => slot.insert(read_draft(self.folder, file)?),
        })
    }
}

fn read_draft(folder: &Folder, file: &str) -> Result<Draft, BackendError> {
    let header = header_of(file).unwrap_or_default();
    let Some(text) = folder.read(file)? else {
        return Ok(Draft { before: None, entries: BTreeMap::new(), header });
    };
    let refuse = |message: String| Err(BackendError::new(ErrorClass::Conflict, "ForeignRoute", message));
    let entries = match judge(file, &text) {
        Kind::Foreign(_) => {
            return Err(not_ours(file, &header));
        }
        // Only a file of a single portal gets here damaged; it is written anew.
        Kind::Ours(Err(_)) => BTreeMap::new(),
        Kind::Ours(Ok(contents)) if !contents.strangers.is_empty() => {
            let strangers = contents.strangers.join(", ");
            return refuse(format!("somebody put {strangers} into our file {file}; move that to a file of its own"));
        }
        Kind::Ours(Ok(contents)) => {
            if let Some(name) = contents.entries.keys().find(|name| owner_of(name) == Ownership::Foreign) {
                return refuse(format!(
                    "somebody put the router {name} into our file {file}; move it to a file of its own"
                ));
            }
            contents.entries
        }
    };
    Ok(Draft { before: Some(text), entries, header })
}
