//! Every integration test, as one binary.
mod apiserver;
mod architecture;
mod backends;
mod caddy;
mod generated;
mod http;
mod mail;
mod mailbox;
mod peers;
mod snippets;
