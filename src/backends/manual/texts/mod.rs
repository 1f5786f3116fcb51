//! The texts themselves, one function a dialect.
mod haproxy;
mod nginx;

use sha2::{Digest, Sha256};

pub(super) use self::haproxy::haproxy;
pub(super) use self::nginx::{Http2, nginx, swag};
use super::snippets::{Edge, Place, Purpose};
use crate::config::networks::CLOUDFLARE;

/// A text in the two parts of which a configuration with several hosts is made. Both end with a newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// What stands in the configuration one time, whatever the number of hosts. It comes first.
    pub once: String,
    /// What is added for each host, at the end.
    pub each: String,
}

impl Parts {
    /// Where hosts share nothing.
    fn alone(each: String) -> Self {
        Self { once: String::new(), each }
    }
}

pub(super) fn caddy(place: &Place) -> Parts {
    let Place { host, origin, .. } = place;
    let (once, own) = match place.edge {
        Edge::Direct => (String::new(), ""),
        Edge::Cloudflare => (
            format!(
                "# 1. Once, at the top of the Caddyfile. Where it has this block already, only 2 is needed.\n{{\n\tservers {{\n\t\ttrusted_proxies static {}\n\t\tclient_ip_headers CF-Connecting-IP\n\t}}\n}}\n\n# 2. For each host.\n",
                CLOUDFLARE.join(" ")
            ),
            "\t\theader_up X-Forwarded-For {client_ip}\n\t\theader_up X-Forwarded-Host {host}\n\t\theader_up X-Forwarded-Proto {scheme}\n",
        ),
    };
    let each = format!(
        "{host} {{
\treverse_proxy {origin} {{
\t\t# Without these lines Caddy sets X-Forwarded-For, -Host and -Proto itself, and passes the others on.
{own}\t\theader_up -Forwarded
\t\theader_up -X-Real-IP
\t\theader_up -CF-Connecting-IP
\t\theader_up -True-Client-IP
\t\theader_up -X-Forwarded-Port
\t\theader_up -X-Forwarded-Prefix
\t\theader_up -X-Forwarded-Server
\t\theader_up -X_Forwarded_For
\t}}
}}
"
    );
    Parts { once, each }
}

pub(super) fn apache(place: &Place) -> Parts {
    let Place { host, origin, .. } = place;
    let edge = match place.edge {
        Edge::Direct => String::new(),
        Edge::Cloudflare => {
            let networks: String =
                CLOUDFLARE.iter().map(|network| format!("    RemoteIPTrustedProxy {network}\n")).collect();
            format!(
                "    # The visitor's address, from Cloudflare's edge only.\n    RemoteIPHeader CF-Connecting-IP\n{networks}"
            )
        }
    };
    Parts::alone(format!(
        "<VirtualHost *:443>
    ServerName {host}

    SSLEngine on
    SSLCertificateFile    /etc/ssl/portals/{host}.crt
    SSLCertificateKeyFile /etc/ssl/portals/{host}.key

{edge}    ProxyRequests Off
    ProxyPreserveHost On
    RequestHeader unset X-Forwarded-For
    RequestHeader unset X-Forwarded-Host
    RequestHeader unset X-Forwarded-Server
    RequestHeader unset X-Forwarded-Port
    RequestHeader unset X-Forwarded-Prefix
    RequestHeader unset X_Forwarded_For
    RequestHeader unset X-Real-IP
    RequestHeader unset Forwarded
    RequestHeader unset CF-Connecting-IP
    RequestHeader unset True-Client-IP
    RequestHeader set X-Forwarded-Proto \"https\"
    ProxyPass        / http://{origin}/
    ProxyPassReverse / http://{origin}/
</VirtualHost>
"
    ))
}

/// Longest label, in characters: with `-tls` it still is a name of Kubernetes.
const LONGEST_LABEL: usize = 249;

/// A name for routers and resources, unlike that of other portals. Where the host has hyphens, another host could have
/// the same one, and applying its text would replace this one's: a short hash keeps them apart.
fn label(place: &Place) -> String {
    let host = place.host.as_str();
    let plain = host.replace('.', "-");
    if !host.contains('-') && plain.len() <= LONGEST_LABEL {
        return plain;
    }
    let hash: String = Sha256::digest(host.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let start = &plain[..plain.len().min(LONGEST_LABEL - 1 - hash.len())];
    format!("{}-{hash}", start.trim_end_matches('-'))
}

/// Port within the container or Service.
fn port(place: &Place) -> String {
    let origin = place.origin.to_string();
    origin.rsplit_once(':').map(|(_, port)| port.to_owned()).unwrap_or_default()
}

pub(super) fn traefik(place: &Place) -> Parts {
    let (host, name, port) = (&place.host, label(place), port(place));
    let headers = ["Forwarded", "CF-Connecting-IP", "True-Client-IP", "X-Forwarded-Prefix"];
    let dropped: String = headers
        .iter()
        .map(|header| format!("  - \"traefik.http.middlewares.{name}.headers.customrequestheaders.{header}=\"\n"))
        .collect();
    let once = "# 1. Once.\nlabels:\n  - \"traefik.enable=true\"\n  # 2. For each host.\n".to_owned();
    let each = format!(
        "  - \"traefik.http.routers.{name}.rule=Host(`{host}`)\"
  - \"traefik.http.routers.{name}.entrypoints=websecure\"
  - \"traefik.http.routers.{name}.tls.certresolver=cloudflare\"
  - \"traefik.http.routers.{name}.middlewares={name}\"
  - \"traefik.http.routers.{name}.service={name}\"
  - \"traefik.http.services.{name}.loadbalancer.server.port={port}\"
{dropped}"
    );
    Parts { once, each }
}

pub(super) fn ingress(place: &Place) -> Parts {
    let (host, name, port) = (&place.host, label(place), port(place));
    Parts::alone(format!(
        "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: portalkeeper
spec:
  ingressClassName: public
  tls:
    - hosts: [{host}]
      secretName: {name}-tls
  rules:
    - host: {host}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: portalkeeper
                port:
                  number: {port}
"
    ))
}

pub(super) fn npm(place: &Place) -> Parts {
    let origin = place.origin.to_string();
    let (forward, port) = origin.rsplit_once(':').unwrap_or((&origin, "5000"));
    Parts::alone(format!(
        "Domain Names           {}
Scheme                 http
Forward Hostname / IP  {forward}
Forward Port           {port}
Block Common Exploits  on
Websockets Support     off
Advanced               nothing
",
        place.host
    ))
}

pub(super) fn pangolin(place: &Place) -> Parts {
    let origin = place.origin.to_string();
    let (forward, port) = origin.rsplit_once(':').unwrap_or((&origin, "5000"));
    let login = place.purpose == Purpose::MainApp;
    let once = "# 1. Once.\npublic-resources:\n  # 2. For each host.\n".to_owned();
    let each = format!(
        "  {name}:
    name: {host}
    protocol: http
    full-domain: {host}
    auth:
      sso-enabled: {login}
    targets:
      - hostname: {forward}
        port: {port}
        method: http
",
        name = label(place),
        host = place.host,
    );
    Parts { once, each }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{HostName, Origin};

    #[test]
    fn hosts_that_differ_have_names_that_differ_and_fit() {
        let name = |host: &str| {
            let (host, origin) = (HostName::parse(host).unwrap(), Origin::parse("127.0.0.1:5000").unwrap());
            label(&Place { host, origin, edge: Edge::Direct, purpose: Purpose::Portal })
        };
        // given hosts that would have one name with hyphens for dots
        let names = ["a.b.c.example", "a.b-c.example", "a-b.c.example", "a-b-c.example"].map(name);
        assert_eq!(names[0], "a-b-c-example", "nothing is lost here");
        let distinct: std::collections::HashSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        assert!(names[1..].iter().all(|name| name.starts_with("a-b-c-example-")), "{names:?}");
        // and the longest hosts there are, with and without hyphens
        for label in ["a".repeat(49), format!("{}-{}", "a".repeat(24), "a".repeat(24))] {
            let host = [label.as_str(); 5].join(".") + ".aa";
            let name = name(&host);
            assert!(name.len() <= LONGEST_LABEL && name.ends_with(|c: char| c.is_ascii_alphanumeric()), "{name}");
        }
    }
}
