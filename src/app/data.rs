//! The data directory: made private, and held by one daemon at a time.
use std::fs::{File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::files::make_private;

/// Files of the embedded API that give everything away to whoever may read them.
const PRIVATE: [&str; 5] = ["api.db", "api.db-wal", "api.db-shm", "api-token", "api-ca.key"];

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("cannot use the data directory {path}: {source}", path = .path.display())]
    Unusable { path: PathBuf, source: std::io::Error },
    #[error("the data directory {path} is in use by another Portalkeeper; stop it, or choose another with --data", path = .0.display())]
    InUse(PathBuf),
    #[error("there is no data directory {path}; name the one of the running program with --data", path = .0.display())]
    Missing(PathBuf),
    #[error(
        "{path} is empty, although this directory was in use before ({witness} is there); bring it back with \
         `portalkeeper restore`, or remove it to begin without any object", path = .path.display()
    )]
    Emptied { path: PathBuf, witness: &'static str },
    #[error(
        "{path} holds no kubeconfig of a standalone program; name the directory of a running one with --data, or the API \
         with --kubeconfig", path = .0.display()
    )]
    NoKubeconfig(PathBuf),
}

impl DataError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unusable { .. } => "DataUnusable",
            Self::InUse(_) => "DataInUse",
            Self::Missing(_) => "DataMissing",
            Self::Emptied { .. } => "DataEmptied",
            Self::NoKubeconfig(_) => "KubeconfigMissing",
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
        let place = path.join("lock");
        let mut options = File::options();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&place).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Nothing is in it, so nothing needs to be said of one that others may read.
        let _ = make_private(&place);
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Before the embedded API is opened: nobody else may read its files, and its objects have not been lost.
    pub fn check_api_files(&self) -> Result<(), DataError> {
        for name in PRIVATE {
            let path = self.join(name);
            match make_private(&path) {
                Ok(false) => {}
                Ok(true) => tracing::warn!(
                    path = %path.display(),
                    "others could read this file; its mode is 0600 again. If they may have done so, remove api-token, \
                     api-ca.key and api-ca.crt and start again: new ones are made"
                ),
                Err(source) => return Err(DataError::Unusable { path, source }),
            }
        }
        let size = |name: &str| std::fs::metadata(self.join(name)).ok().map(|metadata| metadata.len());
        // The token is made after the first object is stored, and what is not in the file yet is in its log.
        let witness = "api-token";
        if size("api.db") == Some(0) && size("api.db-wal").unwrap_or(0) == 0 && size(witness).is_some() {
            return Err(DataError::Emptied { path: self.join("api.db"), witness });
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_of_the_api_are_made_private_and_an_emptied_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["lock", "api.db", "api-token"] {
            std::fs::write(at(name), "x").unwrap();
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let data = DataDirectory::take(folder.path()).unwrap();
        data.check_api_files().unwrap();
        for name in ["lock", "api.db", "api-token"] {
            assert_eq!(mode(&at(name)), 0o600, "{name}");
        }
        // a store that was emptied is not taken for a new one
        std::fs::write(at("api.db"), "").unwrap();
        let error = data.check_api_files().unwrap_err();
        assert_eq!(error.reason(), "DataEmptied");
        assert!(error.to_string().contains("api.db is empty, although this directory was in use before"), "{error}");
        // what an interrupted first start leaves is one
        std::fs::remove_file(at("api-token")).unwrap();
        data.check_api_files().unwrap();
        // and so is a directory without it
        std::fs::remove_file(at("api.db")).unwrap();
        data.check_api_files().unwrap();
    }
}
