//! The certificates that are ours: what was ordered is noted, found again, and taken away when nothing uses it.
use super::book::Order;
use super::certificate::{Certificate, State, Wish};
use super::host::{Entry, Host, Row, Tls};
use super::orders::{Book, pending};
use super::{Backend, Npm};
use crate::backends::origin_ca::Which;
use crate::backends::{BackendError, ErrorClass, origin_ca};
use crate::http::double::lock;
use crate::plan::{Mark, Observed, Ownership};

/// The book of orders cannot be used.
pub fn failed(why: String) -> BackendError {
    let message = format!("the store that knows which certificates were ordered cannot be used: {why}");
    BackendError::new(ErrorClass::Unavailable, "LedgerFailed", message)
}

impl Npm {
    pub(super) fn book(&self) -> Book<'_> {
        Book { book: self.options.book.as_ref(), instance: self.instance(), clock: self.clock.as_ref() }
    }

    /// Every order that is noted. Read before the list of certificates: one that ends in between is not missed then.
    pub(super) async fn noted(&self) -> Result<Vec<Order>, BackendError> {
        self.options.book.orders(&self.instance()).await.map_err(failed)
    }

    pub(super) async fn note(&self, order: &Order) -> Result<(), BackendError> {
        self.options.book.put(&self.instance(), order).await.map_err(failed)
    }

    pub(super) async fn forget(&self, order: &Order) -> Result<(), BackendError> {
        self.options.book.remove(&self.instance(), order).await.map_err(failed)
    }

    async fn noted_for(&self, mark: &Mark, host: &str) -> Result<Vec<Order>, BackendError> {
        let mut noted = self.noted().await?;
        noted.retain(|order| order.mark == *mark && order.host == host);
        Ok(noted)
    }

    /// Notes a certificate that goes with its host, before the host forgets it.
    pub(super) async fn note_known(&self, mark: &Mark, host: &str, id: u64) -> Result<(), BackendError> {
        if self.noted_for(mark, host).await?.iter().any(|order| order.certificate == Some(id)) {
            return Ok(());
        }
        let (host, mark, at) = (host.to_owned(), mark.clone(), self.clock.now());
        self.note(&Order { host, mark, after: id.saturating_sub(1), certificate: Some(id), at }).await
    }

    /// Whether the host's certificate of Let's Encrypt came of an order of ours. If so, its id is noted.
    pub(super) async fn ordered_here(&self, host: &Host, mark: &Mark, id: u64) -> Result<bool, BackendError> {
        if id == 0 || !matches!(&host.tls, Tls::Wanted(Wish::LetsEncrypt)) {
            return Ok(false);
        }
        let noted = self.noted_for(mark, &host.name).await?;
        if noted.is_empty() || noted.iter().any(|order| order.certificate == Some(id)) {
            return Ok(!noted.is_empty());
        }
        let (certificates, user) = (self.certificates().await?, self.api.user().await?);
        let of = |order: &&Order| order.find(&certificates, user).is_some_and(|found| found.id == id);
        let Some(order) = noted.iter().find(of) else { return Ok(false) };
        self.note(&Order { certificate: Some(id), ..order.clone() }).await?;
        Ok(true)
    }

    /// Whether an order whose certificate is not there may still bring it.
    async fn is_under_way(&self, order: &Order) -> bool {
        order.on_its_way(self.clock.now())
            || (order.certificate.is_none() && self.orders.running_for(&order.host).await)
    }

    /// An order of before, perhaps of another process, that NPM may be about to take up.
    pub(super) async fn sent_before(&self, host: &str) -> Result<(), BackendError> {
        let now = self.clock.now();
        if self.noted().await?.iter().any(|order| order.host == host && order.on_its_way(now)) {
            return Err(pending(format!(
                "{host} waits for its certificate: whether NPM got the last order is not known yet"
            )));
        }
        Ok(())
    }

    /// Certificates of ours that no proxy host uses, and orders that may still bring one.
    pub(super) async fn leftovers(
        &self,
        rows: &[Row],
        certificates: &[Certificate],
        noted: &[Order],
    ) -> Result<Vec<Observed<Entry>>, BackendError> {
        let used = |c: &Certificate| rows.iter().any(|row| row.certificate_id == c.id);
        let mut found = Vec::new();
        for c in certificates.iter().filter(|c| c.state != State::Pending && !used(c)) {
            if let Some((mark, host)) = c.marked() {
                found.push(leftover(mark, host, Some(c.id)));
            }
        }
        let user = self.api.user().await?;
        for order in noted {
            let host = &order.host;
            // One that is under way is probably for the host that is there.
            let serves = || rows.iter().filter_map(Row::note).any(|n| n.mark == order.mark && n.host == *host);
            let left = match order.find(certificates, user) {
                Some(c) if c.state == State::Pending => (!serves()).then_some(Some(c.id)),
                Some(c) => (!used(c)).then_some(Some(c.id)),
                None if self.is_under_way(order).await => (!serves()).then_some(None),
                None => {
                    self.forget(order).await?;
                    None
                }
            };
            found.extend(left.map(|certificate| leftover(order.mark.clone(), host, certificate)));
        }
        Ok(found)
    }

    /// Takes away what is left of one order or upload, if it is still ours and nothing uses it; an upload is revoked at
    /// whoever signed it.
    pub(super) async fn discard(&self, mark: &Mark, host: &str, id: Option<u64>) -> Result<(), BackendError> {
        let Some(id) = id else {
            return Err(pending(format!("whether NPM got the order of a certificate for {host} is not known yet")));
        };
        let (noted, user) = (self.noted_for(mark, host).await?, self.api.user().await?);
        let of = |order: &Order, c: &Certificate| order.find(std::slice::from_ref(c), user).is_some();
        let ours = |c: &Certificate| {
            c.marked().is_some_and(|(owner, _)| owner == *mark) || noted.iter().any(|order| of(order, c))
        };
        let found = {
            let _turn = self.options.gate.lock().await;
            self.api.discard(id, ours, self.clock.now()).await?
        };
        let (found, pem) = found.map_or((None, None), |(found, pem)| (Some(found), pem));
        if let (Some(pem), Some(ca)) = (pem, &self.options.origin_ca) {
            let failed = origin_ca::revoke(ca.as_ref(), host, Which::Pem(&pem)).await;
            lock(&self.unrevoked).extend(failed.map(|remark| (mark.clone(), remark)));
        }
        let done = |order: &&Order| order.certificate == Some(id) || found.as_ref().is_some_and(|c| of(order, c));
        for order in noted.iter().filter(done) {
            self.forget(order).await?;
        }
        Ok(())
    }

    /// Takes away everything that was ordered for a host that is deleted.
    pub(super) async fn discard_orders(&self, mark: &Mark, host: &str) -> Result<(), BackendError> {
        let noted = self.noted_for(mark, host).await?;
        if noted.is_empty() {
            return Ok(());
        }
        let (certificates, user) = (self.certificates().await?, self.api.user().await?);
        for order in &noted {
            match order.find(&certificates, user) {
                Some(found) => self.discard(mark, host, Some(found.id)).await?,
                None if self.is_under_way(order).await => self.discard(mark, host, None).await?,
                None => self.forget(order).await?,
            }
        }
        Ok(())
    }

    /// What was ordered for a host that is let go stays, and is nobody's from now on.
    pub(super) async fn let_go(&self, mark: &Mark, host: &str) -> Result<(), BackendError> {
        for order in self.noted_for(mark, host).await? {
            self.forget(&order).await?;
        }
        Ok(())
    }
}

fn leftover(mark: Mark, host: &str, certificate: Option<u64>) -> Observed<Entry> {
    let key = match certificate {
        Some(id) => format!("certificate {id} for {host}"),
        None => format!("the order of a certificate for {host}"),
    };
    Observed {
        // Hosts have numbers of their own.
        id: format!("certificate-{}", certificate.unwrap_or_default()),
        ownership: Ownership::Marked(mark),
        item: Entry::Leftover { key, host: host.to_owned(), certificate },
    }
}
