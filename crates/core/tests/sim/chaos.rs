//! Draws up an hour from a seed: a configuration, lines, and everything that may go wrong, then
//! quiet. In: a seed. Out: a world that only needs to run.

use std::time::Duration;

use anywan_core::config::Kind;
use anywan_core::names::{Family, IfIndex, PerFamily};
use anywan_core::time::Moment;

use crate::converge::quiet;
use crate::dice::Dice;
use crate::laws::HOUR;
use crate::line::{Ail, Fault, Line, Way};
use crate::setup::{Setup, SetupWan};
use crate::world::{Act, Mood, World};

/// Nothing goes wrong before: the daemon starts on a healthy system.
const CALM: Duration = Duration::from_secs(60);

/// An hour of chaos and quiet; gives the world at its end. `order` shuffles what is equal in time,
/// and a record is kept if `record`.
pub(crate) fn hour(seed: u64, order: Option<u64>, record: bool) -> World {
    let mut dice = Dice::new(seed);
    let lines = lines(&mut dice);
    let setup = setup(&mut dice, &lines);
    let end = HOUR.saturating_sub(quiet(&setup));
    let mut world = World::new(seed, &setup, lines, order);
    world.record = record.then(Vec::new);
    world.users = *dice.pick(&[0.0, 0.0, 0.0, 2.0, 50.0]);
    for number in 1..=u8::try_from(world.lines.len()).expect("five at most") {
        for _ in 0..dice.between(0, 14) {
            mishap(&mut world, &mut dice, number, end);
        }
    }
    moods(&mut world, &mut dice, end);
    for _ in 0..dice.below(4) {
        let at = Moment::from_start(dice.within(CALM, end));
        let act = match dice.below(4) {
            0 => Act::Sleep(dice.span(Duration::from_secs(1), Duration::from_secs(600))),
            1 => Act::Configure(Box::new(changed(&mut dice, &setup))),
            2 => Act::Meddle(dice.next()),
            _ => {
                let steps = dice.below(4) * dice.below(8);
                let away = dice.span(Duration::from_millis(100), Duration::from_secs(120));
                Act::Kill(u32::try_from(steps).expect("small"), away)
            }
        };
        world.plan(at, act);
    }
    world.run(HOUR);
    world.check_convergence();
    world
}

fn lines(dice: &mut Dice) -> Vec<Line> {
    (1..=u8::try_from(dice.between(2, 5)).expect("small"))
        .map(|number| {
            let families = match dice.below(20) {
                0..=9 => PerFamily { ipv4: true, ipv6: true },
                10..=17 => PerFamily { ipv4: true, ipv6: false },
                _ => PerFamily { ipv4: false, ipv6: true },
            };
            let rtt = dice.span(Duration::from_millis(2), Duration::from_millis(300));
            Line {
                number,
                fixed: dice.chance(0.2),
                index: IfIndex(10 + u32::from(number)),
                families,
                gateway: 1,
                rtt,
                jitter: rtt.mul_f64(dice.real(0.0, 0.3)),
                loss: *dice.pick(&[0.0, 0.0, 0.0, 0.001, 0.01, 0.02]),
            }
        })
        .collect()
}

fn setup(dice: &mut Dice, lines: &[Line]) -> Setup {
    let wan = |line: &Line, dice: &mut Dice| SetupWan {
        number: line.number,
        priority: dice.between(1, 3),
        weight: dice.between(1, 9),
        metered: dice.chance(0.25),
        fixed: if line.fixed { addresses(line) } else { String::new() },
    };
    let targets = [
        "1.1.1.1",
        "tcp://9.9.9.9:443",
        "2606:4700:4700::1111",
        "tcp://[2620:fe::9]:443",
        "8.8.8.8",
        "dns://8.8.4.4/dns.google",
        "2001:4860:4860::8888",
        "dns://[2620:fe::fe]/dns.quad9.net",
    ];
    let few = dice.between(2, 8);
    let few = usize::try_from(few).expect("small");
    Setup {
        wans: lines.iter().map(|line| wan(line, dice)).collect(),
        targets: dice.chance(0.5).then(|| targets[..few].iter().map(|t| (*t).to_owned()).collect()),
        interval_ms: *dice.pick(&[1_000, 1_000, 1_000, 500, 2_000, 5_000]),
        hold_ms: *dice.pick(&[None, None, None, Some(3_000), Some(20_000)]),
        timeout_ms: *dice.pick(&[None, None, None, Some(500), Some(2_000)]),
    }
}

/// The addresses of a line, and its gateways, as the file says them.
fn addresses(line: &Line) -> String {
    let served: Vec<Family> =
        Family::BOTH.into_iter().filter(|family| *line.families.get(*family)).collect();
    let own = served.iter().map(|family| {
        let prefix = if *family == Family::Ipv4 { 24 } else { 64 };
        format!("\"{}/{prefix}\"", line.address(*family))
    });
    let mut text = format!("address = [{}]\n", own.collect::<Vec<_>>().join(", "));
    for family in served {
        let key = if family == Family::Ipv4 { "gateway" } else { "gateway6" };
        text.push_str(&format!("{key} = \"{}\"\n", line.gateway(family)));
    }
    text
}

/// The file after a person has edited it: the first setup with one change.
fn changed(dice: &mut Dice, setup: &Setup) -> Setup {
    let mut setup = setup.clone();
    match dice.below(4) {
        0 => setup.wans.iter_mut().for_each(|wan| wan.weight = dice.between(1, 9)),
        1 => setup.wans.iter_mut().for_each(|wan| wan.priority = dice.between(1, 3)),
        2 => {
            let last = u64::try_from(setup.wans.len()).expect("small");
            setup.wans.remove(usize::try_from(dice.below(last)).expect("small"));
        }
        _ => dice.shuffle(&mut setup.wans),
    }
    setup
}

fn mishap(world: &mut World, dice: &mut Dice, line: u8, end: Duration) {
    let from = dice.within(CALM, end);
    let longest = (end - from).max(Duration::from_millis(201));
    let span = dice.span(Duration::from_millis(200), longest.min(Duration::from_secs(900)));
    let family = *dice.pick(&[None, None, None, Some(Family::Ipv4), Some(Family::Ipv6)]);
    let whole = |ail| Fault { line, family: None, ail };
    let fault = |ail| Fault { line, family, ail };
    let fault = match dice.below(15) {
        0 => fault(Ail::Silent(Way::Both)),
        1 => fault(Ail::Silent(Way::Out)),
        2 => fault(Ail::Silent(Way::Back)),
        3 => fault(Ail::Loss(dice.real(0.01, 0.6))),
        4 => fault(Ail::Bursts {
            good: dice.span(Duration::from_secs(2), Duration::from_secs(60)),
            bad: dice.span(Duration::from_millis(200), Duration::from_secs(10)),
        }),
        5 => fault(Ail::BrownOut),
        6 => whole(Ail::Saturated),
        7 => fault(Ail::Deaf(usize::try_from(dice.below(4)).expect("small"))),
        8 => fault(Ail::Dead(*dice.pick(&[Kind::Icmp, Kind::Tcp, Kind::Dns]))),
        9 => fault(Ail::EchoLimit(dice.real(0.05, 0.8))),
        10 => whole(Ail::NoCarrier),
        11 => whole(Ail::Gone),
        // What is in the file stays the same; somebody may take it out of the kernel.
        12 | 13 if is_fixed(world, line) => {
            world.plan(Moment::from_start(from), Act::Meddle(dice.next()));
            return;
        }
        12 => fault(Ail::NoAddress),
        13 => {
            world.plan(Moment::from_start(from), Act::MoveGateway(line));
            return;
        }
        _ => {
            let ail = dice.pick(&[Ail::Silent(Way::Both), Ail::NoCarrier]).clone();
            flap(world, dice, Fault { line, family: None, ail }, (from, end));
            return;
        }
    };
    world.ail(from, span, fault);
}

fn is_fixed(world: &World, number: u8) -> bool {
    world.lines.iter().any(|line| line.number == number && line.fixed)
}

/// Something that comes and goes, quickly, for minutes.
fn flap(world: &mut World, dice: &mut Dice, fault: Fault, (from, end): (Duration, Duration)) {
    let (short, long) = (Duration::from_millis(300), Duration::from_secs(20));
    let (bad, good) = (dice.span(short, long), dice.span(short, long));
    let until = end.min(from + dice.span(Duration::from_secs(10), Duration::from_secs(600)));
    let mut at = from;
    while at + bad < until {
        world.ail(at, bad, fault.clone());
        at += bad + good;
    }
}

fn moods(world: &mut World, dice: &mut Dice, end: Duration) {
    for _ in 0..dice.below(4) {
        let from = dice.within(CALM, end);
        let span = dice.span(Duration::from_secs(1), Duration::from_secs(300));
        let mut mood = Mood::default();
        match dice.below(4) {
            0 => mood.late = dice.span(Duration::from_millis(10), Duration::from_secs(3)),
            1 => mood.mute = true,
            2 => mood.twice = true,
            _ => mood.failing = dice.real(0.05, 0.9),
        }
        world.plan(Moment::from_start(from), Act::Mood(mood));
        let until = (from + span).min(end);
        world.plan(Moment::from_start(until), Act::Mood(Mood::default()));
    }
}
