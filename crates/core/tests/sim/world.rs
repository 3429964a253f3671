//! The world: an engine, a kernel, lines, and a clock that jumps to whatever comes next. The turn
//! of its loop is the daemon's (`run.rs`): hear, read again what was hinted at, let the engine
//! advance, carry steps out, ask its questions. Everything follows from one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anywan_core::config::Config;
use anywan_core::engine::{Engine, Event, Happening};
use anywan_core::facts::{Kept, Numbers};
use anywan_core::names::{Family, WanId};
use anywan_core::steps::{Ask, ProbeResult, Step};
use anywan_core::time::Moment;

use crate::dice::{Dice, fraction, hash};
use crate::kernel::{Kernel, Part};
use crate::laws::{Law, Watch};
use crate::line::{Fault, Line};
use crate::probing::silent;
use crate::setup::Setup;
use crate::traffic::Carried;

/// As in the daemon: full rounds of advance, steps and readings in one turn.
const ROUNDS_MAX: usize = 6;
/// As in the daemon: everything is read again this often.
pub(crate) const REREAD: Duration = Duration::from_secs(30);
/// A notice of the kernel reaches the daemon's loop within this.
const NOTICE: Duration = Duration::from_millis(5);
/// Happenings kept for the trail that is printed when a law is broken.
const TRAIL: usize = 80;
/// Turns at one instant: more, and the daemon would spin.
const TURNS_MAX: u32 = 200;

/// Something that will come to be at a moment.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Begin(u64, Fault),
    End(u64),
    /// The kernel's notice of changes reaches the daemon.
    Notice(BTreeSet<Part>),
    /// A probe's fate reaches the engine of this life.
    Answer(u32, ProbeResult),
    Mood(Mood),
    /// Some other program takes away or puts in something of ours.
    Meddle(u64),
    MoveGateway(u8),
    /// The machine is suspended for this long.
    Sleep(Duration),
    /// The daemon is killed after so many steps more, and started again after this long.
    Kill(u32, Duration),
    Configure(Box<Setup>),
}

/// How the kernel treats the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Mood {
    /// Notices are late by up to this.
    pub(crate) late: Duration,
    /// Notices do not come.
    pub(crate) mute: bool,
    /// Notices come twice.
    pub(crate) twice: bool,
    /// The share of steps that fail.
    pub(crate) failing: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    Awake,
    Asleep(Moment),
    Dead(Moment),
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: Moment,
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    pub(crate) numbers: Numbers,
    pub(crate) kernel: Kernel,
    pub(crate) lines: Vec<Line>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) mood: Mood,
    pub(crate) watch: Watch,
    pub(crate) trail: VecDeque<String>,
    /// The file and the lines, for whoever wants to know how it began.
    pub(crate) story: String,
    /// Every step and choice with its moment, when runs are to be compared.
    pub(crate) record: Option<Vec<String>>,
    /// Packets that users send in a second, over each family, on whatever serves.
    pub(crate) users: f64,
    pub(crate) carried: Carried,
    kept: Kept,
    numbered: Vec<u64>,
    queue: BTreeMap<(Moment, u64), Act>,
    acts: u64,
    pause: Pause,
    /// What came while nobody could hear it.
    missed: Vec<Act>,
    reread_at: Moment,
    life: u32,
    kill_in: Option<(u32, Duration)>,
    steps: u64,
    turns: u32,
    /// When the last flow of a WAN that was taken out of the file ends.
    flows_end: BTreeMap<WanId, Moment>,
    /// Shuffles what comes at one instant.
    order: Option<Dice>,
}

impl World {
    /// A world whose daemon starts at once. `order` shuffles what is equal in time.
    pub(crate) fn new(seed: u64, setup: &Setup, lines: Vec<Line>, order: Option<u64>) -> World {
        let config = setup.config();
        let engine = Engine::new(config.clone(), &Kept::default());
        let kernel = Kernel::new(&lines, &[]);
        let mut world = World {
            seed,
            now: Moment::default(),
            config,
            kept: engine.kept(),
            numbers: Numbers::new(),
            engine,
            kernel,
            lines,
            faults: Vec::new(),
            mood: Mood::default(),
            watch: Watch::default(),
            trail: VecDeque::new(),
            story: String::new(),
            record: None,
            users: 0.0,
            carried: Carried::default(),
            numbered: Vec::new(),
            queue: BTreeMap::new(),
            acts: 0,
            pause: Pause::Awake,
            missed: Vec::new(),
            reread_at: Moment::default() + REREAD,
            life: 0,
            kill_in: None,
            steps: 0,
            turns: 0,
            flows_end: BTreeMap::new(),
            order: order.map(Dice::new),
        };
        world.story = format!("{}{:#?}", setup.text(), world.lines);
        world.keep();
        world.look_at_lines();
        world.reread(&Part::ALL.into());
        world.settle();
        world
    }

    /// Lets something happen at a moment.
    pub(crate) fn plan(&mut self, at: Moment, act: Act) {
        self.acts += 1;
        self.queue.insert((at, self.acts), act);
    }

    /// Lets something ail a line from a moment on, for a time.
    pub(crate) fn ail(&mut self, from: Duration, span: Duration, fault: Fault) {
        let id = self.acts + 1;
        let from = Moment::from_start(from);
        self.plan(from, Act::Begin(id, fault));
        self.plan(from + span, Act::End(id));
    }

    /// Runs until the clock shows `until`.
    pub(crate) fn run(&mut self, until: Duration) {
        let until = Moment::from_start(until);
        loop {
            let act = self.queue.first_key_value().map(|((at, _), _)| *at);
            let own = match self.pause {
                Pause::Asleep(end) | Pause::Dead(end) => end,
                Pause::Awake => {
                    self.engine.poll_deadline().map_or(self.reread_at, |d| d.min(self.reread_at))
                }
            };
            let next = act.map_or(own, |act| act.min(own)).max(self.now);
            if next > until {
                self.now = self.now.max(until);
                return;
            }
            self.turns = if next == self.now { self.turns + 1 } else { 0 };
            if self.turns > TURNS_MAX {
                self.broken(Law::Bounded, "the loop spins: a deadline is always due".to_owned());
                return;
            }
            self.now = next;
            self.turn();
        }
    }

    fn turn(&mut self) {
        let mut due = Vec::new();
        while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= self.now) {
            due.push(entry.remove());
        }
        match self.pause {
            Pause::Awake => {}
            Pause::Asleep(end) | Pause::Dead(end) if self.now < end => {
                self.pass_by(due);
                return;
            }
            Pause::Asleep(_) => {
                self.pause = Pause::Awake;
                self.note("the machine wakes up".to_owned());
                self.watch.alert_from = self.now;
                self.pass_by(due);
                due = std::mem::take(&mut self.missed);
            }
            Pause::Dead(_) => {
                self.pass_by(due);
                self.missed.clear();
                self.be_born();
                return;
            }
        }
        let mut events = Vec::new();
        for act in due {
            self.begin(act, &mut events);
        }
        if self.pause != Pause::Awake {
            return;
        }
        if self.now >= self.reread_at {
            self.reread_at = self.now + REREAD;
            events.extend(self.readings(&Part::ALL.into()));
        }
        self.hear(events);
        self.settle();
        self.check_turn();
    }

    /// The world goes on while the daemon hears nothing.
    fn pass_by(&mut self, acts: Vec<Act>) {
        let asleep = matches!(self.pause, Pause::Asleep(_));
        for act in acts {
            match act {
                Act::Answer(life, mut result) => {
                    result.outcome = silent("the machine was asleep");
                    self.missed.push(Act::Answer(life, result));
                }
                Act::Configure(setup) if !asleep => self.config = setup.config(),
                Act::Notice(_) | Act::Configure(_) => self.missed.push(act),
                Act::Sleep(_) | Act::Kill(..) => {}
                Act::Begin(..) | Act::End(_) | Act::Mood(_) => self.begin(act, &mut Vec::new()),
                Act::Meddle(_) | Act::MoveGateway(_) => self.begin(act, &mut Vec::new()),
            }
        }
    }

    fn begin(&mut self, act: Act, events: &mut Vec<Event>) {
        match act {
            Act::Begin(id, fault) => {
                self.note(format!("begins: {fault:?}"));
                self.flow();
                self.faults.push(fault);
                self.numbered.push(id);
                self.lines_changed();
            }
            Act::End(id) => self.end(id),
            Act::Notice(parts) => events.extend(self.readings(&parts)),
            Act::Answer(life, result) => {
                if life == self.life {
                    events.push(Event::Probe(result));
                }
            }
            Act::Mood(mood) => {
                self.note(format!("the kernel's mood: {mood:?}"));
                self.mood_changes(mood);
            }
            Act::Meddle(salt) => self.meddle(salt),
            Act::MoveGateway(number) => {
                self.note(format!("the gateway of wan{number} moves"));
                let line = self.lines.iter_mut().find(|l| l.number == number);
                line.expect("there is such a line").gateway += 1;
                self.lines_changed();
            }
            Act::Sleep(span) => {
                self.note(format!("the machine sleeps for {span:?}"));
                self.pause = Pause::Asleep(self.now + span);
            }
            Act::Kill(0, away) => self.die(away),
            Act::Kill(steps, away) => self.kill_in = Some((steps, away)),
            Act::Configure(setup) => self.configure(&setup),
        }
    }

    fn end(&mut self, id: u64) {
        let Some(place) = self.numbered.iter().position(|n| *n == id) else { return };
        self.numbered.remove(place);
        self.flow();
        let fault = self.faults.remove(place);
        self.note(format!("ends: {fault:?}"));
        if fault.ail == crate::line::Ail::Gone {
            let line = self.lines.iter_mut().find(|l| l.number == fault.line);
            line.expect("there is such a line").index.0 += 100;
        }
        self.lines_changed();
    }

    fn lines_changed(&mut self) {
        let changed = self.kernel.follow(&self.lines, &self.faults);
        self.look_at_lines();
        self.announce(changed);
    }

    /// The kernel tells of its changes, as its mood is.
    pub(crate) fn announce(&mut self, parts: BTreeSet<Part>) {
        // What the kernel does by itself with routes when a link changes is part of one notice.
        if parts.is_empty() {
            return;
        }
        self.watch.disturb(self.now, self.mood);
        if self.mood.mute {
            return;
        }
        self.acts += 1;
        let late = self.mood.late.mul_f64(fraction(&[self.seed, self.acts, 3]));
        let at = self.now + NOTICE + late;
        self.plan(at, Act::Notice(parts.clone()));
        if self.mood.twice {
            self.plan(at + NOTICE, Act::Notice(parts));
        }
    }

    fn configure(&mut self, setup: &Setup) {
        self.note(format!("a new configuration: {setup:?}"));
        let config = setup.config();
        if !self.engine.follows(&config) {
            for wan in self.config.wans.iter().filter(|w| !config.wans.contains(w)) {
                if let Some(id) = self.numbers.get(&wan.name) {
                    let minutes = hash(&[self.seed, u64::from(id.0), self.acts]) % 10;
                    let end = self.now + Duration::from_secs(60 * minutes);
                    self.flows_end.insert(*id, end);
                }
            }
            self.config = config.clone();
            self.engine.handle(Event::Config(Box::new(config)), self.now);
            self.keep();
            self.reread(&Part::ALL.into());
            self.watch.configured(self.now, &self.config);
            self.look_at_lines();
        }
    }

    fn keep(&mut self) {
        self.kept = self.engine.kept();
        self.numbers.clone_from(&self.kept.numbers);
    }

    fn die(&mut self, away: Duration) {
        self.note(format!("the daemon is killed, and away for {away:?}"));
        self.life += 1;
        self.kill_in = None;
        self.pause = Pause::Dead(self.now + away);
    }

    /// Kills the daemon and starts it again at once.
    pub(crate) fn restart(&mut self) {
        self.die(Duration::ZERO);
        self.be_born();
    }

    fn be_born(&mut self) {
        self.note("the daemon starts".to_owned());
        self.pause = Pause::Awake;
        self.engine = Engine::new(self.config.clone(), &self.kept);
        self.keep();
        self.watch.born(self.now);
        self.look_at_lines();
        self.reread_at = self.now + REREAD;
        self.reread(&Part::ALL.into());
        self.settle();
        self.check_turn();
    }

    fn readings(&self, parts: &BTreeSet<Part>) -> Vec<Event> {
        let is = &self.kernel.is;
        // As the daemon does: a change of a link changes more than links.
        let links = parts.contains(&Part::Links);
        let addresses = links || parts.contains(&Part::Addresses);
        let reads = |part: Part| match part {
            Part::Links | Part::Rules | Part::Nft | Part::Cpus | Part::Children => {
                parts.contains(&part)
            }
            Part::Addresses => addresses,
            Part::Routes => addresses || parts.contains(&part),
            Part::Neighbours | Part::Sysctls => links || parts.contains(&part),
        };
        let read = |part: Part| match part {
            Part::Links => Event::Links(is.links.clone()),
            Part::Addresses => Event::Addresses(is.addresses.clone()),
            Part::Routes => Event::Routes(is.routes.clone()),
            Part::Rules => {
                Event::Rules { ours: is.rules.clone(), foreign: is.foreign_rules.clone() }
            }
            Part::Neighbours => Event::Neighbours(is.neighbours.clone()),
            Part::Sysctls => Event::Sysctls {
                now: self.kernel.watched(&self.engine.watched_sysctls()),
                before: is.sysctls_before.clone(),
            },
            Part::Nft => Event::Nft(is.nft.clone()),
            Part::Cpus => Event::Cpus(is.cpus.clone()),
            Part::Children => Event::Children(is.children.clone()),
        };
        Part::ALL.into_iter().filter(|part| reads(*part)).map(read).collect()
    }

    /// Reads parts of the kernel now. Links first, by which the daemon knows what else to read.
    fn reread(&mut self, parts: &BTreeSet<Part>) {
        if parts.contains(&Part::Links) {
            self.engine.handle(Event::Links(self.kernel.is.links.clone()), self.now);
        }
        let events = self.readings(parts);
        self.hear(events);
    }

    fn hear(&mut self, mut events: Vec<Event>) {
        if let Some(dice) = &mut self.order {
            dice.shuffle(&mut events);
            keep_sides_in_order(&mut events);
        }
        for event in events {
            self.engine.handle(event, self.now);
        }
    }

    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.engine.advance(self.now);
            let mut touched = BTreeSet::new();
            while let Some(step) = self.engine.poll_step() {
                if let Some((left, away)) = self.kill_in {
                    if left == 0 {
                        self.die(away);
                        return;
                    }
                    self.kill_in = Some((left - 1, away));
                }
                touched.extend(self.carry_out(step));
            }
            self.check_batch();
            self.listen();
            if !touched.is_empty() {
                self.reread(&touched);
            } else if !self.ask_all() {
                break;
            }
        }
        self.ask_all();
        self.listen();
    }

    /// Asks what there is to ask; whether there was anything.
    fn ask_all(&mut self) -> bool {
        let mut asks = 0;
        while let Some(ask) = self.engine.poll_ask() {
            asks += 1;
            self.take(ask);
        }
        self.check_asks(asks);
        asks > 0
    }

    fn carry_out(&mut self, step: Step) -> BTreeSet<Part> {
        self.steps += 1;
        self.keep_record(|| step.to_string());
        let touched = Kernel::touched_by(&step);
        if fraction(&[self.seed, self.steps, 5]) < self.mood.failing {
            self.note(format!("fails: {step}"));
            let error = "the simulation says no".to_owned();
            self.engine.handle(Event::StepFailed { step, error }, self.now);
            self.watch.failed_in_batch = true;
            return touched;
        }
        self.flow();
        self.check_before_step();
        self.kernel.apply(&step);
        self.check_step(&step);
        self.note(format!("step: {step}"));
        touched
    }

    fn listen(&mut self) {
        while let Some(happening) = self.engine.poll_happening() {
            let Happening { kind, wan, family, old, new, reason, .. } = &happening;
            let family = family.map_or_else(String::new, |f| f.to_string());
            // A suspicion that comes to nothing would fill the trail.
            if kind != &"state" || old != "suspect" && new != "suspect" || new == "down" {
                self.note(format!("{kind} {wan} {family}: {old} -> {new} ({reason})"));
            }
            if happening.kind == "choice" {
                self.keep_record(|| format!("{family}: {old} -> {new} ({reason})"));
            }
            self.check_happening(&happening);
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Probe(probe) => {
                let (after, outcome) = self.send(&probe);
                let result = ProbeResult {
                    wan: probe.wan,
                    family: probe.family,
                    target: probe.target,
                    sequence: probe.sequence,
                    outcome,
                };
                let (at, life) = (self.now + after, self.life);
                self.plan(at, Act::Answer(life, result));
            }
            Ask::CountTraffic => {
                self.flow();
                let traffic = self.traffic();
                self.engine.handle(Event::Traffic(traffic), self.now);
            }
            Ask::Untranslated { family, .. } => {
                self.engine.handle(Event::Untranslated { family, deleted: 0 }, self.now);
            }
            Ask::Unanswered { wan, family, .. } => {
                self.engine.handle(Event::Unanswered { wan, family, deleted: 0 }, self.now);
            }
            Ask::CountFlows { wan, .. } => {
                let end = self.flows_end.get(&wan);
                let count = if end.is_some_and(|end| *end > self.now) { 7 } else { 0 };
                self.engine.handle(Event::Flows { wan, count }, self.now);
                self.keep();
            }
            Ask::Wake { wan, family, .. } => {
                self.check_wake(wan, family);
                let flows = self.flows(wan, family);
                self.engine.handle(Event::Woken { wan, family, flows }, self.now);
            }
            // Nothing comes of it but packets.
            Ask::Refuse { .. }
            | Ask::LetSleep { .. }
            | Ask::Consult(_)
            | Ask::Solicit { .. }
            | Ask::Dhcp { .. }
            | Ask::Look { .. }
            | Ask::Reset { .. } => {}
            Ask::Release { wan, family, .. } => {
                self.engine.handle(Event::Released { wan, family, flows: 0 }, self.now);
            }
            Ask::Evacuate { wan, family, .. } => {
                self.check_evacuation(wan, family);
                let deleted = self.flows(wan, family);
                let event = Event::Evacuated { wan, family, deleted };
                self.engine.handle(event, self.now);
            }
        }
    }

    /// How many flows are found where some may be left.
    fn flows(&self, wan: WanId, family: Family) -> u64 {
        let mut lines = self.lines.iter().filter(|line| *line.families.get(family));
        let some = hash(&[self.seed, self.acts, self.steps]) % 3;
        if lines.any(|line| self.id(line) == Some(wan)) { some } else { 0 }
    }

    fn keep_record(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(record) = &mut self.record {
            record.push(format!("{:>12.3} {}", now.since_start().as_secs_f64(), what()));
        }
    }

    pub(crate) fn note(&mut self, what: String) {
        if self.trail.len() >= TRAIL {
            self.trail.pop_front();
        }
        let at = self.now.since_start().as_secs_f64();
        self.trail.push_back(format!("{at:>12.3} {what}"));
    }

    pub(crate) fn slots(&self, family: Family) -> BTreeMap<WanId, u32> {
        self.kernel.slots(family)
    }
}

/// Round trips that differ are no equal facts: those of one side come in their order.
fn keep_sides_in_order(events: &mut [Event]) {
    let probe = |event: &Event| {
        if let Event::Probe(r) = event { Some((r.wan, r.family, r.sequence)) } else { None }
    };
    for first in 0..events.len() {
        for second in first + 1..events.len() {
            let (one, two) = (probe(&events[first]), probe(&events[second]));
            if one > two && one.map(|p| (p.0, p.1)) == two.map(|p| (p.0, p.1)) {
                events.swap(first, second);
            }
        }
    }
}
