//! Every integration test, as one binary.
mod apiserver;
mod architecture;
mod backends;
mod caddy;
mod controller;
mod generated;
mod http;
mod mail;
mod mailbox;
mod peers;
mod reset;
mod snippets;
mod web;
mod world;
