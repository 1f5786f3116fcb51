//! The watched folder: reading all of it, and replacing single files whole.
//!
//! Everything here blocks; callers run it beside the event loop.
use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::fragment::{self, Contents};
use super::rules::{self, Foreign};
use crate::backends::{BackendError, ErrorClass};
use crate::http::double::lock;

/// Largest file that is read, in bytes: ten thousand merged routes need a fifth of it.
const LARGEST: u64 = 32 << 20;
/// A file changed so shortly ago may change again without its times telling.
const RACY: Duration = Duration::from_secs(2);
/// Where new files are prepared when that cannot be beside the folder. Traefik watches the top of its folder only.
const INNER: &str = ".portalkeeper";

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

fn failed(reason: &'static str, path: &Path, what: &str, error: &std::io::Error, advice: &str) -> BackendError {
    let cause = error.to_string();
    let cause = cause.split(" (os error").next().unwrap_or_default().to_lowercase();
    let message = format!("cannot {what} {}: {cause}{advice}", path.display());
    BackendError::new(ErrorClass::Unavailable, reason, message)
}

/// What a file says, by its name and text.
pub fn judge(name: &str, text: &str) -> Kind {
    match fragment::header_of(name).filter(|header| text.starts_with(header.as_str())) {
        Some(_) => Kind::Ours(fragment::read(text)),
        None => Kind::Foreign(rules::foreign(name, text)),
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
            Err(error) => Err(failed("FileUnreadable", &self.path.join(name), "read", &error, "")),
        }
    }

    /// Puts the whole text in place of the file at once: prepared outside of what is watched, on disk, then renamed.
    /// Traefik often runs as another user; there is nothing secret in a route.
    pub fn replace(&self, name: &str, text: &str) -> Result<(), BackendError> {
        self.replace_as(name, text, 0o644)
    }

    /// The same with this mode, and with the folder's group where that may be given.
    pub fn replace_as(&self, name: &str, text: &str, mode: u32) -> Result<(), BackendError> {
        let at = self.path.join(name);
        let advice = "; this program must be allowed to write the folder";
        let write = |staging: PathBuf| -> std::io::Result<()> {
            let prepared = staging.join(format!(".{name}.portalkeeper"));
            match std::fs::remove_file(&prepared) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&prepared)?;
            let group = self.path.metadata().map(|folder| folder.gid());
            if let (Ok(group), Ok(own)) = (group, file.metadata().map(|file| file.gid()))
                && group != own
            {
                // Whoever is not in that group has made another arrangement.
                let _ = std::os::unix::fs::fchown(&file, None, Some(group));
            }
            let done = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
            let done = done.and_then(|()| std::fs::rename(&prepared, &at));
            if done.is_err() {
                let _ = std::fs::remove_file(&prepared);
            }
            done
        };
        let mut done = Err(ErrorKind::NotFound.into());
        if let Some(beside) = beside(&self.path) {
            done = write(beside);
        }
        if done.is_err() {
            let inner = self.path.join(INNER);
            let made = match std::fs::create_dir(&inner) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            };
            done = made.and_then(|()| write(inner));
        }
        done.map_err(|error| failed("FolderNotWritable", &at, "write", &error, advice))?;
        self.sync();
        Ok(())
    }

    /// Removes the file; one that is gone is fine.
    pub fn remove(&self, name: &str) -> Result<(), BackendError> {
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let advice = "; this program must be allowed to write the folder";
                Err(failed("FolderNotWritable", &self.path.join(name), "remove", &error, advice))
            }
            _ => {
                self.sync();
                Ok(())
            }
        }
    }

    /// Best effort: a lost rename is found at the next look.
    fn sync(&self) {
        if let Ok(folder) = std::fs::File::open(&self.path) {
            let _ = folder.sync_all();
        }
    }
}

/// The folder's parent, where a rename from it stays on one file system.
fn beside(folder: &Path) -> Option<PathBuf> {
    let real = folder.canonicalize().ok()?;
    let parent = real.parent()?;
    let device = |path: &Path| path.metadata().ok().map(|meta| meta.dev());
    (device(parent)? == device(&real)?).then(|| parent.to_owned())
}

fn read_cached(
    cache: &mut HashMap<String, (Stamp, File)>,
    folder: &Path,
    name: &str,
) -> Result<Option<File>, BackendError> {
    let path = folder.join(name);
    let unreadable = |error: &std::io::Error| failed("FileUnreadable", &path, "read", error, "");
    let meta = match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() => meta,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&error)),
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
        Err(error) => return Err(unreadable(&error)),
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
    fn files_are_prepared_beside_the_folder_and_inside_only_where_that_is_another_file_system() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("dynamic");
        std::fs::create_dir(&inner).unwrap();
        assert_eq!(beside(&inner), Some(outer.path().canonicalize().unwrap()));
        assert_eq!(beside(Path::new("/proc")), None, "a mount of its own");
        assert_eq!(beside(Path::new("/nowhere/at/all")), None);
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("dynamic");
        std::fs::create_dir(&path).unwrap();
        let folder = Folder::new(path.clone());
        folder.replace("a.yml", "one").unwrap();
        folder.replace("a.yml", "two").unwrap();
        assert_eq!(folder.read("a.yml").unwrap().as_deref(), Some("two"));
        let names = |path: &Path| std::fs::read_dir(path).unwrap().count();
        assert_eq!((names(&path), names(outer.path())), (1, 1));
        folder.remove("a.yml").unwrap();
        folder.remove("a.yml").unwrap();
        assert_eq!(folder.read("a.yml").unwrap(), None);
        // where the sibling cannot be used, a folder inside is, which Traefik does not watch
        std::fs::create_dir(outer.path().join(".b.yml.portalkeeper")).unwrap();
        folder.replace("b.yml", "three").unwrap();
        assert_eq!(folder.read("b.yml").unwrap().as_deref(), Some("three"));
        assert_eq!(std::fs::read_dir(path.join(INNER)).unwrap().count(), 0);
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
