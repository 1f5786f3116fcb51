//! What texts must look like. Each rule stands here once: it is that of the variable, and that of the class's field.

/// One rule.
pub struct TextRule {
    /// Means the same to Rust, to Go and to CEL.
    pub pattern: &'static str,
    /// In characters.
    pub longest: usize,
    pub words: &'static str,
}

impl TextRule {
    pub fn admits(&self, text: &str) -> bool {
        text.chars().count() <= self.longest && regex::Regex::new(self.pattern).is_ok_and(|rule| rule.is_match(text))
    }
}

/// What a text must not be, though it fits its rule: patterns know no exceptions.
pub struct Exception {
    pub pattern: &'static str,
    pub words: &'static str,
}

impl Exception {
    pub fn is_met(&self, text: &str) -> bool {
        regex::Regex::new(self.pattern).is_ok_and(|rule| rule.is_match(text))
    }
}

/// A name that resolves, an IPv4 address, or an IPv6 address without brackets. The port has a setting of its own.
pub const SERVER: TextRule = TextRule {
    pattern: r"^([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?([.][A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*[.]?|[0-9A-Fa-f:.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)$",
    longest: 253,
    words: "allowed is a host name or an address alone, like mail.example.com",
};

/// A mail server to which mails may go in the clear: links to set passwords with are in them.
pub const ON_THIS_MACHINE: TextRule = TextRule {
    pattern: r"^([lL][oO][cC][aA][lL][hH][oO][sS][tT][.]?|127([.][0-9]{1,3}){3}|::1)$",
    longest: 253,
    words: "mails are sent in the clear to a server on this machine only (localhost, 127.0.0.1 or ::1), because they carry links that \
            set passwords; use StartTls or Tls (RESET_SMTP_USE_TLS=true)",
};

/// What `api::HostName` and `api::MailDomain` take, who know better words.
pub const HOST_NAME: TextRule = TextRule {
    pattern: r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    longest: 253,
    words: "allowed is a name of two labels or more in canonical form, like reset.example.com: lower case, international names as \
            xn--…, and no wildcard, scheme, port, path or dot at the end",
};

/// The first part of a host.
pub const HOST_LABEL: TextRule = TextRule {
    pattern: r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    longest: 63,
    words: "allowed is one label of a host name, like reset: a-z, digits and hyphens, with a letter or digit at both ends",
};

/// Where an API is.
pub const WEB_ADDRESS: TextRule = TextRule {
    pattern: r"^https?://[^\s@]+$",
    longest: 500,
    words: "allowed is an address that begins with http:// or https://, without user name, password and blanks",
};

/// What a page leads to.
pub const HTTPS_LINK: TextRule = TextRule {
    pattern: r"^https://[^\s]+$",
    longest: 500,
    words: "allowed is an address that begins with https:// and has no blanks",
};

/// A UUID.
pub const TUNNEL_ID: TextRule = TextRule {
    pattern: r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
    longest: 36,
    words: "allowed is the id of a tunnel, a UUID, which `cloudflared tunnel list` and the dashboard show",
};

/// What `api::TunnelOrigin` takes, who knows better words.
pub const TUNNEL_ORIGIN: TextRule = TextRule {
    pattern: r"^[hH][tT][tT][pP][sS]?://[^\s/?#@]+/?$",
    longest: 300,
    words: "allowed is a scheme with host and port and no path, like http://127.0.0.1:5000",
};

/// A folder of this machine.
pub const FOLDER: TextRule =
    TextRule { pattern: r"^/", longest: 4096, words: "allowed is a whole path, which begins with a slash" };

/// What stands on a page and in mails: no control characters, and none that turn the direction of the text around.
pub const LINE: TextRule = TextRule {
    pattern: r"^[^\x00-\x1f\x7f-\x{9f}\x{2028}-\x{202e}\x{2066}-\x{2069}]*$",
    longest: 200,
    words: "allowed is one line of text without control characters",
};

/// Host and port, also with an `http://` before and a slash after; `api::Origin` knows more.
pub const ORIGIN: TextRule = TextRule {
    pattern: r"^([hH][tT][tT][pP]://)?([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?([.][A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4}/?$",
    longest: 300,
    words: "allowed is a host name, an IPv4 address or an IPv6 address in brackets, with a port and without a path, like 127.0.0.1:5000",
};

/// What goes into nginx' configuration as the host of an upstream.
pub const FORWARD_HOST: TextRule = TextRule {
    pattern: r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$",
    longest: 253,
    words: "allowed is a host name, an IPv4 address or an IPv6 address in brackets, without scheme, port and path",
};

/// From 1 to 65535, without zeros before it.
macro_rules! port {
    () => {
        "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
    };
}

/// A network address of Caddy.
pub const LISTEN: TextRule = TextRule {
    pattern: concat!(
        r"^((tcp[46]?/)?([A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):",
        port!(),
        "(-",
        port!(),
        r")?|unix/[^\s{}]+)$"
    ),
    longest: 200,
    words: "allowed is a listen address of Caddy that ends with a port from 1 to 65535, like :8443 or 127.0.0.1:8443",
};

/// Where Caddy's admin endpoint is; see [`CADDY_CONFIG`], too.
pub const CADDY_ADMIN: TextRule = TextRule {
    pattern: r"^([hH][tT][tT][pP][sS]?://[^\s@/?#]+(/[^\s@?#]*)?|unix:(//)?/[^\s@/?#][^\s@?#]*)$",
    longest: 500,
    words: "allowed is an address that begins with http:// or https:// and has no question mark, or a socket like unix:///run/caddy/admin.sock",
};

/// Below that there is nothing of ours; a socket may have any name.
pub const CADDY_CONFIG: Exception = Exception {
    pattern: r"^[hH].*/config/*$",
    words: "leave out /config: allowed is the address before it, like http://127.0.0.1:2019",
};

/// What people copy along with the address of Traefik's API.
pub const TRAEFIK_PATHS: Exception = Exception {
    pattern: r"/(api|dashboard)/*([?#].*)?$",
    words: "leave out /api and /dashboard: allowed is the address before them, like http://127.0.0.1:8080",
};

/// What looks like a name to a pattern of names.
pub const ADDRESS_AS_TARGET: Exception =
    Exception { pattern: r"[.][0-9]+$", words: "a CNAME record cannot lead to an address: name a host" };

/// A name in Traefik's files: nothing that its templates would read.
pub const WORD: TextRule = TextRule {
    pattern: r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
    longest: 64,
    words: "allowed are letters, digits, hyphens, underscores and dots",
};

/// Where a probe connects to.
pub const PROBE_ADDRESS: TextRule = TextRule {
    pattern: concat!(r"^([0-9]{1,3}([.][0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+\]):", port!(), "$"),
    longest: 60,
    words: "allowed is an IPv4 address or an IPv6 address in brackets, with a port, like 127.0.0.1:443",
};

/// A certificate's name in Nginx Proxy Manager, which people choose.
pub const CERTIFICATE_NAME: TextRule = TextRule {
    pattern: r"^[^\x00-\x1f\x7f]+$",
    longest: 255,
    words: "allowed is a name of up to 255 characters without line ends",
};

/// Cloudflare's own are 32 hex digits.
pub const ACCOUNT: TextRule = TextRule {
    pattern: r"^[A-Za-z0-9_-]+$",
    longest: 64,
    words: "allowed is the id of a Cloudflare account, 32 hex digits, which the dashboard shows",
};

/// What an HTTP header carries.
pub const USERNAME: TextRule = TextRule {
    pattern: r"^[!-~]+$",
    longest: 64,
    words: "allowed is a user name of up to 64 ASCII characters without blanks",
};

/// RFC 1123 label, as names of namespaces and services are.
pub const LABEL: TextRule = TextRule {
    pattern: r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    longest: 63,
    words: "allowed is a Kubernetes name of up to 63 characters: a-z, digits and hyphens, with a letter or digit at both ends",
};

/// RFC 1123 subdomain, as most names of Kubernetes are.
pub const SUBDOMAIN: TextRule = TextRule {
    pattern: r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    longest: 253,
    words: "allowed is a Kubernetes name of up to 253 characters: a-z, digits, hyphens and dots, with a letter or digit at both ends",
};

/// Key of an annotation; Kubernetes takes capitals in the part before the slash, too.
pub const ANNOTATION_KEY: TextRule = TextRule {
    pattern: r"^([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
    longest: 317,
    words: "allowed is a key like name or example.com/name: after the slash up to 63 letters, digits, hyphens, underscores and dots",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_takes_what_is_meant_and_nothing_else() {
        let [long, longer, longest] = [64, 65, 256].map(|length| "a".repeat(length));
        let cases: [(&TextRule, &[&str], &[&str]); 13] = [
            (
                &CADDY_ADMIN,
                &[
                    "http://127.0.0.1:2019",
                    "https://caddy:2021/",
                    "http://a/caddy",
                    "unix:///run/a.sock",
                    "unix:/run/a",
                ],
                &[
                    "",
                    "unix://run/a.sock",
                    "http://me@a",
                    "http://a?b=c",
                    "http://a/b#c",
                    "ftp://a",
                    "http://",
                    "unix:///",
                ],
            ),
            (&WORD, &["websecure", "a.b_c-1"], &["", "{{x}}", "a b", "`a`", "-a", &longer]),
            (&PROBE_ADDRESS, &["127.0.0.1:443", "[::1]:1"], &["", "foo", "a:80", "127.0.0.1", "::1:80", "127.0.0.1:0"]),
            (
                &SERVER,
                &["mail.example.com", "mail", "mail.example.com.", "127.0.0.1", "::1", "a_b.internal"],
                &[
                    "",
                    "a b",
                    "mail.example.com:25",
                    "127.0.0.1:25",
                    "[::1]",
                    "http://mail",
                    "a..b",
                    "-a",
                    "a\nb",
                    "a/b",
                ],
            ),
            (
                &ORIGIN,
                &["127.0.0.1:5000", "http://pages:80/", "[::1]:5000", "a_b.internal:1"],
                &["{env.HOME}:5000", "::1:5000", "127.0.0.1", "a:0", "a:5000/x", "https://a:80", "a b:80", "me@a:80"],
            ),
            (&FORWARD_HOST, &["10.0.0.5", "pages", "[::1]"], &["http://10.0.0.5", "a b", "a/b", "a:80", "::1", ""]),
            (
                &LISTEN,
                &[
                    ":8443",
                    "127.0.0.1:8443",
                    "[::1]:443",
                    "tcp/:9000",
                    ":8080-8085",
                    ":1",
                    ":9999",
                    ":10000",
                    ":64999",
                    ":65535",
                    "unix//run/caddy.sock",
                ],
                &[
                    "",
                    "8443",
                    ":",
                    ": 8443",
                    "a b:80",
                    "{env.LISTEN}",
                    ":8443/x",
                    "udp/:443",
                    ":0",
                    ":65536",
                    ":99999",
                    ":655350",
                    ":80-99999",
                ],
            ),
            (&CERTIFICATE_NAME, &["my wildcard", "größer"], &["", "a\nb", "a\u{7f}", &longest]),
            (&ACCOUNT, &["0123456789abcdef0123456789abcdef", "a"], &["", "../x", "a b", "a/b", &longer]),
            (&USERNAME, &["acme", "a@b"], &["", "a b", "a\nb", "ä"]),
            (&LABEL, &["mail", "a-1"], &["", "A", "a b", "a.b", "-a", "a-", &long]),
            (&SUBDOMAIN, &["letsencrypt", "a.b-c.d", &long], &["", "A", "a b", "a..b", ".a", "a_b"]),
            (
                &ANNOTATION_KEY,
                &["a", "cert-manager.io/cluster-issuer", "A.example/x_y.z"],
                &["", "bad key!", "/a", "a/", "a/b/c", "-a", "a b/c", "a..b/c", &long],
            ),
        ];
        for (rule, right, wrong) in cases {
            right.iter().for_each(|text| assert!(rule.admits(text), "{text:?}: {}", rule.words));
            wrong.iter().for_each(|text| assert!(!rule.admits(text), "{text:?}: {}", rule.words));
        }
    }
}
