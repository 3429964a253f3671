//! Flows whose conntrack entries the kernel has deleted while a client may be waiting. Those that
//! cannot go on are refused; the others go on by themselves, for the kernel picks them up in the
//! middle. News of their end may come before the news of the reason for it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::Engine;
use crate::names::Mark;
use crate::observed::TcpFlow;
use crate::steps::Ask;
use crate::time::Moment;

/// How long they are kept in mind: where a machine is very busy the reason comes seconds later.
const KEPT: Duration = Duration::from_secs(30);
/// How many of them: some 100 bytes each.
const MAX: usize = 65_536;
/// The pause after a refusal that failed; doubles with each failure.
const AGAIN: Duration = Duration::from_millis(100);
/// So many failures in a row, some 13 s, and those flows are given up.
const FAILURES_MAX: u32 = 8;

/// Flows, and when each went.
type Went = Vec<(Moment, TcpFlow)>;

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Those of whom it is not known yet whether they can go on.
    held: Went,
    /// Those that were refused of late, each time with when that was: a table that is loaded anew
    /// knows nothing of them.
    refused: Vec<(Moment, Went)>,
    /// When those that could not be refused are refused again.
    again: Option<Moment>,
    /// When refusing failed last, and how often in a row.
    failed: Option<(Moment, u32)>,
    /// From when, and until when, somebody else had taken away or changed something that steers;
    /// `None`: it still is.
    unsteered: Option<(Moment, Option<Moment>)>,
}

impl Gone {
    pub(super) fn hear(&mut self, flows: Vec<TcpFlow>, now: Moment) {
        let room = MAX.saturating_sub(self.held.len());
        self.held.extend(flows.into_iter().take(room).map(|flow| (now, flow)));
    }

    /// Somebody else has taken away or changed what steers.
    pub(super) fn unsteered(&mut self, now: Moment) {
        if !matches!(self.unsteered, Some((_, None))) {
            self.unsteered = Some((now, None));
        }
    }

    /// All that steers is as it should be.
    pub(super) fn steered(&mut self, now: Moment) {
        if let Some((_, until @ None)) = &mut self.unsteered {
            *until = Some(now);
        }
    }

    /// The table is loaded anew, and with it goes whom it refuses.
    pub(super) fn table_replaced(&mut self) {
        let again = std::mem::take(&mut self.refused).into_iter().flat_map(|(_, flows)| flows);
        self.held.splice(0..0, again);
        self.held.truncate(MAX);
    }

    /// Keeps for another try what could not be refused: the last that was asked for.
    pub(super) fn not_refused(&mut self, flows: Vec<TcpFlow>, now: Moment) {
        let in_a_row = self.failed.filter(|(last, _)| now < *last + KEPT);
        let failures = in_a_row.map_or(0, |(_, failures)| failures) + 1;
        self.failed = (failures < FAILURES_MAX).then_some((now, failures));
        self.refused.pop();
        if self.failed.is_some() {
            self.again = Some(now + AGAIN * 2_u32.pow(failures - 1));
            self.hear(flows, now);
        }
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.refused.is_empty()
    }

    fn deadline(&self) -> Option<Moment> {
        let over = self.held.first().map(|(went, _)| *went + KEPT)?;
        Some(self.again.map_or(over, |again| again.min(over)))
    }

    /// Takes those that cannot go on, if it is time for that, and forgets those that are kept long
    /// enough.
    fn take(&mut self, hopeless: impl Fn(&Gone, Moment, &TcpFlow) -> bool, now: Moment) -> Went {
        self.refused.retain(|(at, _)| now < *at + KEPT);
        if self.held.is_empty() || self.again.is_some_and(|again| now < again) {
            return Went::new();
        }
        self.again = None;
        let held = std::mem::take(&mut self.held);
        let (doomed, mut rest): (Went, Went) =
            held.into_iter().partition(|(went, flow)| hopeless(self, *went, flow));
        rest.retain(|(went, _)| now < *went + KEPT);
        self.held = rest;
        if !doomed.is_empty() {
            self.refused.push((now, doomed.clone()));
            while self.refused.iter().map(|(_, flows)| flows.len()).sum::<usize>() > MAX {
                self.refused.remove(0);
            }
        }
        doomed
    }

    /// Whether a flow that went then went for want of steering: the kernel sees a translated flow
    /// take another way, and ends it (`nf_nat_oif_changed`). Its next packet would begin anew by any
    /// WAN, which the server does not know.
    fn went_unsteered(&self, at: Moment) -> bool {
        self.unsteered.is_some_and(|(from, until)| {
            from <= at + KEPT && until.is_none_or(|until| at <= until + KEPT)
        })
    }
}

impl Engine {
    /// Has flows refused that cannot go on: their WAN is lost, the address that they were known by
    /// outside is no longer ours, or they went while nothing steered them. While nothing works,
    /// nobody is told anything.
    pub(super) fn refuse_gone_flows(&mut self, now: Moment) {
        let possible = self.table_is_there() && self.steps.is_empty() && !self.leaving;
        if self.gone.is_empty() || !possible {
            return;
        }
        let field = self.config.router.mark_field;
        let choice = &self.choice;
        let own: BTreeSet<IpAddr> = self.observed.addresses.iter().map(|a| a.address).collect();
        let hopeless = |gone: &Gone, went: Moment, flow: &TcpFlow| {
            let choice = choice.get(flow.family);
            let wan = field.wan_of(Mark(flow.mark));
            let lost = wan.is_some_and(|wan| choice.lost.contains(&wan));
            let translated = flow.outside != flow.client.ip();
            let ended = !own.contains(&flow.outside) || gone.went_unsteered(went);
            !choice.serving.is_empty() && (lost || (translated && ended))
        };
        let doomed = self.gone.take(hopeless, now);
        if !doomed.is_empty() {
            let flows = doomed.into_iter().map(|(_, flow)| flow).collect();
            self.asks.push_back(Ask::Refuse { flows });
        }
    }

    /// When some are due; nobody can be refused without our table.
    pub(super) fn gone_deadline(&self) -> Option<Moment> {
        self.gone.deadline().filter(|_| self.table_is_there())
    }
}
