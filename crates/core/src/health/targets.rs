//! What a side knows of its targets: which of them answer at all, and who is asked next. A target
//! that stays silent while others answer is deaf: it is asked now and then, and proves nothing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::Kind;

/// A deaf target is asked in every so many turns of its kind.
const DEAF_TURN: usize = 10;

/// So many bursts in a row prove that a target is deaf though we were slow in each.
const SILENT_BURSTS: u32 = 3;

/// Heartbeats in an interval, where there are so many kinds of targets: each wakes this machine.
const BEATS: u32 = 2;

/// The targets of one side.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Targets {
    all: Vec<Memory>,
    /// Questions of heartbeats so far.
    turn: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Memory {
    kind: Kind,
    /// Has answered at least once through this WAN.
    heard: bool,
    deaf: bool,
    /// Bursts in a row in which others answered, and we were slow ourselves; no word of it since.
    silent: u32,
    /// What somebody else answered in its place, last time.
    portal: Option<String>,
}

impl Targets {
    /// Makes these the targets, all unheard of, unless they are already.
    pub(super) fn become_(&mut self, kinds: &[Kind]) {
        if !self.all.iter().map(|one| one.kind).eq(kinds.iter().copied()) {
            let fresh = |kind: &Kind| Memory {
                kind: *kind,
                heard: false,
                deaf: false,
                silent: 0,
                portal: None,
            };
            self.all = kinds.iter().map(fresh).collect();
        }
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The kinds there are, in order.
    pub(super) fn kinds(&self) -> BTreeSet<Kind> {
        self.all.iter().map(|one| one.kind).collect()
    }

    pub(super) fn kind_of(&self, target: usize) -> Option<Kind> {
        self.all.get(target).map(|one| one.kind)
    }

    /// Whether its silence means nothing.
    pub(super) fn is_deaf(&self, target: usize) -> bool {
        self.all.get(target).is_none_or(|one| one.deaf)
    }

    /// Those whose silence would mean something; all, when that is none.
    pub(super) fn telling(&self) -> Vec<usize> {
        let some: Vec<usize> = (0..self.all.len()).filter(|at| !self.all[*at].deaf).collect();
        if some.is_empty() { (0..self.all.len()).collect() } else { some }
    }

    /// How many heartbeats ask each kind once: 1 or 2.
    pub(super) fn beats(&self) -> u32 {
        if self.kinds().len() > 1 { BEATS } else { 1 }
    }

    /// How many are asked in the next heartbeat.
    pub(super) fn share(&self) -> usize {
        let kinds = self.kinds().len().max(1);
        let (done, most) = (self.turn % kinds, kinds.div_ceil(self.beats() as usize));
        most.min(kinds - done)
    }

    /// Who is asked next: kinds take turns, and within a kind its targets.
    pub(super) fn next(&mut self) -> Option<usize> {
        let kinds: Vec<Kind> = self.kinds().into_iter().collect();
        let kind = *kinds.get(self.turn % kinds.len().max(1))?;
        let round = self.turn / kinds.len();
        self.turn = self.turn.wrapping_add(1);
        let of_kind = |deaf: Option<bool>| -> Vec<usize> {
            let fits = |one: &Memory| one.kind == kind && deaf.is_none_or(|d| one.deaf == d);
            (0..self.all.len()).filter(|at| fits(&self.all[*at])).collect()
        };
        let (hearing, deaf) = (of_kind(Some(false)), of_kind(Some(true)));
        let ask_deaf =
            hearing.is_empty() || (round % DEAF_TURN == DEAF_TURN - 1 && !deaf.is_empty());
        let (from, round) = if ask_deaf { (deaf, round / DEAF_TURN) } else { (hearing, round) };
        from.get(round % from.len().max(1)).copied()
    }

    /// It has answered.
    pub(super) fn hear(&mut self, target: usize) {
        if let Some(one) = self.all.get_mut(target) {
            (one.heard, one.deaf, one.silent, one.portal) = (true, false, 0, None);
        }
    }

    /// Somebody else has answered for it: the line carries packets.
    pub(super) fn intercept(&mut self, target: usize, what: &str) {
        if let Some(one) = self.all.get_mut(target) {
            (one.deaf, one.silent, one.portal) = (false, 0, Some(what.to_owned()));
        }
    }

    /// It was silent while others answered, or not.
    pub(super) fn set_deaf(&mut self, target: usize) {
        if let Some(one) = self.all.get_mut(target) {
            one.deaf = true;
        }
    }

    /// It was silent while others answered, in a burst in which we were slow: its answers may have
    /// been late. After several such bursts without a word of it, it is deaf all the same; says so.
    pub(super) fn is_deaf_after(&mut self, target: usize) -> bool {
        let Some(one) = self.all.get_mut(target) else { return false };
        one.silent += 1;
        one.deaf |= one.silent >= SILENT_BURSTS;
        one.deaf
    }

    /// What a captive portal says, while no http target answers as it should.
    pub(super) fn portal(&self) -> Option<&str> {
        let well = |one: &Memory| one.kind == Kind::Http && one.heard && one.portal.is_none();
        if self.all.iter().any(|one| well(one) && !one.deaf) {
            return None;
        }
        self.all.iter().find_map(|one| one.portal.as_deref())
    }

    /// A service that worked through this WAN, and of which at least two targets are all deaf now:
    /// one target's silence is its own affair. Echoes serve nobody.
    pub(super) fn dead_service(&self) -> Option<(Kind, usize)> {
        self.kinds().into_iter().filter(|kind| *kind != Kind::Icmp).find_map(|kind| {
            let of_kind = || self.all.iter().filter(|one| one.kind == kind);
            let dead = of_kind().count() > 1
                && of_kind().all(|one| one.deaf)
                && of_kind().any(|one| one.heard);
            dead.then(|| (kind, of_kind().count()))
        })
    }

    /// Whether a service would be dead if these were deaf, and is not now.
    pub(super) fn would_lose_a_service(&self, silent: &[usize]) -> bool {
        let mut then = self.clone();
        silent.iter().for_each(|target| then.set_deaf(*target));
        self.dead_service().is_none() && then.dead_service().is_some()
    }

    /// Whether every target is deaf.
    pub(super) fn all_deaf(&self) -> bool {
        self.all.iter().all(|one| one.deaf)
    }
}
