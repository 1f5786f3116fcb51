//! The texts themselves, one function a dialect.
use super::snippets::{Edge, Place, Purpose};
use crate::config::networks::CLOUDFLARE;

/// How nginx is told to speak HTTP/2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Http2 {
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

pub(super) fn nginx(place: &Place, http2: Http2) -> String {
    let Place { host, origin, .. } = place;
    let listen = match http2 {
        Http2::Directive => "    listen 443 ssl;\n    http2 on;\n",
        Http2::Listen => "    listen 443 ssl http2;\n",
    };
    format!(
        "server {{
{listen}    server_name {host};

    ssl_certificate     /etc/ssl/portals/{host}.crt;
    ssl_certificate_key /etc/ssl/portals/{host}.key;

{edge}    location / {{
        proxy_pass http://{origin};
{NGINX_HEADERS}    }}
}}
",
        edge = nginx_edge(place)
    )
}

pub(super) fn swag(place: &Place) -> String {
    let Place { host, origin, .. } = place;
    format!(
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
    )
}

pub(super) fn caddy(place: &Place) -> String {
    let Place { host, origin, .. } = place;
    let (global, own) = match place.edge {
        Edge::Direct => (String::new(), ""),
        Edge::Cloudflare => (
            format!(
                "{{\n\tservers {{\n\t\ttrusted_proxies static {}\n\t\tclient_ip_headers CF-Connecting-IP\n\t}}\n}}\n\n",
                CLOUDFLARE.join(" ")
            ),
            "\t\theader_up X-Forwarded-For {client_ip}\n\t\theader_up X-Forwarded-Host {host}\n\t\theader_up X-Forwarded-Proto {scheme}\n",
        ),
    };
    format!(
        "{global}{host} {{
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
    )
}

pub(super) fn haproxy(place: &Place) -> String {
    let Place { host, origin, .. } = place;
    let edge = match place.edge {
        Edge::Direct => String::new(),
        Edge::Cloudflare => format!(
            "    # The visitor's address, from Cloudflare's edge only.\n    acl from_cloudflare src {}\n    \
             http-request set-src req.hdr(cf-connecting-ip) if from_cloudflare\n",
            CLOUDFLARE.join(" ")
        ),
    };
    // Section names may hold letters, digits, dots, hyphens and underscores: a host name fits.
    format!(
        "frontend portal_{host}
    mode http
    bind :443 ssl crt /etc/ssl/portals/{host}.pem alpn h2,http/1.1 strict-sni
{edge}    http-request del-header x-forwarded- -m beg
    http-request del-header x_forwarded_ -m beg
    http-request del-header x-real-ip
    http-request del-header forwarded
    http-request del-header cf-connecting-ip
    http-request del-header true-client-ip
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host %[req.hdr(host),lower,field(1,:)]
    option forwardfor
    acl is_portal hdr(host),lower,field(1,:) -m str {host}
    use_backend pages_{host} if is_portal

backend pages_{host}
    mode http
    server pages {origin} check
"
    )
}

pub(super) fn apache(place: &Place) -> String {
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
    format!(
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
    )
}

/// A name for routers and resources, unlike that of other portals.
fn label(place: &Place) -> String {
    place.host.as_str().replace('.', "-")
}

/// Port within the container or Service.
fn port(place: &Place) -> String {
    let origin = place.origin.to_string();
    origin.rsplit_once(':').map(|(_, port)| port.to_owned()).unwrap_or_default()
}

pub(super) fn traefik(place: &Place) -> String {
    let (host, name, port) = (&place.host, label(place), port(place));
    let headers = ["Forwarded", "CF-Connecting-IP", "True-Client-IP", "X-Forwarded-Prefix"];
    let dropped: String = headers
        .iter()
        .map(|header| format!("  - \"traefik.http.middlewares.{name}.headers.customrequestheaders.{header}=\"\n"))
        .collect();
    format!(
        "labels:
  - \"traefik.enable=true\"
  - \"traefik.http.routers.{name}.rule=Host(`{host}`)\"
  - \"traefik.http.routers.{name}.entrypoints=websecure\"
  - \"traefik.http.routers.{name}.tls.certresolver=cloudflare\"
  - \"traefik.http.routers.{name}.middlewares={name}\"
  - \"traefik.http.routers.{name}.service={name}\"
  - \"traefik.http.services.{name}.loadbalancer.server.port={port}\"
{dropped}"
    )
}

pub(super) fn ingress(place: &Place) -> String {
    let (host, name, port) = (&place.host, label(place), port(place));
    format!(
        "apiVersion: networking.k8s.io/v1
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
    )
}

pub(super) fn npm(place: &Place) -> String {
    let origin = place.origin.to_string();
    let (forward, port) = origin.rsplit_once(':').unwrap_or((&origin, "5000"));
    format!(
        "Domain Names           {}
Scheme                 http
Forward Hostname / IP  {forward}
Forward Port           {port}
Block Common Exploits  on
Websockets Support     off
Advanced               nothing
",
        place.host
    )
}

pub(super) fn pangolin(place: &Place) -> String {
    let origin = place.origin.to_string();
    let (forward, port) = origin.rsplit_once(':').unwrap_or((&origin, "5000"));
    let login = place.purpose == Purpose::MainApp;
    format!(
        "public-resources:
  {name}:
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
    )
}
