//! F18: the program is killed at each call of a portal's life, before the call and after it had its effect but was not
//! answered. Whatever the point, the next program brings about what the portal's spec says, and makes nothing twice.
//!
//! Calls are counted at the three doors of the program: writes to the Kubernetes API, all calls to the outside systems, and the
//! probe's first step. A call that only reads is the same before and after. Reads of the API are left out: they leave nothing
//! anywhere, so that a program that dies in one dies before its next call. `KILLED_ONLY` names the one stretch that is looked at.
mod bench;
mod gate;
mod model;

use std::sync::Mutex;
use std::time::Instant;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use portalkeeper::api::ResetPortal;
use serde_json::{Value, json};

use self::bench::{Bench, Kept, Life, Proxy};
use self::gate::Point;
use self::model::{HOST, NAME, OTHER, Outside, Portal, compare, others, outside, wanted};

/// Programs that are killed beside each other.
const LANES: usize = 4;

/// What somebody does to the portal or its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Declare,
    EditHost(&'static str),
    Switch(bool),
    Move(Proxy),
    Delete,
}

impl Deed {
    fn act(self, life: &Life<'_>) {
        let patch = |spec: Value| {
            let patch = Patch::Merge(json!({"spec": spec}));
            life.user(life.portals().patch(NAME, &PatchParams::default(), &patch)).unwrap();
        };
        match self {
            Self::Declare => {
                let portal = crate::world::portal(NAME, json!({"domain": "acme.localhost"}));
                let portal: ResetPortal = serde_json::from_value(portal).unwrap();
                life.user(life.portals().create(&PostParams::default(), &portal)).unwrap();
            }
            Self::EditHost(host) => patch(json!({"subdomain": host.split('.').next()})),
            Self::Switch(on) => patch(json!({"enabled": on})),
            Self::Move(proxy) => {
                let patch = Patch::Merge(json!({"spec": life.bench.settings(proxy)}));
                life.user(life.classes().patch("killed", &PatchParams::default(), &patch)).unwrap();
            }
            Self::Delete => {
                life.user(life.portals().delete(NAME, &DeleteParams::default())).unwrap();
            }
        }
    }
}

/// One stretch of a portal's life.
struct Stretch {
    /// Where it begins: the stretch that must have been lived before.
    after: Option<&'static str>,
    name: &'static str,
    deed: Deed,
    /// Where that leads to.
    alone: Portal,
    /// What is done between the kill and the next start, and where all leads to then.
    meanwhile: Vec<Deed>,
    then: Portal,
}

fn stretches(proxy: Proxy) -> Vec<Stretch> {
    let other = if proxy == Proxy::Caddy { Proxy::Tunnel } else { Proxy::Caddy };
    let (ready, there) = (Some("declared"), Portal::Ready(HOST, proxy));
    let stretch = |after, name, deed, alone| Stretch { after, name, deed, alone, meanwhile: Vec::new(), then: alone };
    let and = |name, stretch: Stretch, meanwhile, then| Stretch { name, meanwhile, then, ..stretch };
    let declared = || stretch(None, "declared", Deed::Declare, there);
    let edited = || stretch(ready, "edited", Deed::EditHost(OTHER), Portal::Ready(OTHER, proxy));
    let deleted = || stretch(ready, "deleted", Deed::Delete, Portal::Gone);
    vec![
        declared(),
        edited(),
        stretch(ready, "switched off", Deed::Switch(false), Portal::Off(HOST)),
        stretch(Some("switched off"), "switched on", Deed::Switch(true), there),
        stretch(ready, "moved", Deed::Move(other), Portal::Ready(HOST, other)),
        deleted(),
        // and somebody goes on while the program is away
        and("declared, edited", declared(), vec![Deed::EditHost(OTHER)], Portal::Ready(OTHER, proxy)),
        and("declared, switched off", declared(), vec![Deed::Switch(false)], Portal::Off(HOST)),
        and("declared, edited, deleted", declared(), vec![Deed::EditHost(OTHER), Deed::Delete], Portal::Gone),
        and("deleted, edited", deleted(), vec![Deed::EditHost(OTHER)], Portal::Gone),
        and("edited, edited back", edited(), vec![Deed::EditHost(HOST)], there),
        and("edited, deleted", edited(), vec![Deed::Delete], Portal::Gone),
    ]
}

/// How often the outside systems were called to make or change something, by an answer that says that it was done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Writes {
    records_made: usize,
    /// A record that may be there already is made without a look, which its refusal then brings about.
    records_refused: usize,
    routes: usize,
}

fn writes(bench: &Bench) -> Writes {
    let mut writes = Writes::default();
    for call in bench.log.writes() {
        // One portal needs no batch but for deletions.
        match (call.method.as_str(), call.path.ends_with("/dns_records"), call.status) {
            ("POST", true, 200) => writes.records_made += 1,
            ("POST", true, _) => writes.records_refused += 1,
            _ if call.path.contains("/dns_records") => {}
            _ => writes.routes += 1,
        }
    }
    writes
}

/// Lives a stretch with a program that is killed at a point. Tells whether that call changes something, or `None` if it was
/// not killed. Errors: how the end differs from what it must be.
fn killed_at(life: &mut Life<'_>, stretch: &Stretch, point: Point, foreign: &Outside) -> Result<Option<bool>, String> {
    let bench = life.bench;
    life.start();
    bench.gate.arm(Some(point));
    stretch.deed.act(life);
    if !life.until_killed_or(|| compare(life, stretch.alone, foreign))? {
        return Ok(None);
    }
    life.kill();
    let calls = bench.gate.seen();
    let fatal = calls.get(point.call - 1).cloned().unwrap();
    for deed in &stretch.meanwhile {
        // Of a portal that is gone by now nothing can be edited.
        if life.user(life.portals().get_opt(NAME)).unwrap().is_some() {
            deed.act(life);
        }
    }
    let (before, goal) = (outside(bench), wanted(stretch.then, foreign));
    life.start();
    bench.gate.arm(None);
    let told = |words: String| {
        let (calls, seen) = (bench.log.calls(), bench.gate.seen());
        let seen: Vec<&String> = seen.iter().map(|seen| &seen.words).collect();
        format!("{:?} killed at {point:?}, {fatal:?}: {words}\ncalls: {calls:#?}\nall: {seen:#?}", stretch.name)
    };
    life.until_killed_or(|| compare(life, stretch.then, foreign)).map_err(told)?;
    let missing = |is: &[String], wanted: &[String]| wanted.iter().filter(|one| !is.contains(one)).count();
    let name = |one: &String| one.split(' ').next().map(str::to_owned);
    let named = |all: &[String]| all.iter().filter_map(name).collect::<Vec<_>>();
    let made = writes(bench);
    // A record that leads elsewhere is changed, not made.
    let lacking = missing(&named(&before.records), &named(&goal.records));
    if made.records_made > lacking || made.records_refused > 1 {
        return Err(told(format!("{made:?} for {lacking} missing records")));
    }
    let (lacking, surplus) = (missing(&before.routes, &goal.routes), missing(&goal.routes, &before.routes));
    if made.routes > lacking + surplus {
        return Err(told(format!("{made:?} for {lacking} missing routes and {surplus} that must go")));
    }
    Ok(Some(fatal.writes))
}

/// What came of all points together.
#[derive(Default)]
struct Findings {
    kills: usize,
    wrong: Vec<String>,
}

/// One lane's share of all points of all stretches.
fn lane(outer: tokio::runtime::Handle, proxy: Proxy, number: usize, findings: &Mutex<Findings>) {
    let bench = Bench::new(outer);
    others(&bench);
    let foreign = outside(&bench);
    let mut kept: Vec<(&'static str, Kept)> = vec![("", bench.begin(proxy).keep())];
    let only = std::env::var("KILLED_ONLY").ok();
    for stretch in stretches(proxy) {
        let needed = stretches(proxy).iter().any(|other| other.after == Some(stretch.name));
        let left_out = only.as_ref().is_some_and(|only| only != stretch.name);
        if left_out && !needed {
            continue;
        }
        let from = stretch.after.unwrap_or_default();
        let from = kept.iter().position(|(name, _)| *name == from).unwrap();
        let began = Instant::now();
        let try_at = |point: Point| {
            let mut life = bench.again(&kept[from].1);
            let outcome = killed_at(&mut life, &stretch, point, &foreign);
            let mut findings = findings.lock().unwrap();
            findings.kills += usize::from(!matches!(outcome, Ok(None)));
            match outcome {
                Ok(Some(writes)) => (life, Some(writes)),
                Ok(None) => (life, None),
                Err(words) => {
                    findings.wrong.push(words);
                    (life, Some(false))
                }
            }
        };
        let mut call = if left_out { usize::MAX } else { number + 1 };
        let last = loop {
            // Before a call is after the one before it. Where that tells nothing new, it is left out.
            let (life, writes) = try_at(Point { call, done: !stretch.meanwhile.is_empty() });
            let Some(writes) = writes else { break life };
            drop(life);
            if writes && stretch.meanwhile.is_empty() {
                // The order of calls is not always the same, so there may be less of them now.
                drop(try_at(Point { call, done: true }));
            }
            call += LANES;
        };
        // Nobody was killed in it: so it goes on from here.
        if needed {
            let mut last = last;
            kept.push((stretch.name, last.keep()));
        }
        println!("{proxy:?} lane {number}: {:?} up to call {call} in {:?}", stretch.name, began.elapsed());
    }
}

fn enumerate(proxy: Proxy) {
    let outer = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let findings = Mutex::<Findings>::default();
    std::thread::scope(|scope| {
        for number in 0..LANES {
            let (handle, findings) = (outer.handle().clone(), &findings);
            scope.spawn(move || lane(handle, proxy, number, findings));
        }
    });
    let Findings { kills, wrong } = findings.into_inner().unwrap();
    println!("{kills} kills");
    assert!(wrong.is_empty(), "{} of {kills} kills end wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(kills > 100 || std::env::var("KILLED_ONLY").is_ok(), "too few points for an enumeration: {kills}");
}

#[test]
fn a_kill_at_any_call_of_a_portals_life_behind_caddy_changes_nothing_in_the_end() {
    enumerate(Proxy::Caddy);
}

#[test]
fn a_kill_at_any_call_of_a_portals_life_behind_a_tunnel_changes_nothing_in_the_end() {
    enumerate(Proxy::Tunnel);
}
