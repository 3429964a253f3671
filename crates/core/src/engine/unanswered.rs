//! Flows that nobody has answered yet, on a WAN that works badly and is left by new connections. They
//! are new connections themselves, but bound to the WAN by their first packet: a SYN that was lost
//! there would be lost there again and again. Their entries are deleted, so the next try begins
//! anew (Linux sends a SYN again after a second, RFC 6298) and goes by a WAN that serves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Engine;
use crate::api::State;
use crate::names::{Family, WanId};
use crate::steps::Ask;
use crate::time::Moment;

/// An answer may be on its way when the WAN is left.
const ON_ITS_WAY: Duration = Duration::from_millis(300);
/// When it is asked again though no answer came to the question.
const AGAIN: Duration = Duration::from_secs(30);

/// When such flows are to be looked for.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// Of each WAN that is left; `None`: they have been.
    next: BTreeMap<(WanId, Family), Option<Moment>>,
}

impl Unanswered {
    pub(super) fn forgotten(&mut self, wan: WanId, family: Family) {
        if let Some(next) = self.next.get_mut(&(wan, family)) {
            *next = None;
        }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.next.values().filter_map(|next| *next).min()
    }
}

impl Engine {
    /// Asks for these flows a while after their WAN has been left, once.
    pub(super) fn ask_for_unanswered(&mut self, now: Moment) {
        let left = self.left_by_new_flows();
        self.unanswered.next.retain(|key, _| left.contains(key));
        for key in left {
            self.unanswered.next.entry(key).or_insert(Some(now + ON_ITS_WAY));
        }
        if !self.steps.is_empty() || self.leaving {
            return;
        }
        let field = self.config.router.mark_field;
        for ((wan, family), next) in &mut self.unanswered.next {
            if next.is_some_and(|next| next <= now) {
                *next = Some(now + AGAIN);
                let mark = field.flows(*wan);
                self.asks.push_back(Ask::Unanswered { wan: *wan, family: *family, mark });
            }
        }
    }

    /// The WANs that work badly, and to which the kernel sends no new flow any more.
    fn left_by_new_flows(&self) -> BTreeSet<(WanId, Family)> {
        let badly = |(wan, family): &(WanId, Family)| {
            let state = self.sides.get(wan).map(|sides| sides.get(*family).state());
            matches!(state, Some(State::Impaired | State::Portal))
        };
        let all = self.sides.keys().flat_map(|wan| Family::BOTH.map(|family| (*wan, family)));
        let left = |(wan, family): &(WanId, Family)| {
            let (itself, others) = self.served_by(*wan, *family);
            others && !itself
        };
        all.filter(badly).filter(left).collect()
    }
}
