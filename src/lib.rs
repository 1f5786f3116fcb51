//! Portalkeeper keeps branded password reset portals in step with their `ResetPortal` objects.
//!
//! The modules form layers; each may import only what stands below it. The order, top to bottom:
//! `cli`, `app`, then `controller`, `web` and `sandbox`, then `reset`, then `backends`, `mailbox`,
//! `mail`, `store` and `apiserver`, then `http`, `plan`, `api`, and at the bottom `config` and
//! `telemetry`. `tests/architecture.rs` holds the arrows to that; `docs/architecture.md` explains it.
#![forbid(unsafe_code)]

pub mod api;
pub mod apiserver;
pub mod app;
pub mod backends;
pub mod cli;
pub mod config;
pub mod controller;
pub mod http;
pub mod mail;
pub mod mailbox;
pub mod plan;
pub mod reset;
pub mod sandbox;
pub mod store;
pub mod telemetry;
pub mod web;
