//! The writes: each reads what it changes right before, and counts only when a read shows the host online.
use super::Npm;
use super::certificate::{self, Certificate, Held};
use super::client::{Call, FAILED, GONE, REFUSED, odd};
use super::host::{self, Entry, Host, Note, Row};
use crate::backends::{BackendError, ErrorClass};
use crate::http::double::lock;
use crate::plan::{Change, Mark};

/// Writes of one host while nginx complains about a neighbour.
const TRIES: u32 = 3;
const HOSTS: &str = "/nginx/proxy-hosts";

pub(super) type Outcome = Result<Option<String>, BackendError>;

/// The certificate that a host gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    pub id: u64,
    /// Ordered for this host by us, so it goes with the host.
    pub ordered: bool,
}

fn path(id: u64) -> String {
    format!("{HOSTS}/{id}")
}

fn foreign(message: String) -> BackendError {
    BackendError::new(ErrorClass::Conflict, "ForeignHost", message)
}

pub(super) fn number(id: &str) -> Result<u64, BackendError> {
    id.parse().map_err(|_| odd(&format!("has a host with the id {id}")))
}

impl Npm {
    /// Every proxy host that the user may see. NPM sends all in one answer.
    pub(super) async fn rows(&self) -> Result<Vec<Row>, BackendError> {
        let listed = self.api.call(&Call::get(HOSTS)).await?;
        let entries = listed.as_array().ok_or_else(|| odd("sent something else than a list of proxy hosts"))?;
        entries.iter().map(Row::parse).collect::<Option<_>>().ok_or_else(|| odd("sent a proxy host without its fields"))
    }

    async fn row(&self, id: u64) -> Result<Row, BackendError> {
        let value = self.api.call(&Call::get(path(id))).await?;
        Row::parse(&value).ok_or_else(|| odd("sent a proxy host without its fields"))
    }

    pub(super) async fn certificates(&self) -> Result<Vec<Certificate>, BackendError> {
        self.api.certificates(self.clock.now()).await
    }

    /// Makes one change with a certificate that is there; 0 is none.
    pub(super) async fn change(&self, change: &Change<Entry>, certificate: u64) -> Outcome {
        let mark = change.mark();
        match change {
            Change::Create { item: Entry::Host(host), .. } => self.create(mark, host, certificate).await,
            Change::Update { id, to: Entry::Host(host), .. } if host.off => {
                self.switch_off(number(id)?, mark, &host.name).await
            }
            Change::Update { id, to: Entry::Host(host), .. } => {
                match self.own_row(number(id)?, mark, &host.name).await? {
                    Some((row, note)) => {
                        alone(&row, &host.name)?;
                        let ordered =
                            note.ordered == Some(certificate) || self.ordered_here(host, mark, certificate).await?;
                        self.overwrite(&row, mark, host, Given { id: certificate, ordered }).await
                    }
                    None => self.create(mark, host, certificate).await,
                }
            }
            Change::Adopt { id, to: Entry::Host(host), .. } => {
                let row = self.adoptable(number(id)?, &host.name).await?;
                let ordered = self.ordered_here(host, mark, certificate).await?;
                self.overwrite(&row, mark, host, Given { id: certificate, ordered }).await
            }
            Change::Delete { id, item: Entry::Host(host), .. } => self.delete(number(id)?, mark, &host.name).await,
            Change::Delete { item: Entry::Leftover { host, certificate, .. }, .. } => {
                self.discard(mark, host, *certificate).await.map(|()| None)
            }
            Change::Release { id, item: Entry::Host(host), .. } => self.release(number(id)?, mark, &host.name).await,
            // A certificate that is let go stays where it is; NPM has no way to rename it.
            Change::Release { item: Entry::Leftover { host, .. }, .. } => self.let_go(mark, host).await.map(|()| None),
            Change::Create { .. } | Change::Update { .. } | Change::Adopt { .. } => {
                Err(odd("was to be given a certificate as a host"))
            }
        }
    }

    /// A row of ours, read again; `None` where it is gone. Errors: it is ours no longer.
    pub(super) async fn own_row(&self, id: u64, mark: &Mark, name: &str) -> Result<Option<(Row, Note)>, BackendError> {
        let row = match self.row(id).await {
            Ok(row) => row,
            Err(error) if error.reason == GONE => {
                lock(&self.dirty).remove(&id);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match row.note().filter(|note| note.mark == *mark && note.host == name) {
            Some(note) => Ok(Some((row, note))),
            None => Err(foreign(format!("proxy host {id} no longer carries our mark for {name}, so it is left alone"))),
        }
    }

    /// A foreign row that may be taken over, read again.
    pub(super) async fn adoptable(&self, id: u64, name: &str) -> Result<Row, BackendError> {
        let row = self.row(id).await?;
        if row.note().is_some() {
            let message = format!("proxy host {id} for {name} got an owner while it was taken over");
            return Err(foreign(message));
        }
        alone(&row, name)?;
        Ok(row)
    }

    async fn create(&self, mark: &Mark, host: &Host, certificate: u64) -> Outcome {
        let ordered = self.ordered_here(host, mark, certificate).await?;
        let note = Note { ordered: ordered.then_some(certificate), ..new_note(mark, host) };
        let version = self.api.version().await?;
        let body = host::body(host, &note, certificate, host::fresh_meta(&note), version);
        let failed = {
            let _turn = self.options.gate.lock().await;
            match self.api.call(&Call::post(HOSTS).json(body)).await {
                Ok(made) => {
                    let id = made["id"].as_u64().ok_or_else(|| odd("made a proxy host without an id"))?;
                    // NPM's answer still shows the state from before nginx was configured.
                    let row = self.row(id).await?;
                    if row.online == Some(true) && row.enabled {
                        return Ok(Some(id.to_string()));
                    }
                    None
                }
                Err(error) if error.class == ErrorClass::OutcomeUnknown || error.reason == REFUSED => Some(error),
                Err(error) => return Err(error),
            }
        };
        // A failed creation leaves its row behind, and so does one whose answer was lost.
        let rows = self.rows().await?;
        let ours = |row: &&Row| row.note().is_some_and(|note| note.mark == *mark && note.host == host.name);
        if let Some(row) = rows.iter().find(ours) {
            alone(row, &host.name)?;
            let good = row.online == Some(true) && row.enabled && row.certificate_id == certificate;
            if good && row.forward == host.forward && failed.as_ref().is_some_and(|error| error.reason != REFUSED) {
                return Ok(Some(row.id.to_string()));
            }
            return self.overwrite(row, mark, host, Given { id: certificate, ordered }).await;
        }
        match failed {
            Some(error) if error.reason == REFUSED && error.message.contains("already in use") => {
                Err(self.holder(&host.name, &rows).await)
            }
            Some(error) => Err(self.explained(error, &rows).await),
            None => Err(odd("no longer has the proxy host that it just made")),
        }
    }

    /// Who has the name, in words.
    async fn holder(&self, name: &str, rows: &[Row]) -> BackendError {
        let mut words = "something that NPM's user may not see".to_owned();
        if let Some(row) = rows.iter().find(|row| row.names.iter().any(|other| other == name)) {
            words = format!("proxy host {} for {}", row.id, row.names.join(", "));
        } else {
            for (path, kind) in [("/nginx/redirection-hosts", "redirection host"), ("/nginx/dead-hosts", "404 host")] {
                let Some(listed) = self.api.glance(&Call::get(path)).await else { continue };
                let has = |entry: &&serde_json::Value| {
                    let names = entry["domain_names"].as_array().into_iter().flatten();
                    names.filter_map(|n| n.as_str()).any(|other| other.eq_ignore_ascii_case(name))
                };
                if let Some(found) = listed.as_array().into_iter().flatten().find(has) {
                    words = format!("{kind} {}", found["id"]);
                }
            }
        }
        foreign(format!("{name} is taken in NPM by {words}; remove the name there"))
    }

    /// A failure of NPM with the neighbour that probably causes it.
    async fn explained(&self, mut error: BackendError, rows: &[Row]) -> BackendError {
        if error.reason == FAILED {
            error.message = format!("{}; {}", error.message, self.cause(rows).await);
        }
        error
    }

    /// What probably makes NPM fail: nginx tests all hosts together.
    async fn cause(&self, rows: &[Row]) -> String {
        let suspects = match self.certificates().await {
            Ok(certificates) => host::suspects(rows, &certificates),
            Err(_) => Vec::new(),
        };
        if suspects.is_empty() {
            return "probably nginx refuses its configuration because of another host; NPM's log names it".to_owned();
        }
        format!("probably nginx refuses its configuration: {}", suspects.join("; "))
    }

    pub(super) async fn overwrite(&self, row: &Row, mark: &Mark, host: &Host, given: Given) -> Outcome {
        let former = row.note().and_then(|note| note.ordered).filter(|id| *id != given.id);
        if let Some(former) = former {
            self.note_known(mark, &host.name, former).await?;
        }
        let note = Note { ordered: given.ordered.then_some(given.id), ..new_note(mark, host) };
        let version = self.api.version().await?;
        let body = host::body(host, &note, given.id, row.meta_with(Some(&note)), version);
        match self.write(row.id, &host.name, body).await {
            Err(error) if error.reason == GONE => return Box::pin(self.create(mark, host, given.id)).await,
            Err(error) => return Err(self.explained(error, &self.rows().await?).await),
            Ok(now) if now.certificate_id != given.id || now.forward != host.forward => {
                return Err(odd(&format!("did not keep what was written for {}", host.name)));
            }
            Ok(_) => {}
        }
        if let Some(former) = former {
            self.discard(mark, &host.name, Some(former)).await?;
        }
        Ok(Some(row.id.to_string()))
    }

    /// Writes a row as it is, with another note or none: any write brings it back into nginx as it should be.
    pub(super) async fn restore(&self, row: &Row, note: Option<&Note>) -> Result<(), BackendError> {
        let mut body = serde_json::json!({"meta": row.meta_with(note)});
        if note.is_none() {
            body["advanced_config"] = serde_json::json!(row.advanced_without_mark());
        }
        if row.enabled {
            return self.write(row.id, row.names.first().map_or("", String::as_str), body).await.map(|_| ());
        }
        let _turn = self.options.gate.lock().await;
        self.api.call(&Call::put(path(row.id)).json(body)).await.map(|_| ())
    }

    /// One write and the look that proves it. Until that look the row counts as dirty: NPM shows new values as
    /// online although nginx may never have seen them.
    async fn write(&self, id: u64, name: &str, body: serde_json::Value) -> Result<Row, BackendError> {
        let _turn = self.options.gate.lock().await;
        lock(&self.dirty).insert(id);
        let mut complaint = String::new();
        for _ in 0..TRIES {
            match self.api.call(&Call::put(path(id)).json(body.clone())).await {
                Ok(_) => {}
                Err(error) => {
                    if error.reason == GONE {
                        lock(&self.dirty).remove(&id);
                    }
                    return Err(error);
                }
            }
            let row = self.row(id).await?;
            if row.enabled && row.online == Some(true) {
                lock(&self.dirty).remove(&id);
                return Ok(row);
            }
            complaint = row.nginx_err.clone().unwrap_or_else(|| "NPM did not configure it".to_owned());
            if row.online == Some(false) && !host::is_transient(id, &complaint) {
                break;
            }
        }
        let message = format!("nginx does not serve proxy host {id} for {name}: {}", complaint.trim());
        Err(BackendError::new(ErrorClass::Unavailable, "NginxRefused", message))
    }

    async fn delete(&self, id: u64, mark: &Mark, name: &str) -> Outcome {
        let Some((row, note)) = self.own_row(id, mark, name).await? else { return Ok(None) };
        alone(&row, name)?;
        // Noted, so that a certificate which cannot be deleted now is found again.
        if let Some(ordered) = note.ordered {
            self.note_known(mark, name, ordered).await?;
        }
        let still_served = {
            let _turn = self.options.gate.lock().await;
            match self.api.call(&Call::delete(path(id))).await {
                Ok(_) => None,
                Err(error) if error.reason == GONE => None,
                Err(error) => Some(error),
            }
        };
        match self.row(id).await {
            Err(error) if error.reason == GONE => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(still_served.unwrap_or_else(|| odd("still has a proxy host that it deleted"))),
        }
        lock(&self.dirty).remove(&id);
        self.discard_orders(mark, name).await?;
        let own = certificate::own_name(mark, name);
        if let Held::Known(uploaded) = Held::find(row.certificate_id, &self.certificates().await?)
            && uploaded.nice_name == own
        {
            self.discard(mark, name, Some(uploaded.id)).await?;
        }
        match still_served {
            Some(error) if error.reason == FAILED => Err(self.still_served(id, name, "deleted").await?),
            _ => Ok(None),
        }
    }

    /// Takes a host of ours out of nginx; row and certificate stay. (A `PUT` that disables it would leave it served.)
    async fn switch_off(&self, id: u64, mark: &Mark, name: &str) -> Outcome {
        let Some((row, _)) = self.own_row(id, mark, name).await? else { return Ok(None) };
        alone(&row, name)?;
        let failed = match row.enabled {
            true => {
                let _turn = self.options.gate.lock().await;
                self.api.call(&Call::post(format!("{}/disable", path(id)))).await.err()
            }
            false => None,
        };
        match (self.row(id).await, failed) {
            (Err(error), _) if error.reason == GONE => Ok(None),
            (Err(error), _) => Err(error),
            (Ok(row), failed) if row.enabled => {
                Err(failed.unwrap_or_else(|| odd("still has a proxy host enabled that it disabled")))
            }
            (Ok(_), Some(error)) if error.reason == FAILED => Err(self.still_served(id, name, "disabled").await?),
            (Ok(_), _) => Ok(Some(id.to_string())),
        }
    }

    /// Nginx did not load a configuration without the host.
    async fn still_served(&self, id: u64, name: &str, deed: &str) -> Result<BackendError, BackendError> {
        let cause = self.cause(&self.rows().await?).await;
        let message = format!(
            "proxy host {id} for {name} is {deed}, and may be served until the next write in NPM succeeds: {cause}"
        );
        Ok(BackendError::new(ErrorClass::Unavailable, "StillServed", message))
    }

    async fn release(&self, id: u64, mark: &Mark, name: &str) -> Outcome {
        if let Some((row, _)) = self.own_row(id, mark, name).await? {
            self.restore(&row, None).await?;
        }
        self.let_go(mark, name).await?;
        Ok(None)
    }
}

pub(super) fn new_note(mark: &Mark, host: &Host) -> Note {
    Note { mark: mark.clone(), host: host.name.clone(), ordered: None, ordering: false }
}

/// A row that serves other names, too, is somebody's as well: it is neither changed nor deleted.
pub(super) fn alone(row: &Row, name: &str) -> Result<(), BackendError> {
    if row.is_only_for(name) {
        return Ok(());
    }
    let others: Vec<&str> = row.names.iter().filter(|n| *n != name).map(String::as_str).collect();
    Err(foreign(format!(
        "proxy host {} for {name} serves other names, too ({}), so it is left alone; give them a host of their own in NPM",
        row.id,
        others.join(", ")
    )))
}
