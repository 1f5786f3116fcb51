//! Every integration test, as one binary.
mod architecture;
mod backends;
mod generated;
mod http;
