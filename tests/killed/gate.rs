//! Counts the calls of a program and ends it at one of them.
use std::sync::{Arc, Mutex};

use portalkeeper::http::double::lock;
use tokio::sync::{RwLock, watch};

/// At which call the program ends: counted from one, since the gate was armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub call: usize,
    /// The call has had its effect, and only its answer is missing.
    pub done: bool,
}

/// One call as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub words: String,
    /// It changes something. What only reads is the same before and after.
    pub writes: bool,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Goes,
    /// It is never made, and the program ends.
    Dies,
    /// It is made, and the program ends before it is answered.
    DiesAnswered,
}

#[derive(Default)]
struct State {
    point: Option<Point>,
    armed: bool,
    seen: Vec<Seen>,
    dead: bool,
}

/// The gate that every call of a program goes through.
pub struct Gate {
    state: Mutex<State>,
    killed: watch::Sender<bool>,
    /// Held by each call to the API until it is done.
    pub calls: Arc<RwLock<()>>,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), killed: watch::Sender::new(false), calls: Arc::default() })
    }

    /// For a new program, of which no call is counted yet.
    pub fn open(&self) {
        *lock(&self.state) = State::default();
        self.killed.send_replace(false);
    }

    /// Counts from now on, and ends the program at this point.
    pub fn arm(&self, point: Option<Point>) {
        let mut state = lock(&self.state);
        (state.point, state.armed) = (point, true);
    }

    /// What becomes of the next call. Whoever gets [`Fate::DiesAnswered`] calls [`Gate::die`] when it is done.
    pub fn meet(&self, words: String, writes: bool) -> Fate {
        let fate = {
            let mut state = lock(&self.state);
            if state.dead {
                return Fate::Dies;
            }
            if !state.armed {
                return Fate::Goes;
            }
            state.seen.push(Seen { words, writes });
            let call = state.seen.len();
            match state.point {
                Some(point) if point.call == call => {
                    state.dead = true;
                    if point.done { Fate::DiesAnswered } else { Fate::Dies }
                }
                _ => Fate::Goes,
            }
        };
        if fate == Fate::Dies {
            self.die();
        }
        fate
    }

    pub fn die(&self) {
        self.killed.send_replace(true);
    }

    /// Ends when the program does nothing more.
    pub async fn killed(&self) {
        let _ = self.killed.subscribe().wait_for(|killed| *killed).await;
    }

    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state).seen.clone()
    }
}
