//! Files are put into the watched folder and taken away whole, each at once.
//!
//! Everything here blocks; callers run it beside the event loop.
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::folder::{Folder, failed};
use crate::backends::BackendError;

/// Where new files are prepared when that cannot be beside the folder. Traefik watches the top of its folder only.
pub const INNER: &str = ".portalkeeper";
/// Another writer may tidy the inner folder away before it is used; nobody is so quick each time.
const ATTEMPTS: usize = 20;

impl Folder {
    /// Puts the whole text in place of the file at once: prepared outside of what is watched, on disk, then renamed.
    /// Traefik often runs as another user; there is nothing secret in a route.
    pub fn replace(&self, name: &str, text: &str) -> Result<(), BackendError> {
        self.replace_as(name, text, 0o644)
    }

    /// The same with this mode, and with the folder's group where that may be given.
    pub fn replace_as(&self, name: &str, text: &str, mode: u32) -> Result<(), BackendError> {
        let at = self.path().join(name);
        let write = |staging: PathBuf| -> std::io::Result<()> {
            let prepared = staging.join(format!(".{name}.portalkeeper"));
            match std::fs::remove_file(&prepared) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&prepared)?;
            let group = self.path().metadata().map(|folder| folder.gid());
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
        if let Some(beside) = beside(self.path()) {
            done = write(beside);
        }
        for _ in 0..ATTEMPTS {
            if done.is_ok() {
                break;
            }
            let inner = self.path().join(INNER);
            let made = match std::fs::create_dir(&inner) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            };
            done = made.and_then(|()| write(inner));
            if !matches!(&done, Err(error) if error.kind() == ErrorKind::NotFound) {
                break;
            }
        }
        done.map_err(|error| failed("FolderNotWritable", &at, "write", &error, advice(&error)))?;
        self.sync();
        Ok(())
    }

    /// Removes the file; one that is gone is fine.
    pub fn remove(&self, name: &str) -> Result<(), BackendError> {
        match std::fs::remove_file(self.path().join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed("FolderNotWritable", &self.path().join(name), "remove", &error, advice(&error)))
            }
            _ => {
                self.tidy();
                self.sync();
                Ok(())
            }
        }
    }

    /// Takes away the inner folder, if it is empty, with the last file of any installation: not after each write, because
    /// Traefik reads everything again whenever something comes or goes.
    fn tidy(&self) {
        let inner = self.path().join(INNER);
        if !inner.is_dir() {
            return;
        }
        let ours = |file: std::io::Result<std::fs::DirEntry>| {
            file.map_or(true, |file| file.file_name().to_string_lossy().starts_with("pk1-"))
        };
        if std::fs::read_dir(self.path()).is_ok_and(|mut files| !files.any(ours)) {
            let _ = std::fs::remove_dir(inner);
        }
    }

    /// Best effort: a lost rename is found at the next look.
    fn sync(&self) {
        if let Ok(folder) = std::fs::File::open(self.path()) {
            let _ = folder.sync_all();
        }
    }
}

/// What to do where the folder cannot be written.
fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room on the disk of the folder",
        ErrorKind::ReadOnlyFilesystem => "; mount the folder so that it can be written",
        ErrorKind::CrossesDevices => {
            "; its folder .portalkeeper, in which files are prepared, must be on the same file system: remove what is mounted there"
        }
        _ => "; this program must be allowed to write the folder",
    }
}

/// The folder's parent, where a rename from it stays on one file system.
fn beside(folder: &Path) -> Option<PathBuf> {
    let real = folder.canonicalize().ok()?;
    let parent = real.parent()?;
    let device = |path: &Path| path.metadata().ok().map(|meta| meta.dev());
    (device(parent)? == device(&real)?).then(|| parent.to_owned())
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
    fn what_keeps_a_file_from_being_written_is_told_with_what_helps_against_just_that() {
        for (code, words) in
            [(28, "make room"), (122, "make room"), (18, "same file system"), (30, "mount"), (13, "allowed")]
        {
            let told = advice(&std::io::Error::from_raw_os_error(code));
            assert!(told.contains(words), "{code}: {told}");
        }
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
    fn the_inner_folder_goes_with_the_last_of_our_files_and_comes_back_when_it_is_needed() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("dynamic");
        std::fs::create_dir(&path).unwrap();
        let folder = Folder::new(path.clone());
        let there = || path.join(INNER).exists();
        // given a folder that has no usable sibling
        for name in ["pk1-a.yml", "pk1-b.yml"] {
            std::fs::create_dir(outer.path().join(format!(".{name}.portalkeeper"))).unwrap();
            folder.replace(name, "one").unwrap();
        }
        // when one of two goes, then it stays, because each change of the folder costs Traefik a look
        folder.remove("pk1-a.yml").unwrap();
        assert!(there());
        // when the last one goes while somebody else prepares a file, then it stays, too
        std::fs::write(path.join(INNER).join("prepared"), "").unwrap();
        folder.remove("pk1-b.yml").unwrap();
        assert!(there());
        std::fs::remove_file(path.join(INNER).join("prepared")).unwrap();
        folder.remove("pk1-b.yml").unwrap();
        assert!(!there() && std::fs::read_dir(&path).unwrap().count() == 0);
        folder.replace("pk1-a.yml", "two").unwrap();
        assert_eq!(folder.read("pk1-a.yml").unwrap().as_deref(), Some("two"));
    }

    #[test]
    fn writers_do_not_trip_over_one_another_tidying() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("dynamic");
        std::fs::create_dir(&path).unwrap();
        // given a writer that makes the inner folder, and one that takes it away as soon as it is empty
        std::fs::create_dir(outer.path().join(".pk1-a.yml.portalkeeper")).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    Folder::new(path.clone()).remove("pk1-b.yml").unwrap();
                }
            });
            for round in 0..200 {
                let folder = Folder::new(path.clone());
                folder.replace("pk1-a.yml", &round.to_string()).unwrap();
                folder.remove("pk1-a.yml").unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
