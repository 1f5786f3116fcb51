//! Proxy configuration to copy. Pure: the same input gives the same bytes.
//!
//! Only validated names and origins are put into the texts, and every dialect takes away the headers with
//! which a visitor could forge an address or a host.
use crate::api::{HostName, Origin};

/// A proxy that is configured by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Nginx,
    Caddy,
    Haproxy,
    Apache,
}

impl Dialect {
    pub const ALL: [Self; 4] = [Self::Nginx, Self::Caddy, Self::Haproxy, Self::Apache];

    /// Name for the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
            Self::Apache => "apache",
        }
    }

    /// The dialect of a name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }
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
    pub note: &'static str,
}

/// Every dialect, in a fixed order.
pub fn snippets(host: &HostName, origin: &Origin) -> Vec<Snippet> {
    Dialect::ALL.into_iter().map(|dialect| snippet(dialect, host, origin)).collect()
}

/// The record that the operator has to publish, in words.
pub fn record(host: &HostName, target: Option<&HostName>) -> String {
    match target {
        Some(target) => format!("{host}  CNAME  {target}  (proxied)"),
        None => format!("{host}  CNAME  the public name of your proxy  (proxied)"),
    }
}

/// The text for one proxy.
pub fn snippet(dialect: Dialect, host: &HostName, origin: &Origin) -> Snippet {
    match dialect {
        Dialect::Nginx => Snippet {
            dialect,
            title: "nginx: a server of its own, inside http { }",
            text: nginx(host, origin),
            check: "nginx -t",
            note: "Put the certificate's files in place before the check: nginx does not start without them.",
        },
        Dialect::Caddy => Snippet {
            dialect,
            title: "Caddy: a site of its own in the Caddyfile",
            text: caddy(host, origin),
            check: "caddy validate --config /etc/caddy/Caddyfile --adapter caddyfile",
            note: "Caddy gets the certificate itself, by HTTP-01 or TLS-ALPN.",
        },
        Dialect::Haproxy => Snippet {
            dialect,
            title: "HAProxy: a frontend and a backend",
            text: haproxy(host, origin),
            check: "haproxy -c -f /etc/haproxy/haproxy.cfg",
            note: "The PEM file holds the certificate and its key, one after the other.",
        },
        Dialect::Apache => Snippet {
            dialect,
            title: "Apache httpd: a virtual host of its own",
            text: apache(host, origin),
            check: "apachectl -t",
            note: "Needs the modules ssl, headers, proxy and proxy_http (a2enmod ssl headers proxy proxy_http).",
        },
    }
}

fn nginx(host: &HostName, origin: &Origin) -> String {
    format!(
        "server {{
    listen 443 ssl;
    server_name {host};

    ssl_certificate     /etc/ssl/portals/{host}.crt;
    ssl_certificate_key /etc/ssl/portals/{host}.key;

    location / {{
        proxy_pass http://{origin};
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Host $host;
        proxy_set_header X-Forwarded-Proto $scheme;
        # An empty value takes away what a visitor sent.
        proxy_set_header X-Forwarded-Port \"\";
        proxy_set_header X-Forwarded-Prefix \"\";
        proxy_set_header Forwarded \"\";
        proxy_set_header CF-Connecting-IP \"\";
        proxy_set_header True-Client-IP \"\";
    }}
}}
"
    )
}

fn caddy(host: &HostName, origin: &Origin) -> String {
    format!(
        "{host} {{
\treverse_proxy {origin} {{
\t\t# X-Forwarded-For, -Host and -Proto are set by Caddy itself.
\t\theader_up -Forwarded
\t\theader_up -X-Real-IP
\t\theader_up -CF-Connecting-IP
\t\theader_up -True-Client-IP
\t\theader_up -X-Forwarded-Port
\t\theader_up -X-Forwarded-Prefix
\t}}
}}
"
    )
}

fn haproxy(host: &HostName, origin: &Origin) -> String {
    // Section names may hold letters, digits, dots, hyphens and underscores: a host name fits.
    format!(
        "frontend portal_{host}
    mode http
    bind :443 ssl crt /etc/ssl/portals/{host}.pem strict-sni
    http-request del-header x-forwarded- -m beg
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

fn apache(host: &HostName, origin: &Origin) -> String {
    format!(
        "<VirtualHost *:443>
    ServerName {host}

    SSLEngine on
    SSLCertificateFile    /etc/ssl/portals/{host}.crt
    SSLCertificateKeyFile /etc/ssl/portals/{host}.key

    ProxyRequests Off
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_names_host_and_origin_and_ends_with_a_newline() {
        let host = HostName::parse("reset.acme.example").unwrap();
        let origin = Origin::parse("10.1.2.3:5000").unwrap();
        let all = snippets(&host, &origin);
        assert_eq!(all.len(), Dialect::ALL.len());
        for snippet in all {
            assert!(snippet.text.contains("reset.acme.example"), "{}", snippet.text);
            assert!(snippet.text.contains("10.1.2.3:5000"), "{}", snippet.text);
            assert!(snippet.text.ends_with('\n') && !snippet.text.ends_with("\n\n"), "{}", snippet.text);
        }
    }
}
