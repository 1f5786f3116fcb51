//! Getting a host its certificate, and taking it away again, around the writes of the host itself.
use super::Npm;
use super::book::Order;
use super::certificate::{self, Source, Supply, Wish};
use super::client::odd;
use super::host::{Entry, Host, Note};
use super::orders::{PENDING, pending};
use super::writes::{Given, Outcome, alone, new_note, number};
use crate::api::HostName;
use crate::backends::{BackendError, ErrorClass};
use crate::plan::Change;

impl Npm {
    /// Where the host's certificate comes from, by what NPM has now.
    pub(super) async fn supply(&self, host: &Host, wish: &Wish) -> Result<Supply, BackendError> {
        if *wish == Wish::None {
            return Ok(Supply::Use(0));
        }
        certificate::supply(wish, &host.name, &self.certificates().await?)
    }

    /// Makes a change whose certificate needs no order.
    pub(super) async fn supplied(&self, change: &Change<Entry>, host: &Host, supply: Supply) -> Outcome {
        match supply {
            Supply::Use(id) => self.change(change, id).await,
            Supply::Upload(existing) => {
                let id = self.upload(change, host, existing).await?;
                self.change(change, id).await
            }
            Supply::Wait(id) => Err(pending(format!(
                "NPM is ordering certificate {id} for {}; if it never ends, delete that certificate in NPM",
                host.name
            ))),
            Supply::Order => Err(pending(format!("{} waits for its certificate", host.name))),
        }
    }

    async fn upload(&self, change: &Change<Entry>, host: &Host, existing: Option<u64>) -> Result<u64, BackendError> {
        let ca = self.options.origin_ca.as_ref().ok_or_else(|| odd("has no Origin CA to ask"))?;
        let name = certificate::own_name(change.mark(), &host.name);
        // One that could not be uploaded is kept, or each try would leave another one at Cloudflare.
        let kept = self.orders.signed(&name);
        let signed = match kept {
            Some(signed) => signed,
            None => self.orders.keep(&name, ca.sign(&host_name(host)?).await?),
        };
        let _turn = self.options.gate.lock().await;
        let id = self.api.upload(existing, &name, signed).await?;
        self.orders.uploaded(&name);
        Ok(id)
    }

    /// Whether an order may be made for this change now. While it may not, a host that an earlier order took out of
    /// nginx is put back.
    pub(super) async fn may_order(&self, change: &Change<Entry>) -> Result<(), BackendError> {
        let Some((host, _)) = Self::needs(change) else { return Ok(()) };
        match self.orders.ready(&host_name(host)?, &self.book()).await {
            Ok(()) => self.sent_before(&host.name).await,
            Err(error) => {
                if let Change::Update { id, mark, .. } = change
                    && error.reason != PENDING
                {
                    let row = self.own_row(number(id)?, mark, &host.name).await?;
                    if let Some((row, note)) = row.filter(|(_, note)| note.ordering) {
                        self.restore(&row, Some(&Note { ordering: false, ..note })).await?;
                    }
                }
                Err(error)
            }
        }
    }

    /// Orders a certificate and makes the change with it. An order takes a host that serves out of nginx and brings
    /// it back in a wrong form, so such a host is marked before and written again after, whatever came of it.
    pub(super) async fn ordered(&self, change: &Change<Entry>) -> Outcome {
        let (Some((host, wish)), Source::LetsEncrypt(settings)) = (Self::needs(change), &self.options.certificates)
        else {
            return Err(odd("was to order a certificate that nobody wants"));
        };
        let name = host_name(host)?;
        let mark = change.mark();
        let certificates = self.certificates().await?;
        // Somebody may have got one since the batch began.
        match certificate::supply(wish, &host.name, &certificates)? {
            Supply::Order => {}
            supply => return self.supplied(change, host, supply).await,
        }
        let after = certificates.iter().map(|certificate| certificate.id).max().unwrap_or(0);
        let serving = match change {
            Change::Update { id, .. } => {
                self.own_row(number(id)?, mark, &host.name).await?.map(|(row, note)| (row, Some(note)))
            }
            Change::Adopt { id, .. } => Some((self.adoptable(number(id)?, &host.name).await?, None)),
            _ => None,
        };
        if let Some((row, note)) = &serving {
            alone(row, &host.name)?;
            let marked = Note { ordering: true, ..note.clone().unwrap_or_else(|| new_note(mark, host)) };
            self.restore(row, Some(&marked)).await?;
        }
        let (named, at) = (host.name.clone(), self.clock.now());
        let order = Order { host: named, mark: mark.clone(), after, certificate: None, at };
        self.note(&order).await?;
        let placed = {
            let _turn = self.options.gate.lock().await;
            self.orders.place(&self.api, settings, &name, self.options.pace.order, &self.book()).await
        };
        match &placed {
            Ok(id) => self.note(&Order { certificate: Some(*id), ..order }).await?,
            Err(error) if error.class == ErrorClass::OutcomeUnknown || error.reason == PENDING => {}
            Err(_) => self.forget(&order).await?,
        }
        match (placed, serving) {
            (Ok(id), Some((row, _))) => self.overwrite(&row, mark, host, Given { id, ordered: true }).await,
            (Ok(id), None) => self.change(change, id).await,
            // It goes on, and the host stays marked until it has ended.
            (Err(error), _) if error.reason == PENDING => Err(error),
            (Err(error), Some((row, note))) => {
                let note = note.map(|note| Note { ordering: false, ..note });
                self.restore(&row, note.as_ref()).await?;
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }
}

fn host_name(host: &Host) -> Result<HostName, BackendError> {
    HostName::parse(&host.name)
        .map_err(|error| BackendError::new(ErrorClass::Permanent, "HostInvalid", error.to_string()))
}
