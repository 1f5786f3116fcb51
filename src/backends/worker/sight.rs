//! What a batch can look at. A name whose place cannot be found is left out by itself: what a portal had there says
//! nothing about the name that it has now.
use std::collections::HashMap;

use super::batch::{conclude, most_urgent};
use super::{Job, Known, Programmed, Shared, Want};
use crate::api::HostName;
use crate::backends::{Backend, BackendError, ErrorClass, Reach, Scope};
use crate::plan::{Observed, Urgency};

/// Finds out the lanes of these; who has none gets the reason.
pub(super) async fn discover<B: Backend>(shared: &Shared<B>, jobs: Vec<Job>) -> Vec<Job> {
    // Where something is made, the wanted name decides; where things go, any name will do.
    let deciding = |job: &Job| match job.want.intent() {
        Some(intent) => vec![intent.host.clone()],
        None => job.want.hosts(),
    };
    let hosts: Vec<HostName> = jobs.iter().flat_map(deciding).collect();
    let urgency = most_urgent(shared, &jobs);
    let mut reaches = shared.backend.discover(&hosts, urgency).await.into_iter();
    let mut found = Vec::new();
    let mut answers = Vec::new();
    for job in jobs {
        let making = job.want.intent().is_some();
        let (mut usable, mut refused) = (false, None);
        for reach in reaches.by_ref().take(deciding(&job).len()) {
            match reach {
                Reach::Open => usable = true,
                Reach::Closed(_) if !making => usable = true,
                Reach::Closed(error) | Reach::Nowhere(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
        match refused.filter(|_| !usable) {
            // Where there is no place, nothing was made by a portal that never made anything. For others a place that is
            // not seen any more is no proof that nothing is left there.
            Some(error) if error.class == ErrorClass::Permanent && !making && job.known == Known::NeverMade => {
                answers.push((job, Ok(Programmed::default())));
            }
            Some(error) => answers.push((job, Err(error))),
            None => found.push(job),
        }
    }
    conclude(shared, answers);
    found
}

/// What a batch saw.
pub(super) struct Sight<I> {
    pub observed: Vec<Observed<I>>,
    /// Names at which nothing could be looked at.
    blind: HashMap<HostName, BackendError>,
}

impl<I> Sight<I> {
    pub fn nothing() -> Self {
        Self { observed: Vec::new(), blind: HashMap::new() }
    }

    /// Names of a want that were left out.
    pub fn out_of_reach(&self, want: &Want) -> Vec<(HostName, BackendError)> {
        if self.blind.is_empty() {
            return Vec::new();
        }
        let names = want.hosts().into_iter();
        names.filter_map(|host| self.blind.get(&host).cloned().map(|error| (host, error))).collect()
    }
}

/// Looks at everything that the jobs concern and that can be looked at.
pub(super) async fn look<B: Backend>(
    shared: &Shared<B>,
    jobs: &[&Job],
    urgency: Urgency,
) -> Result<Sight<B::Item>, BackendError> {
    let mut tried = false;
    loop {
        let blind = blind(shared, jobs, urgency).await?;
        let hosts = jobs.iter().flat_map(|job| job.want.hosts()).filter(|host| !blind.contains_key(host)).collect();
        let wanted = jobs.iter().filter_map(|job| job.want.intent().map(|intent| intent.host.clone())).collect();
        let marks = jobs.iter().map(|job| job.want.mark().clone()).collect();
        let scope = Scope { hosts, wanted, marks, urgency };
        match shared.backend.observe(&scope).await {
            Ok(observed) => return Ok(Sight { observed, blind }),
            // Perhaps a former name's place went away just now; in a batch each job is asked for by itself then.
            Err(error)
                if error.class == ErrorClass::Permanent && jobs.len() == 1 && scope.hosts.len() > 1 && !tried =>
            {
                tried = true;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Former names, and names of things that are to go, whose place is not to be seen any more.
async fn blind<B: Backend>(
    shared: &Shared<B>,
    jobs: &[&Job],
    urgency: Urgency,
) -> Result<HashMap<HostName, BackendError>, BackendError> {
    let mut names: Vec<HostName> = Vec::new();
    for job in jobs {
        let wanted = job.want.intent().map(|intent| &intent.host);
        names.extend(job.want.hosts().into_iter().filter(|host| Some(host) != wanted));
    }
    names.retain(|host| shared.backend.lane(host).is_none());
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let reaches = shared.backend.discover(&names, urgency).await;
    let mut blind = HashMap::new();
    for (host, reach) in names.into_iter().zip(reaches) {
        match reach {
            Reach::Open | Reach::Closed(_) => {}
            Reach::Nowhere(error) if error.class == ErrorClass::Permanent => {
                blind.insert(host, error);
            }
            // Nothing is known: a failed read is no answer.
            Reach::Nowhere(error) => return Err(error),
        }
    }
    Ok(blind)
}
