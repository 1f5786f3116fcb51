//! `portalkeeper backup` and `restore`: a copy of the data directory, taken while the program runs.
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::data::{DataDirectory, DataError, existing_store};
use crate::apiserver::store::{StoreError as ApiStoreError, raise_version, version_of};
use crate::config::files::write_private;
use crate::store::{Store, StoreError, copy_database};

/// The databases, and the files that go along with the embedded API.
const DATABASES: [&str; 2] = ["portalkeeper.db", "api.db"];
const FILES: [&str; 4] = ["api-ca.key", "api-ca.crt", "api-token", "simulators.json"];
/// A database, and what SQLite keeps beside it.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];
/// How far versions jump over whatever may have been handed out since the backup.
const JUMP: u64 = 1_000_000;

/// Why there is no backup, or why it was not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    ApiStore(#[from] ApiStoreError),
    #[error("{0} is there already; name a folder that is not")]
    Exists(PathBuf),
    #[error("{0} is no backup: it holds no portalkeeper.db")]
    NoBackup(PathBuf),
    #[error("cannot use {path}: {source}", path = .path.display())]
    File { path: PathBuf, source: std::io::Error },
}

impl BackupError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Data(error) => error.reason(),
            Self::Store(error) => error.reason(),
            Self::ApiStore(error) => error.reason(),
            Self::Exists(_) => "BackupExists",
            Self::NoBackup(_) => "NoBackup",
            Self::File { .. } => "FileUnusable",
        }
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<(), BackupError> {
    let failed = |source| BackupError::File { path: from.to_owned(), source };
    match std::fs::read(from) {
        Ok(bytes) => write_private(to, &bytes).map_err(|source| BackupError::File { path: to.to_owned(), source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Copies a data directory into a new folder (mode 0700: it holds Secrets). The program may be running.
pub async fn backup(data: &Path, to: &Path) -> Result<String, BackupError> {
    existing_store(data)?;
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let failed = |source| BackupError::File { path: to.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(failed)?;
    for name in DATABASES.iter().filter(|name| data.join(name).exists()) {
        copy_database(&data.join(name), &to.join(name)).await?;
    }
    for name in FILES {
        copy_file(&data.join(name), &to.join(name))?;
    }
    Ok(format!("{} is backed up in {}\n", data.display(), to.display()))
}

/// The first ending, `before-restore`, `before-restore-2` and so on, under which nothing is kept yet.
fn unused_ending(directory: &DataDirectory) -> String {
    let used = |ending: &str| {
        let names = DATABASES.iter().chain(&FILES);
        names.into_iter().any(|name| SUFFIXES.iter().any(|s| directory.join(&format!("{name}.{ending}{s}")).exists()))
    };
    let mut ending = "before-restore".to_owned();
    let mut number = 2_u64;
    while used(&ending) {
        ending = format!("before-restore-{number}");
        number += 1;
    }
    ending
}

/// Puts a backup into a data directory while no program uses it. What was there stays beside it under
/// `.before-restore`, or that with a number where an earlier restore left something. Versions of the embedded API go on from beyond all that were handed out, so that whoever
/// watched lists anew; records and routes are compared with the restored objects, and nothing is removed for being
/// unknown to them.
pub async fn restore(data: &Path, from: &Path) -> Result<String, BackupError> {
    if !from.join("portalkeeper.db").exists() {
        return Err(BackupError::NoBackup(from.to_owned()));
    }
    let directory = DataDirectory::take(data)?;
    // A backup that cannot be opened is noticed before anything is moved.
    let checked = Store::open(&from.join("portalkeeper.db")).await?;
    drop(checked);
    let current = version_of(&directory.join("api.db")).await?;
    let taken = version_of(&from.join("api.db")).await?;
    let ending = unused_ending(&directory);
    let moved = |name: &str| -> Result<(), BackupError> {
        for suffix in SUFFIXES {
            let path = directory.join(&format!("{name}{suffix}"));
            if path.exists() {
                let failed = |source| BackupError::File { path: path.clone(), source };
                std::fs::rename(&path, directory.join(&format!("{name}.{ending}{suffix}"))).map_err(failed)?;
            }
        }
        Ok(())
    };
    for name in DATABASES.iter().filter(|name| from.join(name).exists()) {
        moved(name)?;
        copy_database(&from.join(name), &directory.join(name)).await?;
    }
    for name in FILES.iter().filter(|name| from.join(name).exists()) {
        moved(name)?;
        copy_file(&from.join(name), &directory.join(name))?;
    }
    if let Some(taken) = taken {
        raise_version(&directory.join("api.db"), taken.max(current.unwrap_or(0)) + JUMP).await?;
    }
    Ok(format!("{} is restored from {}; what was there is beside it as *.{ending}\n", data.display(), from.display()))
}
