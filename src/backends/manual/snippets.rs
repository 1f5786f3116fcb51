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
    /// What all hosts of a configuration share and what stands there one time; it may be empty.
    pub once: String,
    /// What is added for each host, at the end. Ends with a newline, without which HAProxy refuses a file.
    pub each: String,
    /// Command that checks the whole configuration.
    pub check: &'static str,
    /// What else has to be in place.
    pub notes: Vec<String>,
    /// What `TRUSTED_PROXY_COUNT` must be with this text.
    pub proxies: u8,
}

impl Snippet {
    /// The whole text, for the first host of a configuration.
    pub fn text(&self) -> String {
        [self.once.as_str(), &self.each].concat()
    }
}

/// From so many characters on, names need more than nginx' own 64 bytes for each.
const LONG_NAME: usize = 40;

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
    let (title, parts, check, notes) = match dialect {
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
                    "Needs Caddy 2.7 or newer.",
                    "Caddy gets the certificate itself, by HTTP-01; with Cloudflare's DNS module also by `tls { dns cloudflare … }`.",
                ],
            },
        ),
        Dialect::Haproxy => (
            "HAProxy: at the end of haproxy.cfg",
            texts::haproxy(place),
            "haproxy -c -f /etc/haproxy/haproxy.cfg",
            vec![
                "All files of the folder /etc/haproxy/portals are read: one for each host, the certificate and its key, one after the other.",
            ],
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
            "SWAG: a file for each host, /config/nginx/proxy-confs/NAME.subdomain.conf",
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
            match place.purpose {
                Purpose::Portal => "open the host in a private window: no login may be asked for",
                Purpose::MainApp => "open the host in a private window: Pangolin's login may come first",
            },
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
    let mut notes: Vec<String> = notes.into_iter().map(str::to_owned).collect();
    // A name of 48 characters does not fit into nginx' own size, which matters as soon as an address has a second server.
    if matches!(dialect, Dialect::Nginx | Dialect::NginxOld | Dialect::Swag) && place.host.as_str().len() >= LONG_NAME {
        notes.push(
            "With more than one host, nginx does not start with names as long as this one (`could not build \
             server_names_hash`): put `server_names_hash_bucket_size 512;` into http { }, one time."
                .to_owned(),
        );
    }
    let contained = matches!(dialect, Dialect::Swag | Dialect::Npm | Dialect::Pangolin);
    if contained && place.origin.is_loopback() {
        notes.push(format!(
            "{} is the proxy's own container where the proxy runs in one: then put the name or address there by which that \
             container reaches Portalkeeper (--origin, MANUAL_PROXY_ORIGIN), and let Portalkeeper listen at it.",
            place.origin
        ));
    }
    if place.purpose == Purpose::MainApp {
        notes.push(
            "There are no admin pages yet: at ADMIN_HOST Portalkeeper answers 421 `This host is not served here.`, and no portal may have that name."
                .to_owned(),
        );
        notes.push(
            "Keep it apart from the portals: a server, site, line or resource of its own. Set FORCE_HTTPS=true."
                .to_owned(),
        );
    }
    // These leave Cloudflare's entry beside the visitor's; the others resolve it themselves.
    let appends = matches!(dialect, Dialect::Traefik | Dialect::Ingress | Dialect::Npm | Dialect::Pangolin);
    let proxies = if cloudflare && appends { 2 } else { 1 };
    if cloudflare && appends && dialect != Dialect::Traefik {
        notes.push(
            "Who reaches the proxy past Cloudflare could pretend any address: let only Cloudflare's networks reach it, or set \
             TRUSTED_PROXY_CIDRS to `cloudflare` and the proxy's own address, joined by a comma."
                .to_owned(),
        );
    }
    let texts::Parts { once, each } = parts;
    Snippet { dialect, title, once, each, check, notes, proxies }
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
                    let text = snippet.text();
                    assert!(snippet.each.contains("reset.acme.example"), "{text}");
                    assert!(!snippet.once.contains("reset.acme.example"), "{text}");
                    assert!(text.contains("10.1.2.3") || text.contains("5001"), "{text}");
                    assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{text}");
                    assert_eq!(Dialect::parse(snippet.dialect.name()), Some(snippet.dialect));
                }
            }
        }
    }

    #[test]
    fn both_notations_of_http2_are_there() {
        let text = |dialect| snippet(dialect, &place(Edge::Direct, Purpose::Portal)).text();
        assert!(text(Dialect::Nginx).contains("    listen 443 ssl;\n"));
        assert!(text(Dialect::Nginx).contains("    http2 on;\n"));
        assert!(text(Dialect::NginxOld).contains("    listen 443 ssl http2;\n"));
        assert!(!text(Dialect::NginxOld).contains("http2 on"));
    }

    #[test]
    fn pangolin_asks_for_a_login_only_before_the_main_app_and_its_check_says_the_same() {
        let portal = snippet(Dialect::Pangolin, &place(Edge::Direct, Purpose::Portal));
        assert!(portal.text().contains("sso-enabled: false") && portal.notes[0].contains("must be public"));
        assert!(portal.check.contains("no login may be asked for"));
        let main = snippet(Dialect::Pangolin, &place(Edge::Direct, Purpose::MainApp));
        assert!(main.text().contains("sso-enabled: true") && main.notes[0].contains("login may stay on"));
        assert!(main.check.contains("login may come first"));
    }

    #[test]
    fn the_main_apps_texts_say_what_is_there_today_and_name_nothing_that_is_not() {
        for snippet in snippets(&place(Edge::Direct, Purpose::MainApp)) {
            let said = snippet.notes.join("\n");
            assert!(said.contains("no admin pages yet") && said.contains("421"), "{said}");
            assert!(!said.contains("OIDC"), "{said}");
        }
    }

    #[test]
    fn a_loopback_origin_is_told_to_be_the_proxys_own_container_where_proxies_run_in_one() {
        for (origin, told) in
            [("127.0.0.1:5000", true), ("localhost:5000", true), ("[::1]:5000", true), ("portals:5000", false)]
        {
            let place = Place { origin: Origin::parse(origin).unwrap(), ..place(Edge::Direct, Purpose::Portal) };
            for dialect in [Dialect::Swag, Dialect::Npm, Dialect::Pangolin] {
                let said = snippet(dialect, &place).notes.join("\n");
                assert_eq!(said.contains("the proxy's own container"), told, "{origin}: {said}");
            }
        }
    }
}
