//! `portalkeeper snippets HOST`: what to put into a proxy by hand. Needs no server.
use crate::api::{HostName, NameError, Origin, OriginError, PortalClassSpec};
use crate::backends::manual::{Dialect, Edge, Place, Purpose, record, snippets};
use crate::config::ConfigError;
use crate::config::environment::variable;
use crate::reset::ServedPortal;
use crate::web::SnippetsQuery;

/// Where proxies find the program, unless somebody says otherwise.
pub const DEFAULT_ORIGIN: &str = "127.0.0.1:5000";
/// Where the daemon has a proxy's origin from.
const OF_CLASS: &str = "the proxy of the class";
/// What stands before a proxy, unless somebody says otherwise.
pub const DEFAULT_EDGE: &str = "cloudflare";

/// A text, with the flag, variable or field that it stands in.
#[derive(Debug, Clone)]
pub struct Setting {
    pub named: &'static str,
    pub text: String,
}

impl Setting {
    pub fn new(named: &'static str, text: impl Into<String>) -> Self {
        Self { named, text: text.into() }
    }

    /// What the flag says, or else the variable, where the daemon finds it, too. Errors: a `.env` that cannot be read.
    pub fn given(flag: &'static str, text: Option<String>, name: &'static str) -> Result<Option<Self>, SnippetsError> {
        Ok(match text {
            Some(text) => Some(Self::new(flag, text)),
            None => variable(name)?.map(|text| Self::new(name, text)),
        })
    }
}

/// What the command was asked.
#[derive(Debug, Clone)]
pub struct SnippetsOptions {
    pub host: String,
    pub origin: Setting,
    pub cname_target: Option<Setting>,
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
    #[error("{0}: the CNAME target {1}")]
    Target(&'static str, NameError),
    #[error("{0}: the CNAME target `{1}` is the portal's host itself; name the public host of your proxy")]
    OwnTarget(&'static str, HostName),
    #[error("{0}: the origin {1}")]
    Origin(&'static str, OriginError),
    #[error(transparent)]
    Environment(#[from] ConfigError),
    #[error("`{0}` is not a known proxy; one of {1} is")]
    Proxy(String, String),
    #[error("`{0}` is not known to stand before a proxy; one of direct, cloudflare is")]
    Edge(String),
}

impl SnippetsError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Host(error) | Self::Target(_, error) => error.reason(),
            Self::OwnTarget(..) => "TargetIsHost",
            Self::Origin(_, error) => error.reason(),
            Self::Environment(error) => error.reason(),
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

fn origin(Setting { named, text }: &Setting) -> Result<Origin, SnippetsError> {
    Origin::parse(text).map_err(|error| SnippetsError::Origin(named, error))
}

fn cname_target(Setting { named, text }: &Setting, host: &HostName) -> Result<HostName, SnippetsError> {
    let target = HostName::parse(text).map_err(|error| SnippetsError::Target(named, error))?;
    if target == *host { Err(SnippetsError::OwnTarget(named, target)) } else { Ok(target) }
}

/// The whole text that is printed.
pub fn text(options: &SnippetsOptions) -> Result<String, SnippetsError> {
    let host = HostName::parse(&options.host).map_err(SnippetsError::Host)?;
    let target = options.cname_target.as_ref().map(|target| cname_target(target, &host)).transpose()?;
    let place = Place {
        host,
        origin: origin(&options.origin)?,
        edge: edge(&options.edge)?,
        purpose: if options.main_app { Purpose::MainApp } else { Purpose::Portal },
    };
    Ok(render(&place, target.as_ref(), dialect(options.proxy.as_deref())?))
}

/// The same for a portal that is served, with its own values.
pub fn of_portal(portal: &ServedPortal, asked: &SnippetsQuery) -> Result<String, SnippetsError> {
    let by_record = if portal.by_hand.proxied { Edge::Cloudflare } else { Edge::Direct };
    let place = Place {
        host: HostName::parse(&asked.host).map_err(SnippetsError::Host)?,
        origin: origin(&Setting::new(OF_CLASS, &portal.by_hand.origin))?,
        edge: asked.edge.as_deref().map(edge).transpose()?.unwrap_or(by_record),
        purpose: Purpose::Portal,
    };
    Ok(render(&place, portal.by_hand.cname_target.as_ref(), dialect(asked.proxy.as_deref())?))
}

/// The same for the program's own host, as the command prints it with the settings of the class `environment`.
pub fn of_main_app(class: Option<&PortalClassSpec>, asked: &SnippetsQuery) -> Result<String, SnippetsError> {
    text(&SnippetsOptions {
        host: asked.host.clone(),
        origin: Setting::new(OF_CLASS, class.map_or_else(|| DEFAULT_ORIGIN.to_owned(), PortalClassSpec::origin)),
        // The program's own host may be the name that portals point to; its own record cannot.
        cname_target: class
            .and_then(|class| class.cname_target.as_ref())
            .filter(|target| **target != asked.host)
            .map(|target| Setting::new("cnameTarget of the class", target)),
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
