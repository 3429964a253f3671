//! What traffic itself says, for nothing: packets of flows that went out through the WAN, and
//! packets that came back. Going out without coming back is a reason to ask, never a verdict;
//! coming back is a sign of life.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Side;
use crate::api::State;
use crate::config::Health;
use crate::observed::Traffic;
use crate::time::Moment;

/// So many packets out without one back are a reason to ask: a single one may be the last of a
/// conversation.
const CALLS: u64 = 3;
/// And for at least so long, however short the round trips are: from one count to the next.
const SILENCE_MIN: Duration = Duration::from_millis(80);
/// How long traffic alone is not believed after probes have refuted it; doubles up to eight times.
const DISTRUST: Duration = Duration::from_secs(10);
const DISTRUST_DOUBLINGS: u32 = 5;
/// Traffic that came back so lately says that the line is not dead.
pub(super) const RECENT: Duration = Duration::from_secs(5);

/// What was counted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Passive {
    last: Option<(Traffic, Moment)>,
    /// When a packet came back last.
    pub(super) back: Option<Moment>,
    /// Packets that went out since, and since when.
    calls: u64,
    unanswered: Option<Moment>,
    /// Not believed until then, after so many refutations in a row.
    distrust: (Moment, u32),
}

impl Passive {
    /// Probes are answered although nothing came back: one-way traffic.
    pub(super) fn refuted(&mut self, now: Moment) {
        if self.unanswered.take().is_some() {
            let times = self.distrust.1;
            let pause = DISTRUST * 2_u32.pow(times.min(DISTRUST_DOUBLINGS));
            self.distrust = (now + pause, times + 1);
            self.calls = 0;
        }
    }

    /// Whether a packet came back so lately that there is no need to ask.
    pub(super) fn comes_back(&self, within: Duration, now: Moment) -> bool {
        self.back.is_some_and(|back| now < back + within)
    }
}

impl Side {
    /// Takes in the totals of packets that went out and came back since whenever.
    pub fn count_traffic(&mut self, total: Traffic, settings: &Health, now: Moment) {
        let before = self.passive.last.replace((total, now));
        let Some((before, read)) = before else { return };
        let (Some(out), Some(back)) =
            (total.out.checked_sub(before.out), total.back.checked_sub(before.back))
        else {
            // The table was loaded anew, and counts from zero.
            return;
        };
        if back > 0 {
            self.heard = self.heard.max(Some(read));
            let (last, distrust) = (self.passive.last, (self.passive.distrust.0, 0));
            self.passive = Passive { last, back: Some(now), distrust, ..Passive::default() };
            if let Some(burst) = self.burst.as_mut().filter(|burst| read >= burst.begun) {
                burst.traffic = true;
            }
        } else if out > 0 {
            self.passive.calls += out;
            let since = *self.passive.unanswered.get_or_insert(now);
            self.suspect_silence(since, settings, now);
        }
    }

    fn suspect_silence(&mut self, since: Moment, settings: &Health, now: Moment) {
        let patience = settings.timeout.unwrap_or_else(|| self.usual_round_trip());
        let silent = self.passive.calls >= CALLS && now >= since + patience.max(SILENCE_MIN);
        let idle = self.burst.is_none() && self.obstacle.is_none() && self.targets.count() > 0;
        if !silent || !idle || now < self.passive.distrust.0 {
            return;
        }
        match self.state {
            State::Up => {
                let why = "traffic goes out and nothing comes back".to_owned();
                self.enter(State::Suspect, why, now);
                self.start_burst(settings, now);
            }
            State::Impaired | State::Portal => self.start_burst(settings, now),
            State::Unknown | State::Suspect | State::Down | State::Recovering => {}
        }
    }
}
