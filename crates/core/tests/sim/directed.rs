//! Scenarios with a point to make: lines in a certain state for minutes, days or weeks, with the
//! figures that are promised.

use std::time::Duration;

use anywan_core::api::State;
use anywan_core::config::Kind;
use anywan_core::names::{Family, IfIndex, PerFamily, WanId};

use crate::laws::HOUR;
use crate::line::{Ail, Fault, Line, Way};
use crate::setup::Setup;
use crate::world::World;

/// A day.
const DAY: Duration = Duration::from_secs(86_400);
/// Everything has been up for long.
const SETTLED: Duration = Duration::from_secs(120);
/// How many runs a median is of.
const RUNS: u64 = 41;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A line of 20 ms with IPv4 and IPv6, or IPv4 alone.
fn line(number: u8, ipv6: bool) -> Line {
    Line {
        fixed: false,
        number,
        index: IfIndex(10 + u32::from(number)),
        families: PerFamily { ipv4: true, ipv6 },
        gateway: 1,
        rtt: Duration::from_millis(20),
        jitter: Duration::from_millis(2),
        loss: 0.0,
    }
}

fn lines(count: u8) -> Vec<Line> {
    (1..=count).map(|n| line(n, false)).collect()
}

fn world(seed: u64, priorities: &[u64]) -> World {
    let count = u8::try_from(priorities.len()).expect("a few");
    World::new(seed, &Setup::of(priorities), lines(count), None)
}

fn fault(line: u8, ail: Ail) -> Fault {
    Fault { line, family: None, ail }
}

fn serves(world: &World, number: u8) -> bool {
    world.slots(Family::Ipv4).contains_key(&WanId(number))
}

/// Runs in small steps until something is so; how long it took from `from` on, if at all.
fn until(
    world: &mut World,
    from: Duration,
    most: Duration,
    so: impl Fn(&World) -> bool,
) -> Option<Duration> {
    let step = Duration::from_millis(10);
    let mut at = from;
    while at <= from + most {
        world.run(at);
        if so(world) {
            return Some(at - from);
        }
        at += step;
    }
    None
}

/// The times of so many runs, each with another seed and phase, the shortest first.
fn times(runs: u64, mut run: impl FnMut(u64, Duration) -> Option<Duration>) -> Vec<Duration> {
    let from = |n| SETTLED + Duration::from_millis(n * 1000 / runs);
    let mut times: Vec<Duration> =
        (0..runs).map(|n| run(n, from(n)).unwrap_or(Duration::MAX)).collect();
    times.sort();
    times
}

/// Median and worst of many runs.
fn many(run: impl FnMut(u64, Duration) -> Option<Duration>) -> (Duration, Duration) {
    let times = times(RUNS, run);
    (times[times.len() / 2], times[times.len() - 1])
}

fn no_law_is_broken(world: &World) {
    let broken: Vec<String> =
        world.watch.broken.iter().map(|b| format!("{:?}: {}", b.law, b.what)).collect();
    assert!(broken.is_empty(), "{broken:?}\n{}", Vec::from(world.trail.clone()).join("\n"));
}

/// How long until a fault has taken the first WAN out of service.
fn left_after(seed: u64, from: Duration, most: u64, ails: &[Ail]) -> Option<Duration> {
    leaves(&mut world(seed, &[1, 2]), from, most, ails)
}

fn leaves(world: &mut World, from: Duration, most: u64, ails: &[Ail]) -> Option<Duration> {
    for ail in ails {
        world.ail(from, HOUR, fault(1, ail.clone()));
    }
    world.run(from);
    until(world, from, seconds(most), |w| !serves(w, 1) && serves(w, 2))
}

/// Two lines of 2 % loss with a deaf target each, for a time.
fn deaf_and_lossy(span: Duration) -> World {
    let mut lossy = lines(2);
    lossy.iter_mut().for_each(|l| l.loss = 0.02);
    let mut world = World::new(7, &Setup::of(&[1, 2]), lossy, None);
    for number in [1, 2] {
        world.ail(seconds(60), span * 2, fault(number, Ail::Deaf(usize::from(number))));
    }
    world.run(span);
    world
}

#[test]
fn a_week_of_two_percent_loss_and_a_deaf_target_on_each_line_has_no_false_down() {
    let check = |world: &World| {
        no_law_is_broken(world);
        assert_eq!(world.watch.switches, 1, "only the first choice");
        let well = |s: &State| matches!(s, State::Up | State::Suspect);
        assert!(world.watch.states.values().all(well));
    };
    check(&deaf_and_lossy(DAY * 7));
}

#[test]
fn five_percent_of_steady_loss_is_not_left_in_six_hours() {
    let mut world = world(5, &[1, 2]);
    world.ail(seconds(60), DAY, fault(1, Ail::Loss(0.05)));
    world.run(HOUR * 6);
    no_law_is_broken(&world);
    assert_eq!(world.watch.switches, 1, "only the first choice");
}

#[test]
fn a_saturated_mobile_line_is_not_left_in_an_hour() {
    let mut switches = 0;
    for seed in 0..5 {
        let mut world = world(seed, &[1, 2]);
        world.users = 50.0;
        world.ail(seconds(60), HOUR * 2, fault(1, Ail::Saturated));
        world.ail(seconds(60), HOUR * 2, fault(1, Ail::EchoLimit(0.3)));
        world.run(HOUR);
        switches += world.watch.switches - 1;
    }
    assert_eq!(switches, 0, "in five hours");
}

#[test]
fn silence_on_an_idle_line_is_noticed_within_a_second_or_so() {
    for way in [Way::Both, Way::Out, Way::Back] {
        let (median, worst) = many(|n, from| left_after(n, from, 30, &[Ail::Silent(way)]));
        let figures = format!("{way:?}: median {median:?}, worst {worst:?}");
        let kept = median <= Duration::from_millis(1000) && worst <= Duration::from_millis(1500);
        assert!(kept, "{figures}");
    }
}

/// It is chance that decides when the first loss shows, so a few take longer.
#[test]
fn a_third_of_loss_is_left_within_five_seconds_and_within_fifteen_where_nobody_notices() {
    for (users, usual, nearly_all) in [(50.0, 3, 5), (0.0, 4, 15)] {
        let times = times(400, |n, from| {
            let mut world = world(n, &[1, 2]);
            world.users = users;
            leaves(&mut world, from, 60, &[Ail::Loss(0.3)])
        });
        let (median, of_a_hundred) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        let kept = median <= seconds(usual) && of_a_hundred <= seconds(nearly_all);
        assert!(kept, "{users}: median {median:?}, 99 of 100 within {of_a_hundred:?}");
        assert!(*times.last().expect("some") < Duration::MAX, "{users}: not all within a minute");
    }
}

/// Two lines, of which the first carries no traffic of one kind from some moment on.
fn without(kind: Kind, seed: u64, from: Duration) -> World {
    let mut setup = Setup::of(&[1, 2]);
    let targets = ["1.1.1.1", "tcp://8.8.8.8:443", "9.9.9.9", "tcp://9.9.9.9:443"];
    setup.targets = Some(targets.map(str::to_owned).to_vec());
    let mut world = World::new(seed, &setup, lines(2), None);
    world.ail(from, HOUR, fault(1, Ail::Dead(kind)));
    world.run(from);
    world
}

#[test]
fn a_line_without_tcp_is_left_within_two_seconds() {
    let (median, worst) = many(|n, from| {
        let mut world = without(Kind::Tcp, n, from);
        until(&mut world, from, seconds(30), |w| !serves(w, 1) && serves(w, 2))
    });
    assert!(worst <= seconds(2), "median {median:?}, worst {worst:?}");
}

/// Nobody's connections have an outage: there is nothing to leave it for.
#[test]
fn a_line_without_echoes_goes_on_serving() {
    for n in 0..RUNS {
        let from = SETTLED + Duration::from_millis(n * 1000 / RUNS);
        let mut world = without(Kind::Icmp, n, from);
        let left = until(&mut world, from, seconds(120), |w| !serves(w, 1));
        assert_eq!(left, None, "seed {n}");
        no_law_is_broken(&world);
    }
}

#[test]
fn carrier_loss_is_left_as_soon_as_it_is_told() {
    let (_, worst) = many(|n, from| left_after(n, from, 10, &[Ail::NoCarrier]));
    assert!(worst <= Duration::from_millis(20), "{worst:?}");
}

#[test]
fn a_standby_that_died_unnoticed_is_found_out_when_it_is_needed() {
    for ail in [Ail::NoCarrier, Ail::Silent(Way::Both)] {
        let run = |n, from: Duration| {
            let mut setup = Setup::of(&[1, 2, 3]);
            setup.wans[1].metered = true;
            setup.wans[2].metered = true;
            let mut world = World::new(n, &setup, lines(3), None);
            world.ail(from, HOUR, fault(2, Ail::Silent(Way::Both)));
            let then = from + Duration::from_millis(1);
            world.ail(then, HOUR, fault(1, ail.clone()));
            world.run(then);
            until(&mut world, then, seconds(30), |w| serves(w, 3) && !serves(w, 2))
        };
        let (median, worst) = many(run);
        let figures = format!("{ail:?}: median {median:?}, worst {worst:?}");
        assert!(worst <= Duration::from_millis(1500), "{figures}");
    }
}

#[test]
fn a_carrier_that_flaps_for_a_minute_makes_two_switches() {
    let mut world = world(1, &[1, 2]);
    for n in 0..30 {
        world.ail(SETTLED + seconds(2 * n), seconds(1), fault(1, Ail::NoCarrier));
    }
    world.run(SETTLED + seconds(300));
    no_law_is_broken(&world);
    assert!(world.watch.switches <= 1 + 2, "{} switches", world.watch.switches - 1);
    assert!(serves(&world, 1));
}

#[test]
fn a_silence_that_comes_and_goes_every_two_seconds_makes_four_switches_at_most() {
    for phase in 0..10 {
        let mut world = world(phase, &[1, 2]);
        for n in 0..30 {
            let from = SETTLED + seconds(4 * n) + Duration::from_millis(phase * 100);
            world.ail(from, seconds(2), fault(1, Ail::Silent(Way::Both)));
        }
        world.run(SETTLED + seconds(600));
        no_law_is_broken(&world);
        assert!(world.watch.switches <= 1 + 4, "{} switches", world.watch.switches - 1);
    }
}

#[test]
fn after_one_clean_outage_a_line_serves_again_within_ten_seconds_of_its_return() {
    let outage = seconds(30);
    let (median, worst) = many(|n, from| {
        let mut world = world(n, &[1, 2]);
        world.ail(from, outage, fault(1, Ail::Silent(Way::Both)));
        world.run(from + outage);
        assert!(!serves(&world, 1));
        until(&mut world, from + outage, seconds(30), |w| serves(w, 1))
    });
    assert!(worst <= seconds(10), "median {median:?}, worst {worst:?}");
}

/// What the other family spends of the budget keeps nobody from coming back.
#[test]
fn a_metered_line_that_serves_one_family_comes_back_over_the_other() {
    let (long, most) = (seconds(1800), seconds(300 + 30));
    for n in 0..5 {
        let mut setup = Setup::of(&[1, 2]);
        setup.wans[0].metered = true;
        let mut world = World::new(n, &setup, vec![line(1, true), line(2, false)], None);
        let silent = Fault { family: Some(Family::Ipv4), ..fault(1, Ail::Silent(Way::Both)) };
        world.ail(SETTLED, long, silent);
        world.run(SETTLED + long);
        assert!(!serves(&world, 1) && serves(&world, 2), "seed {n}");
        let back = until(&mut world, SETTLED + long, most, |w| serves(w, 1));
        assert!(back.is_some(), "seed {n}: not within {most:?}");
    }
}

/// Bytes of a probe and its answer on the wire, with Ethernet headers.
fn bytes(family: Family, kind: Kind) -> u64 {
    let header = match family {
        Family::Ipv4 => 14 + 20,
        Family::Ipv6 => 14 + 40,
    };
    match kind {
        // Header of 8, cookie and number of 16, there and back.
        Kind::Icmp => 2 * (header + 8 + 16),
        // SYN and SYN-ACK with options, ACK, reset.
        Kind::Tcp => 4 * header + 40 + 40 + 32 + 20,
        // Header of 8, a question of 40, an answer of 100.
        Kind::Dns => 2 * (header + 8) + 140,
        // Not among the defaults.
        Kind::Http => 2_000,
    }
}

/// Bytes in a month of probing a metered standby with both families.
///
/// The one that serves is asked seldom, which the standby does not notice; the first days are left
/// out, in which a budget's savings are spent.
fn monthly(ails: &[Ail], loss: f64) -> u64 {
    let mut setup = Setup::of(&[1, 2]);
    setup.interval_ms = 30_000;
    setup.wans[1].metered = true;
    let mut both = vec![line(1, true), line(2, true)];
    both[1].loss = loss;
    let mut world = World::new(3, &setup, both, None);
    for ail in ails {
        world.ail(seconds(60), DAY * 9, fault(2, ail.clone()));
    }
    let count = |world: &World| -> u64 {
        let own = world.watch.sent.iter().filter(|((id, ..), _)| *id == WanId(2));
        own.map(|((_, family, kind), count)| count * bytes(*family, *kind)).sum()
    };
    world.run(DAY * 4);
    let before = count(&world);
    world.run(DAY * 5);
    (count(&world) - before) * 30
}

#[test]
fn a_metered_standby_costs_at_most_thirty_megabytes_a_month() {
    const MOST: u64 = 30_000_000;
    for (ails, loss) in [(vec![], 0.0), (vec![Ail::Deaf(1)], 0.02)] {
        let month = monthly(&ails, loss);
        assert!(month <= MOST, "{month} bytes a month with {ails:?} and {loss} of loss");
    }
    let month = monthly(&[Ail::Silent(Way::Both)], 0.0);
    assert!(month <= MOST, "{month} bytes a month for a dead one");
}
