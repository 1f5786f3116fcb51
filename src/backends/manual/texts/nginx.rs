//! nginx, by itself and in SWAG.
use super::Parts;
use crate::backends::manual::snippets::{Edge, Place};
use crate::config::networks::CLOUDFLARE;

/// How nginx is told to speak HTTP/2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::backends::manual) enum Http2 {
    /// `http2 on;`, since 1.25.1; older ones do not start with it.
    Directive,
    /// `listen … http2;`, of which newer ones warn.
    Listen,
}

/// Header lines for a `location` of nginx.
const NGINX_HEADERS: &str = "        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Host $host;
        proxy_set_header X-Forwarded-Proto $scheme;
        # An empty value takes away what a visitor sent.
        proxy_set_header X-Forwarded-Port \"\";
        proxy_set_header X-Forwarded-Prefix \"\";
        proxy_set_header X-Forwarded-Server \"\";
        proxy_set_header Forwarded \"\";
        proxy_set_header CF-Connecting-IP \"\";
        proxy_set_header True-Client-IP \"\";
";

/// Lines that make `$remote_addr` the visitor where Cloudflare's edge is connected.
fn nginx_edge(place: &Place) -> String {
    if place.edge == Edge::Direct {
        return String::new();
    }
    let mut text = String::from("    # The visitor's address, from Cloudflare's edge only.\n");
    for network in CLOUDFLARE {
        text.push_str(&format!("    set_real_ip_from {network};\n"));
    }
    text + "    real_ip_header CF-Connecting-IP;\n\n"
}

pub(in crate::backends::manual) fn nginx(place: &Place, http2: Http2) -> Parts {
    let Place { host, origin, .. } = place;
    let (listen, more) = match http2 {
        Http2::Directive => ("ssl", "    http2 on;\n"),
        Http2::Listen => ("ssl http2", ""),
    };
    let pass = match origin.needs_dns() {
        false => format!("        proxy_pass http://{origin};\n"),
        // Without a variable nginx looks a name up once, and does not start while it leads nowhere.
        true => format!(
            "        # Docker's resolver; elsewhere a `nameserver` of /etc/resolv.conf.
        resolver 127.0.0.11;
        set $portalkeeper {origin};
        proxy_pass http://$portalkeeper;
"
        ),
    };
    Parts::alone(format!(
        "server {{
    listen 443 {listen};
    # listen [::]:443 {listen};  # where the machine has IPv6
{more}    server_name {host};

    ssl_certificate     /etc/ssl/portals/{host}.crt;
    ssl_certificate_key /etc/ssl/portals/{host}.key;

{edge}    location / {{
{pass}{NGINX_HEADERS}    }}
}}
",
        edge = nginx_edge(place)
    ))
}

pub(in crate::backends::manual) fn swag(place: &Place) -> Parts {
    let Place { host, origin, .. } = place;
    Parts::alone(format!(
        "server {{
    listen 443 ssl;
    listen [::]:443 ssl;
    server_name {host};

    include /config/nginx/ssl.conf;
    client_max_body_size 64k;

{edge}    location / {{
        include /config/nginx/resolver.conf;
        set $upstream {origin};
        proxy_pass http://$upstream;
{NGINX_HEADERS}    }}
}}
",
        edge = nginx_edge(place)
    ))
}
