//! The one state machine: events in, steps, asks and notices out. Every event only updates facts;
//! the decision is worked out anew from all of them in [`Engine::advance`], so losing or
//! repeating an event changes nothing. Does nothing by itself and does not know the time.

mod announced;
mod children;
mod dhcp;
mod dial;
mod drain;
mod drill;
mod evacuate;
mod event;
mod gone;
mod interfaces;
mod lending;
mod linger;
mod plan;
mod report;
mod resolv_conf;
mod resolving;
mod unanswered;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::api::{Problem, State};
use crate::choose::{Choice, Sides, choose};
use crate::config::{Config, Kind, Wan};
use crate::desired::{self, Basis, Desired};
use crate::facts::{self, Doubts, Kept, Numbers, Obstacle, WanFacts};
use crate::health::Side;
use crate::names::{Family, PerFamily, WanId};
use crate::observed::{Key, Observed, Route};
use crate::steps::{Ask, Step};
use crate::time::Moment;

use announced::Solicited;
use children::Ends;
use dhcp::Clients;
use dial::Dials;
use drill::Drill;
use evacuate::Evacuations;
pub use event::{Event, Happening};
use gone::Gone;
use linger::Lingering;
use plan::Attempts;
use resolv_conf::Claims;
use resolving::Resolving;
use unanswered::Unanswered;
use watch::Watch;

/// Notices that wait to be fetched; a daemon that never fetches them loses the oldest.
const NOTICES_MAX: usize = 1000;
/// How often the flows of WANs that retire are counted.
const FLOWS_COUNTED: Duration = Duration::from_secs(10);

/// Which parts of the facts have been read at least once: before that nothing is decided.
#[derive(Debug, Clone, Copy, Default)]
struct Read {
    links: bool,
    addresses: bool,
    routes: bool,
    rules: bool,
    neighbours: bool,
    sysctls: bool,
    nft: bool,
}

impl Read {
    fn all(self) -> bool {
        self.links
            && self.addresses
            && self.routes
            && self.rules
            && self.neighbours
            && self.sysctls
            && self.nft
    }
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    /// As it is written, and with the names that interfaces have now.
    written: Config,
    config: Config,
    /// Where what is written fits several interfaces.
    doubts: Doubts,
    numbers: Numbers,
    /// Where in the configuration each WAN is.
    places: BTreeMap<WanId, usize>,
    /// How the targets of each WAN are asked.
    kinds: BTreeMap<WanId, PerFamily<Vec<Kind>>>,
    observed: Observed,
    read: Read,
    facts: BTreeMap<WanId, WanFacts>,
    sides: Sides,
    /// Sides have been made for the WANs there were at the start.
    started: bool,
    choice: Choice,
    /// What was last found in place without a difference.
    settled: Option<Desired>,
    leaving: bool,
    left: bool,
    /// Something that decisions and steps depend on has changed.
    stale: bool,
    /// The health of a side has changed: decisions may have to.
    undecided: bool,
    attempts: Attempts,
    evacuations: Evacuations,
    gone: Gone,
    unanswered: Unanswered,
    resolving: Resolving,
    claims: Claims,
    solicited: Solicited,
    clients: Clients,
    /// The names of WANs taken out of service by hand.
    drained: BTreeSet<String>,
    lingering: Lingering,
    /// Programs of ours that ended or did not start.
    ends: Ends,
    dials: Dials,
    drill: Option<Drill>,
    watch: Watch,
    /// When the flows of retiring WANs are counted next.
    next_count: Moment,
    reported: BTreeMap<(String, String), Problem>,
    problems: BTreeSet<Problem>,
    steps: VecDeque<Step>,
    asks: VecDeque<Ask>,
    happenings: VecDeque<Happening>,
}

impl Engine {
    /// An engine for `config`. `kept` is what an earlier run left; see [`Engine::kept`].
    pub fn new(mut config: Config, kept: &Kept) -> Engine {
        config.retiring = retire(&config, kept.retiring.iter().chain(&kept.wans));
        let mut engine = Engine {
            written: config.clone(),
            config,
            doubts: Doubts::new(),
            numbers: kept.numbers.clone(),
            places: BTreeMap::new(),
            kinds: BTreeMap::new(),
            observed: Observed::default(),
            read: Read::default(),
            facts: BTreeMap::new(),
            sides: Sides::new(),
            started: false,
            choice: Choice::default(),
            settled: None,
            leaving: false,
            left: false,
            stale: true,
            undecided: false,
            attempts: Attempts::default(),
            evacuations: Evacuations::default(),
            gone: Gone::default(),
            unanswered: Unanswered::default(),
            resolving: Resolving::default(),
            claims: Claims::default(),
            solicited: Solicited::default(),
            clients: Clients::default(),
            drained: kept.drained.clone(),
            lingering: Lingering::default(),
            ends: Ends::default(),
            dials: Dials::new(&kept.tried_pins),
            drill: None,
            watch: Watch::default(),
            next_count: Moment::default(),
            reported: BTreeMap::new(),
            problems: BTreeSet::new(),
            steps: VecDeque::new(),
            asks: VecDeque::new(),
            happenings: VecDeque::new(),
        };
        engine.number_wans();
        engine.forget_drained();
        engine
    }

    /// What is to be kept for the next run.
    pub fn kept(&self) -> Kept {
        Kept {
            numbers: self.numbers.clone(),
            retiring: self.written.retiring.clone(),
            wans: self.written.wans.iter().map(without_secrets).collect(),
            drained: self.drained.clone(),
            tried_pins: self.dials.tried(),
        }
    }

    /// Whether `config` says what is in force already.
    pub fn follows(&self, config: &Config) -> bool {
        let Config { lans, wans, cpu, router, dns, retiring: _ } = &self.written;
        (lans, wans, cpu) == (&config.lans, &config.wans, &config.cpu)
            && (router, dns) == (&config.router, &config.dns)
    }

    /// What is wrong when the configuration's file, of this name, has this mode.
    pub fn exposed(&self, file: &str, mode: u32) -> Option<Problem> {
        crate::config::exposed(&self.written, file, mode)
    }

    /// The kernel parameters that the daemon should read.
    pub fn watched_sysctls(&self) -> BTreeSet<String> {
        desired::watched_sysctls(&self.config, &self.observed)
    }

    /// The interfaces whose queues and interrupts the daemon should read.
    pub fn watched_interfaces(&self) -> BTreeSet<String> {
        desired::watched_interfaces(&self.config)
    }

    /// Whether the kernel is as it should be: traffic is steered.
    pub fn settled(&self) -> bool {
        self.settled.is_some()
    }

    /// Whether everything of ours is out, after [`Event::Leave`].
    pub fn left(&self) -> bool {
        self.left
    }

    /// Takes an event in.
    pub fn handle(&mut self, event: Event, now: Moment) {
        match event {
            Event::Links(links) => self.take_links(links, now),
            Event::Addresses(addresses) => self.take_addresses(addresses, now),
            Event::Routes(routes) => self.take_routes(routes, now),
            Event::Rules { ours, foreign } => {
                self.read.rules = true;
                self.stale |= replace(&mut self.observed.rules, ours);
                self.stale |= replace(&mut self.observed.foreign_rules, foreign);
            }
            Event::Neighbours(neighbours) => {
                self.read.neighbours = true;
                self.stale |= replace(&mut self.observed.neighbours, neighbours);
            }
            Event::Sysctls { now, before } => {
                self.read.sysctls = true;
                self.stale |= replace(&mut self.observed.sysctls, now);
                self.stale |= replace(&mut self.observed.sysctls_before, before);
            }
            Event::Cpus(cpus) => self.stale |= replace(&mut self.observed.cpus, cpus),
            Event::Followed(yes) => self.stale |= replace(&mut self.observed.followed, yes),
            Event::Nft(nft) => {
                self.read.nft = true;
                self.stale |= replace(&mut self.observed.nft, nft);
            }
            Event::Consulted { wan, server, sequence, said } => {
                self.consulted((wan, server), sequence, said, now);
            }
            Event::Resolvers(found) => self.take_resolvers(found),
            Event::Announced { device, resolvers, lives } => {
                self.take_announced(device, &resolvers, lives, now);
            }
            // It changes what people are told, and nothing else.
            Event::Lent(lent) => self.undecided |= replace(&mut self.observed.lent, lent),
            Event::ResolvConf(found) => self.take_resolv_conf(found, now),
            Event::Probe(result) => self.take_result(&result, now),
            Event::Traffic(traffic) => self.take_traffic(traffic, now),
            Event::Children(children) => {
                self.stale |= replace(&mut self.observed.children, children);
            }
            Event::ChildEnded(end) => self.child_ended(&end, now),
            Event::Logs(logs) => self.take_logs(logs),
            Event::Dialling(dialling) => self.take_dialling(dialling),
            Event::Reset { wan, error } => self.was_reset(&wan, error.as_deref(), now),
            Event::StepFailed { step, error } => self.step_failed(&step, error, now),
            Event::Evacuated { wan, family, deleted } => self.evacuated(wan, family, deleted, now),
            Event::Unanswered { wan, family, .. } => self.unanswered.forgotten(wan, family),
            Event::Woken { wan, family, flows } => self.woken(wan, family, flows, now),
            Event::Gone(flows) => self.gone.hear(flows, now),
            Event::NotRefused(flows) => self.gone.not_refused(flows, now),
            Event::Untranslated { family, deleted } => {
                self.evacuations.searched(family, deleted, now);
            }
            Event::Flows { wan, count } => self.flows_counted(wan, count, now),
            Event::Released { wan, family, flows } => self.released(wan, family, flows, now),
            Event::Dhcp { wan, news } => self.hear_dhcp(wan, &news, now),
            Event::Drain { wan, drained } => self.drain(wan, drained, now),
            Event::Drill { wan, span } => self.begin_drill(wan, span, now),
            Event::DrillOver(reason) => self.end_drill(&reason, now),
            Event::Config(config) => self.reconfigure(*config, now),
            Event::Problem(problem) => self.take_problem(problem),
            Event::Solved { code, at } => {
                self.stale |= self.reported.remove(&(code, at)).is_some();
            }
            Event::Leave => {
                self.leaving = true;
                self.release_leases(now);
                self.stale = true;
            }
        }
    }

    fn take_routes(&mut self, routes: BTreeSet<Route>, now: Moment) {
        self.read.routes = true;
        self.note_foreign_defaults(&routes, now);
        self.stale |= replace(&mut self.observed.routes, routes);
    }

    /// Does what is due: wakes the sides, and, when anything that matters has changed, decides
    /// anew and plans the steps. Until every kind of fact has been read once it does nothing.
    pub fn advance(&mut self, now: Moment) {
        if !self.read.all() || self.left {
            return;
        }
        self.mind_dhcp(now);
        self.mind_announced(now);
        if self.stale {
            self.refresh_facts(now);
        }
        if !self.leaving {
            self.wake_sides(now);
        }
        self.mind_drill(now);
        self.mind_ends(now);
        self.mind_claims(now);
        self.mind_dials(now);
        if self.stale || self.undecided || self.attempts.due(now) {
            self.decide(now);
        }
        self.conclude_drill(now);
        self.consult(now);
        self.ask_for_traffic(now);
        self.ask_for_evacuations(now);
        self.refuse_gone_flows(now);
        self.ask_for_releases(now);
        self.ask_for_untranslated(now);
        self.call_the_roll(now);
        self.ask_for_unanswered(now);
        self.ask_for_flows(now);
    }

    /// The next step to carry out, in order.
    pub fn poll_step(&mut self) -> Option<Step> {
        let step = self.steps.pop_front();
        if let Some(Step::TakeResolvConf { .. }) = step {
            self.claims.put();
        }
        step
    }

    /// The next question to ask; to be polled when there are no steps left.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// The next happening to tell.
    pub fn poll_happening(&mut self) -> Option<Happening> {
        self.happenings.pop_front()
    }

    /// When [`Engine::advance`] has something to do though nothing happened.
    pub fn poll_deadline(&self) -> Option<Moment> {
        if self.left {
            return None;
        }
        let attempts = self.attempts.deadline().into_iter().chain(self.ends.deadline()).min();
        if self.leaving {
            return attempts;
        }
        let retiring = (!self.config.retiring.is_empty()).then_some(self.next_count);
        let watching = self.watch_deadline();
        let other = [
            self.evacuations.deadline(self.table_is_there()),
            self.gone_deadline(),
            self.linger_deadline(),
            self.drill_deadline(),
        ];
        let other = other.into_iter().chain([
            self.consult_deadline(),
            self.claims.deadline(),
            self.unanswered.deadline(),
            self.announced_deadline(),
            self.dhcp_deadline(),
            self.dial_deadline(),
        ]);
        [attempts, retiring, watching].into_iter().chain(other).flatten().min()
    }

    fn wan(&self, id: WanId) -> Option<&Wan> {
        self.places.get(&id).and_then(|place| self.config.wans.get(*place))
    }

    fn basis(&self) -> Basis<'_> {
        Basis {
            config: &self.config,
            numbers: &self.numbers,
            facts: &self.facts,
            choice: &self.choice,
            cut: self.cut(),
            asked: &self.resolving.asked,
            observed: &self.observed,
        }
    }

    /// What failed before may work with other interfaces or addresses.
    fn facts_changed(&mut self, changed: bool, now: Moment) {
        self.stale |= changed;
        if changed {
            self.attempts.hurry(now);
        }
    }

    fn number_wans(&mut self) {
        self.numbers = facts::assign_numbers(&self.config, &self.numbers);
        for config in [&mut self.config, &mut self.written] {
            config.retiring.retain(|wan| self.numbers.contains_key(&wan.name));
        }
        let wans = (0..).zip(&self.config.wans);
        self.places =
            wans.filter_map(|(place, w)| Some((*self.numbers.get(&w.name)?, place))).collect();
        let places = self.places.iter();
        self.kinds =
            places.map(|(id, place)| (*id, watch::kinds_of(&self.config.wans[*place]))).collect();
    }

    fn reconfigure(&mut self, mut config: Config, now: Moment) {
        let mut former = std::mem::take(&mut self.written.retiring);
        former.append(&mut self.written.wans);
        config.retiring = retire(&config, former.iter());
        self.next_count = now + FLOWS_COUNTED;
        self.rewrite(config);
        // What is written now holds, not what was known last.
        self.resolving.known.clear();
        self.claims = Claims::default();
        self.number_wans();
        self.forget_drained();
        self.dials.look_soon();
        self.stale = true;
        self.tell(now, "config", None, None, ("", "", "a new configuration is in force"));
    }

    /// Reads the facts off what was observed, and lets every side know.
    fn refresh_facts(&mut self, now: Moment) {
        let before = std::mem::take(&mut self.facts);
        self.facts = facts::read(&self.config, &self.numbers, &self.observed);
        let serves = |id: &WanId| self.facts.get(id).is_some_and(|f| !f.retiring);
        self.sides.retain(|id, _| serves(id));
        let ids: Vec<WanId> = self.facts.keys().copied().filter(serves).collect();
        for id in ids {
            if !self.sides.contains_key(&id) {
                let sides = PerFamily::from_fn(|family| self.new_side(id, family, now));
                self.sides.insert(id, sides);
            }
            for family in Family::BOTH {
                self.inform_side(id, family, before.get(&id), now);
            }
        }
        self.started = true;
    }

    /// A side that an earlier daemon left as lost is known to be down; the others get the benefit
    /// of the doubt, unless they are new to a running daemon.
    fn new_side(&self, id: WanId, family: Family, now: Moment) -> Side {
        // A family that is not there now is not down: there is nothing to be down.
        let absent = self.facts[&id].sides.get(family).obstacle.is_some_and(Obstacle::is_absence);
        if self.kept_as(id, family) == Some("lost") && !absent {
            Side::known_lost(now)
        } else {
            Side::new(!self.started, now)
        }
    }

    /// To which chain the kernel sends the packets of a WAN's flows now.
    fn kept_as(&self, id: WanId, family: Family) -> Option<&str> {
        let map = format!("restore{}", family.digit());
        let key = Key::Number(self.config.router.mark_field.keep(id).0);
        self.observed.nft.maps.get(&map)?.get(&key).map(String::as_str)
    }

    fn inform_side(&mut self, id: WanId, family: Family, before: Option<&WanFacts>, now: Moment) {
        let facts = self.facts[&id].sides.get(family);
        let obstacle = facts.obstacle;
        let moved = before.is_some_and(|b| b.sides.get(family).hop != facts.hop);
        self.with_side(id, family, now, |side, health| {
            side.learn(obstacle, health, now);
            if moved {
                side.moved(now);
            }
        });
    }

    /// A change of health that changes no decision, as most do, causes no plan.
    fn decide(&mut self, now: Moment) {
        self.undecided = false;
        let choice = choose(&self.config, &self.numbers, &self.facts, &self.sides, &self.drained);
        let mut changed = choice != self.choice;
        if changed {
            self.tell_choice(&choice, now);
            self.prove_newcomers(&choice, now);
            self.choice = choice;
        }
        changed |= self.renew_resolvers(now);
        if changed || self.stale || self.attempts.due(now) {
            self.stale = false;
            self.plan(now);
        }
        self.renew_problems(now);
    }

    fn state_of(&self, id: WanId, family: Family) -> State {
        self.sides.get(&id).map_or(State::Unknown, |sides| sides.get(family).state())
    }
}

/// Those of `former` that `config` no longer has: they retire.
fn retire<'a>(config: &Config, former: impl Iterator<Item = &'a Wan>) -> Vec<Wan> {
    let gone = former.filter(|old| config.wans.iter().all(|w| w.name != old.name));
    // One that was dialled is hung up.
    gone.map(without_secrets).collect()
}

fn without_secrets(wan: &Wan) -> Wan {
    Wan { ppp: None, ..wan.clone() }
}

fn replace<T: PartialEq>(place: &mut T, value: T) -> bool {
    let changed = *place != value;
    *place = value;
    changed
}

pub use dhcp::{DhcpNews, KeptLease};

#[cfg(test)]
mod tests;
