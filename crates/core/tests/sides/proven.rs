//! A side whose WAN is known to work, for tests that begin with a decision.

use std::time::Duration;

use anywan_core::config::{Health, Kind};
use anywan_core::health::{Fate, Role, Side};
use anywan_core::time::Moment;

/// A side that has answered just now.
pub(crate) fn side(now: Moment) -> Side {
    let settings = Health {
        targets: Vec::new(),
        interval: Duration::from_secs(1),
        timeout: None,
        hold: Duration::from_secs(8),
        max_loss_percent: None,
        max_latency: None,
        max_jitter: None,
    };
    let kinds = [Kind::Icmp];
    let role = Role {
        kinds: &kinds,
        metered: false,
        serving: true,
        rest_until: now,
        doubtful: 0,
        all_suspect: false,
    };
    let mut side = Side::new(true, now);
    for order in side.wake(&role, &settings, now) {
        let fate = Fate::Answered(Duration::from_millis(20));
        side.answer(order.sequence, &fate, &settings, now);
    }
    side
}
