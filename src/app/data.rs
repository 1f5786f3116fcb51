//! The data directory: made private, and held by one daemon at a time.
use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("cannot use the data directory {path}: {source}", path = .path.display())]
    Unusable { path: PathBuf, source: std::io::Error },
    #[error("the data directory {path} is in use by another Portalkeeper; stop it, or choose another with --data", path = .0.display())]
    InUse(PathBuf),
    #[error("there is no data directory {path}; name the one of the running program with --data", path = .0.display())]
    Missing(PathBuf),
}

impl DataError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unusable { .. } => "DataUnusable",
            Self::InUse(_) => "DataInUse",
            Self::Missing(_) => "DataMissing",
        }
    }
}

/// A data directory that is ours until this is dropped.
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory (mode 0700) and takes its lock.
    pub fn take(path: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError::Unusable { path: path.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
    /// A file or folder in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where data is kept when nobody says otherwise: `$XDG_DATA_HOME` or `~/.local/share`.
pub fn default_directory(name: &str) -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
    base.unwrap_or_else(|| PathBuf::from(".")).join(name)
}

/// The store of a data directory that is there already, for commands beside the daemon.
pub fn existing_store(directory: &Path) -> Result<PathBuf, DataError> {
    let store = directory.join("portalkeeper.db");
    if store.exists() { Ok(store) } else { Err(DataError::Missing(directory.to_owned())) }
}
