//! Everything that speaks HTTP: the only client, the serving loop, and the frame of the simulators.
pub mod client;
pub mod double;
pub mod error;
pub mod names;
mod retry;
pub mod serve;
pub mod shutdown;
mod tls;

pub use client::{Client, ClientOptions, FormFile, Request, Response, path_segment};
pub use error::{CertificateFault, ConnectFault, HttpError};
pub use names::{LookupError, Names, PublicNames};
pub use tls::{Authorities, ClientTls, Identity, TlsError};

/// Makes ring the process's TLS provider. May be called any number of times.
pub fn install_crypto_provider() {
    // A second installation is refused; the first one stands.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
