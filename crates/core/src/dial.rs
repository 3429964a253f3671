//! When a line is dialled and hung up, as a state machine without I/O: what can be seen of the line
//! and how pppd ended go in; whether pppd should run, with the PIN or without, and which reset the
//! modem needs come out. Time is an argument. Judges no health and knows no other WAN.
//!
//! ```text
//!            wanted                     the line is there
//!   Idle ─────────────► Dialling ───────────────────────────► Up
//!    ▲  ▲    ▲ it is there  │  ▲ the pause is over            │ dead for a while, or left
//!    │  │    │              │  │                              │ for the time to linger
//!    │  │  Waiting          ▼  │      pppd ended              ▼
//!    │  └─────────────── Pause ◄──────────────────────── Stopping ──► Idle
//!    │    not wanted        ▲ │ failures in a row
//!    │                      │ ▼
//!    └────────────────── Resetting
//! ```
//! A modem that is not there is waited for. Pauses grow from 1 s to 60 s and are short while
//! nothing else works. pppd that hangs is ended, not waited for. A PIN is tried once: which one was
//! tried outlives the daemon.

mod said;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::names::fingerprint;
use crate::observed::ChildEnd;
use crate::time::Moment;

pub use said::{PIN_ACCEPTED, PIN_SENT, Said, SimAsks};

/// The first pause; doubles with each failure.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest while nothing better works.
pub const PAUSE_URGENT: Duration = Duration::from_secs(10);
/// A line that was up for so long was well: its loss is a first one.
const WELL: Duration = Duration::from_secs(60);
/// Dialling, logging in and getting an address take a minute at most; the script waits 60 s for an
/// answer. pppd that has nothing to show after this hangs.
const DIAL_MAX: Duration = Duration::from_secs(120);
/// A line that is up and carries nothing for so long is dialled anew.
const DEAD_FOR: Duration = Duration::from_secs(10);
/// But not before it has had so long to get going: the first packets of a mobile line take seconds.
const GOING: Duration = Duration::from_secs(30);
/// Flows that linger are told to leave at the end of their time; so long later the line goes.
const TOLD: Duration = Duration::from_secs(3);
/// A modem that is missing for so long gets its new start from the user's own command.
const MISSING: Duration = Duration::from_secs(120);
/// So many failures in a row call for a reset.
const FAILURES: u32 = 3;
/// Each kind of reset at most this often.
const RESET_EVERY: Duration = Duration::from_secs(600);
/// A reset is given up when nothing was heard of it: the user's own command may take 60 s.
const RESET_MAX: Duration = Duration::from_secs(90);
/// A modem that was reset needs so long until it is worth dialling.
const SETTLE: Duration = Duration::from_secs(5);

/// A way to give a modem a new start, from the gentlest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// An AT command.
    Command,
    /// Off the USB bus, and back.
    Usb,
    /// A command of the user's own.
    Own,
}

/// What a line looks like, by its interface and its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// There is no interface with an address.
    Absent,
    /// It is there, and works or may.
    Alive,
    /// It is there, and nothing comes back.
    Dead,
}

/// All that can be seen of a line now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// It should be up.
    pub wanted: bool,
    /// No other WAN works: there is no time to lose.
    pub urgent: bool,
    /// What is needed is there: the modem or the interface, the password.
    pub ready: bool,
    /// pppd runs.
    pub running: bool,
    /// What its interface tells.
    pub line: Line,
    /// How long it stays up once it is no longer wanted; `None`: for ever.
    pub linger: Option<Duration>,
    /// The resets that it may be given.
    pub ladder: Vec<Rung>,
    /// The fingerprint of the configured PIN; `None`: there is none, or none may be tried now.
    pub pin: Option<u64>,
}

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not wanted.
    Idle,
    /// Something that is needed is missing.
    Waiting {
        /// Since then.
        since: Moment,
    },
    /// pppd should run.
    Dialling {
        /// Since then.
        since: Moment,
        /// It was seen running.
        ran: bool,
    },
    /// The line is there.
    Up {
        /// Since then.
        since: Moment,
        /// It carries nothing since then.
        dead: Option<Moment>,
        /// It is no longer wanted since then.
        left: Option<Moment>,
    },
    /// pppd was told to end, and will be waited for.
    Stopping {
        /// Because it is in the way, not because the line is no longer wanted.
        failed: bool,
    },
    /// The modem is given a new start.
    Resetting {
        /// That is given up then.
        until: Moment,
    },
    /// Until the next try.
    Pause {
        /// It begins then.
        until: Moment,
    },
}

/// What a person should know about a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Stable.
    pub code: &'static str,
    /// In words.
    pub what: String,
}

/// One line that is dialled.
#[derive(Debug, Clone)]
pub struct Dial {
    name: String,
    state: State,
    failures: u32,
    trouble: Option<Trouble>,
    /// pppd was, or will be, started with the script that sends the PIN with this fingerprint.
    with_pin: Option<u64>,
    /// The fingerprint of the PIN that was tried, and not taken as far as is known.
    tried: Option<u64>,
    resets: BTreeMap<Rung, Moment>,
    to_reset: Option<Rung>,
    sight: Option<Sight>,
}

impl Dial {
    /// A line of this name. `tried`: see [`Dial::tried`].
    pub fn new(name: &str, tried: Option<u64>) -> Dial {
        Dial {
            name: name.to_owned(),
            state: State::Idle,
            failures: 0,
            trouble: None,
            with_pin: None,
            tried,
            resets: BTreeMap::new(),
            to_reset: None,
            sight: None,
        }
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// The PIN that must not be tried again, to be kept across runs *before* pppd is started.
    pub fn tried(&self) -> Option<u64> {
        self.tried
    }

    /// Whether pppd should run, and if so, whether with the script that sends the PIN.
    pub fn wants(&self) -> Option<bool> {
        match self.state {
            State::Dialling { .. } | State::Up { .. } => Some(self.with_pin.is_some()),
            State::Idle
            | State::Waiting { .. }
            | State::Stopping { .. }
            | State::Resetting { .. }
            | State::Pause { .. } => None,
        }
    }

    /// The reset that is to be carried out now; [`Dial::was_reset`] answers.
    pub fn poll_reset(&mut self) -> Option<Rung> {
        self.to_reset.take()
    }

    /// What keeps it from being up.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// In a few words, for the status.
    pub fn words(&self) -> String {
        let after = |what: &str| match &self.trouble {
            Some(trouble) => format!("{what}: {}", trouble.what),
            None => what.to_owned(),
        };
        match self.state {
            State::Idle => "not dialled: a better WAN works".to_owned(),
            State::Waiting { .. } => {
                "waits for the modem, the interface or the password".to_owned()
            }
            State::Dialling { .. } => "is being dialled".to_owned(),
            State::Up { .. } => "the line is up".to_owned(),
            State::Stopping { failed: true } => after("is hung up, to be dialled anew"),
            State::Stopping { failed: false } => "is hung up".to_owned(),
            State::Resetting { .. } => after("the modem is reset"),
            State::Pause { .. } => after("will be dialled again"),
        }
    }

    /// When [`Dial::see`] has something to do though nothing happened.
    pub fn deadline(&self) -> Option<Moment> {
        match self.state {
            State::Idle | State::Stopping { .. } => None,
            State::Waiting { since } => self.may_reset(Rung::Own).then_some(
                self.resets
                    .get(&Rung::Own)
                    .map_or(since + MISSING, |last| (since + MISSING).max(*last + RESET_EVERY)),
            ),
            State::Dialling { since, .. } => Some(since + DIAL_MAX),
            State::Up { since, dead, left } => {
                let linger = self.sight.as_ref().and_then(|sight| sight.linger);
                let dead = dead.map(|dead| (dead + DEAD_FOR).max(since + GOING));
                let left = left.zip(linger).map(|(left, linger)| left + linger + TOLD);
                dead.into_iter().chain(left).min()
            }
            State::Resetting { until } | State::Pause { until } => Some(until),
        }
    }

    fn may_reset(&self, rung: Rung) -> bool {
        self.sight.as_ref().is_some_and(|sight| sight.ladder.contains(&rung))
    }

    /// Takes in what is to be seen now.
    pub fn see(&mut self, sight: Sight, now: Moment) {
        let hurry = sight.urgent && self.sight.as_ref().is_none_or(|before| !before.urgent);
        self.sight = Some(sight.clone());
        match self.state {
            State::Idle => self.begin(&sight, now),
            State::Waiting { since } => {
                if sight.ready || sight.running || !sight.wanted {
                    self.begin(&sight, now);
                } else if self.deadline().is_some_and(|at| at <= now) {
                    self.reset(Rung::Own, now);
                } else {
                    self.state = State::Waiting { since };
                }
            }
            State::Dialling { since, ran } => self.dial(&sight, since, ran, now),
            State::Up { since, dead, left } => self.watch(&sight, (since, dead, left), now),
            State::Stopping { failed } if !sight.running => {
                if failed {
                    self.rest(now);
                } else {
                    self.begin(&sight, now);
                }
            }
            State::Stopping { .. } => {}
            State::Resetting { until } => {
                if until <= now {
                    self.was_reset(None, now);
                }
            }
            State::Pause { until } => {
                let until = if hurry { now } else { until };
                let until = if sight.urgent { until.min(now + PAUSE_URGENT) } else { until };
                self.state = State::Pause { until };
                if (until <= now || !sight.wanted) && !sight.running {
                    self.begin(&sight, now);
                }
            }
        }
    }

    /// From rest: dials, waits for what is missing, or takes over what an earlier daemon started.
    fn begin(&mut self, sight: &Sight, now: Moment) {
        self.state = if sight.running && sight.line == Line::Absent {
            State::Dialling { since: now, ran: true }
        } else if sight.running {
            State::Up { since: now, dead: None, left: None }
        } else if !sight.wanted {
            self.trouble = None;
            State::Idle
        } else if !sight.ready {
            match self.state {
                State::Waiting { since } => State::Waiting { since },
                State::Idle
                | State::Dialling { .. }
                | State::Up { .. }
                | State::Stopping { .. }
                | State::Resetting { .. }
                | State::Pause { .. } => State::Waiting { since: now },
            }
        } else {
            self.with_pin =
                self.with_pin.filter(|p| sight.pin == Some(*p) && sight.pin != self.tried);
            self.tried = self.with_pin.or(self.tried);
            State::Dialling { since: now, ran: false }
        };
    }

    fn dial(&mut self, sight: &Sight, since: Moment, ran: bool, now: Moment) {
        if sight.running && sight.line != Line::Absent {
            self.state = State::Up { since: now, dead: None, left: None };
        } else if ran && !sight.running {
            self.fail("dial.failed", "pppd ended", now);
        } else if self.has_another_pin(sight) || (!sight.wanted && self.with_pin.is_none()) {
            // One that may have sent a PIN is heard to its end.
            self.state = State::Stopping { failed: false };
        } else if since + DIAL_MAX <= now {
            self.stop("nothing came of dialling, and pppd hangs");
        } else {
            self.state = State::Dialling { since, ran: ran || sight.running };
        }
    }

    /// The file has another PIN than the script; it is not sent before the SIM wants it.
    fn has_another_pin(&self, sight: &Sight) -> bool {
        self.with_pin.zip(sight.pin).is_some_and(|(with, pin)| with != pin)
    }

    fn watch(
        &mut self,
        sight: &Sight,
        (since, dead, left): (Moment, Option<Moment>, Option<Moment>),
        now: Moment,
    ) {
        if since + WELL <= now && sight.line == Line::Alive {
            self.failures = 0;
        }
        if !sight.running {
            self.fail("dial.failed", "pppd ended", now);
            return;
        }
        if sight.line == Line::Alive {
            self.trouble = None;
        }
        let dead = (sight.line != Line::Alive).then(|| dead.unwrap_or(now));
        let left = (!sight.wanted).then(|| left.unwrap_or(now));
        self.state = State::Up { since, dead, left };
        if self.has_another_pin(sight) {
            self.state = State::Stopping { failed: false };
            return;
        }
        if self.deadline().is_none_or(|at| now < at) {
            return;
        }
        if dead.is_some_and(|dead| (dead + DEAD_FOR).max(since + GOING) <= now) {
            self.stop("the line was up and carried nothing");
        } else {
            self.state = State::Stopping { failed: false };
        }
    }

    /// Ends pppd, which is of no use.
    fn stop(&mut self, what: &str) {
        self.trouble = Some(Trouble { code: "dial.failed", what: what.to_owned() });
        self.state = State::Stopping { failed: true };
    }

    /// Takes in what pppd has written so far. Only this tells that a PIN was taken: an interface of
    /// that name may be somebody else's.
    pub fn heard(&mut self, said: &Said) {
        if said.pin_accepted {
            self.tried = None;
        }
    }

    /// pppd ended by itself; `log` is what it wrote last.
    pub fn ended(&mut self, end: &ChildEnd, log: &str, now: Moment) {
        let said = Said::read(log);
        self.heard(&said);
        let with_pin = self.with_pin.take().is_some();
        let sent = with_pin && (said.pin_sent || said.answer.is_none());
        if with_pin && !sent {
            self.tried = None;
        }
        let refused = sent && self.tried.is_some();
        match self.state {
            State::Dialling { .. }
            | State::Up { .. }
            | State::Stopping { .. }
            | State::Pause { .. } => {}
            State::Idle | State::Waiting { .. } | State::Resetting { .. } => return,
        }
        let pin = self.sight.as_ref().and_then(|sight| sight.pin);
        match said.asks() {
            Some(SimAsks::Puk) => {
                let what = "the SIM is locked and wants its PUK";
                self.fail("dial.puk", what, now);
            }
            Some(SimAsks::Pin) if pin.is_some() && pin != self.tried => {
                // Not a failure: the modem told what it needs, and it is there.
                self.with_pin = pin;
                self.state = State::Pause { until: now };
            }
            Some(SimAsks::Pin) if self.tried.is_some() && pin == self.tried => {
                self.refuse_pin(now);
            }
            Some(SimAsks::Pin) => {
                let what = "the SIM wants its PIN, and none may be sent";
                self.fail("dial.pin-needed", what, now);
            }
            None if refused => self.refuse_pin(now),
            None => self.fail("dial.failed", &said.why(end), now),
        }
    }

    fn refuse_pin(&mut self, now: Moment) {
        let what = "the SIM did not take the PIN; it is not sent again";
        self.fail("dial.pin-refused", what, now);
    }

    /// pppd could not be started.
    pub fn not_started(&mut self, error: &str, now: Moment) {
        if let State::Dialling { ran: false, .. } = self.state {
            // Nothing was sent.
            if self.with_pin.take().is_some() {
                self.tried = None;
            }
            self.fail("dial.not-started", error, now);
        }
    }

    /// A failure, after which there is a pause. One that was noticed before is only told better.
    fn fail(&mut self, code: &'static str, what: &str, now: Moment) {
        self.trouble = Some(Trouble { code, what: what.to_owned() });
        if !matches!(self.state, State::Pause { .. }) {
            self.rest(now);
        }
    }

    /// After a failure: a pause, or a new start for the modem.
    fn rest(&mut self, now: Moment) {
        self.failures = self.failures.saturating_add(1);
        let modems = self.trouble.as_ref().is_some_and(|trouble| trouble.code == "dial.failed");
        if modems && self.failures % FAILURES == 0 {
            let ladder = self.sight.as_ref().map_or(&[][..], |sight| &sight.ladder);
            let from = (self.failures / FAILURES - 1) as usize;
            let turns = (from..from + ladder.len()).filter_map(|n| ladder.get(n % ladder.len()));
            let rested =
                |rung: &&Rung| self.resets.get(rung).is_none_or(|last| *last + RESET_EVERY <= now);
            if let Some(rung) = turns.copied().find(|rung| rested(&rung)) {
                self.reset(rung, now);
                return;
            }
        }
        self.state = State::Pause { until: now + self.pause(now) };
    }

    fn reset(&mut self, rung: Rung, now: Moment) {
        self.resets.insert(rung, now);
        self.to_reset = Some(rung);
        self.state = State::Resetting { until: now + RESET_MAX };
    }

    /// A reset is over, and may have failed.
    pub fn was_reset(&mut self, error: Option<&str>, now: Moment) {
        if let State::Resetting { .. } = self.state {
            self.state = State::Pause { until: now + SETTLE };
        }
        if let (Some(error), Some(trouble)) = (error, &mut self.trouble) {
            trouble.what = format!("{}; a reset failed: {error}", trouble.what);
        }
    }

    /// Doubles with each failure; up to a quarter shorter by chance, so that many routers do not
    /// all dial at once after their provider was away. The moment is the seed.
    fn pause(&self, now: Moment) -> Duration {
        let doubled = PAUSE_FIRST.saturating_mul(1 << self.failures.saturating_sub(1).min(6));
        let full = doubled.min(PAUSE_MAX);
        let seed = format!("{:?} {}", now, self.failures);
        let chance = fingerprint([self.name.as_str(), &seed]) % 256;
        full - full * u32::try_from(chance).unwrap_or(0) / 1024
    }
}

#[cfg(test)]
mod tests;
