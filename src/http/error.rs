//! What can go wrong with a call before there is an HTTP status.

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFault {
    /// Nobody listens, or a firewall says so.
    Refused,
    /// The network gave up before the time limit of the call did.
    TimedOut,
    Certificate(CertificateFault),
    /// The server wants a certificate of the client, another one than it was shown.
    ClientRefused,
    /// TLS failed before a certificate could be judged; servers without one for the name end it so.
    Tls,
    Other,
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateFault {
    Expired,
    NotYetValid,
    WrongName,
    /// Self-signed, or of a CA that this machine does not know.
    NotTrusted,
    Other,
}

/// A call without a usable answer. Messages name system and address and hold no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Nothing was sent.
    #[error("cannot reach {system} at {address}: {cause}")]
    Connect { system: &'static str, address: String, fault: ConnectFault, cause: String },
    /// The time limit passed; the request may have had its effect.
    #[error("{system} at {address} did not answer within {seconds} s")]
    Timeout { system: &'static str, address: String, seconds: u64 },
    /// The connection ended before the whole answer was read; the request may have had its effect.
    #[error("{system} at {address} broke the connection off: {cause}")]
    Interrupted { system: &'static str, address: String, cause: String },
    #[error("{system} at {address} sent more than {limit} bytes")]
    BodyTooLarge { system: &'static str, address: String, limit: usize },
    #[error("{system} at {address} answered {status} with something that is not JSON")]
    NotJson { system: &'static str, address: String, status: u16 },
    #[error("the address of {system} is not usable: {cause}")]
    BadAddress { system: &'static str, cause: String },
}

impl HttpError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "Unreachable",
            Self::Timeout { .. } => "Timeout",
            Self::Interrupted { .. } => "Interrupted",
            Self::BodyTooLarge { .. } => "BodyTooLarge",
            Self::NotJson { .. } => "NotJson",
            Self::BadAddress { .. } => "BadAddress",
        }
    }

    /// Whether a write may have happened although no answer was read.
    pub fn outcome_unknown(&self) -> bool {
        !matches!(self, Self::Connect { .. } | Self::BadAddress { .. })
    }
}
