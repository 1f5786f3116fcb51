//! The one name of a folder, however it is spelled.
use std::path::{Component, Path, PathBuf};

/// As the file system knows it: two spellings of one folder must not count as two places, because what is left in a
/// former place is removed. What is not there yet is taken by its words.
pub fn canonical(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| Some((above.canonicalize().ok()?, path.strip_prefix(above).ok()?)));
    let (mut whole, rest) = found.unwrap_or_else(|| (PathBuf::new(), path));
    for part in rest.components() {
        match part {
            Component::ParentDir if whole.parent().is_some() => drop(whole.pop()),
            part => whole.push(part),
        }
    }
    whole
}

/// Without what means nothing: `/a/./dyn/` is `/a/dyn`. Links stay as they are, for words and for whoever turns one.
pub fn tidy(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_folder_is_one_place() {
        let outer = tempfile::tempdir().unwrap();
        let real = outer.path().canonicalize().unwrap().join("dynamic");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, outer.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outer.path(), outer.path().join("self")).unwrap();
        for spelling in ["dynamic", "./dynamic/", "dynamic/.", "dynamic/../dynamic", "link", "link/", "self/self/link"]
        {
            assert_eq!(canonical(&outer.path().join(spelling)), real, "{spelling}");
        }
        // what is not there is found by its words, below what is there
        let later = outer.path().canonicalize().unwrap().join("later");
        for spelling in ["later", "./later/", "self/later", "none/../later", "later/x/.."] {
            assert_eq!(canonical(&outer.path().join(spelling)), later, "{spelling}");
        }
        assert_eq!(canonical(Path::new("/nowhere/./at//all/../all/")), Path::new("/nowhere/at/all"));
        assert_eq!(canonical(Path::new("/../..")), Path::new("/"));
    }

    #[test]
    fn messages_show_the_path_that_was_given_without_what_means_nothing() {
        assert_eq!(tidy(Path::new("/a/./dyn//")), Path::new("/a/dyn"));
        assert_eq!(tidy(Path::new("/a/../dyn")), Path::new("/a/../dyn"));
    }
}
