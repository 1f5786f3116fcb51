//! Claims on hosts and mail domains. The API server's own name uniqueness decides who gets one.
use std::collections::{BTreeMap, HashMap};

use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use tokio::sync::Mutex;

use super::error::{ControllerError, is_code};
use crate::api::claim::{ClaimKind, host_claim_name, mail_claim_name};
use crate::api::condition::{CLAIMED, Finding, Truth};
use crate::api::{FIELD_MANAGER, HostName, MailDomain, PortalClaim, PortalClaimSpec, PortalKey, ResetPortal};

/// The claims of a cluster.
pub struct Claims {
    client: Client,
    api: Api<PortalClaim>,
    /// The claims by their portal's uid, listed once and kept up by what is taken and dropped here: where to look, since
    /// listing all of them for each portal would be quadratic. What is true is read from the API.
    index: Mutex<Option<HashMap<String, BTreeMap<String, PortalClaimSpec>>>>,
}

/// Claims read per call.
const PAGE: u32 = 500;

/// How a claim stands towards a portal.
enum Standing {
    Free,
    Held,
    /// Somebody else's, who is there, or who left things behind.
    Taken,
    /// Its holder is gone.
    Abandoned(Box<PortalClaim>),
}

/// Tries of taking a claim while others come and go.
const TRIES: usize = 5;

impl Claims {
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client.clone()), client, index: Mutex::default() }
    }

    /// What is known of a portal's claims, by their names.
    async fn of(&self, uid: &str) -> Result<BTreeMap<String, PortalClaimSpec>, ControllerError> {
        let mut index = self.index.lock().await;
        let known = match index.take() {
            Some(known) => known,
            None => self.all().await?,
        };
        Ok(index.insert(known).get(uid).cloned().unwrap_or_default())
    }

    async fn all(&self) -> Result<HashMap<String, BTreeMap<String, PortalClaimSpec>>, ControllerError> {
        let mut all: HashMap<String, BTreeMap<String, PortalClaimSpec>> = HashMap::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = self.api.list(&params).await?;
            for claim in page.items {
                all.entry(claim.spec.portal_uid.clone()).or_default().insert(claim.name_any(), claim.spec);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    async fn note(&self, name: &str, spec: &PortalClaimSpec) {
        if let Some(index) = self.index.lock().await.as_mut() {
            index.entry(spec.portal_uid.clone()).or_default().insert(name.to_owned(), spec.clone());
        }
    }

    /// The hosts that a portal has claimed, and so may have made something at. The status may not know them: what was made
    /// is noted there only afterwards.
    pub async fn hosts(&self, uid: &str) -> Result<Vec<HostName>, ControllerError> {
        let claims = self.of(uid).await?.into_values();
        let hosts = claims.filter(|spec| spec.kind == ClaimKind::Host);
        Ok(hosts.filter_map(|spec| HostName::parse(&spec.value).ok()).collect())
    }

    /// Takes host and mail domain, or tells which one somebody else has. Whoever cannot have both holds neither:
    /// a refused portal must not keep others from a name.
    pub async fn take(
        &self,
        key: &PortalKey,
        uid: &str,
        host: &HostName,
        domain: &MailDomain,
    ) -> Result<Finding, ControllerError> {
        let wanted = |kind, value: &str| PortalClaimSpec {
            kind,
            value: value.to_owned(),
            portal_namespace: key.namespace.clone(),
            portal_name: key.name.clone(),
            portal_uid: uid.to_owned(),
        };
        // No foreign namespace is named: whoever claims is not everybody's business.
        let both = [
            (host_claim_name(host), wanted(ClaimKind::Host, host.as_str()), "HostConflict", format!("the host {host}")),
            (
                mail_claim_name(domain),
                wanted(ClaimKind::MailDomain, domain.as_str()),
                "MailDomainConflict",
                format!("the mail domain {domain}"),
            ),
        ];
        let lost = |reason: &str, what: &str| {
            Finding::new(CLAIMED, Truth::False, reason, format!("{what} is claimed by another portal"))
        };
        for (name, spec, reason, what) in &both {
            if let Standing::Taken = self.standing(name, spec).await? {
                return Ok(lost(reason, what));
            }
        }
        let mut new = Vec::new();
        for (name, spec, reason, what) in &both {
            match self.take_one(name, spec).await? {
                Some(true) => new.push(name),
                Some(false) => {}
                // Lost in a race between the look and here: what was just taken goes back.
                None => {
                    for name in new {
                        self.drop_claim(name, uid, None).await?;
                    }
                    return Ok(lost(reason, what));
                }
            }
        }
        let message = format!("host {host} and mail domain {domain} are this portal's");
        Ok(Finding::new(CLAIMED, Truth::True, "Claimed", message))
    }

    /// How a claim stands towards a portal.
    async fn standing(&self, name: &str, spec: &PortalClaimSpec) -> Result<Standing, ControllerError> {
        let key = PortalKey { namespace: spec.portal_namespace.clone(), name: spec.portal_name.clone() };
        let Some(found) = self.api.get_opt(name).await? else { return Ok(Standing::Free) };
        if found.spec.held_by(&key, &spec.portal_uid) {
            return Ok(Standing::Held);
        }
        let buried = found.labels().contains_key(super::tombstones::TOMBSTONE);
        let has_leftovers = buried || found.status.as_ref().is_some_and(|status| !status.leftovers.is_empty());
        let same_portal = found.spec.portal_namespace == key.namespace && found.spec.portal_name == key.name;
        if !same_portal && (has_leftovers || self.holder_exists(&found.spec).await?) {
            return Ok(Standing::Taken);
        }
        // The holder is gone without a trace, or was this portal before it was made anew: its things are marked
        // with this portal's name, so they are this portal's again.
        Ok(Standing::Abandoned(Box::new(found)))
    }

    /// `Some` when the claim is this portal's, with whether it is new; `None` when it is somebody else's.
    async fn take_one(&self, name: &str, spec: &PortalClaimSpec) -> Result<Option<bool>, ControllerError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        for _ in 0..TRIES {
            let done = match self.standing(name, spec).await? {
                Standing::Held => {
                    self.note(name, spec).await;
                    return Ok(Some(false));
                }
                Standing::Taken => return Ok(None),
                Standing::Free => self.api.create(&params, &PortalClaim::new(name, spec.clone())).await,
                Standing::Abandoned(mut claim) => {
                    claim.spec = spec.clone();
                    self.api.replace(name, &params, &claim).await
                }
            };
            match done {
                Ok(_) => {
                    self.note(name, spec).await;
                    return Ok(Some(true));
                }
                // Somebody came in between; look again.
                Err(error) if is_code(&error, 409) || is_code(&error, 404) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Those of the hosts on which the portal holds the claim.
    pub async fn holds(
        &self,
        key: &PortalKey,
        uid: &str,
        hosts: &[HostName],
    ) -> Result<Vec<HostName>, ControllerError> {
        let mut held = Vec::new();
        for host in hosts {
            let claim = self.api.get_opt(&host_claim_name(host)).await?;
            if claim.is_some_and(|claim| claim.spec.held_by(key, uid)) {
                held.push(host.clone());
            }
        }
        Ok(held)
    }

    async fn holder_exists(&self, holder: &PortalClaimSpec) -> Result<bool, ControllerError> {
        let portals: Api<ResetPortal> = Api::namespaced(self.client.clone(), &holder.portal_namespace);
        let found = portals.get_metadata_opt(&holder.portal_name).await?;
        Ok(found.is_some_and(|portal| portal.uid().is_some_and(|uid| uid == holder.portal_uid)))
    }

    /// Lets go of this portal's claims, except those on `keep`.
    pub async fn release(
        &self,
        key: &PortalKey,
        uid: &str,
        keep: Option<(&HostName, &MailDomain)>,
    ) -> Result<(), ControllerError> {
        let kept = keep.map(|(host, domain)| [host_claim_name(host), mail_claim_name(domain)]);
        for claim in self.held(key, uid).await? {
            let name = claim.name_any();
            if kept.as_ref().is_some_and(|kept| kept.contains(&name)) {
                continue;
            }
            self.drop_claim(&name, uid, claim.uid()).await?;
        }
        Ok(())
    }

    async fn drop_claim(&self, name: &str, portal: &str, uid: Option<String>) -> Result<(), ControllerError> {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        match self.api.delete(name, &params).await {
            Ok(_) => {}
            Err(error) if is_code(&error, 404) || is_code(&error, 409) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(index) = self.index.lock().await.as_mut()
            && let Some(claims) = index.get_mut(portal)
        {
            claims.remove(name);
            if claims.is_empty() {
                index.remove(portal);
            }
        }
        Ok(())
    }

    /// The claims of a portal.
    pub async fn held(&self, key: &PortalKey, uid: &str) -> Result<Vec<PortalClaim>, ControllerError> {
        let mut held = Vec::new();
        for name in self.of(uid).await?.into_keys() {
            held.extend(self.api.get_opt(&name).await?.filter(|claim| claim.spec.held_by(key, uid)));
        }
        Ok(held)
    }
}
