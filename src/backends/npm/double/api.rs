//! The simulated API: login, permissions and proxy hosts, with the status codes of each version.
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{State, Token, has_name, merge, normalise};
use crate::backends::npm::client::Version;
use crate::http::double::{DoubleRequest, DoubleResponse};

/// Fields that a host's body may have; `trust_forwarded_proto` from 2.14 on.
const FIELDS: [&str; 17] = [
    "domain_names",
    "forward_scheme",
    "forward_host",
    "forward_port",
    "certificate_id",
    "ssl_forced",
    "hsts_enabled",
    "hsts_subdomains",
    "http2_support",
    "block_exploits",
    "caching_enabled",
    "allow_websocket_upgrade",
    "access_list_id",
    "advanced_config",
    "enabled",
    "meta",
    "locations",
];

impl State {
    fn old(&self) -> bool {
        self.version < Version::CONTACT_OF_USER
    }

    pub(super) fn error(&self, status: u16, message: &str) -> DoubleResponse {
        let mut error = json!({"code": status, "message": message});
        // Until 2.13 an internal error has no code.
        if status == 500 && self.version < Version::TRUST_FORWARDED_PROTO {
            error = json!({"message": message});
        }
        DoubleResponse::json(status, &json!({"error": error}))
    }

    pub(super) fn missing(&self, id: impl std::fmt::Display) -> DoubleResponse {
        let words = if self.old() { "Item Not Found" } else { "Not Found" };
        self.error(404, &format!("{words} - {id}"))
    }

    /// The answer to whoever may not do a thing, which since 2.13 looks like something else.
    fn not_permitted(&self, method: &str, path: &str) -> DoubleResponse {
        match method {
            _ if self.old() => self.error(403, "Permission Denied"),
            "POST" => self.error(500, "Internal Error"),
            _ => self.error(404, &format!("Not Found - {path}")),
        }
    }

    /// `lost`: other writes take this one's file away while it is being written.
    pub(super) fn answer(&mut self, request: &DoubleRequest, path: &str, now: Timestamp, lost: bool) -> DoubleResponse {
        let method = request.method.as_str();
        match (method, path) {
            ("GET", "/" | "") => {
                let Version(major, minor, revision) = self.version;
                let mut body =
                    json!({"status": "OK", "version": {"major": major, "minor": minor, "revision": revision}});
                if !self.old() {
                    body["setup"] = json!(self.setup);
                }
                return DoubleResponse::json(200, &body);
            }
            ("POST", "/tokens") => return self.login(request, now),
            (_, "/no-api") => return DoubleResponse::html(200, "<!doctype html><title>Nginx Proxy Manager</title>"),
            _ => {}
        }
        let bearer = request.headers.get("authorization").and_then(|text| text.strip_prefix("Bearer "));
        let user = match bearer.map(|token| self.tokens.get(token)) {
            None => return self.not_permitted(method, path),
            Some(None) => return self.error(500, "Internal Error"),
            Some(Some(token)) if token.expires <= now => {
                if self.old() {
                    return self.error(401, "Token has expired");
                }
                // Here, and only here, the second message is an object.
                let i18n = json!({"name": "TokenExpiredError", "message": "jwt expired"});
                let error = json!({"code": 400, "message": "Token has expired", "message_i18n": i18n});
                return DoubleResponse::json(400, &json!({"error": error}));
            }
            Some(Some(token)) => token.user,
        };
        if path == "/users/me" {
            return self.me(user);
        }
        let who = self.users[user].clone();
        let (may, hosts) = match path {
            _ if path.starts_with("/nginx/proxy-hosts") => (who.proxy_hosts, true),
            _ if path.starts_with("/nginx/certificates") => (who.certificates, false),
            _ => (who.others, false),
        };
        let enough = who.admin || may == "manage" || (may == "view" && method == "GET");
        if !enough {
            return self.not_permitted(method, path);
        }
        match path {
            _ if hosts => self.host_call(request, path, user, now, lost),
            _ if path.starts_with("/nginx/certificates") => self.certificate_call(request, path, user, now),
            "/nginx/redirection-hosts" => DoubleResponse::json(200, &json!(self.redirections)),
            "/nginx/dead-hosts" => DoubleResponse::json(200, &json!(self.dead)),
            _ => self.error(404, &format!("Not Found - {path}")),
        }
    }

    fn login(&mut self, request: &DoubleRequest, now: Timestamp) -> DoubleResponse {
        self.logins += 1;
        let Some(body) = request.json() else { return self.error(400, "body must be object") };
        let known =
            body.as_object().is_some_and(|f| f.keys().all(|k| ["identity", "secret", "scope"].contains(&k.as_str())));
        if !known {
            return self.error(400, "data must NOT have additional properties");
        }
        let found = self.users.iter().position(|u| body["identity"] == u.identity && body["secret"] == u.secret);
        let Some(user) = found else {
            let status = if self.old() { 401 } else { 400 };
            let error =
                json!({"code": status, "message": "Invalid email or password", "message_i18n": "error.invalid-auth"});
            return DoubleResponse::json(status, &json!({"error": error}));
        };
        if self.users[user].second_factor {
            return DoubleResponse::json(200, &json!({"requires_2fa": true, "challenge_token": "challenge"}));
        }
        let token = format!("token-{}-canary", self.logins);
        let expires = now + SignedDuration::from_hours(24);
        self.tokens.insert(token.clone(), Token { user, expires });
        DoubleResponse::json(200, &json!({"token": token, "expires": expires.to_string()}))
    }

    fn me(&self, id: usize) -> DoubleResponse {
        let user = &self.users[id];
        let roles: &[&str] = if user.admin { &["admin"] } else { &[] };
        let visibility = if user.sees_all { "all" } else { "user" };
        let permissions = json!({
            "visibility": visibility, "proxy_hosts": user.proxy_hosts, "certificates": user.certificates,
            "redirection_hosts": user.others, "dead_hosts": user.others, "streams": user.others,
            "access_lists": user.others,
        });
        DoubleResponse::json(200, &json!({"id": id, "roles": roles, "permissions": permissions}))
    }

    fn host_call(
        &mut self,
        request: &DoubleRequest,
        path: &str,
        user: usize,
        now: Timestamp,
        lost: bool,
    ) -> DoubleResponse {
        let rest = path.trim_start_matches("/nginx/proxy-hosts").trim_start_matches('/');
        let (id, action) = rest.split_once('/').unwrap_or((rest, ""));
        let seen = |row: &Value, state: &Self| state.users[user].sees_all || row["owner_user_id"] == user;
        if id.is_empty() {
            if request.method == "POST" {
                return self.make_host(request, user, now, lost);
            }
            let mut rows: Vec<&Value> = self.hosts.values().filter(|row| seen(row, self)).collect();
            rows.sort_by_key(|row| row["domain_names"].to_string());
            return DoubleResponse::json(200, &json!(rows));
        }
        let Some((id, row)) =
            id.parse().ok().and_then(|id| Some((id, self.hosts.get(&id).filter(|row| seen(row, self))?.clone())))
        else {
            return self.missing(id);
        };
        match (request.method.as_str(), action) {
            ("GET", "") => DoubleResponse::json(200, &row),
            ("PUT", "") => self.change_host(id, request, lost),
            ("DELETE", "") => {
                // The row and its file are gone whatever nginx says; what runs is not.
                self.hosts.remove(&id);
                self.nginx.files.remove(&id);
                let known: Vec<u64> = self.certificates.keys().copied().collect();
                if self.nginx.test(&known).is_err() {
                    return self.error(500, "Internal Error");
                }
                self.nginx.reload();
                DoubleResponse::json(200, &json!(true))
            }
            ("POST", "disable") if row["enabled"] == false => self.error(400, "Host is already disabled"),
            ("POST", "disable") if self.disable(id) => DoubleResponse::json(200, &json!(true)),
            ("POST", "disable") => self.error(500, "Internal Error"),
            ("POST", "enable") if row["enabled"] == true => self.error(400, "Host is already enabled"),
            ("POST", "enable") => {
                merge(self.hosts.entry(id).or_default(), &json!({"enabled": true}));
                if !self.configure(id) {
                    return self.error(500, "Internal Error");
                }
                DoubleResponse::json(200, &json!(true))
            }
            _ => self.error(404, &format!("Not Found - {path}")),
        }
    }

    /// What is wrong with a body, in NPM's words.
    fn flaw(&self, body: &Value, complete: bool) -> Option<String> {
        let Some(fields) = body.as_object().filter(|fields| complete || !fields.is_empty()) else {
            return Some("data must NOT have fewer than 1 properties".to_owned());
        };
        let newer = |name: &str| name == "trust_forwarded_proto" && self.version >= Version::TRUST_FORWARDED_PROTO;
        if fields.keys().any(|name| !FIELDS.contains(&name.as_str()) && !newer(name)) {
            return Some("data must NOT have additional properties".to_owned());
        }
        let required = ["domain_names", "forward_scheme", "forward_host", "forward_port"];
        if complete && let Some(name) = required.iter().find(|name| !fields.contains_key(**name)) {
            return Some(format!("data must have required property '{name}'"));
        }
        let wrong = |name: &str, right: fn(&Value) -> bool| fields.get(name).is_some_and(|value| !right(value));
        if wrong("locations", Value::is_array) || wrong("meta", Value::is_object) {
            return Some("data/locations must be array".to_owned());
        }
        if wrong("domain_names", |names| names.as_array().is_some_and(|names| (1..=100).contains(&names.len()))) {
            return Some("data/domain_names must NOT have fewer than 1 items".to_owned());
        }
        if wrong("forward_port", |port| port.as_u64().is_some_and(|port| (1..=65535).contains(&port))) {
            return Some("data/forward_port must be >= 1".to_owned());
        }
        None
    }

    /// A name of the body that something else has, whoever owns it.
    fn taken(&self, body: &Value, own: Option<u64>) -> Option<String> {
        let names = body["domain_names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut names = names.filter(|name| {
            let hosts = self.hosts.iter().filter(|(id, _)| Some(**id) != own).map(|(_, row)| row);
            hosts.chain(&self.redirections).chain(&self.dead).any(|row| has_name(row, name))
        });
        names.next().map(|name| format!("{name} is already in use"))
    }

    fn make_host(&mut self, request: &DoubleRequest, user: usize, now: Timestamp, lost: bool) -> DoubleResponse {
        let body = request.json().unwrap_or(Value::Null);
        if let Some(words) = self.flaw(&body, true).or_else(|| self.taken(&body, None)) {
            return self.error(400, &words);
        }
        let id = self.insert_host(&body, user, now);
        let before = self.hosts.get(&id).cloned().unwrap_or_default();
        self.note(id);
        if !self.configure(id) {
            return self.error(500, "Internal Error");
        }
        self.lose(id, lost);
        // The answer is the row from before nginx was configured.
        DoubleResponse::json(201, &before)
    }

    fn change_host(&mut self, id: u64, request: &DoubleRequest, lost: bool) -> DoubleResponse {
        let body = request.json().unwrap_or(Value::Null);
        if let Some(words) = self.flaw(&body, false).or_else(|| self.taken(&body, Some(id))) {
            return self.error(400, &words);
        }
        if let Some(row) = self.hosts.get_mut(&id) {
            // `meta` is replaced as a whole; without it, all of it stays, `nginx_online` too.
            merge(row, &body);
            normalise(row);
        }
        self.note(id);
        // Switching off this way leaves the file where it is.
        if !self.configure(id) {
            return self.error(500, "Internal Error");
        }
        self.lose(id, lost);
        DoubleResponse::json(200, &self.hosts.get(&id).cloned().unwrap_or_default())
    }

    fn note(&mut self, id: u64) {
        let name = self.hosts.get(&id).and_then(|row| row["domain_names"][0].as_str()).unwrap_or_default().to_owned();
        self.written.push(name);
    }

    fn lose(&mut self, id: u64, lost: bool) {
        if lost {
            self.nginx.files.remove(&id);
            self.nginx.reload();
            let words =
                "nginx: [emerg] open() \"/data/nginx/proxy_host/80.conf\" failed (2: No such file or directory)";
            self.tell(id, Err(words.to_owned()));
        }
    }
}
