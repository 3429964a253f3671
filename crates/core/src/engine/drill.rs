//! A drill: one WAN is really cut off by our own table, for a while, so that people see what its
//! failure would be like. In: who, and for how long. Out: a desired state with the cut in it, and
//! happenings. Never kept: an engine that is started anew knows no drill, so the cut is undone.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Engine, report};
use crate::api::{API_VERSION, DrillPlan, Problem, State};
use crate::config::{Host, HttpTarget, Target};
use crate::names::{Family, PerFamily, WanId};
use crate::time::Moment;

/// How long a WAN is waited for after it was mended: longer than most hold times grow.
const BACK_MAX: Duration = Duration::from_secs(300);

/// A running drill.
#[derive(Debug)]
pub(super) struct Drill {
    wan: WanId,
    until: Moment,
    /// Since when the cut is undone again, and the WAN's return is waited for.
    mended: Option<Moment>,
    /// What it did before, by family.
    before: PerFamily<Use>,
}

/// What a side was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It did not work.
    None,
    /// It worked.
    Standby,
    /// It got new connections.
    Serving,
}

impl Engine {
    /// What a drill of the WAN of this name would do.
    ///
    /// # Errors
    /// Why there can be none now.
    pub fn plan_drill(&self, name: &str) -> Result<(WanId, DrillPlan), Problem> {
        let id = self.wan_named(name)?;
        let refuse = |code: &str, what: String, hint: &str| {
            Err(report::problem(code, &format!("wan {name}"), &what, hint))
        };
        if let Some(running) = self.drill.as_ref().and_then(|drill| self.wan(drill.wan)) {
            let what = format!("a drill of {} is running", running.name);
            return refuse("drill.running", what, "wait for its end");
        }
        let works = |family: &Family| self.choice.get(*family).usable.contains(&id);
        let mine: Vec<Family> = Family::BOTH.into_iter().filter(works).collect();
        if mine.is_empty() {
            let hint = "`anywan status` says why; there is nothing to rehearse";
            return refuse("drill.does-not-work", format!("{name} does not work now"), hint);
        }
        let others_of = |family: Family| {
            let usable = self.choice.get(family).usable.iter();
            usable.filter(|other| **other != id).copied().collect::<BTreeSet<WanId>>()
        };
        let others: BTreeSet<WanId> = mine.iter().flat_map(|f| others_of(*f)).collect();
        if others.is_empty() {
            let what = format!("no other WAN works: without {name} there would be no internet");
            let hint = "`anywan status` says what is wrong with the others";
            return refuse("drill.no-other", what, hint);
        }
        let names = others.iter().filter_map(|id| self.wan(*id)).map(|wan| wan.name.clone());
        let alone = mine.iter().filter(|family| others_of(**family).is_empty());
        let sides = self.facts.get(&id).map(|facts| &facts.sides);
        let sides = sides.into_iter().flat_map(|s| mine.iter().map(|family| s.get(*family)));
        let wan = self.wan(id).into_iter();
        let targets = wan.flat_map(|wan| &wan.health.targets).filter_map(takes_tcp);
        let shares = mine.iter().map(|family| report::share(self.choice.get(*family), id));
        let plan = DrillPlan {
            version: API_VERSION,
            wan: name.to_owned(),
            share_percent: shares.fold(0.0, f64::max),
            others: names.collect(),
            alone: alone.map(|family| format!("ipv{}", family.digit())).collect(),
            addresses: sides.flat_map(|side| side.addresses.iter().copied()).collect(),
            targets: targets.filter(|t| mine.contains(&Family::of(t.ip()))).collect(),
        };
        Ok((id, plan))
    }

    /// The WAN that is cut off now.
    pub(super) fn cut(&self) -> Option<WanId> {
        self.drill.as_ref().filter(|drill| drill.mended.is_none()).map(|drill| drill.wan)
    }

    /// The WAN of the drill that is running.
    pub fn drilling(&self) -> Option<WanId> {
        self.drill.as_ref().map(|drill| drill.wan)
    }

    pub(super) fn begin_drill(&mut self, wan: WanId, span: Duration, now: Moment) {
        if self.drill.is_some() || self.leaving {
            return;
        }
        let before = PerFamily::from_fn(|family| self.use_of(wan, family));
        self.drill = Some(Drill { wan, until: now + span, mended: None, before });
        self.stale = true;
        let reason = format!("a drill cuts it off for {} s", span.as_secs_f32());
        self.tell(now, "drill", Some(wan), None, ("", "cut", &reason));
    }

    /// Ends the drill at once, and all that is told of it.
    pub(super) fn end_drill(&mut self, reason: &str, now: Moment) {
        self.mend(reason, now);
        self.drill = None;
    }

    fn mend(&mut self, reason: &str, now: Moment) {
        let Some(drill) = self.drill.as_mut().filter(|drill| drill.mended.is_none()) else {
            return;
        };
        drill.mended = Some(now);
        let wan = drill.wan;
        self.stale = true;
        for family in Family::BOTH {
            self.with_side(wan, family, now, |side, _| side.may_be_back(now));
        }
        self.tell(now, "drill", Some(wan), None, ("cut", "mended", reason));
    }

    pub(super) fn drill_deadline(&self) -> Option<Moment> {
        let drill = self.drill.as_ref()?;
        Some(drill.mended.map_or(drill.until, |mended| mended + BACK_MAX))
    }

    /// Undoes a cut whose time is over.
    pub(super) fn mind_drill(&mut self, now: Moment) {
        let Some(drill) = &self.drill else { return };
        if self.wan(drill.wan).is_none() {
            self.end_drill("it is no longer configured", now);
        } else if drill.mended.is_none() && now >= drill.until {
            self.mend("the drill's time is over", now);
        }
    }

    /// Ends a drill whose WAN does again what it did before; to be asked after deciding.
    pub(super) fn conclude_drill(&mut self, now: Moment) {
        let Some(drill) = &self.drill else { return };
        let Some(mended) = drill.mended else { return };
        let as_before = |family| match drill.before.get(family) {
            Use::None => true,
            Use::Standby => self.use_of(drill.wan, family) != Use::None,
            Use::Serving => self.use_of(drill.wan, family) == Use::Serving,
        };
        let (wan, back) = (drill.wan, Family::BOTH.into_iter().all(as_before));
        if back {
            self.drill = None;
            let reason = "it is used again as before the drill";
            self.tell(now, "drill", Some(wan), None, ("mended", "back", reason));
        } else if now >= mended + BACK_MAX {
            self.drill = None;
            let reason = "it was not used again within five minutes";
            self.tell(now, "drill", Some(wan), None, ("mended", "gone", reason));
        }
    }

    fn use_of(&self, wan: WanId, family: Family) -> Use {
        let choice = self.choice.get(family);
        // A suspect is not judged yet.
        let works = choice.usable.contains(&wan) && self.state_of(wan, family) != State::Suspect;
        match (choice.serving.contains_key(&wan), works) {
            (true, true) => Use::Serving,
            (false, true) => Use::Standby,
            (_, false) => Use::None,
        }
    }
}

/// Where a TCP connection to a target may be tried: DNS servers take those too (RFC 7766).
fn takes_tcp(target: &Target) -> Option<SocketAddr> {
    match target {
        Target::Tcp(address, port) => Some(SocketAddr::new(*address, *port)),
        Target::Dns { server, port, .. } => Some(SocketAddr::new(*server, *port)),
        Target::Http(HttpTarget { host: Host::Address(address), port, .. }) => {
            Some(SocketAddr::new(*address, *port))
        }
        Target::Http(HttpTarget { host: Host::Name(_), .. }) | Target::Icmp(_) => None,
    }
}
