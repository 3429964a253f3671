//! The simulation: the engine as it is, in a world with a fake kernel (`steps::expect`, and what
//! Linux does by itself) and a fake internet, on a clock that jumps to whatever comes next.
//! Everything follows from a seed, so years of faults take seconds and any hour can be had again.
//!
//! - `chaos` draws up an hour of mishaps; `laws` says what must hold all the while, `converge` what
//!   must be true in the quiet after; `directed` has scenarios with a point to make.
//! - `world` is the daemon's loop and the clock; `kernel`, `line`, `probing` and `traffic` are what
//!   the engine meets; `setup` is the file, `dice` is chance.
//!
//! `SEEDS=n` runs the hours 1 to n (200 without it); `SEED=n` runs one, and prints all that
//! happened. A broken law prints its seeds and what came before the first of them. Found seeds go
//! into [`FOUND`], and run every time.

mod chaos;
mod converge;
mod dice;
mod directed;
mod kernel;
mod laws;
mod line;
mod probing;
mod setup;
mod traffic;
mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use laws::{Broken, Law};

/// Hours when nothing else is asked for.
const SEEDS: u64 = 200;
/// One hour in so many is run a second time, in which what is equal in time comes in another order.
const ORDER_EVERY: u64 = 10;
/// Seeds that have found something once.
const FOUND: &[u64] = &[201, 1491, 1724, 1936];
/// Seeds that are named for each broken law.
const NAMED: usize = 8;

/// What the hours have shown.
#[derive(Debug, Default)]
struct Outcome {
    broken: BTreeMap<Law, Vec<(u64, Broken)>>,
    leavings: Vec<Duration>,
    switches: u64,
    probes: u64,
}

impl Outcome {
    fn take(&mut self, seed: u64, world: world::World) {
        self.leavings.extend(world.watch.leavings);
        self.switches += world.watch.switches;
        self.probes += world.watch.sent.values().sum::<u64>();
        for broken in world.watch.broken {
            self.broken.entry(broken.law).or_default().push((seed, broken));
        }
    }

    fn merge(&mut self, other: Outcome) {
        self.leavings.extend(other.leavings);
        self.switches += other.switches;
        self.probes += other.probes;
        for (law, found) in other.broken {
            self.broken.entry(law).or_default().extend(found);
        }
    }
}

/// One hour, and now and then the same hour with what is equal in time in another order.
fn one(seed: u64, alone: bool, outcome: &mut Outcome) {
    let twice = alone || seed % ORDER_EVERY == 0;
    let mut world = chaos::hour(seed, None, twice);
    if twice {
        let mut other = chaos::hour(seed, Some(seed), true);
        let (mine, its) = (world.record.take(), other.record.take());
        let (mine, its) = (mine.unwrap_or_default(), its.unwrap_or_default());
        if let Some(place) = (0..mine.len().max(its.len())).find(|n| mine.get(*n) != its.get(*n)) {
            let around = |record: &[String]| {
                let from = place.saturating_sub(3);
                record[from.min(record.len())..record.len().min(place + 3)].join("\n")
            };
            let what = format!("\n{}\nin another order\n{}", around(&mine), around(&its));
            world.broken(Law::NoOrder, what);
        }
    }
    outcome.take(seed, world);
}

#[expect(clippy::disallowed_methods, reason = "the seeds to run are asked for by environment")]
fn asked_for() -> (Vec<u64>, bool) {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    if let Some(seed) = number("SEED") {
        return (vec![seed], true);
    }
    let many = number("SEEDS").unwrap_or(SEEDS);
    (FOUND.iter().copied().chain(1..=many).collect(), false)
}

fn run_all(seeds: &[u64]) -> Outcome {
    let next = AtomicU64::new(0);
    let work = || {
        let mut outcome = Outcome::default();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(seed) = usize::try_from(place).ok().and_then(|n| seeds.get(n)) else {
                return outcome;
            };
            one(*seed, seeds.len() == 1, &mut outcome);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = Outcome::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            all.merge(worker.join().expect("a world panicked: see above"));
        }
    });
    for found in all.broken.values_mut() {
        found.sort_by_key(|(seed, _)| *seed);
    }
    all
}

fn report(outcome: &mut Outcome, hours: usize) -> String {
    let mut text = String::new();
    outcome.leavings.sort();
    let left = &outcome.leavings;
    let at = |part: usize| left.get((left.len() * part / 100).min(left.len().saturating_sub(1)));
    let _ = writeln!(
        text,
        "{hours} hours, {} probes, {} switches; dead lines left {} times: median {:?}, 99 % {:?}, \
         worst {:?}",
        outcome.probes,
        outcome.switches,
        left.len(),
        at(50).copied().unwrap_or_default(),
        at(99).copied().unwrap_or_default(),
        left.last().copied().unwrap_or_default(),
    );
    for (law, found) in &outcome.broken {
        let seeds: Vec<String> =
            found.iter().take(NAMED).map(|(seed, _)| format!("SEED={seed}")).collect();
        let _ = writeln!(text, "{law:?} broken in {} hours: {}", found.len(), seeds.join(" "));
        let Some((seed, first)) = found.first() else { continue };
        let _ = writeln!(text, "   SEED={seed} at {:?}: {}", first.at, first.what);
        for line in &first.trail {
            let _ = writeln!(text, "   | {line}");
        }
    }
    text
}

#[test]
#[expect(clippy::print_stdout, reason = "what the hours have shown is worth reading")]
fn no_hour_breaks_a_law() {
    let (seeds, alone) = asked_for();
    let mut outcome = run_all(&seeds);
    let text = report(&mut outcome, seeds.len());
    if alone {
        let world = chaos::hour(seeds[0], None, false);
        println!("{}", world.story);
        println!("{}", Vec::from(world.trail).join("\n"));
    }
    assert!(outcome.broken.is_empty(), "\n{text}");
    println!("{text}");
}
