//! Proxy configuration to copy. Pure: the same input gives the same bytes.
//!
//! Only validated names and origins are put into the texts, and every dialect takes away the headers with which a
//! visitor could forge an address or a host.
use super::texts;
use crate::api::{HostName, Origin};

/// A proxy that is configured by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// nginx 1.25.1 and newer.
    Nginx,
    /// nginx before 1.25.1, which has another notation for HTTP/2.
    NginxOld,
    Caddy,
    Haproxy,
    Apache,
    Traefik,
    Swag,
    Ingress,
    Npm,
    Pangolin,
}

impl Dialect {
    pub const ALL: [Self; 10] = [
        Self::Nginx,
        Self::NginxOld,
        Self::Caddy,
        Self::Haproxy,
        Self::Apache,
        Self::Traefik,
        Self::Swag,
        Self::Ingress,
        Self::Npm,
        Self::Pangolin,
    ];

    /// Name for the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::NginxOld => "nginx-old",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
            Self::Apache => "apache",
            Self::Traefik => "traefik",
            Self::Swag => "swag",
            Self::Ingress => "ingress",
            Self::Npm => "npm",
            Self::Pangolin => "pangolin",
        }
    }

    /// The dialect of a name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }
}

/// What stands before the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// Nothing: visitors connect to the proxy.
    Direct,
    /// Cloudflare's edge, as with a proxied record.
    Cloudflare,
}

impl Edge {
    /// `direct` or `cloudflare`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "direct" => Some(Self::Direct),
            "cloudflare" => Some(Self::Cloudflare),
            _ => None,
        }
    }
}

/// What the host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Portal,
    /// The program's own host, with its admin pages.
    MainApp,
}

/// What is to be reached, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub host: HostName,
    pub origin: Origin,
    pub edge: Edge,
    pub purpose: Purpose,
}

/// One text to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    pub dialect: Dialect,
    /// Program and where the text belongs.
    pub title: &'static str,
    /// Ends with a newline, without which HAProxy refuses a file.
    pub text: String,
    /// Command that checks the whole configuration.
    pub check: &'static str,
    /// What else has to be in place.
    pub notes: Vec<&'static str>,
    /// What `TRUSTED_PROXY_COUNT` must be with this text.
    pub proxies: u8,
}

/// Every dialect, in a fixed order.
pub fn snippets(place: &Place) -> Vec<Snippet> {
    Dialect::ALL.into_iter().map(|dialect| snippet(dialect, place)).collect()
}

/// The record that the operator has to publish, in words.
pub fn record(place: &Place, target: Option<&HostName>) -> String {
    let host = &place.host;
    let proxied = match place.edge {
        Edge::Direct => "not proxied",
        Edge::Cloudflare => "proxied",
    };
    match target {
        Some(target) => format!("{host}  CNAME  {target}  ({proxied})"),
        None => format!("{host}  CNAME  the public name of your proxy  ({proxied})"),
    }
}

/// The text for one proxy.
pub fn snippet(dialect: Dialect, place: &Place) -> Snippet {
    let cloudflare = place.edge == Edge::Cloudflare;
    let (title, text, check, mut notes) = match dialect {
        Dialect::Nginx => (
            "nginx 1.25.1 and newer: a server of its own, inside http { }",
            texts::nginx(place, texts::Http2::Directive),
            "nginx -t",
            vec!["Put the certificate's files in place before the check: nginx does not start without them."],
        ),
        Dialect::NginxOld => (
            "nginx before 1.25.1: a server of its own, inside http { }",
            texts::nginx(place, texts::Http2::Listen),
            "nginx -t",
            vec!["Put the certificate's files in place before the check: nginx does not start without them."],
        ),
        Dialect::Caddy => (
            "Caddy: a site of its own in the Caddyfile",
            texts::caddy(place),
            "caddy validate --config /etc/caddy/Caddyfile --adapter caddyfile",
            match cloudflare {
                false => vec!["Caddy gets the certificate itself, by HTTP-01 or TLS-ALPN."],
                true => vec![
                    "The first block stands once at the top of the Caddyfile (Caddy 2.7 and newer).",
                    "Caddy gets the certificate itself, by HTTP-01; with Cloudflare's DNS module also by `tls { dns cloudflare … }`.",
                ],
            },
        ),
        Dialect::Haproxy => (
            "HAProxy: a frontend and a backend",
            texts::haproxy(place),
            "haproxy -c -f /etc/haproxy/haproxy.cfg",
            vec!["The PEM file holds the certificate and its key, one after the other."],
        ),
        Dialect::Apache => (
            "Apache httpd: a virtual host of its own",
            texts::apache(place),
            "apachectl -t",
            match cloudflare {
                false => {
                    vec!["Needs the modules ssl, headers, proxy and proxy_http (a2enmod ssl headers proxy proxy_http)."]
                }
                true => vec![
                    "Needs the modules ssl, headers, remoteip, proxy and proxy_http (a2enmod ssl headers remoteip proxy proxy_http).",
                ],
            },
        ),
        Dialect::Traefik => (
            "Traefik: labels of the container that runs Portalkeeper",
            texts::traefik(place),
            "docker compose config",
            match cloudflare {
                false => vec!["The resolver stands in Traefik's static configuration."],
                true => vec![
                    "The resolver stands in Traefik's static configuration.",
                    "There, list Cloudflare's networks in entryPoints.websecure.forwardedHeaders.trustedIPs (https://www.cloudflare.com/ips/).",
                ],
            },
        ),
        Dialect::Swag => (
            "SWAG: the file /config/nginx/proxy-confs/portal.subdomain.conf",
            texts::swag(place),
            "docker exec swag nginx -t",
            vec![
                "The whole host is named on purpose: `reset.*` would answer for every customer.",
                "SWAG's proxy.conf is left out on purpose: together with these lines each header would be sent twice.",
                "SWAG's certificate must name the host, too: add it to EXTRA_DOMAINS, with DNS validation.",
            ],
        ),
        Dialect::Ingress => (
            "Kubernetes: an Ingress in the namespace of the Service",
            texts::ingress(place),
            "kubectl apply --dry-run=server -f FILE",
            vec![
                "Set class, Service, port and Secret to yours; Service and Secret must be in the Ingress' own namespace.",
                "The backend `ingress` makes such objects by itself.",
            ],
        ),
        Dialect::Npm => (
            "Nginx Proxy Manager: what to enter",
            texts::npm(place),
            "the host shows Online in the list",
            vec!["SSL: request a certificate by DNS challenge, or choose a custom one; switch Force SSL on."],
        ),
        Dialect::Pangolin => (
            "Pangolin: a public HTTP resource, as a blueprint",
            texts::pangolin(place),
            "open the host in a private window: no login may be asked for",
            match place.purpose {
                Purpose::Portal => vec![
                    "The resource must be public: Pangolin asks for a login by default, and mailbox owners have none.",
                    "Remote-User and its like that Pangolin adds are not read by Portalkeeper.",
                ],
                Purpose::MainApp => vec![
                    "Pangolin's login may stay on for the main app.",
                    "Remote-User and its like that Pangolin adds are not read by Portalkeeper.",
                ],
            },
        ),
    };
    if place.purpose == Purpose::MainApp {
        notes.push(
            "Keep it apart from the portals: a server, site or resource of its own, and ADMIN_HOST set to this host.",
        );
        notes.push("Set FORCE_HTTPS=true; with single sign-on, OIDC_REDIRECT_URI is https://THIS-HOST/oidc/callback.");
    }
    // These leave Cloudflare's entry beside the visitor's; the others resolve it themselves.
    let appends = matches!(dialect, Dialect::Traefik | Dialect::Ingress | Dialect::Npm | Dialect::Pangolin);
    Snippet { dialect, title, text, check, notes, proxies: if cloudflare && appends { 2 } else { 1 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(edge: Edge, purpose: Purpose) -> Place {
        let host = HostName::parse("reset.acme.example").unwrap();
        Place { host, origin: Origin::parse("10.1.2.3:5001").unwrap(), edge, purpose }
    }

    #[test]
    fn every_text_names_host_and_origin_and_ends_with_a_newline() {
        for edge in [Edge::Direct, Edge::Cloudflare] {
            for purpose in [Purpose::Portal, Purpose::MainApp] {
                let all = snippets(&place(edge, purpose));
                assert_eq!(all.len(), Dialect::ALL.len());
                for snippet in all {
                    assert!(snippet.text.contains("reset.acme.example"), "{}", snippet.text);
                    assert!(snippet.text.contains("10.1.2.3") || snippet.text.contains("5001"), "{}", snippet.text);
                    assert!(snippet.text.ends_with('\n') && !snippet.text.ends_with("\n\n"), "{}", snippet.text);
                    assert_eq!(Dialect::parse(snippet.dialect.name()), Some(snippet.dialect));
                }
            }
        }
    }

    #[test]
    fn both_notations_of_http2_are_there() {
        let text = |dialect| snippet(dialect, &place(Edge::Direct, Purpose::Portal)).text;
        assert!(text(Dialect::Nginx).contains("    listen 443 ssl;\n    http2 on;\n"));
        assert!(text(Dialect::NginxOld).contains("    listen 443 ssl http2;\n"));
        assert!(!text(Dialect::NginxOld).contains("http2 on"));
    }

    #[test]
    fn pangolin_says_that_a_portal_must_be_public() {
        let portal = snippet(Dialect::Pangolin, &place(Edge::Direct, Purpose::Portal));
        assert!(portal.text.contains("sso-enabled: false") && portal.notes[0].contains("must be public"));
        let main = snippet(Dialect::Pangolin, &place(Edge::Direct, Purpose::MainApp));
        assert!(main.text.contains("sso-enabled: true"));
    }
}
