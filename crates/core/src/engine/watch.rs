//! Keeps an eye on every side: wakes it when it is due, hands it the fates of its probes and the
//! counts of its traffic, and minds what heartbeats on standby may cost.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use crate::api::State;
use crate::choose::Choice;
use crate::config::{Health, Kind, Target, Wan};
use crate::health::{Fate, Order, Role, Side};
use crate::names::{Family, PerFamily, WanId};
use crate::observed::Traffic;
use crate::steps::{Ask, Failure, Probe, ProbeResult};
use crate::time::Moment;

/// Bytes of an Ethernet header.
const ETHERNET: f64 = 14.0;
/// How often traffic is counted while a side is in doubt: the gap of a burst's rounds.
const PACE_DOUBT: Duration = Duration::from_millis(50);
/// While there is traffic: three counts and a burst of 250 ms are half a second at most.
const PACE_BUSY: Duration = Duration::from_millis(80);
/// While there is none: to notice that it begins. From the first on it is counted along with other
/// work, and at last by itself: to wake an idle machine costs more than what it then does.
const PACE_IDLE: (Duration, Duration) = (Duration::from_millis(900), Duration::from_millis(1500));
/// How long after the last packet there still is traffic.
const BUSY: Duration = Duration::from_secs(2);
/// What a budget is for.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
/// What may be saved up or owed: an hour's worth, so that a flapping line neither spends a month at
/// once nor is left unwatched for long afterwards.
const SAVED: f64 = 1.0 / 720.0;

/// So many suspects at least make it likely that this machine is slow, and not every line.
const SUSPECTS_FEW: usize = 5;

/// How it is with all sides at a moment.
#[derive(Debug, Clone, Copy)]
struct Mood {
    /// So many are in doubt about their losses.
    doubtful: u32,
    /// More are suspect than up.
    all_suspect: bool,
}

/// What is known beyond the sides themselves.
#[derive(Debug, Default)]
pub(super) struct Watch {
    traffic: BTreeMap<(WanId, Family), Traffic>,
    /// When traffic was counted last; and until when there is traffic.
    counted: Moment,
    busy_until: Moment,
    purses: BTreeMap<WanId, Purse>,
}

/// What is left of a WAN's budget: it fills steadily, and every probe is paid from it.
#[derive(Debug, Clone, Copy)]
struct Purse {
    bytes: f64,
    at: Moment,
}

impl Purse {
    fn fill(&mut self, budget: u64, now: Moment) {
        let full = budget_f64(budget) * SAVED;
        let grown = rate(budget) * now.since(self.at).as_secs_f64();
        *self = Purse { bytes: (self.bytes + grown).min(full), at: now };
    }

    fn pay(&mut self, cost: f64, budget: u64) {
        self.bytes = (self.bytes - cost).max(-budget_f64(budget) * SAVED);
    }

    /// When it has enough for one heartbeat.
    fn rest_until(self, cost: f64, budget: u64) -> Moment {
        let missing = (cost - self.bytes).max(0.0) / rate(budget);
        self.at + Duration::try_from_secs_f64(missing).unwrap_or(MONTH).min(MONTH)
    }
}

/// Budgets are far below 2^52 bytes.
#[expect(clippy::cast_precision_loss, reason = "at most 1 TB, exact in 53 bits")]
fn budget_f64(budget: u64) -> f64 {
    budget as f64
}

fn rate(budget: u64) -> f64 {
    (budget_f64(budget) / MONTH.as_secs_f64()).max(f64::MIN_POSITIVE)
}

/// What a probe and its answer weigh on the line, in bytes with Ethernet and IP headers: an echo of
/// 64 bytes; a handshake of SYN, SYN-ACK, ACK and RST; a query with a short answer; a small page.
fn cost(kind: Kind, family: Family) -> f64 {
    let (ipv4, packets) = match kind {
        Kind::Icmp => (168.0, 2.0),
        Kind::Tcp => (224.0, 4.0),
        Kind::Dns => (220.0, 2.0),
        Kind::Http => (1_000.0, 10.0),
    };
    let longer = match family {
        Family::Ipv4 => 0.0,
        Family::Ipv6 => 20.0,
    };
    ipv4 + (ETHERNET + longer) * packets
}

/// The targets of one family, in file order.
fn targets_of(wan: &Wan, family: Family) -> Vec<&Target> {
    wan.health.targets.iter().filter(|t| t.serves(family)).collect()
}

/// The kinds of the targets of each family, in file order.
pub(super) fn kinds_of(wan: &Wan) -> PerFamily<Vec<Kind>> {
    PerFamily::from_fn(|family| targets_of(wan, family).into_iter().map(Target::kind).collect())
}

impl Engine {
    /// What a side is used for, and how it is with all of them.
    fn role(&self, id: WanId, wan: &Wan, family: Family, mood: Mood) -> Role<'_> {
        let kinds = self.kinds.get(&id).map_or(&[][..], |kinds| kinds.get(family));
        let dearest = kinds.iter().map(|kind| cost(*kind, family)).fold(0.0, f64::max);
        let purse = self.watch.purses.get(&id).zip(wan.budget);
        let serving = &self.choice.get(family).serving;
        Role {
            kinds,
            metered: wan.metered,
            // Where nothing serves, every WAN is needed, whatever asking it costs.
            serving: serving.is_empty() || serving.contains_key(&id),
            rest_until: purse.map_or(Moment::default(), |(purse, b)| purse.rest_until(dearest, b)),
            doubtful: mood.doubtful,
            all_suspect: mood.all_suspect,
        }
    }

    /// How it is with all sides.
    fn mood(&self) -> Mood {
        let both = || self.sides.values().flat_map(|sides| Family::BOTH.map(|f| sides.get(f)));
        let health = |id: &WanId| self.wan(*id).map(|wan| &wan.health);
        let known = self.sides.iter().filter_map(|(id, sides)| Some((sides, health(id)?)));
        let doubtful = known
            .flat_map(|(sides, health)| Family::BOTH.map(|f| sides.get(f).doubts_losses(health)))
            .filter(|doubts| *doubts)
            .count();
        let of = |state: State| both().filter(|side| side.state() == state).count();
        let suspects = of(State::Suspect);
        Mood {
            doubtful: u32::try_from(doubtful).unwrap_or(u32::MAX),
            all_suspect: suspects >= SUSPECTS_FEW && suspects > of(State::Up),
        }
    }

    /// When a side, or the counting of traffic, is due next.
    pub(super) fn watch_deadline(&self) -> Option<Moment> {
        let mood = self.mood();
        let sides = self.sides.iter().flat_map(|(id, sides)| {
            Family::BOTH.into_iter().filter_map(move |family| {
                let wan = self.wan(*id)?;
                let role = self.role(*id, wan, family, mood);
                sides.get(family).deadline(&role, &wan.health)
            })
        });
        sides.chain(self.started.then(|| self.next_count_of_traffic().1)).min()
    }

    pub(super) fn wake_sides(&mut self, now: Moment) {
        let ids: Vec<WanId> = self.sides.keys().copied().collect();
        let mood = self.mood();
        for id in ids {
            for family in Family::BOTH {
                self.wake_side(id, family, mood, now);
            }
        }
    }

    fn wake_side(&mut self, id: WanId, family: Family, mood: Mood, now: Moment) {
        let (Some(wan), Some(sides)) = (self.wan(id), self.sides.get(&id)) else { return };
        let role = self.role(id, wan, family, mood);
        let side = sides.get(family);
        let due = role.kinds.is_empty()
            || side.deadline(&role, &wan.health).is_some_and(|next| next <= now)
            || side.hurries(&role, &wan.health, now);
        if !due {
            return;
        }
        let kinds = role.kinds.to_vec();
        let role = Role { kinds: &kinds, ..role };
        let mut orders = Vec::new();
        self.with_side(id, family, now, |side, health| orders = side.wake(&role, health, now));
        if orders.is_empty() {
            return;
        }
        let Some(wan) = self.wan(id) else { return };
        let (device, budget) = (wan.interface.clone(), wan.budget);
        let targets: Vec<Target> = targets_of(wan, family).into_iter().cloned().collect();
        let mark = self.config.router.mark_field.keep(id);
        let own = self.servers_behind(id);
        if let Some(budget) = budget {
            self.pay(id, budget, orders.iter().map(|o| cost(kinds[o.target], family)).sum(), now);
        }
        self.asks.extend(orders.into_iter().map(|Order { target, sequence, listen }| {
            Ask::Probe(Probe {
                wan: id,
                family,
                target: targets[target].clone(),
                resolvers: match targets[target].resolvers(&targets) {
                    none if none.is_empty() => own.clone(),
                    named => named,
                },
                sequence,
                device: device.clone(),
                mark,
                timeout: listen,
            })
        }));
    }

    /// Whether a WAN is down whose flows have not been told, because no other has proved since that
    /// it works.
    fn awaits_proof(&self, family: Family) -> bool {
        let choice = self.choice.get(family);
        !choice.usable.is_empty()
            && self.sides.iter().any(|(id, sides)| {
                sides.get(family).state() == State::Down && !choice.lost.contains(id)
            })
    }

    /// One is down, or back: how it is with the others is worth knowing at once.
    fn ask_the_others(&mut self, one: WanId, family: Family, now: Moment) {
        for (id, sides) in &mut self.sides {
            if *id != one {
                sides.get_mut(family).recheck(now);
            }
        }
    }

    fn pay(&mut self, id: WanId, budget: u64, cost: f64, now: Moment) {
        let full = Purse { bytes: budget_f64(budget) * SAVED, at: now };
        let purse = self.watch.purses.entry(id).or_insert(full);
        purse.fill(budget, now);
        purse.pay(cost, budget);
    }

    pub(super) fn take_result(&mut self, result: &ProbeResult, now: Moment) {
        let fate = match &result.outcome {
            Ok(round_trip) => Fate::Answered(*round_trip),
            Err(Failure::Silent(_)) => Fate::Silent,
            Err(Failure::Portal(what)) => Fate::Portal(what.clone()),
        };
        self.with_side(result.wan, result.family, now, |side, health| {
            side.answer(result.sequence, &fate, health, now);
        });
    }

    pub(super) fn take_traffic(
        &mut self,
        traffic: BTreeMap<(WanId, Family), Traffic>,
        now: Moment,
    ) {
        if traffic != self.watch.traffic {
            self.watch.busy_until = now + BUSY;
        }
        for ((id, family), total) in &traffic {
            self.with_side(*id, *family, now, |side, health| {
                side.count_traffic(*total, health, now);
            });
        }
        self.watch.traffic = traffic;
    }

    /// From when on traffic is counted along with other work, and when it is counted at last.
    fn next_count_of_traffic(&self) -> (Moment, Moment) {
        let both = |sides: &PerFamily<Side>| {
            Family::BOTH.into_iter().any(|family| sides.get(family).wants_traffic())
        };
        let counted = self.watch.counted;
        if self.sides.values().any(both) {
            (counted + PACE_DOUBT, counted + PACE_DOUBT)
        } else if counted < self.watch.busy_until {
            (counted + PACE_BUSY, counted + PACE_BUSY)
        } else {
            (counted + PACE_IDLE.0, counted + PACE_IDLE.1)
        }
    }

    pub(super) fn ask_for_traffic(&mut self, now: Moment) {
        let (along, last) = self.next_count_of_traffic();
        let due = if self.asks.is_empty() { last } else { along };
        if !self.leaving && now >= due {
            self.watch.counted = now;
            self.asks.push_back(Ask::CountTraffic);
        }
    }

    /// A metered WAN that was asked rarely is about to serve: whether it works is found out at
    /// once, beside the switch.
    pub(super) fn prove_newcomers(&mut self, choice: &Choice, now: Moment) {
        for family in Family::BOTH {
            let before = &self.choice.get(family).serving;
            let newcomers: Vec<WanId> = choice.get(family).serving.keys().copied().collect();
            let newcomers: Vec<WanId> =
                newcomers.into_iter().filter(|id| !before.contains_key(id)).collect();
            for id in newcomers {
                if self.wan(id).is_some_and(|wan| wan.metered) {
                    self.with_side(id, family, now, |side, health| side.prove(health, now));
                }
            }
        }
    }

    /// Changes a side; a change of its state puts decisions in doubt and is told.
    pub(super) fn with_side(
        &mut self,
        id: WanId,
        family: Family,
        now: Moment,
        change: impl FnOnce(&mut Side, &Health),
    ) {
        let wan = self.places.get(&id).and_then(|place| self.config.wans.get(*place));
        let (Some(wan), Some(sides)) = (wan, self.sides.get_mut(&id)) else { return };
        let side = sides.get_mut(family);
        let old = side.state();
        change(side, &wan.health);
        let new = side.state();
        // This may be what others' flows wait for before they are told to move.
        self.undecided |= old != new || self.awaits_proof(family);
        if old != new && (old == State::Down || new == State::Down) {
            self.ask_the_others(id, family, now);
        }
        if old != new {
            let reason = self.sides[&id].get(family).reason().to_owned();
            let states: (&str, &str, &str) = (&old.to_string(), &new.to_string(), &reason);
            self.tell(now, "state", Some(id), Some(family), states);
        }
    }
}
