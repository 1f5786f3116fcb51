//! F24: a day of virtual time with many portals, faults in one outside call of a hundred, people who keep changing things, and
//! a new program every few hours, of which every other ends as if it were killed.
//!
//! The end must be what the portals' specs say, and the calls must keep to their budget. `SOAK_PORTALS`, `SOAK_HOURS` and
//! `SOAK_SEED` make it larger, longer, or another one. The time goes into looks, a hundredth of a second each without
//! optimisation, so that three hundred portals are for a release build. The seed makes the same faults and deeds; which call
//! meets which fault also depends on the program's own chance, as that of its pauses.
mod estate;
mod people;
mod time;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, ListParams};
use portalkeeper::api::clock::Clock;
use portalkeeper::api::{PortalClaim, ResetPortal};
use portalkeeper::controller::Timing;

use self::estate::{Estate, Running, TOKEN};
use self::people::{People, name};
use crate::world::condition_of;

const PORTALS: usize = 40;
const HOURS: usize = 24;
/// Between programs, in hours; the last hours are left in peace.
const LIFE: usize = 3;
/// Between deeds, in seconds.
const DEED: u64 = 240;
/// How long everything has to settle in after faults and deeds have stopped, and how long it is watched then, in hours.
const SETTLE: usize = 3;
const PEACE: usize = 2;

/// The product's own, but with fewer looks at what is in order: they are most of the work and tell nothing new.
fn timing() -> Timing {
    Timing {
        resync: Duration::from_hours(1),
        probe_every: Duration::from_hours(1),
        class_report: Duration::from_mins(15),
        ..Timing::default()
    }
}

fn number(variable: &str, standard: usize) -> usize {
    std::env::var(variable).map_or(standard, |text| text.parse().expect("a number"))
}

fn hours(count: usize) -> Duration {
    Duration::from_hours(u64::try_from(count).unwrap())
}

/// Most calls within five minutes.
fn most_at_once(calls: &[Timestamp]) -> usize {
    let window = SignedDuration::from_mins(5);
    let mut first = 0;
    let mut most = 0;
    for (last, at) in calls.iter().enumerate() {
        while at.duration_since(calls[first]) >= window {
            first += 1;
        }
        most = most.max(last - first + 1);
    }
    most
}

/// Errors: how a portal, the claims or the outside differ from what the specs ask for.
async fn compare(people: &People, estate: &Estate, client: &kube::Client) -> Result<(), String> {
    let api: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
    let portals = api.list(&ListParams::default()).await.unwrap().items;
    let (mut there, mut expected) = (0, 0);
    for (index, wanted) in people.portals.iter().enumerate() {
        let found = portals.iter().find(|portal| portal.metadata.name.as_deref() == Some(&name(index)));
        expected += usize::from(wanted.declared);
        let Some(portal) = found else {
            if wanted.declared {
                return Err(format!("{} is gone", name(index)));
            }
            continue;
        };
        if !wanted.declared {
            return Err(format!("{} is still there: {:?}", name(index), portal.status));
        }
        there += 1;
        let ready = condition_of(portal, "Ready").filter(|c| c.observed_generation == portal.metadata.generation);
        let reason = if wanted.off { "Disabled" } else { "Live" };
        let status = portal.status.clone().unwrap_or_default();
        if ready.is_none_or(|ready| ready.reason != reason) {
            return Err(format!("{} is not {reason}: {status:#?}", name(index)));
        }
        if status.queue.is_some() || status.moving.is_some() || !status.leaving.is_empty() {
            return Err(format!("{} waits for something: {status:#?}", name(index)));
        }
        // Nobody is forgotten: each was asked of late.
        let proof: Option<Timestamp> = status.last_proof.and_then(|text| text.parse().ok());
        let oldest = estate.clock.now() - SignedDuration::from_mins(130);
        if !wanted.off && proof.is_none_or(|proof| proof < oldest) {
            return Err(format!("{} was proved last at {proof:?}", name(index)));
        }
    }
    assert_eq!(there, expected);
    let claims: Api<PortalClaim> = Api::all(client.clone());
    let claims = claims.list(&ListParams::default()).await.unwrap().items;
    if claims.len() != expected * 2 {
        return Err(format!("{} claims of {expected} portals", claims.len()));
    }
    let (wanted, made) = (people.wanted(), People::made(estate));
    for (wanted, made) in [(wanted.0, made.0), (wanted.1, made.1)] {
        if wanted != made {
            let missing: Vec<&String> = wanted.iter().filter(|one| !made.contains(one)).collect();
            let surplus: Vec<&String> = made.iter().filter(|one| !wanted.contains(one)).collect();
            return Err(format!("{} of {}: missing {missing:?}, too much {surplus:?}", made.len(), wanted.len()));
        }
    }
    Ok(())
}

/// Waits, in virtual time, until the program has looked at every portal.
async fn until_ready(running: &Running, seed: usize) {
    for _ in 0..3600 {
        if running.is_ready() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("seed {seed}: a program did not become ready within an hour");
}

/// One program's life among people.
async fn live(people: &mut People, estate: &Estate, seed: usize, hours_left: usize, in_order: bool) {
    estate.clock.go_on();
    let running = estate.start().await;
    let end = tokio::time::Instant::now() + hours(hours_left);
    while tokio::time::Instant::now() < end {
        people.act(&running.client, estate).await;
        // Some things come right after each other, and some programs end in the middle of them.
        tokio::time::sleep(Duration::from_secs(DEED)).await;
        people.others_untouched(estate).unwrap_or_else(|words| panic!("seed {seed}: {words}"));
    }
    if in_order {
        running.stop().await;
    } else {
        people.act(&running.client, estate).await;
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    estate.clock.stand();
}

#[test]
fn a_day_of_faults_and_changes_ends_as_the_specs_say_and_keeps_to_the_budget() {
    let seed = number("SOAK_SEED", std::process::id() as usize);
    let (portals, length) = (number("SOAK_PORTALS", PORTALS), number("SOAK_HOURS", HOURS));
    println!("seed {seed}");
    let began = std::time::Instant::now();
    let estate = Estate::new(seed as u64, timing());
    let mut people = People::new(seed as u64, portals, portals.div_ceil(5), &estate);
    // given many portals, declared at once
    time::runtime().block_on(async {
        estate.clock.go_on();
        let running = estate.start().await;
        people.declare_first(&running.client, portals * 4 / 5).await;
        until_ready(&running, seed).await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        estate.clock.stand();
    });
    println!("declared after {:?}", began.elapsed());
    // when things go wrong all day, and programs come and go
    let busy = length.saturating_sub(SETTLE + PEACE);
    let lives = busy.div_ceil(LIFE);
    for life in 0..lives {
        // What is left of a program ends with its runtime.
        let left = LIFE.min(busy - life * LIFE);
        time::runtime().block_on(live(&mut people, &estate, seed, left, life % 2 == 1));
        println!("life {life} of {lives} after {:?}, {} calls", began.elapsed(), estate.log.calls().len());
    }
    // and then everything is well again
    estate.heal();
    time::runtime().block_on(async {
        estate.clock.go_on();
        let running = estate.start().await;
        people.settle(&running.client).await;
        until_ready(&running, seed).await;
        tokio::time::sleep(hours(SETTLE)).await;
        // then everything is as the specs say
        let compared = compare(&people, &estate, &running.client).await;
        compared.unwrap_or_else(|words| panic!("seed {seed}: {words}\n{:?}", people.deeds));
        println!("settled after {:?}", began.elapsed());
        // and stays so, with no call but those for finding what others change
        estate.log.clear();
        tokio::time::sleep(hours(PEACE)).await;
        compare(&people, &estate, &running.client).await.unwrap_or_else(|words| panic!("seed {seed}: {words}"));
        people.others_untouched(&estate).unwrap_or_else(|words| panic!("seed {seed}: {words}"));
        assert!(estate.log.writes().is_empty(), "seed {seed}: {:?}", estate.log.writes());
        running.stop().await;
    });
    let calls = estate.log.calls();
    let to = |part: &str| calls.iter().filter(|call| call.path.contains(part)).count();
    println!(
        "in peace: {} calls: records {}, tunnel {}, audit {}, caddy {}",
        calls.len(),
        to("dns_records"),
        to("cfd_tunnel"),
        to("audit_logs"),
        to("/config/")
    );
    let all = estate.calls();
    println!(
        "{} calls to Cloudflare, {} at most within five minutes; {} faults; {:?}",
        all.len(),
        most_at_once(&all),
        estate.faults(),
        people.deeds
    );
    assert!(most_at_once(&all) <= 1200, "seed {seed}");
    assert_eq!(estate.cloudflare.calls_while_blocked(TOKEN), 0, "seed {seed}");
    println!("done after {:?}", began.elapsed());
}
