//! The sandbox: simulated Cloudflare, Caddy, MXroute, mail inbox and edge, so that the whole life of a
//! portal can be seen with no account anywhere. The simulators are the stateful doubles of the tests.
pub mod edge;
pub mod page;
pub mod state;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use maud::html;
use serde_json::Value;
use tokio::net::TcpListener;
use url::Url;

use crate::api::names::NameError;
use crate::backends::caddy::double::CaddyDouble;
use crate::backends::cloudflare_api::double::CloudflareDouble;
use crate::http::double::{CallLog, Double, DoubleRequest, DoubleResponse, Faults, Mounted, serve_doubles};
use crate::http::shutdown::Shutdown;
use crate::mail::sink::Sink;
use crate::mailbox::mxroute::double::MxrouteDouble;

/// Public name that the example records point to.
pub const CNAME_TARGET: &str = "edge.portalkeeper.localhost";
/// Token that the simulated Cloudflare takes.
pub const CLOUDFLARE_TOKEN: &str = "sandbox-cloudflare-token";
/// Key that the simulated MXroute takes.
pub const MXROUTE_KEY: &str = "sandbox-mxroute-key";
/// Mail domains that exist in the simulated Cloudflare and MXroute.
pub const DOMAINS: [&str; 3] = ["acme.localhost", "globex.localhost", "initech.localhost"];
/// Mailboxes of the simulated MXroute, each with its recovery address.
pub const MAILBOXES: [(&str, &str); 4] = [
    ("ann@acme.localhost", "ann.private@example.net"),
    ("bob@acme.localhost", "bob.private@example.net"),
    ("carla@globex.localhost", "carla.private@example.net"),
    ("peter@initech.localhost", "peter.private@example.net"),
];

/// Why the sandbox could not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot open a port for the sandbox's simulators: {0}")]
    Port(#[from] std::io::Error),
    #[error("the sandbox's own address is not usable: {0}")]
    Address(#[from] url::ParseError),
    #[error("cannot keep the simulators' state in {path}: {message}")]
    State { path: String, message: String },
    #[error("cannot start the simulated mail server: {0}")]
    Mail(String),
    #[error("an example mailbox is not valid: {0}")]
    Example(#[from] NameError),
}

impl SandboxError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Port(_) => "PortUnavailable",
            Self::Address(_) => "InvalidAddress",
            Self::State { .. } => "StateUnusable",
            Self::Mail(_) => "MailServerFailed",
            Self::Example(_) => "InvalidExample",
        }
    }
}

/// The running simulators.
pub struct Simulators {
    pub cloudflare: Arc<CloudflareDouble>,
    pub caddy: Arc<CaddyDouble>,
    pub mxroute: Arc<MxrouteDouble>,
    pub sink: Sink,
    /// Where the overview, the inbox and the simulated APIs are.
    pub url: Url,
    /// Where proof of life goes through.
    pub edge: SocketAddr,
    pub cloudflare_log: CallLog,
    pub caddy_log: CallLog,
    pub mxroute_log: CallLog,
    /// Faults of all three APIs, for tests.
    pub faults: Faults,
}

impl Simulators {
    /// Starts everything, with the state kept in `directory/simulators.json` by an earlier run.
    pub async fn start(
        listener: TcpListener,
        pages: SocketAddr,
        directory: &Path,
        shutdown: Shutdown,
    ) -> Result<Self, SandboxError> {
        let cloudflare = Arc::new(CloudflareDouble::new());
        cloudflare.accept_token(CLOUDFLARE_TOKEN);
        let caddy = Arc::new(CaddyDouble::new());
        let mxroute = Arc::new(MxrouteDouble::new());
        mxroute.accept_key(MXROUTE_KEY);
        let sink = Sink::start(shutdown.clone()).await.map_err(|error| SandboxError::Mail(error.to_string()))?;
        for domain in DOMAINS {
            cloudflare.add_zone(domain);
            mxroute.add_domain(domain);
            // Mails from reset@ are deliverable, as MXroute demands of a sender.
            mxroute.add_forwarder(&format!("reset@{domain}"), ":blackhole:");
        }
        for (mailbox, _) in MAILBOXES {
            mxroute.add_mailbox(mailbox, "Before-the-first-reset-1");
        }
        let keeper = state::Keeper::new(
            directory.join("simulators.json"),
            Arc::clone(&cloudflare),
            Arc::clone(&caddy),
            Arc::clone(&mxroute),
            sink.clone(),
        );
        keeper.load()?;
        tokio::spawn(keeper.run(shutdown.clone()));

        let address = listener.local_addr()?;
        let url = Url::parse(&format!("http://{address}/"))?;
        let edge_listener = TcpListener::bind((address.ip(), 0)).await?;
        let edge = edge::Edge {
            cloudflare: Arc::clone(&cloudflare),
            caddy: Arc::clone(&caddy),
            cname_target: CNAME_TARGET.to_owned(),
        };
        let edge = edge::start(Arc::new(edge), edge_listener, shutdown.clone())?;
        let (cloudflare_log, caddy_log, mxroute_log) = (CallLog::default(), CallLog::default(), CallLog::default());
        let faults = Faults::default();
        let mount = |prefix: &str, double: Arc<dyn Double>, log: &CallLog| Mounted {
            prefix: prefix.to_owned(),
            double,
            log: log.clone(),
            faults: faults.clone(),
        };
        let mounts = vec![
            mount("/cloudflare", cloudflare.clone(), &cloudflare_log),
            mount("/caddy", caddy.clone(), &caddy_log),
            mount("/mxroute", mxroute.clone(), &mxroute_log),
        ];
        let overview = Arc::new(Overview { sink: sink.clone(), pages });
        tokio::spawn(serve_doubles(listener, mounts, Some(overview), shutdown));
        Ok(Self { cloudflare, caddy, mxroute, sink, url, edge, cloudflare_log, caddy_log, mxroute_log, faults })
    }
}

/// Overview and inbox pages.
struct Overview {
    sink: Sink,
    pages: SocketAddr,
}

impl Overview {
    fn index(&self) -> String {
        let port = self.pages.port();
        page::frame(
            "Everything of a portal, simulated",
            &html! {
                div class="card" {
                    dl {
                        dt { "Portals" }
                        dd {
                            a href={ "http://reset.acme.localhost:" (port) "/" } { "reset.acme.localhost" }
                            " and "
                            a href={ "http://password.globex.localhost:" (port) "/" } { "password.globex.localhost" }
                        }
                        dt { "Inbox" }
                        dd { a href="/inbox" { "every mail that Portalkeeper sent" } }
                        dt { "DNS records" }
                        dd { a href="/cloudflare/records/ui" { "what stands in the simulated Cloudflare" } }
                        dt { "Mailboxes" }
                        dd { a href="/mxroute/ui" { "what the simulated MXroute holds" } }
                        dt { "Caddy" }
                        dd { a href="/caddy/config/" { "the simulated Caddy's configuration as JSON" } }
                    }
                }
                div class="card" {
                    "Try it: open a portal, enter one of these mailboxes, then look into the inbox."
                    pre class="mono" { @for (mailbox, recovery) in MAILBOXES { (mailbox) "  →  " (recovery) "\n" } }
                }
            },
        )
    }

    fn inbox(&self) -> String {
        let messages = self.sink.messages();
        page::frame(
            "Inbox",
            &html! {
                @if messages.is_empty() {
                    div class="card soft" { "No mail yet. Ask for a link on a portal page, then reload this page." }
                }
                @for message in messages.iter().rev() {
                    article class="card" {
                        dl {
                            dt { "To" } dd { (message.to.join(", ")) }
                            dt { "From" } dd { (message.from) }
                            dt { "Subject" } dd { strong { (message.subject) } }
                            dt { "Time" } dd { (message.time) }
                        }
                        pre { (page::linked(&message.text)) }
                    }
                }
            },
        )
    }
}

impl Double for Overview {
    fn name(&self) -> &'static str {
        "sandbox"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        match request.path.as_str() {
            "/" => DoubleResponse::html(200, &self.index()),
            "/inbox" => DoubleResponse::html(200, &self.inbox()),
            _ => DoubleResponse::html(
                404,
                &page::frame("Nothing here", &html! { div class="card" { "The sandbox has no such page." } }),
            ),
        }
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}
