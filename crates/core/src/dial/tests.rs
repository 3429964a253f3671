//! Every state meets everything that can happen to it, in one table; and the laws of dialling.

use proptest::prelude::*;

use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Nothing special: the line is wanted, the modem is there, nothing runs.
fn sight() -> Sight {
    Sight {
        wanted: true,
        urgent: false,
        ready: true,
        running: false,
        line: Line::Absent,
        linger: Some(seconds(300)),
        ladder: vec![Rung::Command, Rung::Usb, Rung::Own],
        pin: Some(7),
    }
}

fn running(line: Line) -> Sight {
    Sight { running: true, line, ..sight() }
}

fn end(status: i32) -> ChildEnd {
    let (name, said) = ("ppp-a".to_owned(), String::new());
    ChildEnd { name, status: Some(status), signal: None, said, lived: seconds(1) }
}

/// A long time after the machine was started, and the moments after it.
fn at(after: u64) -> Moment {
    Moment::from_start(seconds(10_000 + after))
}

const NAMES: [&str; 7] = ["idle", "waiting", "dialling", "up", "stopping", "resetting", "pause"];

fn name(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Waiting { .. } => "waiting",
        State::Dialling { .. } => "dialling",
        State::Up { .. } => "up",
        State::Stopping { .. } => "stopping",
        State::Resetting { .. } => "resetting",
        State::Pause { .. } => "pause",
    }
}

/// A line in this state since `at(0)`.
fn in_state(state: &str) -> Dial {
    let mut dial = Dial::new("a", None);
    dial.sight = Some(sight());
    dial.state = match state {
        "idle" => State::Idle,
        "waiting" => State::Waiting { since: at(0) },
        "dialling" => State::Dialling { since: at(0), ran: true },
        "up" => State::Up { since: at(0), dead: None, left: None },
        "stopping" => State::Stopping { failed: true },
        "resetting" => State::Resetting { until: at(0) + RESET_MAX },
        _ => State::Pause { until: at(60) },
    };
    dial
}

type Happens = fn(&mut Dial);

/// What can happen, and where each state, in the order of [`NAMES`], goes with it.
const TABLE: &[(&str, Happens, [&str; 7])] = &[
    (
        "nothing runs, all is there",
        |d| d.see(sight(), at(1)),
        ["dialling", "dialling", "pause", "pause", "pause", "resetting", "pause"],
    ),
    (
        "nothing runs, the modem is missing",
        |d| d.see(Sight { ready: false, ..sight() }, at(1)),
        ["waiting", "waiting", "pause", "pause", "pause", "resetting", "pause"],
    ),
    (
        "it is not wanted, and nothing runs",
        |d| d.see(Sight { wanted: false, ..sight() }, at(1)),
        ["idle", "idle", "pause", "pause", "pause", "resetting", "idle"],
    ),
    (
        "it is not wanted, and pppd runs",
        |d| d.see(Sight { wanted: false, ..running(Line::Absent) }, at(1)),
        ["dialling", "dialling", "stopping", "up", "stopping", "resetting", "pause"],
    ),
    (
        "pppd runs without a line",
        |d| d.see(running(Line::Absent), at(1)),
        ["dialling", "dialling", "dialling", "up", "stopping", "resetting", "pause"],
    ),
    (
        "the line is there",
        |d| d.see(running(Line::Alive), at(1)),
        ["up", "up", "up", "up", "stopping", "resetting", "pause"],
    ),
    (
        "the line is dead for long",
        |d| {
            d.see(running(Line::Dead), at(50));
            d.see(running(Line::Dead), at(61));
        },
        ["up", "up", "up", "stopping", "stopping", "resetting", "pause"],
    ),
    (
        "a better WAN has worked for long",
        |d| {
            d.see(Sight { wanted: false, ..running(Line::Alive) }, at(1));
            d.see(Sight { wanted: false, ..running(Line::Alive) }, at(1) + seconds(300) + TOLD);
        },
        ["up", "up", "up", "stopping", "stopping", "pause", "pause"],
    ),
    (
        "pppd shows nothing for long",
        |d| d.see(running(Line::Absent), at(0) + DIAL_MAX),
        ["dialling", "dialling", "stopping", "up", "stopping", "pause", "pause"],
    ),
    (
        "nothing better works any more",
        |d| d.see(Sight { urgent: true, ..sight() }, at(1)),
        ["dialling", "dialling", "pause", "pause", "pause", "resetting", "dialling"],
    ),
    (
        "pppd ended",
        |d| d.ended(&end(16), "Modem hangup\n", at(1)),
        ["idle", "waiting", "pause", "pause", "pause", "resetting", "pause"],
    ),
    (
        "the SIM wants its PIN",
        |d| d.ended(&end(8), "Failed (SIM PIN)\n", at(1)),
        ["idle", "waiting", "pause", "pause", "pause", "resetting", "pause"],
    ),
    (
        "pppd that runs is said not to have been started",
        |d| d.not_started("pppd is not installed", at(1)),
        ["idle", "waiting", "dialling", "up", "stopping", "resetting", "pause"],
    ),
    (
        "a reset is over",
        |d| d.was_reset(None, at(1)),
        ["idle", "waiting", "dialling", "up", "stopping", "pause", "pause"],
    ),
    (
        "much time passes with nothing there",
        |d| d.see(Sight { ready: false, ..sight() }, at(0) + MISSING),
        ["waiting", "resetting", "pause", "pause", "pause", "pause", "waiting"],
    ),
];

#[test]
fn every_state_goes_where_the_table_says_with_everything_that_happens() {
    for (what, happens, goes) in TABLE {
        for (from, to) in NAMES.into_iter().zip(goes) {
            let mut dial = in_state(from);
            happens(&mut dial);
            assert_eq!(name(dial.state()), *to, "{from}: {what}");
            let runs = matches!(dial.state(), State::Dialling { .. } | State::Up { .. });
            assert_eq!(dial.wants().is_some(), runs, "{from}: {what}");
        }
    }
}

/// Dials and fails once, as the modem says; returns the pause after it.
fn fail(dial: &mut Dial, log: &str, now: &mut Moment) -> Duration {
    dial.see(sight(), *now);
    assert!(dial.wants().is_some(), "{:?}", dial.state());
    dial.see(running(Line::Absent), *now);
    dial.ended(&end(8), log, *now);
    if let State::Resetting { .. } = dial.state() {
        assert!(dial.poll_reset().is_some());
        dial.was_reset(None, *now);
    }
    let State::Pause { until } = dial.state() else { panic!("{:?}", dial.state()) };
    let pause = until.since(*now);
    *now = until;
    pause
}

#[test]
fn pauses_grow_to_a_minute_and_begin_anew_after_a_good_while() {
    let (mut dial, mut now) = (Dial::new("a", None), at(0));
    for full in [1, 2, 0, 8, 16, 0, 60, 60, 0, 60] {
        let pause = fail(&mut dial, "Failed (BUSY)\n", &mut now);
        let bounds = seconds(full) * 3 / 4..=seconds(full);
        assert!(full == 0 || bounds.contains(&pause), "{pause:?}, not {bounds:?}");
    }
    dial.see(sight(), now);
    dial.see(running(Line::Alive), now);
    now = now + WELL;
    dial.see(running(Line::Alive), now);
    dial.ended(&end(16), "", now);
    assert_eq!(dial.failures, 1);
}

#[test]
fn each_reset_has_its_turn_and_is_rare() {
    let (mut dial, mut now) = (Dial::new("a", None), at(0));
    let mut seen: Vec<(Rung, Moment)> = Vec::new();
    for _ in 0..60 {
        dial.see(sight(), now);
        dial.see(running(Line::Absent), now);
        dial.ended(&end(8), "Failed\n", now);
        if let Some(rung) = dial.poll_reset() {
            let before = seen.iter().rev().find(|(other, _)| *other == rung);
            assert!(before.is_none_or(|(_, at)| now.since(*at) >= RESET_EVERY));
            seen.push((rung, now));
            dial.was_reset(None, now);
        }
        now = dial.deadline().expect("a pause ends");
    }
    let order: Vec<Rung> = seen.iter().take(3).map(|(rung, _)| *rung).collect();
    assert_eq!(order, [Rung::Command, Rung::Usb, Rung::Own]);
    assert!(seen.len() > 3, "the first has its turn again");
}

#[test]
fn a_wrong_password_or_pin_resets_no_modem() {
    let (mut dial, mut now) = (Dial::new("a", Some(7)), at(0));
    for _ in 0..9 {
        fail(&mut dial, "Failed (SIM PIN)\n", &mut now);
        assert!(dial.resets.is_empty());
    }
    assert_eq!(dial.trouble().map(|trouble| trouble.code), Some("dial.pin-refused"));
}

#[test]
fn a_sim_that_wants_its_puk_is_told_and_sent_nothing_and_no_modem_is_reset() {
    let (mut dial, mut now) = (Dial::new("a", None), at(0));
    for _ in 0..9 {
        fail(&mut dial, "Failed (SIM PUK)\n", &mut now);
        dial.see(sight(), now);
        assert_eq!(dial.wants(), Some(false), "the SIM is asked, and told nothing");
        assert!(dial.resets.is_empty());
        assert_eq!(dial.trouble().map(|trouble| trouble.code), Some("dial.puk"));
    }
    assert_eq!(dial.tried(), None);
}

#[test]
fn a_pin_counts_as_tried_before_it_is_sent_and_is_free_again_when_it_was_not() {
    let mut dial = Dial::new("a", None);
    dial.see(sight(), at(0));
    assert_eq!(dial.wants(), Some(false), "first the SIM is asked");
    dial.ended(&end(8), "Failed (SIM PIN)\n", at(1));
    assert_eq!(dial.tried(), None);
    dial.see(sight(), at(1));
    assert_eq!((dial.wants(), dial.tried()), (Some(true), Some(7)));
    dial.ended(&end(8), "Failed\n", at(2));
    assert_eq!(dial.tried(), None, "the modem fell silent before the PIN was sent");
    dial.see(sight(), at(10));
    dial.ended(&end(8), "Failed (SIM PIN)\n", at(11));
    dial.see(sight(), at(11));
    dial.ended(&end(8), "anywan: PIN sent\nanywan: PIN accepted\nFailed (BUSY)\n", at(12));
    assert_eq!(dial.tried(), None, "it was taken");
    assert_eq!(dial.trouble().map(|trouble| trouble.code), Some("dial.failed"));
}

#[derive(Debug, Clone)]
enum Happening {
    See { wanted: bool, urgent: bool, ready: bool, line: u8 },
    Ended(usize),
    NotStarted,
    Reset,
    Restart,
    Pin(u64),
    Wait(u64),
}

const LOGS: [&str; 8] = [
    "",
    "Failed\n",
    "Failed (SIM PIN)\n",
    "Failed (SIM PIN)\n",
    "Failed (SIM PUK)\n",
    "anywan: PIN sent\nFailed (ERROR)\n",
    "anywan: PIN sent\nFailed\n",
    "Modem hangup\n",
];

fn see((wanted, urgent, ready, line): (bool, bool, bool, u8)) -> Happening {
    Happening::See { wanted, urgent, ready, line }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (any::<bool>(), any::<bool>(), any::<bool>(), 0..3_u8)
            .prop_map(see),
        4 => (0..LOGS.len()).prop_map(Happening::Ended),
        1 => Just(Happening::NotStarted),
        1 => Just(Happening::Reset),
        1 => Just(Happening::Restart),
        1 => (0..2_u64).prop_map(Happening::Pin),
        4 => (0..200_u64).prop_map(Happening::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// However it goes: one pppd at most; pauses within their bounds; a deadline that is past has
    /// been dealt with; and no PIN that a SIM did not take is sent twice in a row of one
    /// configuration, whoever kills the daemon in between.
    #[test]
    fn the_laws_of_dialling_hold_whatever_happens(
        story in prop::collection::vec(happening(), 1..80),
    ) {
        let (mut dial, mut now, mut pin) = (Dial::new("a", None), at(0), 0_u64);
        // pppd as it really is: running, started with the PIN or without.
        let mut process: Option<Option<u64>> = None;
        let mut seen_running = false;
        let mut sent: Vec<u64> = Vec::new();
        let mut last = sight();
        for happening in story {
            match happening {
                Happening::See { wanted, urgent, ready, line } => {
                    let line = [Line::Absent, Line::Alive, Line::Dead][usize::from(line)];
                    last = Sight { wanted, urgent, ready, line, ..sight() };
                }
                Happening::Ended(which) => {
                    if let Some(with_pin) = process.take() {
                        sent.extend(with_pin.filter(|_| LOGS[which].contains(PIN_SENT)));
                        // Only the script that sends it says so.
                        let log = if with_pin.is_some() || !LOGS[which].contains(PIN_SENT) { LOGS[which] } else { "" };
                        dial.ended(&end(8), log, now);
                    }
                }
                Happening::NotStarted => {
                    if !seen_running && process.take().is_some() {
                        dial.not_started("not installed", now);
                    }
                }
                Happening::Reset => dial.was_reset(Some("it failed"), now),
                Happening::Restart => dial = Dial::new("a", dial.tried()),
                Happening::Pin(other) => {
                    if other != pin {
                        (pin, sent) = (other, Vec::new());
                    }
                }
                Happening::Wait(span) => now = now + seconds(span),
            }
            seen_running |= process.is_some();
            let seen = Sight { running: process.is_some(), pin: Some(pin), ..last.clone() };
            dial.see(seen, now);
            let _ = dial.poll_reset();
            if let State::Pause { until } = dial.state() {
                prop_assert!(until.since(now) <= PAUSE_MAX, "{:?}", dial.state());
            }
            prop_assert!(process.is_some() || dial.deadline().is_none_or(|at| at > now
                || matches!(dial.state(), State::Pause { .. })), "{:?}", dial.state());
            // What the daemon does with it.
            match (dial.wants(), process) {
                (Some(with_pin), None) => {
                    prop_assert!(!with_pin || dial.tried() == Some(pin), "not noted before");
                    process = Some(with_pin.then_some(pin));
                    seen_running = false;
                }
                (None, Some(with_pin)) => {
                    // It may have been sent just before.
                    sent.extend(with_pin);
                    process = None;
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
            let times = sent.iter().filter(|other| **other == pin).count();
            prop_assert!(times <= 1, "{pin} was sent {times} times");
        }
    }
}
