//! Which variable stands for which field of a class: whoever has set one cannot edit the class that it makes.

/// Fields of a `PortalClass` below `spec`, with the variable of each.
pub const FIELDS: &[(&str, &str)] = &[
    ("proxy", "REVERSE_PROXY_BACKEND"),
    ("cnameTarget", "RESET_PORTAL_CNAME_TARGET"),
    ("cloudflare.apiTokenSecretRef", "CF_API_TOKEN"),
    ("cloudflare.accountId", "CF_ACCOUNT_ID"),
    ("cloudflare.apiUrl", "CF_API_URL"),
    ("proxy.cloudflareTunnel.tunnelId", "CF_TUNNEL_ID"),
    ("proxy.cloudflareTunnel.origin", "CF_TUNNEL_ORIGIN"),
    ("proxy.npm.apiUrl", "NPM_API_URL"),
    ("proxy.npm.identitySecretRef", "NPM_IDENTITY"),
    ("proxy.npm.passwordSecretRef", "NPM_SECRET"),
    ("proxy.npm.forwardHost", "NPM_FORWARD_HOST"),
    ("proxy.npm.forwardPort", "NPM_FORWARD_PORT"),
    ("proxy.npm.verifyTls", "NPM_TLS_VERIFY"),
    ("proxy.npm.certificate", "NPM_CERTIFICATE"),
    ("proxy.npm.certificate.letsEncrypt.email", "NPM_LETSENCRYPT_EMAIL"),
    ("proxy.caddy.adminUrl", "CADDY_ADMIN_URL"),
    ("proxy.caddy.origin", "CADDY_ORIGIN"),
    ("proxy.caddy.listen", "CADDY_LISTEN"),
    ("proxy.caddy.adminTokenSecretRef", "CADDY_ADMIN_TOKEN"),
    ("proxy.caddy.verifyTls", "CADDY_TLS_VERIFY"),
    ("proxy.caddy.clientCertificateSecretRef", "CADDY_ADMIN_CLIENT_CERT"),
    ("proxy.caddy.clientKeySecretRef", "CADDY_ADMIN_CLIENT_KEY"),
    ("proxy.caddy.caSecretRef", "CADDY_ADMIN_CA"),
    ("proxy.caddy.certificate", "CADDY_CERTIFICATE"),
    ("proxy.caddy.dnsChallenge", "CADDY_DNS_CHALLENGE"),
    ("proxy.traefik.dynamicDir", "TRAEFIK_DYNAMIC_DIR"),
    ("proxy.traefik.originUrl", "TRAEFIK_ORIGIN_URL"),
    ("proxy.traefik.certResolver", "TRAEFIK_CERT_RESOLVER"),
    ("proxy.traefik.certificate", "TRAEFIK_CERTIFICATE"),
    ("proxy.traefik.entryPoints", "TRAEFIK_ENTRYPOINTS"),
    ("proxy.traefik.apiUrl", "TRAEFIK_API_URL"),
    ("proxy.ingress.className", "INGRESS_CLASS_NAME"),
    ("proxy.ingress.namespace", "INGRESS_NAMESPACE"),
    ("proxy.ingress.service", "INGRESS_SERVICE_NAME"),
    ("proxy.ingress.port", "INGRESS_SERVICE_PORT"),
    ("proxy.ingress.tlsSecret", "INGRESS_TLS_SECRET"),
    ("proxy.ingress.issuer", "INGRESS_CLUSTER_ISSUER"),
    ("proxy.ingress.annotations", "INGRESS_ANNOTATIONS"),
    ("proxy.manual.origin", "MANUAL_PROXY_ORIGIN"),
    ("smtp.host", "RESET_SMTP_HOST"),
    ("smtp.port", "RESET_SMTP_PORT"),
    ("smtp.encryption", "RESET_SMTP_USE_TLS"),
    ("smtp.username", "RESET_SMTP_USER"),
    ("smtp.passwordSecretRef", "RESET_SMTP_PASSWORD"),
    ("smtp.from", "RESET_SMTP_FROM"),
    ("mailbox.mxroute.server", "MX_SERVER"),
    ("mailbox.mxroute.username", "MX_USER"),
    ("mailbox.mxroute.apiKeySecretRef", "MX_API_KEY"),
    ("mailbox.mxroute.apiUrl", "MX_API_URL"),
];

/// The field with its variable, `proxy.caddy.listen (CADDY_LISTEN)`: that of the field itself, or of the nearest one
/// that it is part of.
pub fn named(field: &str) -> String {
    let part_of =
        |whole: &str| field.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    let nearest = FIELDS.iter().filter(|(whole, _)| part_of(whole)).max_by_key(|(whole, _)| whole.len());
    nearest.map_or_else(|| field.to_owned(), |(_, variable)| format!("{field} ({variable})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::VARIABLES;

    #[test]
    fn a_field_is_named_with_its_variable_or_that_of_what_it_is_part_of() {
        assert_eq!(named("proxy.caddy.listen"), "proxy.caddy.listen (CADDY_LISTEN)");
        let name = "proxy.npm.certificate.existing.name";
        assert_eq!(named(name), format!("{name} (NPM_CERTIFICATE)"));
        assert_eq!(named("proxy.npm"), "proxy.npm (REVERSE_PROXY_BACKEND)");
        assert_eq!(named("probe.address"), "probe.address");
        assert_eq!(named("cnameTargets"), "cnameTargets");
    }

    #[test]
    fn every_variable_of_a_class_is_that_of_one_field() {
        for (field, name) in FIELDS {
            assert!(VARIABLES.iter().any(|variable| variable.class && variable.name == *name), "{name} of {field}");
            assert_eq!(FIELDS.iter().filter(|(_, other)| other == name).count(), 1, "{name}");
        }
        // Neither is a field: one only says which certificates are wanted, the other leaves fields out.
        let none = ["CF_ORIGIN_CA_KEY", "MAILBOX_RESET_ENABLED"];
        for variable in VARIABLES.iter().filter(|variable| variable.class && !none.contains(&variable.name)) {
            assert!(FIELDS.iter().any(|(_, name)| *name == variable.name), "{}", variable.name);
        }
    }
}
