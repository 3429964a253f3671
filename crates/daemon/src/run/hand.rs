//! What people do by hand: take a WAN out of service, and drill. The loop owns the one drill that
//! may run; it ends with its time, with whoever follows it, and with the daemon.

use std::time::Duration;

use anywan_core::api::{DrillLine, Problem};
use anywan_core::engine::{Event, Happening};
use anywan_core::names::Family;
use anywan_core::time::Moment;
use tokio::sync::mpsc;

use super::Daemon;

/// Whoever follows the running drill.
#[derive(Debug)]
pub(super) struct Follower {
    wan: String,
    began: Moment,
    lines: mpsc::Sender<DrillLine>,
}

impl Follower {
    fn tell(&self, happening: &Happening) {
        let Happening { at, kind, wan, family, old, new, reason } = happening;
        if *wan != self.wan && *kind != "choice" {
            return;
        }
        let kind = if *kind == "drill" { new } else { *kind };
        let line = DrillLine {
            ms: u64::try_from(at.since(self.began).as_millis()).unwrap_or(u64::MAX),
            kind: kind.to_owned(),
            family: family.map_or_else(String::new, |f: Family| format!("ipv{}", f.digit())),
            old: old.clone(),
            new: new.clone(),
            reason: reason.clone(),
        };
        // Who does not read misses lines; who has gone is noticed elsewhere.
        let _ = self.lines.try_send(line);
    }
}

/// Waits until the follower of the drill has gone; for ever while there is none.
pub(super) async fn gone(follower: Option<&Follower>) {
    match follower {
        Some(follower) => follower.lines.closed().await,
        None => std::future::pending().await,
    }
}

impl Daemon {
    /// Takes a WAN out of service or puts it back; says whether that changed anything.
    pub(super) fn drain(&mut self, wan: &str, drained: bool) -> Result<bool, Problem> {
        let id = self.engine.wan_named(wan)?;
        let changed = self.engine.is_drained(id) != drained;
        self.handle(Event::Drain { wan: id, drained });
        self.keep();
        self.settle();
        Ok(changed)
    }

    /// Begins a drill, told of on `lines`.
    pub(super) fn drill(
        &mut self,
        wan: String,
        span: Duration,
        lines: mpsc::Sender<DrillLine>,
    ) -> Result<(), Problem> {
        let (id, _) = self.engine.plan_drill(&wan)?;
        let began = self.clock.now();
        self.follower = Some(Follower { wan, began, lines });
        self.engine.handle(Event::Drill { wan: id, span }, began);
        self.settle();
        Ok(())
    }

    /// Ends the drill, if there is one.
    pub(super) fn end_drill(&mut self, reason: &str) {
        if self.engine.drilling().is_some() {
            self.handle(Event::DrillOver(reason.to_owned()));
            self.settle();
        }
        self.follower = None;
    }

    pub(super) fn tell_follower(&self, happening: &Happening) {
        if let Some(follower) = &self.follower {
            follower.tell(happening);
        }
    }

    /// Lets the follower go once the drill is over.
    pub(super) fn dismiss_follower(&mut self) {
        if self.engine.drilling().is_none() {
            self.follower = None;
        }
    }
}
