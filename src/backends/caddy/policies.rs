//! The TLS policy in Caddy: kept as the classes want it, and taken away when nobody does.
use serde_json::Value;

use super::admin::{CLIENT_REFUSED, Outcome, Part, REMOVED, TRIES, WRITTEN, overtaken};
use super::policy::{self, Step};
use super::{Caddy, POLICIES, SERVERS, servers};
use crate::api::condition::Truth;
use crate::backends::{BackendError, ErrorClass};
use crate::config::Secret;
use crate::plan::Mark;

/// What there is to say about the policy: how bad it is, reason and words.
pub type Told = Option<(Truth, &'static str, String)>;

/// Whoever may not read policies has none there.
fn is_closed(error: &BackendError) -> bool {
    error.class == ErrorClass::Credential && error.reason != CLIENT_REFUSED
}

/// What the module says where it refuses a token while Caddy loads the policy.
fn refused_words(error: &BackendError) -> Option<&str> {
    error.message.split_once(policy::MODULE_REFUSES).map(|(_, words)| words.trim())
}

impl Caddy {
    /// Puts the policy where it belongs, or takes it away; guarded like the routes. What there is to say about it.
    pub(super) async fn keep_policy(&self, mark: &Mark) -> Told {
        let Some(challenge) = &self.options.dns_challenge else {
            let left = |error: BackendError| {
                let message = format!(
                    "a TLS policy of ours stays there with a Cloudflare token that is not wanted any more; it cannot be \
                     changed: {error}"
                );
                (Truth::True, "TlsPolicyLeft", message)
            };
            return self.drop_tokens(mark).await.err().map(left);
        };
        let failed = if challenge.required { Truth::False } else { Truth::True };
        let put = self.put_policy(mark).await;
        if let (Ok(_), Some(words)) = (&put, self.options.challenges.refusal(&challenge.token)) {
            let message = format!(
                "the module {} in this Caddy refuses the token of proxy.caddy.dnsChallenge before it asks Cloudflare ({words}), \
                 so that it is left out: a whole API token is needed, or a placeholder that Caddy can fill in; correct the \
                 Secret, or the environment of Caddy",
                policy::MODULE
            );
            return Some((failed, "DnsTokenRefused", message));
        }
        match put {
            Ok(Step::Foreign) => Some((
                Truth::True,
                "ForeignTlsPolicy",
                "Caddy has a TLS policy of somebody else for all names, which sees to the certificates; ours was not added"
                    .to_owned(),
            )),
            Ok(_) => None,
            Err(error) if error.message.contains(policy::MODULE_MISSING) => Some((
                failed,
                "DnsModuleMissing",
                format!(
                    "this Caddy was built without the module {}, so it cannot get certificates by a DNS challenge at Cloudflare; \
                     use a build that has it (xcaddy build --with github.com/caddy-dns/cloudflare), or switch proxy.caddy.dnsChallenge (CADDY_DNS_CHALLENGE) off",
                    policy::MODULE
                ),
            )),
            // What hinders reads hinders the routes as well and is told there.
            Err(error) => Some((Truth::Unknown, "TlsPolicyUnknown", format!("Caddy's TLS policy cannot be kept: {error}"))),
        }
    }

    async fn put_policy(&self, mark: &Mark) -> Result<Step, BackendError> {
        let list = self.admin.list(POLICIES).await?;
        let own = self.options.dns_challenge.as_ref().map(|challenge| &challenge.token);
        let new =
            policy::new_tokens(list.items(), &policy::id(&mark.installation), &self.options.challenges.tokens(own));
        match self.bring_policy(mark, list).await {
            Err(error) if !new.is_empty() && refused_words(&error).is_some() => self.sort_out(mark, &new, error).await,
            done => done,
        }
    }

    /// One token that the module refuses keeps the policy out for all classes, and Caddy does not say which it is: so each
    /// new one is tried by itself, beside those that stand.
    async fn sort_out(&self, mark: &Mark, new: &[Secret], refusal: BackendError) -> Result<Step, BackendError> {
        let challenges = &self.options.challenges;
        let words = |error: &BackendError| refused_words(error).unwrap_or_default().to_owned();
        new.iter().for_each(|token| challenges.refuse(token, &words(&refusal)));
        for token in new.iter().filter(|_| new.len() > 1) {
            challenges.admit(token);
            match self.bring_policy(mark, self.admin.list(POLICIES).await?).await {
                Err(error) if refused_words(&error).is_some() => challenges.refuse(token, &words(&error)),
                done => drop(done?),
            }
        }
        self.bring_policy(mark, self.admin.list(POLICIES).await?).await
    }

    /// A class without a challenge only looks whether tokens are left over, until it has seen that none are.
    async fn drop_tokens(&self, mark: &Mark) -> Result<(), BackendError> {
        if self.options.challenges.is_absent() {
            return Ok(());
        }
        match self.admin.list(POLICIES).await {
            Ok(list) => self.bring_policy(mark, list).await.map(|_| ()),
            // What hinders reads for now is told with the routes, and the next batch looks again.
            Err(error) => {
                self.options.challenges.note_absent(is_closed(&error));
                Ok(())
            }
        }
    }

    async fn bring_policy(&self, mark: &Mark, mut list: Part) -> Result<Step, BackendError> {
        let own = self.options.dns_challenge.as_ref().map(|challenge| &challenge.token);
        let (challenges, id) = (&self.options.challenges, policy::id(&mark.installation));
        let mut last = None;
        for attempt in 0..TRIES {
            if attempt > 0 {
                list = self.admin.list(POLICIES).await?;
            }
            let step = policy::step(list.items(), &id, &challenges.tokens(own), own.is_some());
            let (new, reason) = match &step {
                Step::Write(new) => (new, WRITTEN),
                Step::Remove(new) => (new, REMOVED),
                Step::Nothing | Step::Absent | Step::Foreign => {
                    challenges.note_absent(step == Step::Absent);
                    return Ok(step);
                }
            };
            match self.admin.replace(&list, Value::Array(new.clone()), &[(mark, reason)]).await? {
                (Outcome::Written, _) => {
                    challenges.note_absent(reason == REMOVED);
                    return Ok(step);
                }
                (Outcome::ReadAgain(error), _) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(overtaken))
    }

    /// Takes our policy away when no route of this installation is left, whatever the classes want.
    pub(super) async fn drop_policy(&self, mark: &Mark) -> Result<(), BackendError> {
        let challenges = &self.options.challenges;
        if challenges.is_absent() {
            return Ok(());
        }
        let (id, mut looked) = (policy::id(&mark.installation), false);
        let mut last = None;
        for _ in 0..TRIES {
            let list = match self.admin.list(POLICIES).await {
                Err(error) if self.options.dns_challenge.is_none() && is_closed(&error) => {
                    challenges.note_absent(true);
                    return Ok(());
                }
                list => list?,
            };
            let Some(rest) = policy::without(list.items(), &id) else {
                challenges.note_absent(true);
                return Ok(());
            };
            if !looked {
                let prefix = format!("pk1-{}-", mark.installation.as_str());
                if servers::has_route(&self.admin.read(SERVERS).await?.value, |id| id.starts_with(&prefix)) {
                    return Ok(());
                }
                looked = true;
            }
            match self.admin.replace(&list, Value::Array(rest), &[(mark, REMOVED)]).await? {
                (Outcome::Written, _) => {
                    challenges.note_absent(true);
                    return Ok(());
                }
                (Outcome::ReadAgain(error), _) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(overtaken))
    }
}
