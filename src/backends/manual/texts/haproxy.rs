//! HAProxy. All hosts share one frontend and one backend.
//!
//! Two frontends at one port would be a trap: HAProxy accepts them, and the system gives each connection to either at
//! random. The rules for headers stand in the backend, so that they hold behind a frontend that is there already, too,
//! and touch nothing of others.
use super::Parts;
use crate::backends::manual::snippets::{Edge, Place};
use crate::config::networks::CLOUDFLARE;

pub(in crate::backends::manual) fn haproxy(place: &Place) -> Parts {
    let Place { host, origin, .. } = place;
    // Of different names, because a host may stand behind the edge while another one does not.
    let (name, edge) = match place.edge {
        Edge::Direct => ("portalkeeper", String::new()),
        Edge::Cloudflare => (
            "portalkeeper_cloudflare",
            format!(
                "    # The visitor's address, from Cloudflare's edge only.\n    acl from_cloudflare src {}\n    \
                 http-request set-src req.hdr(cf-connecting-ip) if from_cloudflare\n",
                CLOUDFLARE.join(" ")
            ),
        ),
    };
    let (lookup, resolvers) = match origin.needs_dns() {
        false => ("", ""),
        true => (
            " init-addr libc,none resolvers portalkeeper",
            "# Looks the origin's name up again and again, so that HAProxy also starts while it leads nowhere.
resolvers portalkeeper
    parse-resolv-conf

",
        ),
    };
    let once = format!(
        "# 1. Once, however many hosts there are. Where haproxy.cfg has these sections already, only 2 is needed.
{resolvers}backend {name}
    mode http
{edge}    # What a visitor may have forged goes; then the true values are set.
    http-request del-header x-forwarded- -m beg
    http-request del-header x_forwarded_ -m beg
    http-request del-header x-real-ip
    http-request del-header forwarded
    http-request del-header cf-connecting-ip
    http-request del-header true-client-ip
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request set-header X-Forwarded-Host %[req.hdr(host),lower,field(1,:)]
    option forwardfor
    server pages {origin} check{lookup}

# Never a second frontend at port 443: connections would go to either at random. Where there is one of another name,
# leave this one out, put 2 into that one, and add its certificates there.
frontend portalkeeper
    mode http
    bind :443 ssl crt /etc/haproxy/portals/ alpn h2,http/1.1 strict-sni
    # bind :::443 v6only ssl crt /etc/haproxy/portals/ alpn h2,http/1.1 strict-sni  # where the machine has IPv6

# 2. For each host: this line at the end of the frontend.
"
    );
    let each = format!("    use_backend {name} if {{ req.hdr(host),lower,field(1,:) -m str {host} }}\n");
    Parts { once, each }
}
