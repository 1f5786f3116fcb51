//! Long lists in pages: every page comes from the same snapshot, which is kept for a while.
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::status::ApiError;
use super::store::Object;
use crate::http::double::lock;

/// How long a snapshot is kept, and how many are.
const LIFE: SignedDuration = SignedDuration::from_mins(5);
const KEPT: usize = 64;

/// One list that is read page by page.
struct Kept {
    id: u64,
    at: Timestamp,
    version: u64,
    /// What was asked; a token is good for the same question only.
    question: String,
    objects: Vec<Arc<Object>>,
}

/// The snapshots of lists that are being read.
#[derive(Default)]
pub struct Pages(Mutex<VecDeque<Kept>>);

/// A page of a list.
pub struct Page {
    pub version: u64,
    pub objects: Vec<Arc<Object>>,
    /// Gets the next page.
    pub token: Option<String>,
    pub remaining: usize,
}

fn expired() -> ApiError {
    ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.",
    )
}

fn bad_token() -> ApiError {
    ApiError::bad_request("invalid continue token: continue key is not valid")
}

impl Pages {
    /// The first page of a list that was just made.
    pub fn first(
        &self,
        question: &str,
        version: u64,
        mut objects: Vec<Arc<Object>>,
        limit: usize,
        now: Timestamp,
    ) -> Page {
        if limit == 0 || objects.len() <= limit {
            return Page { version, objects, token: None, remaining: 0 };
        }
        let id = rand::random();
        let kept = Kept { id, at: now, version, question: question.to_owned(), objects: objects.clone() };
        let mut all = lock(&self.0);
        all.push_back(kept);
        while all.len() > KEPT || all.front().is_some_and(|old| now.duration_since(old.at) >= LIFE) {
            all.pop_front();
        }
        let remaining = objects.len() - limit;
        objects.truncate(limit);
        Page { version, objects, token: Some(token(id, limit)), remaining }
    }

    /// A further page. Errors: 410 when the snapshot is no longer kept, 400 for a token that is none.
    pub fn next(&self, question: &str, text: &str, limit: usize, now: Timestamp) -> Result<Page, ApiError> {
        let (id, from) = read(text).ok_or_else(bad_token)?;
        let all = lock(&self.0);
        let kept = all.iter().find(|kept| kept.id == id && now.duration_since(kept.at) < LIFE).ok_or_else(expired)?;
        if kept.question != question || from > kept.objects.len() {
            return Err(bad_token());
        }
        let until = if limit == 0 { kept.objects.len() } else { kept.objects.len().min(from + limit) };
        Ok(Page {
            version: kept.version,
            objects: kept.objects[from..until].to_vec(),
            token: (until < kept.objects.len()).then(|| token(id, until)),
            remaining: kept.objects.len() - until,
        })
    }
}

fn token(id: u64, from: usize) -> String {
    URL_SAFE_NO_PAD.encode(json!([id, from]).to_string())
}

fn read(text: &str) -> Option<(u64, usize)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    serde_json::from_slice(&bytes).ok()
}
