//! Asks the engine's questions and hands it the answers. Sending probes and waking clients take
//! time: probes are the prober's; clients are woken some at a time, between the loop's other work.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use anywan_core::dhcp::Port;
use anywan_core::engine::Event;
use anywan_core::names::{Family, IfIndex, Mark};
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
    /// Those whose flow's entry is gone.
    gone: VecDeque<TcpFlow>,
    /// Those whose flow has its entry: of a WAN that is lost, or of any after our table was away.
    steered: VecDeque<TcpFlow>,
    /// When the next portion may go.
    next: Moment,
    /// Those that will be called again, and when; as many at most as are woken at all.
    again: VecDeque<(Moment, Vec<TcpFlow>)>,
    /// The mark under which the routing leads to LANs only.
    ask: Mark,
}

impl Waking {
    pub(super) fn new(ask: Mark) -> Waking {
        let (gone, steered, again) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Waking { gone, steered, next: Moment::default(), again, ask }
    }

    /// From now on the routing leads to LANs only under this mark; whether it is another.
    pub(super) fn ask_by(&mut self, ask: Mark) -> bool {
        std::mem::replace(&mut self.ask, ask) != ask
    }

    /// When the next portion is due.
    pub(super) fn next(&self) -> Option<Moment> {
        let waiting = !self.gone.is_empty() || !self.steered.is_empty();
        let portion = waiting.then_some(self.next);
        portion.into_iter().chain(self.again.front().map(|(at, _)| *at)).min()
    }

    /// Wakes the clients of these flows, all that were found with a mark under a mask. Who waits
    /// already keeps its turn and is called once; who was not found again has been told.
    fn wake(&mut self, family: Family, (mark, mask): (u32, u32), mut found: Vec<TcpFlow>) {
        let mut new: HashSet<TcpFlow> = found.iter().copied().collect();
        self.steered.retain(|flow| !is_of(flow, family, (mark, mask)) || new.remove(flow));
        found.retain(|flow| new.contains(flow));
        add(&mut self.steered, found);
    }

    /// Wakes no more of these; those whose entry is gone are to be told all the same.
    fn let_sleep(&mut self, family: Family, mark: (u32, u32)) {
        self.steered.retain(|flow| !is_of(flow, family, mark));
    }

    /// Wakes clients of gone flows, now and once more.
    fn call(&mut self, flows: Vec<TcpFlow>, now: Moment) {
        let kept: usize = self.again.iter().map(|(_, flows)| flows.len()).sum();
        if kept + flows.len() <= WAKING_MAX {
            self.again.push_back((now + AGAIN, flows.clone()));
        }
        add(&mut self.gone, flows);
    }

    fn call_again(&mut self, now: Moment) {
        while self.again.front().is_some_and(|(at, _)| *at <= now) {
            let flows = self.again.pop_front().map(|(_, flows)| flows);
            add(&mut self.gone, flows.unwrap_or_default());
        }
    }

    /// Those whose turn it is, if there are any and it is time.
    fn due(&mut self, now: Moment) -> Option<&mut VecDeque<TcpFlow>> {
        let flows = if self.gone.is_empty() { &mut self.steered } else { &mut self.gone };
        (!flows.is_empty() && self.next <= now).then_some(flows)
    }
}

/// Whether a flow is of a family and has a mark under a mask.
fn is_of(flow: &TcpFlow, family: Family, (mark, mask): (u32, u32)) -> bool {
    flow.family == family && flow.mark & mask == mark
}

/// Has more clients wait, as many as may.
fn add(waiting: &mut VecDeque<TcpFlow>, flows: Vec<TcpFlow>) {
    let room = WAKING_MAX.saturating_sub(waiting.len());
    waiting.extend(flows.into_iter().take(room));
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
                    self.waking.wake(family, (mark, mask), found);
                    Event::Woken { wan, family, flows }
                })
            }
            Ask::LetSleep { family, mark } => return self.waking.let_sleep(family, mark),
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
        let ask = self.waking.ask;
        let Some(flows) = self.waking.due(now) else { return };
        match self.kernel.wake(flows.make_contiguous(), ask) {
            Ok(portion) => {
                flows.drain(..portion.done);
                self.waking.next = self.clock.now() + portion.pause;
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "clients could not be woken");
                flows.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    const WAN1: (u32, u32) = (0x100_0000, 0x3f00_0000);
    const WAN2: (u32, u32) = (0x200_0000, 0x3f00_0000);

    /// The flow of a client's port by a WAN, with a bit of somebody else's in its mark.
    fn flow(port: u16, (mark, _): (u32, u32)) -> TcpFlow {
        let client = ([192, 168, 1, 2], port).into();
        let outside = [198, 51, 100, 2].into();
        let server = ([203, 0, 113, 9], 443).into();
        TcpFlow { family: Family::Ipv4, client, server, outside, mark: mark | 1 }
    }

    fn flows(ports: std::ops::Range<u16>, mark: (u32, u32)) -> Vec<TcpFlow> {
        ports.map(|port| flow(port, mark)).collect()
    }

    /// The ports of those whose turn it is.
    fn ports(waking: &mut Waking) -> Vec<u16> {
        let due = waking.due(Moment::default());
        due.into_iter().flatten().map(|flow| flow.client.port()).collect()
    }

    #[test]
    fn who_waits_keeps_its_turn_and_who_was_told_is_not_called_again() {
        let mut waking = Waking::new(Mark(0x4000_0000));
        waking.wake(Family::Ipv4, WAN1, flows(1..6, WAN1));
        waking.wake(Family::Ipv4, WAN2, flows(20..22, WAN2));
        // 1 and 2 were called, 4 has been told by its own next word; 2 did not hear.
        waking.steered.drain(..2);
        let found = [flow(2, WAN1), flow(3, WAN1), flow(5, WAN1), flow(6, WAN1)];
        waking.wake(Family::Ipv4, WAN1, found.to_vec());
        assert_eq!(ports(&mut waking), [3, 5, 20, 21, 2, 6]);
    }

    #[test]
    fn clients_of_a_wan_that_works_again_sleep_on_but_those_of_gone_flows_are_told() {
        let mut waking = Waking::new(Mark(0x4000_0000));
        waking.wake(Family::Ipv4, WAN1, flows(1..4, WAN1));
        waking.wake(Family::Ipv4, WAN2, flows(20..22, WAN2));
        waking.call(flows(7..9, WAN1), Moment::default());
        waking.let_sleep(Family::Ipv6, WAN2);
        waking.let_sleep(Family::Ipv4, WAN1);
        assert_eq!(ports(&mut waking), [7, 8], "first whose flow is gone");
        waking.gone.clear();
        assert_eq!(ports(&mut waking), [20, 21]);
    }
}
