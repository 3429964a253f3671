//! Flows that are left on a lost WAN, or that began untranslated while our table was gone. "None
//! is left" is a fact to be established, not a thing once done: the question is asked again until
//! nothing was found, and, of a lost WAN, from time to time after.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Engine, FLOWS_COUNTED};
use crate::config::{Nat, Wan};
use crate::names::{Family, IfIndex, PerFamily, WanId};
use crate::observed::Structure;
use crate::steps::Ask;
use crate::time::Moment;

/// Again after some were found: packets in flight may have made new entries.
const AGAIN: Duration = Duration::from_secs(1);
/// Again after none was found.
const RECHECK: Duration = Duration::from_secs(30);

/// Between the first two rounds of waking: a client that was lost on the way gets a second call
/// soon. Trebles with each round: some kernels show flows that were reset for some time.
const WAKE_AGAIN: Duration = Duration::from_millis(200);
/// How often all clients are called when the table is back, a second apart.
const ROLL_CALLS: u32 = 2;

/// When flows are to be looked for.
#[derive(Debug, Default)]
pub(super) struct Evacuations {
    /// Those of each lost WAN.
    next: BTreeMap<(WanId, Family), Moment>,
    /// When the clients of each lost WAN's flows are to be woken, after how many rounds.
    wakes: BTreeMap<(WanId, Family), (Moment, u32)>,
    /// Untranslated ones; `None` while there can be none.
    untranslated: PerFamily<Option<Moment>>,
    /// When all clients are called next, and how often yet.
    roll_call: Option<(Moment, u32)>,
}

impl Evacuations {
    pub(super) fn done(&mut self, wan: WanId, family: Family, deleted: u64, now: Moment) {
        if let Some(next) = self.next.get_mut(&(wan, family)) {
            *next = now + if deleted > 0 { AGAIN } else { RECHECK };
        }
    }

    /// Whether the flows of a WAN are told for the first time since it was lost.
    fn is_first_call(&self, wan: WanId, family: Family) -> bool {
        self.wakes.get(&(wan, family)).is_some_and(|(_, rounds)| *rounds == 0)
    }

    /// Our table was away: flows may have begun untranslated, and others have ended unheard.
    pub(super) fn search(&mut self, now: Moment) {
        self.untranslated = PerFamily::from_fn(|_| Some(now));
        self.roll_call = Some((now, ROLL_CALLS));
    }

    pub(super) fn searched(&mut self, family: Family, deleted: u64, now: Moment) {
        *self.untranslated.get_mut(family) = (deleted > 0).then_some(now + AGAIN);
    }

    /// When any of this is due; `table`: whether ours is there, without which nobody is called.
    pub(super) fn deadline(&self, table: bool) -> Option<Moment> {
        let wakes = self.wakes.values().map(|(next, _)| *next);
        let roll_call = self.roll_call.filter(|_| table).map(|(next, _)| next);
        let untranslated = Family::BOTH.into_iter().filter_map(|f| *self.untranslated.get(f));
        self.next.values().copied().chain(wakes).chain(roll_call).chain(untranslated).min()
    }

    pub(super) fn woken(&mut self, wan: WanId, family: Family, flows: u64, now: Moment) {
        if let Some((next, rounds)) = self.wakes.get_mut(&(wan, family)) {
            let pause = WAKE_AGAIN.saturating_mul(3_u32.saturating_pow(*rounds)).min(RECHECK);
            *rounds = if flows > 0 { *rounds + 1 } else { 0 };
            *next = now + if flows > 0 { pause } else { RECHECK };
        }
    }
}

impl Engine {
    /// Tells how many established TCP flows hear that their WAN is lost; not again for those that
    /// some kernels show for a while after their reset.
    pub(super) fn woken(&mut self, wan: WanId, family: Family, flows: u64, now: Moment) {
        if flows > 0 && self.evacuations.is_first_call(wan, family) {
            let reason = "TCP flows told to start anew";
            self.tell(now, "told", Some(wan), Some(family), ("", &flows.to_string(), reason));
        }
        self.evacuations.woken(wan, family, flows, now);
    }

    pub(super) fn evacuated(&mut self, wan: WanId, family: Family, flows: u64, now: Moment) {
        if flows > 0 {
            let reason = "other flows go on by another WAN";
            self.tell(now, "told", Some(wan), Some(family), ("", &flows.to_string(), reason));
        }
        self.evacuations.done(wan, family, flows, now);
    }

    /// Asks for evacuations that are due; only once the kernel already sends new flows elsewhere.
    pub(super) fn ask_for_evacuations(&mut self, now: Moment) {
        let choice = &self.choice;
        self.evacuations.next.retain(|(wan, family), _| choice.get(*family).lost.contains(wan));
        let field = self.config.router.mark_field;
        let asks = &mut self.asks;
        self.evacuations.wakes.retain(|(wan, family), _| {
            let lost = choice.get(*family).lost.contains(wan);
            if !lost {
                asks.push_back(Ask::LetSleep { family: *family, mark: field.flows(*wan) });
            }
            lost
        });
        if !self.steps.is_empty() || self.leaving {
            return;
        }
        let (mut wakes, mut deletions) = (Vec::new(), Vec::new());
        for family in Family::BOTH {
            for wan in &self.choice.get(family).lost {
                let key = (*wan, family);
                let due = |next: Option<Moment>| next.is_none_or(|next| next <= now);
                let wake = self.evacuations.wakes.get(&key).map(|(next, _)| *next);
                if !due(wake) && !due(self.evacuations.next.get(&key).copied()) {
                    continue;
                }
                // The steps that say so may have failed: then they could only return to it.
                let (_, others) = self.served_by(*wan, family);
                if self.kept_as(*wan, family) != Some("lost") || !others {
                    continue;
                }
                let mark = field.flows(*wan);
                let (next, _) = self.evacuations.wakes.entry(key).or_insert((now, 0));
                if *next <= now {
                    *next = now + RECHECK;
                    wakes.push(Ask::Wake { wan: *wan, family, mark });
                }
                let next = self.evacuations.next.entry(key).or_insert(now);
                if *next <= now {
                    *next = now + RECHECK;
                    deletions.push(Ask::Evacuate { wan: *wan, family, mark });
                }
            }
        }
        // Whoever waits is told first: each of these goes through all of conntrack, which takes the
        // kernel 10 ms or more where it has room for many flows.
        self.asks.extend(wakes.into_iter().chain(deletions));
    }

    /// Whether the kernel sends new connections to this WAN, and whether to others.
    pub(super) fn served_by(&self, wan: WanId, family: Family) -> (bool, bool) {
        let slots = self.observed.nft.maps.get(&format!("slots{}", family.digit()));
        let ways = || slots.into_iter().flat_map(BTreeMap::values);
        let own = format!("place{wan}");
        (ways().any(|to| *to == own), ways().any(|to| *to != own && to != "refuse"))
    }

    /// Has all clients say something once the table is back. While it was away nobody translated
    /// the answers of their servers, so the router itself refused them: whoever only listens would
    /// never hear of it. A server that still knows the flow takes no notice of what is said.
    pub(super) fn call_the_roll(&mut self, now: Moment) {
        let possible = self.table_is_there() && self.steps.is_empty() && !self.leaving;
        let Some((_, rounds)) = self.evacuations.roll_call.filter(|(next, _)| *next <= now) else {
            return;
        };
        if !possible {
            return;
        }
        self.evacuations.roll_call = (rounds > 1).then_some((now + AGAIN, rounds - 1));
        let field = self.config.router.mark_field;
        for family in Family::BOTH {
            // Those of a lost WAN are woken anyway.
            let lost = &self.choice.get(family).lost;
            let wans = self.numbers.values().filter(|wan| !lost.contains(*wan));
            self.asks.extend(wans.map(|wan| Ask::Wake {
                wan: *wan,
                family,
                mark: field.flows(*wan),
            }));
        }
    }

    /// Whether our table is there, as we made it.
    pub(super) fn table_is_there(&self) -> bool {
        matches!(self.observed.nft.structure, Structure::Intact(_))
    }

    /// Asks for flows that began while our table was gone, once it is back.
    pub(super) fn ask_for_untranslated(&mut self, now: Moment) {
        let back = self.table_is_there();
        if !self.steps.is_empty() || self.leaving {
            return;
        }
        let field = self.config.router.mark_field;
        for family in Family::BOTH {
            let next = self.evacuations.untranslated.get_mut(family);
            if next.is_none_or(|next| next > now) {
                continue;
            }
            if !back {
                *next = Some(now + AGAIN);
                continue;
            }
            // An answer that never comes must not stop the search.
            *next = Some(now + RECHECK);
            if !self.choice.get(family).is_present() {
                *next = None;
                continue;
            }
            self.asks.push_back(Ask::Untranslated {
                family,
                lans: self.lan_indexes(),
                question: field.ask(),
                mask: field.number_mask(),
                right: self.untranslating(family),
            });
        }
    }

    fn lan_indexes(&self) -> BTreeSet<IfIndex> {
        let lans = self.config.lans.iter();
        lans.filter_map(|lan| self.observed.link_named(&lan.interface)).map(|(i, _)| i).collect()
    }

    /// The marks of flows that need no translation. Unmarked ones may leave by any WAN.
    fn untranslating(&self, family: Family) -> BTreeSet<u32> {
        let plain = |wan: &&Wan| match family {
            Family::Ipv4 => wan.nat == Nat::None,
            Family::Ipv6 => wan.nat6 == Nat::None,
        };
        let wans = self.config.wans.iter().chain(&self.config.retiring).filter(plain);
        let numbers = wans.filter_map(|wan| self.numbers.get(&wan.name));
        let mut marks: BTreeSet<u32> =
            numbers.map(|wan| self.config.router.mark_field.keep(*wan).0).collect();
        if !marks.is_empty() {
            marks.insert(0);
        }
        marks
    }

    /// Asks how many flows the WANs have that are no longer configured.
    pub(super) fn ask_for_flows(&mut self, now: Moment) {
        if self.config.retiring.is_empty() || now < self.next_count || self.leaving {
            return;
        }
        self.next_count = now + FLOWS_COUNTED;
        let field = self.config.router.mark_field;
        for wan in self.config.retiring.iter().filter_map(|w| self.numbers.get(&w.name)) {
            self.asks.push_back(Ask::CountFlows { wan: *wan, mark: field.flows(*wan) });
        }
    }

    pub(super) fn flows_counted(&mut self, wan: WanId, count: u64, now: Moment) {
        let numbers = &self.numbers;
        let over = |w: &Wan| count == 0 && numbers.get(&w.name) == Some(&wan);
        let Some(place) = self.config.retiring.iter().position(over) else { return };
        let mut written = self.written.clone();
        let name = written.retiring.remove(place).name;
        self.rewrite(written);
        self.number_wans();
        self.stale = true;
        self.tell(now, "config", None, None, (&name, "", "the last flow of a former WAN is over"));
    }
}
