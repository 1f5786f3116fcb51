//! What people do to the simulated NPM in its pages, or beside it.
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use super::{NpmDouble, certificate_row, date};
use crate::backends::npm::client::Version;
use crate::http::double::lock;

/// Id of a user who makes things in NPM's pages.
const SOMEBODY: u64 = 77;

impl NpmDouble {
    /// Somebody makes a host in NPM's pages: `fields` over sensible values.
    pub fn add_host(&self, names: &[&str], fields: Value) -> u64 {
        let mut state = lock(&self.state);
        let mut body = json!({
            "domain_names": names, "forward_scheme": "http", "forward_host": "10.0.0.9", "forward_port": 8080,
        });
        if let (Some(body), Some(fields)) = (body.as_object_mut(), fields.as_object()) {
            body.extend(fields.clone());
        }
        let id = state.insert_host(&body, 0, self.clock.now());
        let _ = state.configure(id);
        id
    }
    /// Somebody changes a row in NPM's pages, which send `meta` back in their own form, and nginx takes it up.
    pub fn edit_in_pages(&self, id: u64, fields: Value) {
        let mut state = lock(&self.state);
        let forgets = state.version < Version::CONTACT_OF_USER;
        if let Some(row) = state.hosts.get_mut(&id) {
            row["meta"] = if forgets {
                json!({"letsencrypt_agree": false, "dns_challenge": false})
            } else {
                rekeyed(&row["meta"])
            };
            if let (Some(row), Some(fields)) = (row.as_object_mut(), fields.as_object()) {
                row.extend(fields.clone());
            }
        }
        let _ = state.configure(id);
    }
    /// The same by the API, without a look at nginx.
    pub fn edit_row(&self, id: u64, fields: Value) {
        if let (Some(row), Some(fields)) =
            (lock(&self.state).hosts.get_mut(&id).and_then(Value::as_object_mut), fields.as_object())
        {
            row.extend(fields.clone());
        }
    }
    /// Somebody switches a host off.
    pub fn disable(&self, id: u64) {
        let _ = lock(&self.state).disable(id);
    }
    /// Somebody deletes a host.
    pub fn remove_host(&self, id: u64) {
        let mut state = lock(&self.state);
        state.hosts.remove(&id);
        state.nginx.files.remove(&id);
        state.nginx.reload();
    }
    /// Somebody makes a redirection or a 404 host for a name.
    pub fn add_redirection(&self, name: &str) {
        let mut state = lock(&self.state);
        let id = state.id();
        state.redirections.push(json!({"id": id, "domain_names": [name]}));
    }
    /// A certificate that is there already.
    pub fn add_certificate(&self, provider: &str, nice_name: &str, names: &[&str], days: i64) -> u64 {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let id = state.id();
        let mut row = certificate_row(id, provider, nice_name, names, now);
        row["owner_user_id"] = json!(SOMEBODY);
        row["expires_on"] = json!(date(now + SignedDuration::from_hours(24 * days)));
        if provider == "other" {
            row["meta"] = json!({"certificate": "PEM", "certificate_key": "PRIVATE-KEY-CANARY"});
        }
        state.certificates.insert(id, row);
        id
    }
    /// An order by somebody else that is still running.
    pub fn add_pending_certificate(&self, name: &str) -> u64 {
        let mut state = lock(&self.state);
        let id = state.id();
        let mut row = certificate_row(id, "letsencrypt", name, &[name], self.clock.now());
        row["owner_user_id"] = json!(SOMEBODY);
        state.certificates.insert(id, row);
        id
    }
    /// It is issued.
    pub fn finish_certificate(&self, id: u64) {
        let end = date(self.clock.now() + SignedDuration::from_hours(24 * 90));
        if let Some(row) = lock(&self.state).certificates.get_mut(&id) {
            row["expires_on"] = json!(end);
        }
    }
    pub fn remove_certificate(&self, id: u64) {
        lock(&self.state).certificates.remove(&id);
    }
}

/// Keys as the pages of 2.13 and newer send them back: blanks dropped, capitals and hyphens to underscores.
fn rekeyed(value: &Value) -> Value {
    let key = |key: &str| {
        key.chars().filter(|c| *c != ' ').fold(String::new(), |mut out, c| {
            if c.is_ascii_uppercase() {
                out.push('_');
            }
            out.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
            out
        })
    };
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (key(name), rekeyed(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}
