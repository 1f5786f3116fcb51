//! `portalkeeper snippets HOST`: what to put into a proxy by hand. Needs no server.
use crate::api::{HostName, NameError, Origin, OriginError};
use crate::backends::manual::{Dialect, record, snippets};

/// What the command was asked.
#[derive(Debug, Clone)]
pub struct SnippetsOptions {
    pub host: String,
    pub origin: String,
    pub cname_target: Option<String>,
    /// Only this proxy.
    pub proxy: Option<String>,
}

/// Why there are no snippets.
#[derive(Debug, thiserror::Error)]
pub enum SnippetsError {
    #[error("the portal's host {0}")]
    Host(NameError),
    #[error("the CNAME target {0}")]
    Target(NameError),
    #[error("the origin {0}")]
    Origin(#[from] OriginError),
    #[error("`{0}` is not a known proxy; one of {1} is")]
    Proxy(String, String),
}

impl SnippetsError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Host(error) | Self::Target(error) => error.reason(),
            Self::Origin(error) => error.reason(),
            Self::Proxy(..) => "UnknownProxy",
        }
    }
}

/// The whole text that is printed.
pub fn text(options: &SnippetsOptions) -> Result<String, SnippetsError> {
    let host = HostName::parse(&options.host).map_err(SnippetsError::Host)?;
    let target = options.cname_target.as_deref().map(HostName::parse).transpose().map_err(SnippetsError::Target)?;
    let origin = Origin::parse(&options.origin)?;
    let only = match options.proxy.as_deref() {
        None => None,
        Some(name) => Some(
            Dialect::parse(name)
                .ok_or_else(|| SnippetsError::Proxy(name.to_owned(), Dialect::ALL.map(Dialect::name).join(", ")))?,
        ),
    };
    let mut text = format!("# Record to publish at the DNS host\n{}\n", record(&host, target.as_ref()));
    for snippet in snippets(&host, &origin).into_iter().filter(|s| only.is_none_or(|only| s.dialect == only)) {
        text.push_str(&format!(
            "\n# {}\n# {}\n# Check: {}\n{}",
            snippet.title, snippet.note, snippet.check, snippet.text
        ));
    }
    Ok(text)
}
