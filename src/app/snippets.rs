//! `portalkeeper snippets HOST`: what to put into a proxy by hand. Needs no server.
use crate::api::{HostName, NameError, Origin, OriginError, PortalClassSpec};
use crate::backends::manual::{Dialect, Edge, Place, Purpose, record, snippets};
use crate::config::environment::bare_origin;
use crate::reset::ServedPortal;
use crate::web::SnippetsQuery;

/// Where proxies find the program, unless somebody says otherwise.
pub const DEFAULT_ORIGIN: &str = "127.0.0.1:5000";
/// What stands before a proxy, unless somebody says otherwise.
pub const DEFAULT_EDGE: &str = "cloudflare";

/// What the command was asked.
#[derive(Debug, Clone)]
pub struct SnippetsOptions {
    pub host: String,
    pub origin: String,
    pub cname_target: Option<String>,
    /// Only this proxy.
    pub proxy: Option<String>,
    /// `direct` or `cloudflare`.
    pub edge: String,
    /// The host is the program's own and no portal's.
    pub main_app: bool,
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
    #[error("`{0}` is not known to stand before a proxy; one of direct, cloudflare is")]
    Edge(String),
}

impl SnippetsError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Host(error) | Self::Target(error) => error.reason(),
            Self::Origin(error) => error.reason(),
            Self::Proxy(..) => "UnknownProxy",
            Self::Edge(_) => "UnknownEdge",
        }
    }
}

fn dialect(name: Option<&str>) -> Result<Option<Dialect>, SnippetsError> {
    let unknown = |name: &str| SnippetsError::Proxy(name.to_owned(), Dialect::ALL.map(Dialect::name).join(", "));
    name.map(|name| Dialect::parse(name).ok_or_else(|| unknown(name))).transpose()
}

fn edge(name: &str) -> Result<Edge, SnippetsError> {
    Edge::parse(name).ok_or_else(|| SnippetsError::Edge(name.to_owned()))
}

/// The whole text that is printed.
pub fn text(options: &SnippetsOptions) -> Result<String, SnippetsError> {
    let place = Place {
        host: HostName::parse(&options.host).map_err(SnippetsError::Host)?,
        // Read as the daemon reads the variable that it may come from.
        origin: Origin::parse(bare_origin(&options.origin))?,
        edge: edge(&options.edge)?,
        purpose: if options.main_app { Purpose::MainApp } else { Purpose::Portal },
    };
    let target = options.cname_target.as_deref().map(HostName::parse).transpose().map_err(SnippetsError::Target)?;
    Ok(render(&place, target.as_ref(), dialect(options.proxy.as_deref())?))
}

/// The same for a portal that is served, with its own values.
pub fn of_portal(portal: &ServedPortal, asked: &SnippetsQuery) -> Result<String, SnippetsError> {
    let by_record = if portal.by_hand.proxied { Edge::Cloudflare } else { Edge::Direct };
    let place = Place {
        host: HostName::parse(&asked.host).map_err(SnippetsError::Host)?,
        origin: Origin::parse(&portal.by_hand.origin)?,
        edge: asked.edge.as_deref().map(edge).transpose()?.unwrap_or(by_record),
        purpose: Purpose::Portal,
    };
    Ok(render(&place, portal.by_hand.cname_target.as_ref(), dialect(asked.proxy.as_deref())?))
}

/// The same for the program's own host, as the command prints it with the settings of the class `environment`.
pub fn of_main_app(class: Option<&PortalClassSpec>, asked: &SnippetsQuery) -> Result<String, SnippetsError> {
    text(&SnippetsOptions {
        host: asked.host.clone(),
        origin: class.map_or(DEFAULT_ORIGIN, PortalClassSpec::origin).to_owned(),
        cname_target: class.and_then(|class| class.cname_target.clone()),
        proxy: asked.proxy.clone(),
        edge: asked.edge.clone().unwrap_or_else(|| DEFAULT_EDGE.to_owned()),
        main_app: true,
    })
}

/// Everything as one text that can be used as a file: all around the snippets is a comment.
pub fn render(place: &Place, target: Option<&HostName>, only: Option<Dialect>) -> String {
    let mut text = format!("# Record to publish at the DNS host:\n# {}\n", record(place, target));
    for snippet in snippets(place).into_iter().filter(|s| only.is_none_or(|only| s.dialect == only)) {
        text.push_str(&format!("\n# {}\n", snippet.title));
        for note in &snippet.notes {
            text.push_str(&format!("# {note}\n"));
        }
        text.push_str(&format!(
            "# Portalkeeper needs TRUSTED_PROXY_COUNT={}\n# Check: {}\n{}{}",
            snippet.proxies,
            snippet.check,
            if snippet.once.is_empty() { "" } else { "\n" },
            snippet.text()
        ));
    }
    text
}
