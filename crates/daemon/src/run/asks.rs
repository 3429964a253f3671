//! Asks the engine's questions and hands it the answers. Sending probes and waking clients take
//! time: probes are the prober's; clients are woken some at a time, between the loop's other work.

use std::collections::VecDeque;
use std::time::Duration;

use anywan_core::dhcp::Port;
use anywan_core::engine::Event;
use anywan_core::names::{IfIndex, Mark};
use anywan_core::observed::TcpFlow;
use anywan_core::steps::{Ask, Reset};
use anywan_core::time::Moment;

use super::{Daemon, chain};
use crate::kernel::Gone;
use crate::ppp;

/// Clients that wait to be woken: all that two families of one WAN may have. More come into view
/// again in the next round.
const WAKING_MAX: usize = 131_072;
/// How long packets of flows whose entry is gone are refused: TCP keeps trying for minutes, but
/// whoever was woken has heard by then.
const REFUSED_SECONDS: u32 = 120;

/// When clients of gone flows are called again. A first call may have come while the kernel was
/// deleting their entries, when nothing answered what they said; and Linux answers such segments
/// only once in 500 ms (`tcp_invalid_ratelimit`).
const AGAIN: Duration = Duration::from_millis(700);

/// Clients that are still to be woken.
#[derive(Debug)]
pub(super) struct Waking {
    flows: VecDeque<TcpFlow>,
    next: Moment,
    /// Those that will be called again, and when; as many at most as are woken at all.
    again: VecDeque<(Moment, Vec<TcpFlow>)>,
    /// The mark under which the routing leads to LANs only.
    ask: Mark,
}

impl Waking {
    pub(super) fn new(ask: Mark) -> Waking {
        let (flows, again) = (VecDeque::new(), VecDeque::new());
        Waking { flows, next: Moment::default(), again, ask }
    }

    /// From now on the routing leads to LANs only under this mark; whether it is another.
    pub(super) fn ask_by(&mut self, ask: Mark) -> bool {
        std::mem::replace(&mut self.ask, ask) != ask
    }

    /// When the next portion is due.
    pub(super) fn next(&self) -> Option<Moment> {
        let portion = (!self.flows.is_empty()).then_some(self.next);
        portion.into_iter().chain(self.again.front().map(|(at, _)| *at)).min()
    }

    fn extend(&mut self, flows: Vec<TcpFlow>) {
        let room = WAKING_MAX.saturating_sub(self.flows.len());
        self.flows.extend(flows.into_iter().take(room));
    }

    /// Wakes clients of gone flows, now and once more.
    fn call(&mut self, flows: Vec<TcpFlow>, now: Moment) {
        let kept: usize = self.again.iter().map(|(_, flows)| flows.len()).sum();
        if kept + flows.len() <= WAKING_MAX {
            self.again.push_back((now + AGAIN, flows.clone()));
        }
        self.extend(flows);
    }

    fn call_again(&mut self, now: Moment) {
        while self.again.front().is_some_and(|(at, _)| *at <= now) {
            let flows = self.again.pop_front().map(|(_, flows)| flows);
            self.extend(flows.unwrap_or_default());
        }
    }
}

impl Daemon {
    /// Asks what there is to ask; says whether there was anything.
    pub(super) fn ask_all(&mut self) -> bool {
        let mut any = false;
        while let Some(ask) = self.engine.poll_ask() {
            any = true;
            let searches = matches!(
                ask,
                Ask::Wake { .. }
                    | Ask::Evacuate { .. }
                    | Ask::Unanswered { .. }
                    | Ask::Release { .. }
            );
            self.ask(ask);
            if searches {
                // The kernel goes through all of conntrack for each of these; the first clients
                // need not wait for the next.
                self.go_on_waking();
            }
        }
        self.go_on_waking();
        any
    }

    fn ask(&mut self, ask: Ask) {
        let answer = match ask {
            Ask::Probe(probe) => {
                if let Err(result) = self.prober.send(probe) {
                    self.handle(Event::Probe(*result));
                }
                return;
            }
            Ask::Consult(probe) => return self.consult(probe),
            Ask::Solicit { device } => return self.solicit(device),
            Ask::Dhcp { wan, device, mac, order } => {
                if let Err(error) = self.dhcp.carry_out(wan, Port { device, mac }, &order) {
                    tracing::debug!(%error, "a DHCP client could not speak");
                }
                return;
            }
            Ask::Look { devices, secrets, ports } => {
                ppp::put_back_on_the_bus(ports);
                Ok(Event::Dialling(ppp::look(devices, secrets)))
            }
            Ask::Reset { wan, how } => return self.reset(wan, how),
            Ask::CountTraffic => self.kernel.traffic().map(Event::Traffic),
            Ask::CountFlows { wan, mark: (mark, mask) } => {
                let count = self.kernel.count_flows(mark, mask);
                self.keep();
                count.map(|count| Event::Flows { wan, count })
            }
            Ask::Wake { wan, family, mark: (mark, mask) } => {
                self.kernel.established(family, mark, mask).map(|found| {
                    let flows = found.len() as u64;
                    self.waking.extend(found);
                    Event::Woken { wan, family, flows }
                })
            }
            Ask::Refuse { flows } => match self.kernel.refuse(&flows, REFUSED_SECONDS) {
                Ok(()) => return self.waking.call(flows, self.clock.now()),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "flows could not be refused yet");
                    Ok(Event::NotRefused(flows))
                }
            },
            Ask::Release { wan, family, mark, own } => {
                self.kernel.release(family, mark, &own, REFUSED_SECONDS).map(|(flows, told)| {
                    self.waking.call(told, self.clock.now());
                    Event::Released { wan, family, flows }
                })
            }
            Ask::Untranslated { family, lans, question, mask, right } => self
                .kernel
                .forget_untranslated(family, &lans, question.0, (mask, &right))
                .map(|deleted| Event::Untranslated { family, deleted }),
            Ask::Unanswered { wan, family, mark: (mark, mask) } => self
                .kernel
                .forget_unanswered(family, mark, mask)
                .map(|deleted| Event::Unanswered { wan, family, deleted }),
            Ask::Evacuate { wan, family, mark: (mark, mask) } => self
                .kernel
                .evacuate(family, mark, mask)
                .map(|deleted| Event::Evacuated { wan, family, deleted }),
        };
        match answer {
            Ok(event) => self.handle(event),
            // It is asked again.
            Err(error) => tracing::warn!(error = %chain(&error), "a question was not answered"),
        }
    }

    fn solicit(&mut self, device: IfIndex) {
        if let Err(error) = self.kernel.solicit(device) {
            tracing::debug!(error = %chain(&error), "routers could not be asked");
        }
    }

    fn reset(&mut self, wan: String, how: Reset) {
        self.resets.retain(|reset| !reset.is_finished());
        let over_soon = matches!(how, Reset::Usb { .. });
        let reset = ppp::reset(wan, how, self.outcomes.clone());
        self.resets.extend(over_soon.then_some(reset));
    }

    /// Wakes the next portion of clients, when it is due.
    pub(super) fn go_on_waking(&mut self) {
        let now = self.clock.now();
        self.waking.call_again(now);
        if self.waking.flows.is_empty() || self.waking.next > now {
            return;
        }
        let flows = self.waking.flows.make_contiguous();
        match self.kernel.wake(flows, self.waking.ask) {
            Ok(portion) => {
                self.waking.flows.drain(..portion.done);
                self.waking.next = self.clock.now() + portion.pause;
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "clients could not be woken");
                self.waking.flows.clear();
            }
        }
    }

    pub(super) fn hear_of_ends(&mut self, gone: Gone) {
        if gone.overruns > 0 {
            tracing::warn!(overruns = gone.overruns, "the ends of some flows were not heard of");
        }
        self.handle(Event::Gone(gone.flows));
    }
}
