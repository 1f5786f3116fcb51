//! The simulated certificates: orders with their side effects, uploads, deletion.
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::nginx::Conf;
use super::{Authority, State, certificate_row, date, merge};
use crate::backends::npm::client::Version;
use crate::http::double::{DoubleRequest, DoubleResponse};

impl State {
    pub(super) fn certificate_call(
        &mut self,
        request: &DoubleRequest,
        path: &str,
        user: usize,
        now: Timestamp,
    ) -> DoubleResponse {
        let rest = path.trim_start_matches("/nginx/certificates").trim_start_matches('/');
        let (id, action) = rest.split_once('/').unwrap_or((rest, ""));
        match (request.method.as_str(), id, action) {
            ("GET", "", _) => {
                let rows: Vec<Value> = self.certificates.values().map(shown).collect();
                DoubleResponse::json(200, &json!(rows))
            }
            ("POST", "", _) => self.make_certificate(request, user, now),
            (method, id, action) => {
                let Some(id) = id.parse().ok().filter(|id| self.certificates.contains_key(id)) else {
                    return self.missing(id);
                };
                match (method, action) {
                    ("GET", "") => DoubleResponse::json(200, &self.certificate_with_users(id, request)),
                    ("POST", "upload") => self.upload(id, request, now),
                    ("DELETE", "") => {
                        // Its files go at once, whoever uses them.
                        self.certificates.remove(&id);
                        DoubleResponse::json(200, &json!(true))
                    }
                    _ => self.error(404, &format!("Not Found - {path}")),
                }
            }
        }
    }

    fn certificate_with_users(&self, id: u64, request: &DoubleRequest) -> Value {
        let mut row = self.certificates.get(&id).map(shown).unwrap_or_default();
        for kind in request.parameter("expand").unwrap_or_default().split(',').filter(|kind| !kind.is_empty()) {
            let users: Vec<&Value> = match kind {
                "proxy_hosts" => self.hosts.values().filter(|host| host["certificate_id"] == id).collect(),
                "redirection_hosts" => self.redirections.iter().filter(|host| host["certificate_id"] == id).collect(),
                _ => Vec::new(),
            };
            row[kind] = json!(users);
        }
        row
    }

    fn make_certificate(&mut self, request: &DoubleRequest, user: usize, now: Timestamp) -> DoubleResponse {
        let Some(body) = request.json() else { return self.error(400, "body must be object") };
        let unknown = |value: &Value, known: &[&str]| {
            value.as_object().into_iter().flatten().any(|(name, _)| !known.contains(&name.as_str()))
        };
        let mut meta = vec![
            "certificate",
            "certificate_key",
            "dns_challenge",
            "dns_provider",
            "dns_provider_credentials",
            "letsencrypt_certificate",
            "propagation_seconds",
        ];
        if self.version < Version::CONTACT_OF_USER {
            meta.extend(["letsencrypt_email", "letsencrypt_agree"]);
        }
        if self.version >= Version(2, 13, 6) {
            meta.push("key_type");
        }
        if unknown(&body, &["provider", "nice_name", "domain_names", "meta"]) || unknown(&body["meta"], &meta) {
            return self.error(400, "data/meta must NOT have additional properties");
        }
        let id = self.id();
        let names: Vec<&str> =
            body["domain_names"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut row = match body["provider"].as_str() {
            Some("other") => certificate_row(id, "other", body["nice_name"].as_str().unwrap_or_default(), &names, now),
            Some("letsencrypt") => certificate_row(id, "letsencrypt", &names.join(", "), &names, now),
            _ => return self.error(400, "data/provider must match pattern \"^(letsencrypt|other)$\""),
        };
        row["owner_user_id"] = json!(user);
        merge(&mut row, &json!({"meta": body["meta"].as_object().cloned().unwrap_or_default()}));
        if body["provider"] == "other" {
            self.certificates.insert(id, row.clone());
            return DoubleResponse::json(201, &row);
        }
        if body["meta"]["dns_challenge"] == true && body["meta"]["dns_provider"] != "cloudflare" {
            let provider = body["meta"]["dns_provider"].as_str().unwrap_or_default();
            return self.error(404, &format!("Not Found - {provider}"));
        }
        self.orders += 1;
        match self.authority.clone() {
            Authority::Refuses(words) => {
                self.damage(&names, true);
                let lines: Vec<&str> = words.lines().collect();
                let mut body = json!({"error": {"message": "Internal Error"}, "debug": {"stack": lines}});
                if self.version >= Version::TRUST_FORWARDED_PROTO {
                    body["error"]["code"] = json!(500);
                }
                DoubleResponse::json(500, &body)
            }
            Authority::Ponders => {
                self.certificates.insert(id, row.clone());
                self.damage(&names, false);
                DoubleResponse::json(201, &shown(&row))
            }
            Authority::Issues => {
                row["expires_on"] = json!(date(now + SignedDuration::from_hours(24 * 90)));
                self.certificates.insert(id, row.clone());
                self.damage(&names, false);
                DoubleResponse::json(201, &shown(&row))
            }
        }
    }

    /// What an order does to hosts that serve its names: they leave nginx, and come back without certificate and
    /// access list; after a success only with somebody's next write. The rows say nothing of it.
    fn damage(&mut self, names: &[&str], reload: bool) {
        let known: Vec<u64> = self.certificates.keys().copied().collect();
        let hit: Vec<u64> = self
            .nginx
            .files
            .iter()
            .filter(|(_, conf)| conf.names.iter().any(|name| names.contains(&name.as_str())))
            .map(|(id, _)| *id)
            .collect();
        for id in &hit {
            self.nginx.files.remove(id);
        }
        self.nginx.reload();
        for id in hit {
            if let Some(row) = self.hosts.get(&id) {
                self.nginx.files.insert(id, Conf::of(id, row, &known, &[]).stripped());
            }
        }
        if reload {
            self.nginx.reload();
        }
    }

    fn upload(&mut self, id: u64, request: &DoubleRequest, now: Timestamp) -> DoubleResponse {
        let files = files(request);
        let file = |name: &str| files.iter().find(|(field, _)| field == name).map(|(_, content)| content.clone());
        let Some(certificate) = file("certificate") else {
            return self.error(400, "Certificate file was not provided");
        };
        let Some(key) = file("certificate_key").filter(|key| key.contains("PRIVATE KEY")) else {
            return self.error(400, "Certificate Key is not valid ()");
        };
        if !certificate.contains("BEGIN CERTIFICATE") {
            return self.error(400, "Certificate is not valid (unable to load certificate)");
        }
        let meta = json!({"certificate": certificate, "certificate_key": key});
        if let Some(row) = self.certificates.get_mut(&id) {
            row["meta"] = meta.clone();
            // Only the first word of the subject.
            row["domain_names"] = json!(["\"CloudFlare,"]);
            row["expires_on"] = json!(date(now + SignedDuration::from_hours(24 * 5475)));
        }
        // The private key comes back in clear.
        DoubleResponse::json(200, &meta)
    }
}

/// A row as NPM shows it: without the DNS credentials, with the private key.
fn shown(row: &Value) -> Value {
    let mut row = row.clone();
    if let Some(meta) = row["meta"].as_object_mut() {
        meta.remove("dns_provider_credentials");
    }
    row
}

/// Parts of a multipart body that have a file name: field and content.
fn files(request: &DoubleRequest) -> Vec<(String, String)> {
    let kind = request.headers.get("content-type").map(String::as_str).unwrap_or_default();
    let Some((_, boundary)) = kind.split_once("boundary=") else { return Vec::new() };
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let part = |part: &str| {
        let (head, content) = part.split_once("\r\n\r\n")?;
        let quoted = |name: &str| head.split_once(name)?.1.split('"').next().map(str::to_owned);
        quoted("filename=\"")?;
        Some((quoted(" name=\"")?, content.trim_end_matches("\r\n").to_owned()))
    };
    text.split(&format!("--{}", boundary.trim_matches('"'))).filter_map(part).collect()
}
