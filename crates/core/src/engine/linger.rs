//! Flows on a WAN that works, but gets no new connections because a better one serves: where data
//! costs money (or `linger` says so) they may stay for a while, then they are told to start anew.
//! "They are gone" is asked again and again, so that nothing that is kept alive stays behind.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use crate::choose::Reason;
use crate::names::{Family, WanId};
use crate::steps::Ask;
use crate::time::Moment;

/// How often the flows that should be gone are looked for: a new one can only have come from
/// elsewhere, e.g. from a program that is bound to the WAN's address and does not stay.
const RECHECK: Duration = Duration::from_secs(30);

/// Since when each WAN has been left by new connections, and when its flows were looked for.
#[derive(Debug, Default)]
pub(super) struct Lingering(BTreeMap<(WanId, Family), (Moment, Option<Moment>)>);

impl Engine {
    /// Whether a WAN's flows should go once they have lingered: others are proven to be better. Those
    /// of one that was taken out of service by hand stay.
    fn is_left(&self, id: WanId, family: Family) -> bool {
        let choice = self.choice.get(family);
        let drained = self.wan(id).is_some_and(|wan| self.drained.contains(&wan.name));
        !drained
            && choice.reason == Reason::BestPriority
            && choice.usable.contains(&id)
            && !choice.serving.contains_key(&id)
            && !choice.lost.contains(&id)
    }

    fn linger_of(&self, id: WanId) -> Option<Duration> {
        self.wan(id).and_then(|wan| wan.linger)
    }

    /// When flows have lingered long enough, or are to be looked for again.
    fn release_due(&self, id: WanId, since: Moment, asked: Option<Moment>) -> Option<Moment> {
        let over = since + self.linger_of(id)?;
        Some(asked.map_or(over, |asked| over.max(asked + RECHECK)))
    }

    pub(super) fn linger_deadline(&self) -> Option<Moment> {
        let due = |((id, _), (since, asked)): (&(WanId, Family), &(Moment, Option<Moment>))| {
            self.release_due(*id, *since, *asked)
        };
        self.lingering.0.iter().filter_map(due).min()
    }

    /// Asks for the release of flows that have lingered. While the WAN serves nothing is asked,
    /// and its time begins anew when it is left the next time.
    pub(super) fn ask_for_releases(&mut self, now: Moment) {
        let mut before = std::mem::take(&mut self.lingering.0);
        let ids: Vec<WanId> = self.sides.keys().copied().collect();
        for id in ids {
            for family in Family::BOTH {
                if self.linger_of(id).is_some() && self.is_left(id, family) {
                    let kept = before.remove(&(id, family)).unwrap_or((now, None));
                    self.lingering.0.insert((id, family), kept);
                }
            }
        }
        if !self.steps.is_empty() || self.leaving {
            return;
        }
        let field = self.config.router.mark_field;
        let due = self.lingering.0.iter().filter(|((id, _), (since, asked))| {
            self.release_due(*id, *since, *asked).is_some_and(|due| due <= now)
        });
        let due: Vec<(WanId, Family)> = due.map(|(key, _)| *key).collect();
        for (wan, family) in due {
            if let Some((_, asked)) = self.lingering.0.get_mut(&(wan, family)) {
                *asked = Some(now);
            }
            let mark = field.flows(wan);
            let own = self.observed.addresses.iter().map(|a| a.address);
            let own = own.filter(|address| Family::of(*address) == family).collect();
            self.asks.push_back(Ask::Release { wan, family, mark, own });
        }
    }

    pub(super) fn released(&mut self, wan: WanId, family: Family, flows: u64, now: Moment) {
        if flows > 0 {
            let reason = "flows told to start anew: a better WAN serves, and data costs money here";
            self.tell(now, "linger", Some(wan), Some(family), ("", &flows.to_string(), reason));
        }
    }
}
