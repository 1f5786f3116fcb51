//! The table of variables, from which the documentation is made, too.

/// A variable of this program.
pub struct Variable {
    pub name: &'static str,
    pub default: &'static str,
    pub meaning: &'static str,
    /// Belongs to the class `environment`, rather than to the process.
    pub class: bool,
}

const fn class(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning, class: true }
}
const fn process(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning, class: false }
}

/// Every variable, in the order of the documentation.
pub const VARIABLES: &[Variable] = &[
    class(
        "REVERSE_PROXY_BACKEND",
        "npm",
        "Proxy that gets the routes: `npm`, `cloudflare_tunnel`, `caddy`, `traefik`, `ingress` or `manual`.",
    ),
    class(
        "RESET_PORTAL_CNAME_TARGET",
        "",
        "Public host that the portals' CNAMEs point to. Not used with `cloudflare_tunnel`, where they point to the tunnel.",
    ),
    class(
        "CF_API_TOKEN",
        "",
        "Cloudflare API token with Zone Read and DNS Edit, and for a tunnel with Account, Cloudflare Tunnel, Edit. Also as `CF_API_TOKEN_FILE`.",
    ),
    class("CF_ACCOUNT_ID", "", "Cloudflare account; only its zones are used. A tunnel needs it."),
    class("CF_API_URL", "https://api.cloudflare.com/client/v4", "Cloudflare's API, with its `/client/v4`."),
    class(
        "CF_ORIGIN_CA_KEY",
        "",
        "Cloudflare's Origin CA service keys stopped working in autumn 2026, so the key is not used. With `npm` it still asks for Origin CA certificates, which are made with `CF_API_TOKEN`.",
    ),
    class("CF_TUNNEL_ID", "", "Id of a remotely managed Cloudflare Tunnel, a UUID."),
    class(
        "CF_TUNNEL_ORIGIN",
        "",
        "Where the tunnel's connectors find this program, like `http://127.0.0.1:5000`: scheme, host and port, no path.",
    ),
    class("NPM_API_URL", "", "Admin address of Nginx Proxy Manager, like `http://127.0.0.1:81`."),
    class("NPM_IDENTITY", "", "Login of an NPM user that may manage proxy hosts and certificates."),
    class("NPM_SECRET", "", "Password of that user. Also as `NPM_SECRET_FILE`."),
    class("NPM_FORWARD_HOST", "", "Name or address under which NPM finds this program."),
    class("NPM_FORWARD_PORT", "5000", "Port of it."),
    class("NPM_TLS_VERIFY", "true", "`false` takes any certificate of NPM's own API."),
    class("NPM_LETSENCRYPT_EMAIL", "NPM_IDENTITY", "Contact of certificate orders, for NPM 2.12."),
    class(
        "NPM_CERTIFICATE",
        "letsencrypt, or origin_ca where CF_ORIGIN_CA_KEY is set",
        "Where NPM's hosts get certificates: `letsencrypt` (DNS challenge at Cloudflare), `origin_ca`, `none`, or the id or name of one that is in NPM already.",
    ),
    class("CADDY_ADMIN_URL", "", "Caddy's admin API, like `http://127.0.0.1:2019` or `unix:///run/caddy/admin.sock`."),
    class("CADDY_ORIGIN", "", "Where Caddy finds this program, like `127.0.0.1:5000`."),
    class(
        "CADDY_LISTEN",
        ":443, or else the only server",
        "Listen address of Caddy's server that gets the routes, like `:8443`.",
    ),
    class(
        "CADDY_ADMIN_TOKEN",
        "",
        "Bearer token, where something before the admin API wants one. Also as `CADDY_ADMIN_TOKEN_FILE`.",
    ),
    class("CADDY_TLS_VERIFY", "true", "`false` takes any certificate of an https admin address."),
    class(
        "CADDY_ADMIN_CLIENT_CERT",
        "",
        "Certificate, PEM, by which Caddy's `admin.remote` knows this program. Mostly as `CADDY_ADMIN_CLIENT_CERT_FILE`.",
    ),
    class("CADDY_ADMIN_CLIENT_KEY", "", "Its key, PEM. Mostly as `CADDY_ADMIN_CLIENT_KEY_FILE`."),
    class(
        "CADDY_ADMIN_CA",
        "what the system trusts",
        "Authority that signed the certificate of an https admin address, PEM; not with `CADDY_TLS_VERIFY=false`. Mostly as `CADDY_ADMIN_CA_FILE`.",
    ),
    class(
        "CADDY_CERTIFICATE",
        "auto",
        "Where the hosts' certificates come from: `auto`, Caddy's own ways, or `origin_ca`, Cloudflare's Origin CA with `CF_API_TOKEN`, which needs Zone, SSL and Certificates, Edit.",
    ),
    class(
        "CADDY_DNS_CHALLENGE",
        "auto",
        "Whether Caddy gets certificates by a DNS challenge with `CF_API_TOKEN`, which then stands in its configuration: `auto` where it has the module `dns.providers.cloudflare`, `true` always, `false` never. One TLS policy for all names does that; names that the token cannot write, and sites of others without a policy of their own, fall back to Caddy's normal way.",
    ),
    class("TRAEFIK_DYNAMIC_DIR", "", "The folder that Traefik's file provider watches, as this program sees it."),
    class("TRAEFIK_ORIGIN_URL", "", "Where Traefik finds this program, like `http://127.0.0.1:5000`."),
    class(
        "TRAEFIK_CERT_RESOLVER",
        "cloudflare",
        "Certificate resolver of Traefik's static configuration; `none` where certificates come from elsewhere.",
    ),
    class(
        "TRAEFIK_CERTIFICATE",
        "auto",
        "Where the hosts' certificates come from: `auto`, Traefik's own ways, or `origin_ca`, Cloudflare's Origin CA with `CF_API_TOKEN`, which needs Zone, SSL and Certificates, Edit. These are files of mode 0640 and the folder's group.",
    ),
    class("TRAEFIK_ENTRYPOINTS", "websecure", "Entry points that get the routes, joined by commas."),
    class("TRAEFIK_API_URL", "", "Traefik's API, where it can be asked what it has loaded."),
    class(
        "INGRESS_CLASS_NAME",
        "the cluster's default",
        "Class of the Ingress objects. With `manual` it means `ingress`, with records made by hand.",
    ),
    class("INGRESS_NAMESPACE", "the controller's own", "Namespace of the Service, where the Ingress objects are made."),
    class("INGRESS_SERVICE_NAME", "portalkeeper", "Service that leads to the pages."),
    class("INGRESS_SERVICE_PORT", "5000", "Its port."),
    class("INGRESS_TLS_SECRET", "", "Secret with the certificate, in the same namespace."),
    class(
        "INGRESS_CLUSTER_ISSUER",
        "",
        "cert-manager's ClusterIssuer that makes a certificate for each portal instead.",
    ),
    class(
        "INGRESS_ANNOTATIONS",
        "",
        "Annotations of the Ingress objects, `name=value` joined by commas. A value with a comma in it needs a `PortalClass`.",
    ),
    class("MANUAL_PROXY_ORIGIN", "127.0.0.1:5000", "Where hand-made proxies find this program; shown in snippets."),
    class("RESET_SMTP_HOST", "", "Mail server that takes the mails."),
    class("RESET_SMTP_PORT", "587", "Its port; 465 is TLS from the first byte, others STARTTLS."),
    class("RESET_SMTP_USER", "", "Login at the mail server."),
    class("RESET_SMTP_PASSWORD", "", "Password for it. Also as `RESET_SMTP_PASSWORD_FILE`."),
    class("RESET_SMTP_FROM", "reset@ and the mail domain", "Sender address of the mails."),
    class("RESET_SMTP_USE_TLS", "true", "`false` sends in the clear: loopback only."),
    class("MX_SERVER", "", "MXroute mail server, like `eagle.mxlogin.com`."),
    class("MX_USER", "", "MXroute user name."),
    class("MX_API_KEY", "", "MXroute API key. Also as `MX_API_KEY_FILE`."),
    class("MX_API_URL", "https://api.mxroute.com", "MXroute's API."),
    class("MAILBOX_RESET_ENABLED", "true where MX_* is set", "`false` serves pages without changing passwords."),
    process("FORCE_HTTPS", "false", "Sends visitors who came by http to https."),
    process("TRUSTED_PROXY_COUNT", "1", "Proxies in front of the program, 0 to 10: how `X-Forwarded-For` is read."),
    process(
        "TRUSTED_PROXY_CIDRS",
        "",
        "Where these proxies are: addresses and networks joined by commas, and `cloudflare` for its edge. Without it, whoever connects is believed.",
    ),
    process("ADMIN_HOST", "", "Host of the admin pages, which no portal may have."),
];

/// Names a proxy backend may have.
pub(super) const ALLOWED: &str = "npm, cloudflare_tunnel, caddy, traefik, ingress and manual";
