//! The watched folder, as it is read.
//!
//! Everything here blocks; callers run it beside the event loop.
use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::foreign::{self, Foreign};
use super::fragment::{self, Contents};
use super::writing::INNER;
use crate::backends::{BackendError, ErrorClass};
use crate::http::double::lock;

/// Largest file that is read, in bytes: ten thousand merged routes need a fifth of it.
const LARGEST: u64 = 32 << 20;
/// A file changed so shortly ago may change again without its times telling.
const RACY: Duration = Duration::from_secs(2);
/// What a file is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Named and marked as ours. The error says why it cannot be read.
    Ours(Result<Contents, String>),
    Foreign(Foreign),
}

/// One file of the folder.
#[derive(Debug, Clone)]
pub struct File {
    /// Path within the folder.
    pub name: String,
    pub kind: Arc<Kind>,
    pub text: Arc<str>,
}

#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The folder, with what was read of it. A file whose stamp is unchanged is not read again.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    cache: Mutex<HashMap<String, (Stamp, File)>>,
}

impl std::fmt::Debug for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.inode)
    }
}

pub fn failed(reason: &'static str, path: &Path, what: &str, error: &std::io::Error, advice: &str) -> BackendError {
    let cause = error.to_string();
    let cause = cause.split(" (os error").next().unwrap_or_default().to_lowercase();
    let message = format!("cannot {what} {}: {cause}{advice}", path.display());
    BackendError::new(ErrorClass::Unavailable, reason, message)
}

fn unreadable(path: &Path, error: &std::io::Error) -> BackendError {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => {
            "; this program must be allowed to read every file that Traefik reads there, because any of them may hold the host"
        }
        _ => "",
    };
    failed("FileUnreadable", path, "read", error, advice)
}

/// What a file says, by its name and text.
pub fn judge(name: &str, text: &str) -> Kind {
    match fragment::header_of(name).filter(|header| text.starts_with(header.as_str())) {
        Some(_) => Kind::Ours(fragment::read(text)),
        None => Kind::Foreign(foreign::foreign(name, text)),
    }
}

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self { path, cache: Mutex::default() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every file that Traefik reads, top folder first. Errors: a folder or a file that cannot be read.
    pub fn scan(&self) -> Result<Vec<File>, BackendError> {
        let mut cache = lock(&self.cache);
        let mut found = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let at = if folder.is_empty() { self.path.clone() } else { self.path.join(&folder) };
            let entries = match std::fs::read_dir(&at) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound && !folder.is_empty() => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let advice = "; make the folder that Traefik's file provider watches (providers.file.directory)";
                    return Err(failed("FolderMissing", &at, "read", &error, advice));
                }
                Err(error) => {
                    let advice = "; this program must be allowed to read and write the folder";
                    return Err(failed("FolderUnreadable", &at, "read", &error, advice));
                }
            };
            for entry in entries {
                let entry = entry.map_err(|error| failed("FolderUnreadable", &at, "read", &error, ""))?;
                // Traefik does not read names that are no text either.
                let Ok(own) = entry.file_name().into_string() else { continue };
                let name = if folder.is_empty() { own.clone() } else { format!("{folder}/{own}") };
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if name != INNER {
                        folders.push(name);
                    }
                } else if [".yml", ".yaml", ".toml"].iter().any(|ending| own.ends_with(ending))
                    && let Some(file) = read_cached(&mut cache, &self.path, &name)?
                {
                    found.push(file);
                }
            }
        }
        found.sort_by_key(|file| (file.name.contains('/'), file.name.clone()));
        cache.retain(|name, _| found.iter().any(|file| file.name == *name));
        Ok(found)
    }

    /// The file as it is now; `None` where there is none.
    pub fn read(&self, name: &str) -> Result<Option<String>, BackendError> {
        match std::fs::read_to_string(self.path.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&self.path.join(name), &error)),
        }
    }
}

/// What Traefik takes for a file and fails to read (tried with 3.0 and 3.7).
fn link(name: &str, what: &str) -> File {
    let foreign = Foreign { suspect: Some(what.to_owned()), ..Foreign::default() };
    File { name: name.to_owned(), kind: Arc::new(Kind::Foreign(foreign)), text: "".into() }
}

fn read_cached(
    cache: &mut HashMap<String, (Stamp, File)>,
    folder: &Path,
    name: &str,
) -> Result<Option<File>, BackendError> {
    let path = folder.join(name);
    let meta = match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() => meta,
        // A folder that is none of a link is looked into by the caller.
        Ok(meta) if meta.is_dir() => return Ok(Some(link(name, "a link to a folder"))),
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(unreadable(&path, &error)),
        // Such as an editor's lock. Where it leads may be known to Traefik alone, in a container of its own.
        Err(_) if path.is_symlink() => return Ok(Some(link(name, "a link to nothing"))),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    let stamp = Stamp {
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    };
    if let Some((known, file)) = cache.get(name)
        && *known == stamp
    {
        return Ok(Some(file.clone()));
    }
    if stamp.size > LARGEST {
        let message = format!("{} is larger than {LARGEST} bytes and is not read", path.display());
        return Err(BackendError::new(ErrorClass::Unavailable, "FileUnreadable", message));
    }
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let file = File { name: name.to_owned(), kind: Arc::new(judge(name, &text)), text: text.into() };
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stamp.changed.0).unwrap_or(0));
    if SystemTime::now().duration_since(changed).is_ok_and(|age| age > RACY) {
        cache.insert(name.to_owned(), (stamp, file.clone()));
    } else {
        cache.remove(name);
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_nothing_is_seen_and_stops_nothing() {
        let outer = tempfile::tempdir().unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, outer.path().join(name)).unwrap();
        link("root@host.12345:1", ".#user.yml");
        link("loop.yml", "loop.yml");
        link("..", "up.yml");
        link("nowhere", "notes.txt");
        let found = Folder::new(outer.path().to_owned()).scan().unwrap();
        let suspects = found.iter().filter_map(|file| match file.kind.as_ref() {
            Kind::Foreign(foreign) => Some((file.name.as_str(), foreign.suspect.as_deref()?)),
            Kind::Ours(_) => None,
        });
        let nothing = "a link to nothing";
        let expected = [(".#user.yml", nothing), ("loop.yml", nothing), ("up.yml", "a link to a folder")];
        assert_eq!(suspects.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_file_that_may_not_be_read_is_told_with_what_to_do() {
        let error = unreadable(Path::new("/dyn/a.yml"), &std::io::Error::from_raw_os_error(13));
        assert_eq!(
            error.message,
            "cannot read /dyn/a.yml: permission denied; this program must be allowed to read every file that Traefik reads \
             there, because any of them may hold the host"
        );
    }

    #[test]
    fn an_absent_folder_is_an_error_and_not_empty() {
        let error = Folder::new("/nowhere/at/all".into()).scan().unwrap_err();
        assert_eq!(error.reason, "FolderMissing");
        assert_eq!(
            error.message,
            "cannot read /nowhere/at/all: no such file or directory; make the folder that Traefik's file provider watches \
             (providers.file.directory)"
        );
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let outer = tempfile::tempdir().unwrap();
        let folder = Folder::new(outer.path().to_owned());
        let path = outer.path().join("a.yml");
        let routers = || match folder.scan().unwrap()[0].kind.as_ref() {
            Kind::Foreign(foreign) => foreign.routers.clone(),
            Kind::Ours(_) => Vec::new(),
        };
        std::fs::write(&path, "http: {routers: {a: {rule: 'Host(`a.example`)'}}}").unwrap();
        assert_eq!(routers()[0].1, ["a.example"]);
        std::fs::write(&path, "http: {routers: {a: {rule: 'Host(`b.example`)'}}}").unwrap();
        assert_eq!(routers()[0].1, ["b.example"]);
        assert!(lock(&folder.cache).is_empty(), "too fresh to be remembered");
    }
}
