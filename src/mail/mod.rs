//! Sending mails by SMTP, and a small SMTP server that keeps them for the sandbox and the tests.
mod message;
pub mod sink;

use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use crate::api::MailAddress;
use crate::api::class::SmtpEncryption;
use crate::config::{Secret, redact, rules};

/// Limit of one delivery.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How a mail server is reached.
#[derive(Debug, Clone)]
pub struct SmtpOptions {
    pub host: String,
    pub port: u16,
    pub encryption: SmtpEncryption,
    pub username: Option<String>,
    pub password: Option<Secret>,
}

/// One mail to one address.
#[derive(Clone)]
pub struct Mail {
    pub from: MailAddress,
    /// Display name; cleaned and cut to what a header can carry.
    pub from_name: Option<String>,
    pub reply_to: Option<MailAddress>,
    pub to: MailAddress,
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
}

/// Why a mail was not handed over. Messages hold neither the mail nor the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    #[error("the mail could not be written: {0}")]
    Message(String),
    #[error("the settings of the mail server {server} are not usable: {cause}")]
    Settings { server: String, cause: String },
    #[error("the mail server {server} refused the login: {cause}")]
    Credential { server: String, cause: String },
    #[error("the mail server {server} refused the mail: {cause}")]
    Refused { server: String, cause: String },
    #[error("the mail server {server} cannot take the mail now: {cause}")]
    Temporary { server: String, cause: String },
    #[error("the mail server {server} cannot be trusted or does not offer TLS: {cause}")]
    Tls { server: String, cause: String },
    #[error("the mail server {server} cannot be reached: {cause}")]
    Unreachable { server: String, cause: String },
}

impl MailError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Message(_) => "MailInvalid",
            Self::Settings { .. } => "MailSettingsInvalid",
            Self::Credential { .. } => "MailLoginRefused",
            Self::Refused { .. } => "MailRefused",
            Self::Temporary { .. } => "MailDeferred",
            Self::Tls { .. } => "MailTlsFailed",
            Self::Unreachable { .. } => "MailServerUnreachable",
        }
    }
}

/// A mail server to send through.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    server: String,
    password: Option<Secret>,
}

impl Mailer {
    /// Errors: [`MailError::Settings`].
    pub fn new(options: SmtpOptions) -> Result<Self, MailError> {
        crate::http::install_crypto_provider();
        let server = format!("{}:{}", options.host, options.port);
        let bad = |cause: String| MailError::Settings { server: server.clone(), cause };
        let tls = || TlsParameters::new(options.host.clone()).map_err(|error| bad(error.to_string()));
        let tls = match options.encryption {
            SmtpEncryption::StartTls => Tls::Required(tls()?),
            SmtpEncryption::Tls => Tls::Wrapper(tls()?),
            SmtpEncryption::Plain if rules::ON_THIS_MACHINE.admits(&options.host) => Tls::None,
            // Classes that were stored before there was a rule for it.
            SmtpEncryption::Plain => return Err(bad(rules::ON_THIS_MACHINE.words.to_owned())),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&options.host)
            .port(options.port)
            .tls(tls)
            .timeout(Some(TIMEOUT));
        if let Some(username) = options.username {
            let password = options.password.as_ref().map(|p| p.expose().to_owned()).unwrap_or_default();
            builder = builder.credentials(Credentials::new(username, password));
        }
        Ok(Self { transport: builder.build(), server, password: options.password })
    }

    /// Hands one mail over. Errors: every case of [`MailError`] but the settings.
    pub async fn send(&self, mail: Mail) -> Result<(), MailError> {
        let message = message::build(&mail)?;
        match tokio::time::timeout(TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.classify(&error)),
            Err(_) => Err(MailError::Unreachable {
                server: self.server.clone(),
                cause: format!("no answer within {} s", TIMEOUT.as_secs()),
            }),
        }
    }

    fn classify(&self, error: &lettre::transport::smtp::Error) -> MailError {
        use std::error::Error;
        let server = self.server.clone();
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let words = inner.to_string();
            if !cause.contains(&words) {
                cause = format!("{cause}: {words}");
            }
            source = inner.source();
        }
        let cause = redact(&cause, &self.password.iter().collect::<Vec<_>>());
        let code = error.status().map(u16::from);
        match code {
            Some(530 | 534 | 535 | 538) => MailError::Credential { server, cause },
            Some(500..) => MailError::Refused { server, cause },
            Some(400..) => MailError::Temporary { server, cause },
            _ if error.is_tls() || cause.contains("certificate") || cause.contains("STARTTLS") => {
                MailError::Tls { server, cause }
            }
            _ => MailError::Unreachable { server, cause },
        }
    }
}
