//! Which WANs serve. In: configuration, facts, health. Out: a [`Choice`] per family, with its
//! reason. A pure function of what is true now: how things came to be so does not matter.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::api::State;
use crate::config::{AllDown, Config, Wan};
use crate::facts::{Numbers, Obstacle, WanFacts, numbered};
use crate::health::Side;
use crate::names::{Family, PerFamily, WanId, Weight};

/// The health of every WAN.
pub type Sides = BTreeMap<WanId, PerFamily<Side>>;

/// Which WANs serve, for each family.
pub type Choice = PerFamily<FamilyChoice>;

/// Which WANs serve one family.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FamilyChoice {
    /// The WANs that get new connections, with their weights. Empty: nothing can serve.
    pub serving: BTreeMap<WanId, Weight>,
    /// All WANs of the priority that serves, healthy or not: shares are dealt out among them
    /// first, so that one that fails changes nobody else's.
    pub peers: BTreeMap<WanId, Weight>,
    /// The WANs that work, best first, those that work badly last; behind those that serve they are the kernel's own reserve.
    pub usable: Vec<WanId>,
    /// The WANs whose flows must be told to start anew: they do not work, and another has proved
    /// since that it does.
    pub lost: BTreeSet<WanId>,
    /// Why it is so.
    pub reason: Reason,
}

/// Why a family is served as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Reason {
    /// These are the best that work.
    BestPriority,
    /// None works without fault; these do their best.
    LeastBad,
    /// Nothing else works: these were taken out of service by hand.
    Drained,
    /// None is proven; these are on their way back or not judged yet.
    Unproven,
    /// None works; the best known is tried (`all_down = "try"`).
    Trying,
    /// None works; new connections are refused.
    NoneWorks,
    /// No WAN has, or has had, this family: it is not ours to route.
    #[default]
    Absent,
}

impl FamilyChoice {
    /// Whether the family is routed by us at all.
    pub fn is_present(&self) -> bool {
        self.reason != Reason::Absent
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reason::BestPriority => "the best priority that works",
            Reason::LeastBad => "none works without fault; these do their best",
            Reason::Drained => "nothing else works; drained WANs serve",
            Reason::Unproven => "none is proven to work; these may",
            Reason::Trying => "none works; the best known is tried",
            Reason::NoneWorks => "none works; new connections are refused",
            Reason::Absent => "no WAN has this family",
        })
    }
}

/// How much a WAN can be trusted; higher is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    None,
    Down,
    Unjudged,
    /// Somebody has to sign in first; still better than nothing that is known.
    Captive,
    /// Works, but was taken out of service by hand.
    Drained,
    Returning,
    Impaired,
    Works,
}

/// Chooses for both families. WANs that are `drained` serve only while nothing else works.
pub fn choose(
    config: &Config,
    numbers: &Numbers,
    facts: &BTreeMap<WanId, WanFacts>,
    sides: &Sides,
    drained: &BTreeSet<String>,
) -> Choice {
    let wans = numbered(config, numbers);
    PerFamily::from_fn(|family| {
        let trust = wans.iter().map(|(id, wan)| {
            let trust = trust(facts.get(id), sides.get(id), family);
            let spared = drained.contains(&wan.name) && trust > Trust::Drained;
            (*id, if spared { Trust::Drained } else { trust })
        });
        choose_family(family, config, &wans, facts, sides, &trust.collect())
    })
}

fn choose_family(
    family: Family,
    config: &Config,
    wans: &BTreeMap<WanId, &Wan>,
    facts: &BTreeMap<WanId, WanFacts>,
    sides: &Sides,
    trust: &BTreeMap<WanId, Trust>,
) -> FamilyChoice {
    let best = trust.values().copied().max().unwrap_or(Trust::None);
    let (floor, reason) = match best {
        Trust::Works => (Trust::Works, Reason::BestPriority),
        Trust::Impaired => (best, Reason::LeastBad),
        Trust::Drained => (best, Reason::Drained),
        Trust::Returning | Trust::Captive | Trust::Unjudged => (best, Reason::Unproven),
        Trust::Down if config.router.all_down == AllDown::Try => (Trust::Down, Reason::Trying),
        Trust::Down | Trust::None => {
            let been_there = sides.values().any(|s| s.get(family).has_been_up());
            // What retires still has flows of it. Where every WAN is told to leave a family alone, it
            // is somebody else's at once.
            let wanted = facts
                .values()
                .any(|f| !f.retiring && f.sides.get(family).obstacle != Some(Obstacle::Off));
            let retires = |f: &WanFacts| f.retiring && f.sides.get(family).hop.is_some();
            let left = wanted && facts.values().any(retires);
            let present = been_there || best == Trust::Down || left;
            let reason = if present { Reason::NoneWorks } else { Reason::Absent };
            return FamilyChoice { reason, ..FamilyChoice::default() };
        }
    };
    // One that works badly carries what it has, and is the reserve of those that work well; one
    // that is drained comes behind.
    let works = |t: &Trust| *t >= floor || matches!(t, Trust::Impaired | Trust::Drained);
    let mut usable: Vec<WanId> =
        trust.iter().filter(|(_, t)| works(t)).map(|(id, _)| *id).collect();
    usable.sort_by_key(|id| (Reverse(trust[id].min(floor)), wans[id].priority, *id));
    let priority = usable.first().map(|id| wans[id].priority);
    let weights = |ids: &mut dyn Iterator<Item = WanId>| -> BTreeMap<WanId, Weight> {
        ids.filter(|id| Some(wans[id].priority) == priority)
            .map(|id| (id, wans[&id].weight))
            .collect()
    };
    let lost = match reason {
        Reason::Trying | Reason::NoneWorks | Reason::Absent => BTreeSet::new(),
        Reason::BestPriority | Reason::LeastBad | Reason::Drained | Reason::Unproven => {
            let failed = trust.iter().filter(|(_, t)| **t <= Trust::Down).map(|(id, _)| *id);
            let side = |id: &WanId| sides.get(id).map(|sides| sides.get(family));
            // They may all have died together, and then the first that returns carries on its own.
            let told = |id: &WanId| {
                // One that retires has no health: it is here because it cannot carry anything.
                let Some(side_of) = side(id) else { return !usable.is_empty() };
                side_of.told()
                    || usable.iter().filter_map(side).any(|other| side_of.is_outlived_by(other))
            };
            failed.chain(stranded(facts, family)).filter(told).collect()
        }
    };
    FamilyChoice {
        serving: weights(&mut usable.iter().copied().filter(|id| trust[id] >= floor)),
        peers: weights(&mut wans.keys().copied()),
        usable,
        lost,
        reason,
    }
}

/// The WANs that retire, but cannot even carry what they still have.
fn stranded(facts: &BTreeMap<WanId, WanFacts>, family: Family) -> impl Iterator<Item = WanId> {
    facts
        .iter()
        .filter(move |(_, f)| f.retiring && f.sides.get(family).obstacle.is_some())
        .map(|(id, _)| *id)
}

fn trust(facts: Option<&WanFacts>, sides: Option<&PerFamily<Side>>, family: Family) -> Trust {
    let (Some(facts), Some(side)) = (facts, sides.map(|s| s.get(family))) else {
        return Trust::None;
    };
    let facts = facts.sides.get(family);
    if facts.obstacle.is_some() || facts.hop.is_none() {
        return Trust::None;
    }
    match side.state() {
        State::Up | State::Suspect => Trust::Works,
        State::Impaired => Trust::Impaired,
        State::Portal => Trust::Captive,
        State::Unknown if side.trusted() => Trust::Works,
        State::Unknown => Trust::Unjudged,
        State::Recovering => Trust::Returning,
        State::Down => Trust::Down,
    }
}

#[cfg(test)]
mod tests;
