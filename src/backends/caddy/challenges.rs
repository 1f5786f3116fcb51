//! The DNS challenges of all classes that use one Caddy: it takes one TLS policy for all names, so they share it.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::config::Secret;
use crate::http::double::lock;

/// What the classes of one Caddy want, shared by everything that writes there.
#[derive(Debug, Clone)]
pub struct Challenges(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    /// The token of each class, or that it has none.
    classes: BTreeMap<String, Option<Secret>>,
    /// Every class has been heard: a token in Caddy that none of them has is nobody's any more.
    complete: bool,
    /// A look showed no policy of ours, and none was written since.
    absent: bool,
    /// Tokens that the module in Caddy refuses, which keeps the whole policy out, with its words and the number of looks
    /// until they are tried again: a placeholder may get a value.
    refused: Vec<(Secret, String, u32)>,
}

/// How many looks a token is left out for that the module in Caddy refused: Caddy writes it to its log each time.
const LEFT_OUT: u32 = 15;

impl Known {
    fn forget_unknown(&mut self) {
        let Self { classes, refused, .. } = self;
        refused.retain(|(token, ..)| classes.values().flatten().any(|known| known == token));
    }
}

/// The tokens that belong into the policy, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub known: Vec<Secret>,
    /// Others may belong there, too, whose classes are not heard yet.
    pub others: bool,
}

impl Default for Challenges {
    /// Of a Caddy that no class stands behind.
    fn default() -> Self {
        Self::with(true)
    }
}

impl Challenges {
    /// Before the classes are heard.
    pub fn awaited() -> Self {
        Self::with(false)
    }

    fn with(complete: bool) -> Self {
        Self(Arc::new(Mutex::new(Known { classes: BTreeMap::new(), complete, absent: false, refused: Vec::new() })))
    }

    /// The class has this token from now on, or none.
    pub fn register(&self, class: &str, token: Option<Secret>) {
        let mut known = lock(&self.0);
        known.classes.insert(class.to_owned(), token);
        known.absent = false;
        known.forget_unknown();
    }

    /// These classes are all that use this Caddy, but for those that could not be heard: what they had stays.
    pub fn settle(&self, mut classes: BTreeMap<String, Option<Secret>>, unheard: &BTreeSet<String>) {
        let mut known = lock(&self.0);
        for class in unheard {
            if let Some((class, token)) = known.classes.remove_entry(class) {
                classes.insert(class, token);
            }
        }
        known.classes = classes;
        known.complete = unheard.is_empty();
        known.forget_unknown();
    }

    /// The token stays out of the policy for a while. `words` are what the module says of it.
    pub(super) fn refuse(&self, token: &Secret, words: &str) {
        let mut known = lock(&self.0);
        known.refused.retain(|(refused, ..)| refused != token);
        known.refused.push((token.clone(), words.to_owned(), LEFT_OUT));
    }

    /// The token is tried again.
    pub(super) fn admit(&self, token: &Secret) {
        lock(&self.0).refused.retain(|(refused, ..)| refused != token);
    }

    /// What the module says of a token that it refused. Each question is a look, the last of which admits the token again.
    pub(super) fn refusal(&self, token: &Secret) -> Option<String> {
        let mut known = lock(&self.0);
        let at = known.refused.iter().position(|(refused, ..)| refused == token)?;
        match known.refused[at].2 {
            0 => {
                known.refused.remove(at);
                None
            }
            _ => {
                known.refused[at].2 -= 1;
                Some(known.refused[at].1.clone())
            }
        }
    }

    /// What belongs into the policy, in the order of the classes' names. `own` is what this very Caddy was made with: it
    /// counts where no class is known, since former settings of a class must not bring back what the class gave up.
    pub(super) fn tokens(&self, own: Option<&Secret>) -> Tokens {
        let known = lock(&self.0);
        let registered: Vec<&Secret> = match known.classes.is_empty() {
            true => own.into_iter().collect(),
            false => known.classes.values().flatten().collect(),
        };
        let mut tokens: Vec<Secret> = Vec::new();
        for token in registered {
            if !tokens.contains(token) && !known.refused.iter().any(|(refused, ..)| refused == token) {
                tokens.push(token.clone());
            }
        }
        Tokens { known: tokens, others: !known.complete }
    }

    /// All that an answer of Caddy might quote.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        lock(&self.0).classes.values().flatten().cloned().collect()
    }

    pub(super) fn is_absent(&self) -> bool {
        lock(&self.0).absent
    }

    pub(super) fn note_absent(&self, absent: bool) {
        lock(&self.0).absent = absent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(challenges: &Challenges, own: Option<&str>) -> (Vec<String>, bool) {
        let Tokens { known, others } = challenges.tokens(own.map(Secret::new).as_ref());
        (known.iter().map(|token| token.expose().to_owned()).collect(), others)
    }

    #[test]
    fn tokens_come_in_the_order_of_the_classes_and_each_once() {
        let challenges = Challenges::awaited();
        assert_eq!(known(&challenges, Some("own")), (vec!["own".to_owned()], true));
        for (class, token) in [("c", Some("one")), ("b", Some("two")), ("a", Some("one")), ("d", None)] {
            challenges.register(class, token.map(Secret::new));
        }
        assert_eq!(known(&challenges, Some("former")), (vec!["one".to_owned(), "two".to_owned()], true));
        assert!(!format!("{challenges:?}").contains("two"), "tokens do not show");
    }

    #[test]
    fn a_refused_token_is_left_out_for_a_while_or_until_it_is_replaced() {
        let challenges = Challenges::default();
        let (good, bad) = (Secret::new("good"), Secret::new("bad"));
        challenges.register("a", Some(good.clone()));
        challenges.register("b", Some(bad.clone()));
        challenges.refuse(&bad, "too short");
        for _ in 0..LEFT_OUT {
            assert_eq!(known(&challenges, None).0, ["good"]);
            assert_eq!(challenges.refusal(&bad).as_deref(), Some("too short"));
        }
        assert_eq!(challenges.refusal(&bad), None);
        assert_eq!((known(&challenges, None).0.len(), challenges.refusal(&good)), (2, None));
        challenges.refuse(&bad, "too short");
        challenges.register("b", Some(Secret::new("better")));
        challenges.register("b", Some(bad.clone()));
        assert_eq!((known(&challenges, None).0.len(), challenges.refusal(&bad)), (2, None));
    }

    #[test]
    fn classes_that_are_gone_are_dropped_and_those_that_cannot_be_heard_stay() {
        let challenges = Challenges::awaited();
        for class in ["gone", "late", "there"] {
            challenges.register(class, Some(Secret::new(class)));
        }
        let there = || BTreeMap::from([("there".to_owned(), Some(Secret::new("renewed")))]);
        challenges.settle(there(), &BTreeSet::from(["late".to_owned(), "never".to_owned()]));
        assert_eq!(known(&challenges, None), (vec!["late".to_owned(), "renewed".to_owned()], true));
        challenges.settle(there(), &BTreeSet::new());
        assert_eq!(known(&challenges, None), (vec!["renewed".to_owned()], false));
    }
}
