//! Every integration test, as one binary.
mod architecture;
mod generated;
mod http;
