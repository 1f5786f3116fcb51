//! Random histories of several clients of the embedded API, with restarts in between, against a simple model:
//! what lists and watches show has to follow from the writes that were answered.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use portalkeeper::api::clock::SystemClock;
use portalkeeper::apiserver::ApiServer;
use proptest::prelude::*;
use serde_json::{Value, json};

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// One step of one of the clients, each of which remembers what it last read.
#[derive(Debug, Clone)]
enum Step {
    /// Reads an object, to replace it later.
    Read {
        client: usize,
        name: u8,
    },
    Create {
        name: u8,
        app: u8,
        held: bool,
    },
    /// Replaces an object by the version that the client read, which may be an old one by now.
    Replace {
        client: usize,
        name: u8,
        app: u8,
        value: u8,
    },
    Patch {
        name: u8,
        value: u8,
    },
    Relabel {
        name: u8,
        app: u8,
    },
    Delete {
        name: u8,
    },
    LetGo {
        name: u8,
    },
    /// Lists what has a label; checked against the model.
    List {
        app: u8,
    },
    /// Starts a watch from now on, for what has a label or for everything.
    Watch {
        app: Option<u8>,
    },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, name, app) = (0_usize..3, 0_u8..4, 0_u8..2);
    let step = prop_oneof![
        3 => (client.clone(), name.clone()).prop_map(|(client, name)| Step::Read { client, name }),
        4 => (name.clone(), app.clone(), any::<bool>()).prop_map(|(name, app, held)| Step::Create { name, app, held }),
        4 => (client, name.clone(), app.clone(), 0_u8..3)
            .prop_map(|(client, name, app, value)| Step::Replace { client, name, app, value }),
        3 => (name.clone(), 0_u8..3).prop_map(|(name, value)| Step::Patch { name, value }),
        2 => (name.clone(), app.clone()).prop_map(|(name, app)| Step::Relabel { name, app }),
        3 => name.clone().prop_map(|name| Step::Delete { name }),
        2 => name.prop_map(|name| Step::LetGo { name }),
        2 => app.clone().prop_map(|app| Step::List { app }),
        2 => proptest::option::of(app).prop_map(|app| Step::Watch { app }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// An object as the model has it.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    app: u8,
    value: u8,
    held: bool,
    dying: bool,
    version: u64,
}

/// A write that was answered: what there was before it and after it.
#[derive(Debug, Clone)]
struct Written {
    version: u64,
    name: u8,
    before: Option<Kept>,
    after: Option<Kept>,
}

struct Watch {
    app: Option<u8>,
    since: u64,
    body: Body,
    buffer: Vec<u8>,
}

struct Play {
    /// `None` only while it is being started anew.
    server: Option<ApiServer>,
    objects: BTreeMap<u8, Kept>,
    history: Vec<Written>,
    read: [BTreeMap<u8, Value>; 3],
    watches: Vec<Watch>,
    /// The newest version there was when the server started.
    started: u64,
}

fn name_of(name: u8) -> String {
    format!("m{name}")
}

fn version_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

impl Play {
    async fn answer(&self, method: &str, path: &str, kind: &str, body: &Value) -> (u16, Body) {
        let request = hyper::Request::builder().method(method).uri(path).header("content-type", kind).body(()).unwrap();
        let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let response = self.server.as_ref().unwrap().answer(&request.into_parts().0, bytes).await;
        (response.status().as_u16(), response.into_body())
    }
    async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let (status, body) = self.answer(method, path, kind, body).await;
        let bytes = body.collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    /// Takes a write over into the model; `after` without its version, which the answer tells.
    fn wrote(&mut self, name: u8, after: Option<Kept>, version: u64) {
        let before = self.objects.get(&name).cloned();
        let after = after.map(|kept| Kept { version, ..kept });
        match after.clone() {
            Some(kept) => self.objects.insert(name, kept),
            None => self.objects.remove(&name),
        };
        self.history.push(Written { version, name, before, after });
    }

    async fn newest(&self) -> u64 {
        let (_, list) = self.call("GET", MAPS, &Value::Null).await;
        version_of(&list)
    }

    /// Changes an object that is there; what the model expects of it is told by `change`.
    async fn change(
        &mut self,
        name: u8,
        method: &str,
        body: Value,
        change: impl FnOnce(&mut Kept),
    ) -> Result<(), TestCaseError> {
        let path = format!("{MAPS}/{}", name_of(name));
        let (status, answer) = self.call(method, &path, &body).await;
        let Some(old) = self.objects.get(&name).cloned() else {
            prop_assert_eq!(status, 404);
            return Ok(());
        };
        prop_assert_eq!(status, 200, "{}", answer);
        let mut new = old.clone();
        change(&mut new);
        if new == old {
            prop_assert_eq!(version_of(&answer), old.version, "nothing changed is no version");
        } else if new.dying && !new.held {
            let version = self.newest().await;
            prop_assert!(version > old.version);
            self.wrote(name, None, version);
        } else {
            let version = version_of(&answer);
            prop_assert!(version > self.history.last().map_or(self.started, |write| write.version));
            self.wrote(name, Some(new), version);
        }
        Ok(())
    }

    async fn step(&mut self, step: Step, path: &Path) -> Result<(), TestCaseError> {
        match step {
            Step::Read { client, name } => {
                let (status, object) = self.call("GET", &format!("{MAPS}/{}", name_of(name)), &Value::Null).await;
                prop_assert_eq!(status == 200, self.objects.contains_key(&name));
                if status == 200 {
                    prop_assert_eq!(version_of(&object), self.objects[&name].version);
                    self.read[client].insert(name, object);
                }
            }
            Step::Create { name, app, held } => {
                let finalizers = if held { json!(["example.com/hold"]) } else { json!([]) };
                let labels = json!({"app": app.to_string()});
                let body = json!({"metadata": {"name": name_of(name), "labels": labels, "finalizers": finalizers}, "data": {"v": "0"}});
                let (status, answer) = self.call("POST", MAPS, &body).await;
                if self.objects.contains_key(&name) {
                    prop_assert_eq!(status, 409);
                } else {
                    prop_assert_eq!(status, 201, "{}", answer);
                    let kept = Kept { app, value: 0, held, dying: false, version: 0 };
                    self.wrote(name, Some(kept), version_of(&answer));
                }
            }
            Step::Replace { client, name, app, value } => {
                let Some(mut object) = self.read[client].get(&name).cloned() else { return Ok(()) };
                let stale = self.objects.get(&name).is_none_or(|kept| kept.version != version_of(&object));
                object["metadata"]["labels"]["app"] = json!(app.to_string());
                object["data"]["v"] = json!(value.to_string());
                if stale {
                    let (status, _) = self.call("PUT", &format!("{MAPS}/{}", name_of(name)), &object).await;
                    prop_assert_eq!(status, if self.objects.contains_key(&name) { 409 } else { 404 });
                } else {
                    self.change(name, "PUT", object, |kept| (kept.app, kept.value) = (app, value)).await?;
                }
            }
            Step::Patch { name, value } => {
                self.change(name, "PATCH", json!({"data": {"v": value.to_string()}}), |kept| kept.value = value)
                    .await?;
            }
            Step::Relabel { name, app } => {
                let body = json!({"metadata": {"labels": {"app": app.to_string()}}});
                self.change(name, "PATCH", body, |kept| kept.app = app).await?;
            }
            Step::LetGo { name } => {
                self.change(name, "PATCH", json!({"metadata": {"finalizers": null}}), |kept| kept.held = false).await?;
            }
            Step::Delete { name } => self.change(name, "DELETE", json!({}), |kept| kept.dying = true).await?,
            Step::List { app } => self.compare_list(app).await?,
            Step::Watch { app } => {
                let since = self.newest().await;
                let (status, body) = self.answer("GET", &watch_path(app, since), "", &Value::Null).await;
                prop_assert_eq!(status, 200);
                self.watches.push(Watch { app, since, body, buffer: Vec::new() });
            }
            Step::Restart => {
                self.compare_watches().await?;
                let newest = self.newest().await;
                drop(self.server.take());
                self.server = Some(ApiServer::open(path, Arc::new(SystemClock)).await.unwrap());
                prop_assert_eq!(self.newest().await, newest, "versions go on");
                // what was before the start cannot be watched any more
                if newest > self.started {
                    let (_, body) = self.answer("GET", &watch_path(None, newest - 1), "", &Value::Null).await;
                    let mut watch = Watch { app: None, since: newest - 1, body, buffer: Vec::new() };
                    let event = watch.next().await.unwrap();
                    prop_assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
                }
                self.started = newest;
                self.history.clear();
            }
        }
        Ok(())
    }

    async fn compare_list(&self, app: u8) -> Result<(), TestCaseError> {
        let (_, list) = self.call("GET", &format!("{MAPS}?labelSelector=app%3D{app}"), &Value::Null).await;
        let found: Vec<(String, u64)> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), version_of(item)))
            .collect();
        let wanted = self.objects.iter().filter(|(_, kept)| kept.app == app);
        let expected: Vec<(String, u64)> = wanted.map(|(name, kept)| (name_of(*name), kept.version)).collect();
        prop_assert_eq!(found, expected);
        Ok(())
    }

    /// Every watch has told what the model says, in order and nothing else.
    async fn compare_watches(&mut self) -> Result<(), TestCaseError> {
        for mut watch in std::mem::take(&mut self.watches) {
            let selects =
                |kept: &Option<Kept>| kept.as_ref().is_some_and(|kept| watch.app.is_none_or(|app| kept.app == app));
            let mut expected = Vec::new();
            for write in self.history.iter().filter(|write| write.version > watch.since) {
                let kind = match (selects(&write.before), selects(&write.after)) {
                    (false, true) => "ADDED",
                    (true, true) => "MODIFIED",
                    (true, false) => "DELETED",
                    (false, false) => continue,
                };
                expected.push((kind.to_owned(), name_of(write.name), write.version));
            }
            let mut told = Vec::new();
            for _ in 0..expected.len() {
                let event = watch.next().await.unwrap();
                let object = &event["object"];
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                told.push((event["type"].as_str().unwrap().to_owned(), name, version_of(object)));
            }
            prop_assert_eq!(told, expected);
            let more = futures_util::FutureExt::now_or_never(watch.next());
            prop_assert!(more.is_none(), "nothing else is told: {:?}", more);
        }
        Ok(())
    }
}

fn watch_path(app: Option<u8>, since: u64) -> String {
    let selector = app.map(|app| format!("&labelSelector=app%3D{app}")).unwrap_or_default();
    format!("{MAPS}?watch=true&resourceVersion={since}{selector}")
}

impl Watch {
    /// The next event; waits for it, but not for ever.
    async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(Duration::from_secs(30), self.line()).await.expect("an event in time")
    }
    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
    }
}

async fn play(path: &Path, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut play = Play {
        server: Some(ApiServer::open(path, Arc::new(SystemClock)).await.unwrap()),
        objects: BTreeMap::new(),
        history: Vec::new(),
        read: Default::default(),
        watches: Vec::new(),
        started: 0,
    };
    play.started = play.newest().await;
    for step in steps {
        play.step(step, path).await?;
    }
    for app in 0..2 {
        play.compare_list(app).await?;
    }
    play.compare_watches().await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_clients_see_follows_from_what_was_written(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(&folder.path().join("api.db"), steps))?;
    }
}
