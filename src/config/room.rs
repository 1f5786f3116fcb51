//! Whether a folder can be written to: a full or read-only disk is noticed before a write needs it.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::files::write_private;

/// What is written to find out, in bytes, and how long an answer is good for.
const TRIED: usize = 64 << 10;
const GOOD_FOR: Duration = Duration::from_secs(5);
const NAME: &str = ".write-check";

/// Why nothing can be written, if that is so.
type Answer = Result<(), String>;

/// The folder's answer, asked for anew every few seconds at most. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WriteCheck {
    folder: PathBuf,
    last: Arc<Mutex<Option<(Instant, Answer)>>>,
}

impl WriteCheck {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), last: Arc::default() }
    }

    /// Errors: why nothing can be written, in words.
    pub async fn ask(&self) -> Answer {
        self.ask_at(Instant::now()).await
    }

    async fn ask_at(&self, now: Instant) -> Answer {
        let mut last = self.last.lock().await;
        if let Some((_, answer)) = last.as_ref().filter(|(at, _)| now.duration_since(*at) < GOOD_FOR) {
            return answer.clone();
        }
        let folder = self.folder.clone();
        let tried = tokio::task::spawn_blocking(move || try_out(&folder)).await;
        let answer = tried.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(|error| {
            format!("nothing can be written to {}, is the disk full or read-only? {error}", self.folder.display())
        });
        *last = Some((now, answer.clone()));
        answer
    }
}

fn try_out(folder: &Path) -> std::io::Result<()> {
    let path = folder.join(NAME);
    let written = write_private(&path, &[0; TRIED]);
    // What could be written of it must not take up the last room.
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_kept_for_a_while_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let check = WriteCheck::new(&data);
        let now = Instant::now();
        assert_eq!(check.ask_at(now).await, Ok(()));
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
        // given that nothing can be written any more, then that is said once the last answer is old
        std::fs::remove_dir(&data).unwrap();
        assert_eq!(check.ask_at(now).await, Ok(()));
        let why = check.ask_at(now + GOOD_FOR).await.unwrap_err();
        assert!(why.starts_with(&format!("nothing can be written to {}, is the disk full", data.display())), "{why}");
        std::fs::create_dir(&data).unwrap();
        assert_eq!(check.ask_at(now + 2 * GOOD_FOR).await, Ok(()));
    }
}
