//! Flows that are left on a lost WAN, or that began untranslated while our table was gone. "They
//! are gone" is a fact to be established, not a thing once done: the question is asked again until
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

/// When flows are to be looked for.
#[derive(Debug, Default)]
pub(super) struct Evacuations {
    /// Those of each lost WAN.
    next: BTreeMap<(WanId, Family), Moment>,
    /// Untranslated ones; `None` while there can be none.
    untranslated: PerFamily<Option<Moment>>,
}

impl Evacuations {
    pub(super) fn done(&mut self, wan: WanId, family: Family, deleted: u64, now: Moment) {
        if let Some(next) = self.next.get_mut(&(wan, family)) {
            *next = now + if deleted > 0 { AGAIN } else { RECHECK };
        }
    }

    /// Our table was away: flows may have begun untranslated.
    pub(super) fn search(&mut self, now: Moment) {
        self.untranslated = PerFamily::from_fn(|_| Some(now));
    }

    pub(super) fn searched(&mut self, family: Family, deleted: u64, now: Moment) {
        *self.untranslated.get_mut(family) = (deleted > 0).then_some(now + AGAIN);
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let untranslated = Family::BOTH.into_iter().filter_map(|f| *self.untranslated.get(f));
        self.next.values().copied().chain(untranslated).min()
    }
}

impl Engine {
    /// Asks for evacuations that are due; only once the kernel already sends new flows elsewhere.
    pub(super) fn ask_for_evacuations(&mut self, now: Moment) {
        let choice = &self.choice;
        self.evacuations.next.retain(|(wan, family), _| choice.get(*family).lost.contains(wan));
        if !self.steps.is_empty() || self.leaving {
            return;
        }
        let field = self.config.router.mark_field;
        for family in Family::BOTH {
            for wan in &self.choice.get(family).lost {
                let next = self.evacuations.next.entry((*wan, family)).or_insert(now);
                if *next <= now {
                    *next = now + RECHECK;
                    let mark = (field.keep(*wan).0, field.number_mask());
                    self.asks.push_back(Ask::Evacuate { wan: *wan, family, mark });
                }
            }
        }
    }

    /// Asks for flows that began while our table was gone, once it is back.
    pub(super) fn ask_for_untranslated(&mut self, now: Moment) {
        let back = matches!(self.observed.nft.structure, Structure::Intact(_));
        if !self.steps.is_empty() || self.leaving || !back {
            return;
        }
        let field = self.config.router.mark_field;
        for family in Family::BOTH {
            let next = self.evacuations.untranslated.get_mut(family);
            if next.is_none_or(|next| next > now) {
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
            let mark = (field.keep(*wan).0, field.number_mask());
            self.asks.push_back(Ask::CountFlows { wan: *wan, mark });
        }
    }

    pub(super) fn flows_counted(&mut self, wan: WanId, count: u64, now: Moment) {
        let numbers = &self.numbers;
        let over = |w: &Wan| count == 0 && numbers.get(&w.name) == Some(&wan);
        let Some(place) = self.config.retiring.iter().position(over) else { return };
        let name = self.config.retiring.remove(place).name;
        self.number_wans();
        self.stale = true;
        self.tell(now, "config", None, None, (&name, "", "the last flow of a former WAN is over"));
    }
}
