//! What the users of the router send, and what comes back. In: who serves, how the lines are, how
//! long. Out: the counters that the kernel would show. Flows are not modelled one by one: packets
//! go where new flows go, and a line that swallows them is sent a few again.

use std::collections::BTreeMap;

use anywan_core::desired::SLOTS;
use anywan_core::names::{Family, WanId};
use anywan_core::observed::{Structure, Traffic};
use anywan_core::time::Moment;

use crate::line::Ail;
use crate::world::World;

/// The share of the usual packets that is sent while none comes back: SYNs and retransmissions.
const IN_VAIN: f64 = 0.2;

/// What was carried so far.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    sums: BTreeMap<(WanId, Family), (f64, f64)>,
    until: Moment,
}

impl World {
    /// Counts what has flowed since the last time: to be called before anything changes.
    pub(crate) fn flow(&mut self) {
        let span = self.now.since(self.carried.until).as_secs_f64();
        self.carried.until = self.now;
        if self.users <= 0.0 {
            return;
        }
        if self.kernel.is.nft.structure == Structure::Absent {
            self.carried.sums.clear();
            return;
        }
        for family in Family::BOTH {
            for (id, slots) in self.slots(family) {
                let share = f64::from(slots) / f64::from(SLOTS);
                let packets = self.users * share * span;
                let answered = self.answered(id, family);
                let sent = packets * if answered > 0.0 { 1.0 } else { IN_VAIN };
                let sum = self.carried.sums.entry((id, family)).or_default();
                *sum = (sum.0 + sent, sum.1 + sent * answered);
            }
        }
    }

    /// The counters; whole packets.
    pub(crate) fn traffic(&self) -> BTreeMap<(WanId, Family), Traffic> {
        let whole = |packets: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            let whole = packets as u64;
            whole
        };
        let each = |(key, sum): (&(WanId, Family), &(f64, f64))| {
            (*key, Traffic { out: whole(sum.0), back: whole(sum.1) })
        };
        self.carried.sums.iter().map(each).collect()
    }

    /// The share of a WAN's packets that is answered.
    fn answered(&self, id: WanId, family: Family) -> f64 {
        let line = self.lines.iter().find(|line| self.id(line) == Some(id));
        let Some(line) = line.filter(|line| line.passes(family, &self.faults)) else { return 0.0 };
        let loss: f64 = line
            .ails(family, &self.faults)
            .map(|ail| match ail {
                Ail::Loss(share) => *share,
                Ail::BrownOut => 0.33,
                Ail::Dead(anywan_core::config::Kind::Tcp) => 0.9,
                Ail::Dead(_) | Ail::Bursts { .. } | Ail::Saturated | Ail::Deaf(_) => 0.05,
                Ail::EchoLimit(_) => 0.0,
                Ail::Silent(_) | Ail::NoCarrier | Ail::Gone | Ail::NoAddress => 1.0,
            })
            .sum();
        (1.0 - loss).max(0.05)
    }
}
