//! What people do: to their portals, and to what stands outside. And what must therefore be there in the end.
use std::collections::BTreeMap;

use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use portalkeeper::api::{ANNOTATION_PAUSED, ResetPortal};
use serde_json::{Value, json};

use super::estate::{CLASSES, Dice, Estate, TARGET, TUNNEL};

/// A portal as its owner wants it.
#[derive(Debug, Clone, Default)]
pub struct Portal {
    pub declared: bool,
    /// Which of its two hosts.
    pub host: usize,
    pub off: bool,
    pub paused: bool,
}

pub fn name(portal: usize) -> String {
    format!("p{portal:04}")
}

pub struct People {
    pub portals: Vec<Portal>,
    zones: usize,
    dice: Dice,
    /// Records of others, by id, whole.
    records: BTreeMap<String, Value>,
    /// What others have in the Caddy and in the tunnel.
    documents: [String; 2],
    /// How often each thing was done.
    pub deeds: BTreeMap<&'static str, usize>,
}

impl People {
    pub fn new(seed: u64, portals: usize, zones: usize, estate: &Estate) -> Self {
        for zone in 0..zones {
            let zone = format!("z{zone}.example");
            estate.cloudflare.add_zone(&zone);
            estate.cloudflare.set_plan(&zone, "pro");
            estate.cloudflare.put_foreign(&format!("www.{zone}"), "A", "192.0.2.1");
            // One that leads where ours do.
            estate.cloudflare.put_foreign(&format!("old.{zone}"), "CNAME", TARGET);
        }
        estate.cloudflare.add_tunnel(
            TUNNEL,
            json!({
                "ingress": [
                    {"hostname": "www.z0.example", "service": "http://10.0.0.1:80", "originRequest": {"noTLSVerify": true}},
                    {"hostname": "*.z1.example", "service": "http_status:418"},
                    {"service": "http_status:404"},
                ],
                "warp-routing": {"enabled": true},
            }),
        );
        estate.caddy.load(json!({"apps": {"http": {"servers": {"srv0": {"listen": [":80"], "routes": [
            {"match": [{"host": ["www.z0.example"]}], "handle": [{"handler": "static_response", "status_code": 418}]},
            {"@id": "theirs", "match": [{"host": ["old.z0.example"]}], "handle": []},
        ]}}}, "other": {"kept": [1, null, "x"]}}}));
        let (portals, dice) = (vec![Portal::default(); portals], Dice::new(seed));
        let mut people = Self {
            portals,
            zones,
            dice,
            records: BTreeMap::new(),
            documents: Default::default(),
            deeds: BTreeMap::new(),
        };
        people.remember_others(estate);
        people
    }

    /// The class of a portal, as an index.
    pub fn class(portal: usize) -> usize {
        usize::from(portal.is_multiple_of(3))
    }
    pub fn host(&self, portal: usize, which: usize) -> String {
        format!("p{portal:04}-{which}.z{}.example", portal % self.zones)
    }

    fn is_portals(host: &Value) -> bool {
        host.as_str().is_some_and(|host| host.len() > 7 && host.starts_with('p') && host.as_bytes()[5] == b'-')
    }

    /// What is left of the documents without the portals' own, and the portals' routes as `host by class`.
    fn documents(estate: &Estate) -> ([String; 2], Vec<String>) {
        let mut routes = Vec::new();
        let mut config = estate.caddy.config();
        let list = config.pointer_mut("/apps/http/servers/srv0/routes").and_then(Value::as_array_mut).unwrap();
        let mut take = |host: &Value, class: usize| {
            let ours = Self::is_portals(host);
            routes.extend(ours.then(|| format!("{} by {}", host.as_str().unwrap(), CLASSES[class])));
            !ours
        };
        list.retain(|route| take(&route["match"][0]["host"][0], 0));
        let mut document = estate.cloudflare.tunnel_document(TUNNEL).0;
        document["ingress"].as_array_mut().unwrap().retain(|rule| take(&rule["hostname"], 1));
        routes.sort();
        ([config.to_string(), document.to_string()], routes)
    }

    fn remember_others(&mut self, estate: &Estate) {
        let others = estate.cloudflare.records().into_iter().filter(|record| !Self::is_portals(&record["name"]));
        self.records = others.map(|record| (record["id"].to_string(), record)).collect();
        self.documents = Self::documents(estate).0;
    }

    /// Errors: something of others is not as they left it, or stands there as if it were theirs.
    pub fn others_untouched(&self, estate: &Estate) -> Result<(), String> {
        let mut found = 0;
        for record in estate.cloudflare.records() {
            match self.records.get(&record["id"].to_string()) {
                Some(was) if *was != record => return Err(format!("{record} was {was}")),
                Some(_) => found += 1,
                None if Self::is_portals(&record["name"]) => {}
                None => return Err(format!("{record} is nobody's")),
            }
        }
        if found != self.records.len() {
            return Err(format!("{found} of {} records of others are left", self.records.len()));
        }
        let now = Self::documents(estate).0;
        if now == self.documents { Ok(()) } else { Err(format!("{now:?} was {:?}", self.documents)) }
    }

    /// Declares portals before anything else happens.
    pub async fn declare_first(&mut self, client: &kube::Client, count: usize) {
        for portal in 0..count {
            self.declare(client, portal).await;
        }
    }

    async fn declare(&mut self, client: &kube::Client, portal: usize) {
        let api: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
        let which = self.dice.below(2);
        let spec = json!({
            "domain": format!("{}.example", name(portal)), "host": self.host(portal, which),
            "className": CLASSES[Self::class(portal)],
        });
        let object: ResetPortal = serde_json::from_value(crate::world::portal(&name(portal), spec)).unwrap();
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => self.portals[portal] = Portal { declared: true, host: which, ..Portal::default() },
            // The one before is still being deleted.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn patch(&self, client: &kube::Client, portal: usize, patch: Value) {
        let api: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
        match api.patch(&name(portal), &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 && !self.portals[portal].declared => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn pause(&mut self, client: &kube::Client, portal: usize, paused: bool) {
        self.portals[portal].paused = paused;
        let value = if paused { json!("true") } else { Value::Null };
        self.patch(client, portal, json!({"metadata": {"annotations": {ANNOTATION_PAUSED: value}}})).await;
    }

    /// Somebody does something.
    pub async fn act(&mut self, client: &kube::Client, estate: &Estate) {
        let portal = self.dice.below(self.portals.len());
        let Portal { declared, host, off, paused } = self.portals[portal].clone();
        let at = self.host(portal, host);
        let deed = match self.dice.below(14) {
            0..=3 if !declared => {
                self.declare(client, portal).await;
                "declare"
            }
            0 | 1 => {
                let api: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
                api.delete(&name(portal), &DeleteParams::default()).await.unwrap();
                self.portals[portal].declared = false;
                "delete"
            }
            2..=5 if declared => {
                self.portals[portal].host = 1 - host;
                self.patch(client, portal, json!({"spec": {"host": self.host(portal, 1 - host)}})).await;
                "edit the host"
            }
            6 | 7 if declared => {
                self.portals[portal].off = !off;
                self.patch(client, portal, json!({"spec": {"enabled": off}})).await;
                "switch"
            }
            8 if paused || declared => {
                self.pause(client, portal, !paused).await;
                "pause"
            }
            9 => {
                estate.cloudflare.remove(&at);
                "remove a record"
            }
            10 => {
                estate.cloudflare.edit(&at, "content", json!("vandal.example"));
                "change a record"
            }
            11 => {
                self.break_route(estate, &at);
                "break a route"
            }
            12 => {
                let zone = self.dice.below(self.zones);
                let name = format!("extra{}.z{zone}.example", self.deeds.values().sum::<usize>());
                estate.cloudflare.put_foreign(&name, "A", "192.0.2.3");
                self.remember_others(estate);
                "make a record"
            }
            13 => {
                let number = self.deeds.values().sum::<usize>();
                let rule = json!({"hostname": format!("extra{number}.z0.example"), "service": "http://10.0.0.3:80"});
                estate
                    .cloudflare
                    .edit_tunnel(TUNNEL, |config| config["ingress"].as_array_mut().unwrap().insert(0, rule));
                self.remember_others(estate);
                "make a rule"
            }
            _ => "nothing",
        };
        *self.deeds.entry(deed).or_default() += 1;
    }

    /// Takes a portal's route away, or leads it elsewhere.
    fn break_route(&mut self, estate: &Estate, host: &str) {
        let away = self.dice.below(2) == 0;
        let mut config = estate.caddy.config();
        let list = config.pointer_mut("/apps/http/servers/srv0/routes").and_then(Value::as_array_mut).unwrap();
        match away {
            true => list.retain(|route| route["match"][0]["host"][0] != *host),
            false => {
                for route in list.iter_mut().filter(|route| route["match"][0]["host"][0] == *host) {
                    route["handle"][0]["upstreams"][0]["dial"] = json!("10.0.0.9:80");
                }
            }
        }
        estate.caddy.load(config);
        // A rule of the tunnel whose service was changed would be somebody else's from then on.
        estate.cloudflare.edit_tunnel(TUNNEL, |config| {
            config["ingress"].as_array_mut().unwrap().retain(|rule| rule["hostname"] != *host);
        });
    }

    /// Nobody holds anything up any more.
    pub async fn settle(&mut self, client: &kube::Client) {
        for portal in 0..self.portals.len() {
            if self.portals[portal].paused {
                self.pause(client, portal, false).await;
            }
        }
    }

    /// What the specs ask for: records as `host to target`, and routes as `host by class`, in order.
    pub fn wanted(&self) -> (Vec<String>, Vec<String>) {
        let on = self.portals.iter().enumerate().filter(|(_, portal)| portal.declared && !portal.off);
        let both = on.map(|(number, portal)| {
            let (host, class) = (self.host(number, portal.host), Self::class(number));
            let target = if class == 0 { TARGET.to_owned() } else { format!("{TUNNEL}.cfargotunnel.com") };
            (format!("{host} to {target}"), format!("{host} by {}", CLASSES[class]))
        });
        let (mut records, mut routes): (Vec<_>, Vec<_>) = both.unzip();
        records.sort();
        routes.sort();
        (records, routes)
    }

    /// What stands outside under portals' names, in the same form.
    pub fn made(estate: &Estate) -> (Vec<String>, Vec<String>) {
        let ours = estate.cloudflare.records().into_iter().filter(|record| Self::is_portals(&record["name"]));
        let mut records: Vec<String> = ours
            .map(|record| format!("{} to {}", record["name"].as_str().unwrap(), record["content"].as_str().unwrap()))
            .collect();
        records.sort();
        (records, Self::documents(estate).1)
    }
}
