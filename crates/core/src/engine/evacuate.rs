//! Flows that are left on a lost WAN. "They are gone" is a fact to be established, not a thing
//! once done: the question is asked again until nothing was found, and from time to time after.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Engine, FLOWS_COUNTED};
use crate::config::Wan;
use crate::names::{Family, WanId};
use crate::observed::Structure;
use crate::steps::Ask;
use crate::time::Moment;

/// Again after some were found: packets in flight may have made new entries.
const AGAIN: Duration = Duration::from_secs(1);
/// Again after none was found.
const RECHECK: Duration = Duration::from_secs(30);

/// When each lost WAN's flows are to be looked for.
#[derive(Debug, Default)]
pub(super) struct Evacuations {
    next: BTreeMap<(WanId, Family), Moment>,
    /// When flows that were not translated are to be looked for.
    untranslated: Option<Moment>,
}

impl Evacuations {
    pub(super) fn done(&mut self, wan: WanId, family: Family, deleted: u64, now: Moment) {
        if let Some(next) = self.next.get_mut(&(wan, family)) {
            *next = now + if deleted > 0 { AGAIN } else { RECHECK };
        }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.next.values().copied().chain(self.untranslated).min()
    }

    /// Our table was away: flows that began meanwhile are to be looked for.
    pub(super) fn table_was_away(&mut self, now: Moment) {
        self.untranslated = Some(now);
    }

    pub(super) fn untranslated_done(&mut self, deleted: u64, now: Moment) {
        if deleted > 0 {
            self.untranslated = Some(now + AGAIN);
        }
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

    /// Asks for the end of flows that left untranslated while the table was away. A family that
    /// some WAN does not translate has unpinned flows that are right as they are.
    pub(super) fn ask_for_untranslated(&mut self, now: Moment) {
        let due = self.evacuations.untranslated.is_some_and(|at| at <= now);
        let back = matches!(self.observed.nft.structure, Structure::Intact(_));
        if !due || !self.steps.is_empty() || self.leaving {
            return;
        }
        self.evacuations.untranslated = (!back).then_some(now + AGAIN);
        if !back {
            return;
        }
        let field = self.config.router.mark_field;
        let wans = crate::facts::numbered(&self.config, &self.numbers);
        for family in Family::BOTH {
            let (some, others): (Vec<_>, Vec<_>) =
                wans.iter().partition(|(_, wan)| wan.translates(family));
            let unpinned = others.is_empty().then_some(0);
            let marks: Vec<u32> =
                some.iter().map(|(id, _)| field.keep(**id).0).chain(unpinned).collect();
            let marks = (marks, field.number_mask());
            self.asks.push_back(Ask::Untranslated { family, marks, ask: field.ask() });
        }
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
