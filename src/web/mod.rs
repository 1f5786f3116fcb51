//! The pages: one portal per host, told apart by the Host header before anything else happens.
mod assets;
mod client;
mod form;
pub mod health;
mod host;
mod pages;
mod routes;
mod service;

use std::sync::Arc;

pub use client::Trust;
pub use health::{HealthPages, SnippetsQuery};
pub use service::service;

use crate::config::Secret;
use crate::reset::{Directory, ResetService};

/// How the pages are reached.
#[derive(Debug, Clone)]
pub struct WebOptions {
    /// Requests that came by http, as the proxy says, are sent to https.
    pub force_https: bool,
    /// Whose forwarding headers are believed.
    pub trust: Trust,
}

/// What the pages are made of.
pub struct Site {
    pub directory: Directory,
    pub resets: ResetService,
    pub options: WebOptions,
}

impl Site {
    pub fn new(directory: Directory, resets: ResetService, options: WebOptions) -> Arc<Self> {
        Arc::new(Self { directory, resets, options })
    }
    fn form_key(&self) -> &Secret {
        self.resets.store().form_key()
    }
}
