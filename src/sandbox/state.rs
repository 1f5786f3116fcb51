//! Keeps the simulators' state in one file, so that a second start of the sandbox finds it again.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::SandboxError;
use crate::backends::caddy::double::CaddyDouble;
use crate::backends::cloudflare_api::double::CloudflareDouble;
use crate::http::double::Double;
use crate::http::shutdown::Shutdown;
use crate::mail::sink::Sink;
use crate::mailbox::mxroute::double::MxrouteDouble;

/// How often a changed state is written.
const INTERVAL: Duration = Duration::from_millis(250);

/// Loads and saves; one per sandbox.
pub struct Keeper {
    path: PathBuf,
    cloudflare: Arc<CloudflareDouble>,
    caddy: Arc<CaddyDouble>,
    mxroute: Arc<MxrouteDouble>,
    sink: Sink,
}

impl Keeper {
    pub fn new(
        path: PathBuf,
        cloudflare: Arc<CloudflareDouble>,
        caddy: Arc<CaddyDouble>,
        mxroute: Arc<MxrouteDouble>,
        sink: Sink,
    ) -> Self {
        Self { path, cloudflare, caddy, mxroute, sink }
    }

    fn snapshot(&self) -> Value {
        json!({
            "cloudflare": self.cloudflare.snapshot(),
            "caddy": self.caddy.snapshot(),
            "mxroute": self.mxroute.snapshot(),
            "inbox": self.sink.snapshot(),
        })
    }

    fn error(&self, message: impl ToString) -> SandboxError {
        SandboxError::State { path: self.path.display().to_string(), message: message.to_string() }
    }

    /// Takes the state of an earlier run, if there is one.
    pub fn load(&self) -> Result<(), SandboxError> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.error(error)),
        };
        let mut state: Value = serde_json::from_slice(&text).map_err(|error| self.error(error))?;
        self.cloudflare.restore(state["cloudflare"].take());
        self.caddy.restore(state["caddy"].take());
        self.mxroute.restore(state["mxroute"].take());
        self.sink.restore(state["inbox"].take());
        Ok(())
    }

    /// Writes by temporary file and rename: a reader sees an old whole or a new whole.
    fn save(&self, state: &Value) -> Result<(), SandboxError> {
        let temporary = self.path.with_extension("json.new");
        let bytes = serde_json::to_vec(state).map_err(|error| self.error(error))?;
        crate::config::files::write_private(&temporary, &bytes).map_err(|error| self.error(error))?;
        std::fs::rename(&temporary, &self.path).map_err(|error| self.error(error))
    }

    /// Saves whatever changed until shutdown, and once more then.
    pub async fn run(self, shutdown: Shutdown) {
        let mut saved = Value::Null;
        loop {
            let ends = tokio::select! {
                () = tokio::time::sleep(INTERVAL) => false,
                () = shutdown.wait() => true,
            };
            let state = self.snapshot();
            if state != saved {
                match self.save(&state) {
                    Ok(()) => saved = state,
                    Err(error) => tracing::error!(reason = error.reason(), "{error}"),
                }
            }
            if ends {
                return;
            }
        }
    }
}
