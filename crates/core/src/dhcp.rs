//! One WAN's DHCP client (RFC 2131), without bytes, clock or dice: in go the link, replies and the
//! time, out come messages to send and the lease that is in force.
//!
//! ```text
//!           ┌──────────── refused, run out, taken ───────────────┐
//!           ▼                                                    │
//!  Idle ─► Selecting ─offer─► Requesting ─ack─► Checking ─free─► Bound ─T1─► Renewing ─T2─► Rebinding
//!           ▲                                      ▲              ▲             │ack            │ack
//!           └─ silence, refused ── Rebooting ──ack─┘              └─────────────┴───────────────┘
//! ```
//!
//! `Rebooting` (INIT-REBOOT) asks whether a lease that is known still holds: after a restart, when
//! carrier is back, under another index. An address that the kernel still has stays in force
//! meanwhile; one that it has not is used only once a server has confirmed it.

mod judge;
mod message;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::names::{IfIndex, Mac};
use crate::observed::Lease;
use crate::time::Moment;

pub use judge::{Granted, judge};
pub use message::{Kind, Message, Order, Reply, Verdict};

/// The pause before a message is sent a second time; doubles. The RFC's first is 4 s; a link that
/// has just come up often loses the first packet.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// The longest pause (RFC 2131, 4.1).
const PAUSE_MAX: Duration = Duration::from_secs(64);
/// Before it asks anew after a refusal, doubled with each further one; and after it has declined
/// (RFC 2131, 3.1.5).
const PAUSE_REFUSED: Duration = Duration::from_secs(1);
const PAUSE_DECLINED: Duration = Duration::from_secs(10);
/// Renewals are tried again after half of what is left, and not sooner: the RFC's minute would
/// leave no second try to a lease of two minutes.
const RENEWAL_MIN: Duration = Duration::from_secs(10);
/// So often an earlier lease, or an offer, is asked for before it is begun anew.
const TRIES_MAX: u32 = 3;
/// How long it is waited for somebody who has the address already, and when it is asked again.
const CHECK: Duration = Duration::from_millis(600);
const CHECK_AGAIN: Duration = Duration::from_millis(250);
/// Silence that a person should know of.
const SILENCE: Duration = Duration::from_secs(10);
/// So many refusals in a row are no coincidence.
const REFUSALS: u32 = 2;

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Waits: for a link, or until a pause is over.
    Idle,
    /// Has asked who gives addresses.
    Selecting,
    /// Has asked for what was offered.
    Requesting { address: Ipv4Addr, server: Ipv4Addr },
    /// Has asked whether an earlier lease still holds.
    Rebooting,
    /// Asks whether somebody else has the address.
    Checking { granted: Granted, until: Moment },
    /// Has a lease.
    Bound,
    /// Asks its server to renew it.
    Renewing,
    /// Asks any server to.
    Rebinding,
}

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Its stable code.
    pub code: &'static str,
    /// What is wrong.
    pub what: String,
}

/// The link as it is now; only when it is up and has carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The interface.
    pub device: IfIndex,
    /// Its hardware address.
    pub mac: Mac,
}

/// One WAN's client.
#[derive(Debug, Clone)]
pub struct Client {
    state: State,
    port: Option<Port>,
    /// The last lease; in force only where `in_force` says so.
    lease: Option<Lease>,
    in_force: bool,
    /// Something came of what servers said in this run: a lease, or none.
    decided: bool,
    renew: Moment,
    rebind: Moment,
    xid: u32,
    tries: u32,
    next: Option<Moment>,
    /// When it began to ask, or was answered last.
    silent_since: Moment,
    refusals: u32,
    trouble: Option<Trouble>,
    random: u64,
}

impl Client {
    /// A client that had `lease` in an earlier run. `seed` makes its numbers unlike those of others.
    pub fn new(lease: Option<Lease>, seed: u64) -> Client {
        Client {
            state: State::Idle,
            port: None,
            lease,
            in_force: false,
            decided: false,
            renew: Moment::default(),
            rebind: Moment::default(),
            xid: 0,
            tries: 0,
            next: None,
            silent_since: Moment::default(),
            refusals: 0,
            trouble: None,
            random: seed | 1,
        }
    }

    /// The lease that is in force.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref().filter(|_| self.in_force)
    }

    /// The lease to be kept for the next run, in force or not.
    pub fn last_lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Whether something has come of what servers said in this run, or a lease is known.
    pub fn is_decided(&self) -> bool {
        self.decided || self.lease.is_some()
    }

    /// Whether a server may have something to say. With a lease nobody need listen, and what
    /// listens on a link costs each packet there a little.
    pub fn listens(&self) -> bool {
        match self.state {
            State::Idle | State::Bound => false,
            State::Selecting
            | State::Requesting { .. }
            | State::Rebooting
            | State::Checking { .. }
            | State::Renewing
            | State::Rebinding => self.port.is_some(),
        }
    }

    /// Where it is.
    pub fn port(&self) -> Option<Port> {
        self.port
    }

    /// Tells how the link is now; `holds` says whether an address is on it.
    pub fn link(&mut self, port: Option<Port>, holds: impl Fn(Ipv4Addr) -> bool, now: Moment) {
        if port == self.port {
            return;
        }
        let moved = match (self.port, port) {
            (Some(before), Some(after)) => before != after,
            (None, _) | (_, None) => false,
        };
        self.port = port;
        if port.is_none() {
            // What is in force stays: the address is still there, and carrier may come back.
            self.state = State::Idle;
            self.next = None;
            return;
        }
        let held = self.lease.as_ref().is_some_and(|lease| holds(lease.address));
        self.in_force = held && (self.in_force || !moved);
        self.silent_since = now;
        match self.lease {
            Some(_) => self.enter(State::Rebooting, now),
            None => self.enter(State::Selecting, now),
        }
    }

    /// Takes a server's word; `lans` are networks that a WAN must not have.
    pub fn hear(&mut self, reply: &Reply, lans: &[Ipv4Net], now: Moment) {
        if reply.xid != self.xid || self.port.is_none() {
            return;
        }
        match (reply.verdict, self.state.clone()) {
            (Verdict::Offer, State::Selecting) => self.hear_offer(reply, lans, now),
            (Verdict::Ack, State::Requesting { address, server }) => {
                if reply.address == address && reply.server.is_none_or(|s| s == server) {
                    self.hear_ack(reply, lans, Some(server), now);
                }
            }
            // Only its own server was asked; a stranger's word does not end a lease.
            (Verdict::Ack | Verdict::Nak, State::Renewing) if self.is_of_a_stranger(reply) => {}
            (Verdict::Ack, State::Rebooting | State::Renewing | State::Rebinding) => {
                let server = self.lease.as_ref().map(|lease| lease.server);
                self.hear_ack(reply, lans, server, now);
            }
            (Verdict::Nak, State::Requesting { server, .. }) => {
                if reply.server.is_none_or(|s| s == server) {
                    self.refused(now);
                }
            }
            (Verdict::Nak, State::Rebooting | State::Renewing | State::Rebinding) => {
                self.refused(now);
            }
            // Late, or of another stage.
            (Verdict::Offer | Verdict::Ack | Verdict::Nak, _) => {}
        }
    }

    /// It names a server that has not granted our lease.
    fn is_of_a_stranger(&self, reply: &Reply) -> bool {
        let own = self.lease.as_ref().map(|lease| lease.server);
        reply.server.is_some() && reply.server != own
    }

    fn hear_offer(&mut self, reply: &Reply, lans: &[Ipv4Net], now: Moment) {
        self.silent_since = now;
        match judge(reply, lans, None, now) {
            Ok(granted) => {
                let Lease { address, server, .. } = granted.lease;
                self.enter(State::Requesting { address, server }, now);
            }
            // Another server's may be better.
            Err(trouble) => self.trouble = Some(trouble),
        }
    }

    fn hear_ack(&mut self, reply: &Reply, lans: &[Ipv4Net], server: Option<Ipv4Addr>, now: Moment) {
        self.silent_since = now;
        let granted = match judge(reply, lans, server, now) {
            Ok(granted) => granted,
            Err(trouble) => {
                self.refused(now);
                self.trouble = Some(trouble);
                return;
            }
        };
        let same = self.lease().is_some_and(|lease| lease.address == granted.lease.address);
        if same {
            self.bind(granted, now);
        } else {
            // Not decided before it is checked: without notes, an address of ours that the link has
            // may be this very one, with flows on it.
            self.enter(State::Checking { granted, until: now + CHECK }, now);
        }
    }

    /// Tells that somebody has an address already.
    pub fn taken(&mut self, address: Ipv4Addr, by: Mac, now: Moment) -> Vec<Order> {
        let State::Checking { granted, .. } = &self.state else { return Vec::new() };
        if granted.lease.address != address {
            return Vec::new();
        }
        let lease = granted.lease.clone();
        self.trouble = Some(Trouble {
            code: "dhcp.address-taken",
            what: format!("the server gives {address}, which {by} has already"),
        });
        let decline = Message {
            wanted: Some(address),
            server: Some(lease.server),
            ..self.message(Kind::Decline, now)
        };
        self.lose();
        self.pause(PAUSE_DECLINED, now);
        vec![Order::Send(decline)]
    }

    /// Gives the lease back; for when we leave for good.
    pub fn release(&mut self, now: Moment) -> Option<Message> {
        let lease = self.lease.clone().filter(|_| self.in_force && self.port.is_some())?;
        self.renew_number();
        let message = release(&lease, self.xid);
        self.lose();
        self.state = State::Idle;
        self.next = None;
        self.silent_since = now;
        Some(message)
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Moment) -> Vec<Order> {
        self.run_out(now);
        if self.port.is_none() || self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        match self.state.clone() {
            State::Idle => {
                self.enter(State::Selecting, now);
                self.wake(now)
            }
            State::Selecting => self.again(Kind::Discover, now),
            State::Requesting { .. } if self.tries >= TRIES_MAX => {
                self.enter(State::Selecting, now);
                self.wake(now)
            }
            State::Rebooting if self.tries >= TRIES_MAX => {
                // RFC 2131, 3.2.4: it may be used until it runs out.
                let next = if self.in_force { State::Rebinding } else { State::Selecting };
                self.enter(next, now);
                self.wake(now)
            }
            State::Requesting { .. } | State::Rebooting => self.again(Kind::Request, now),
            State::Checking { granted, until } => {
                if now >= until {
                    self.bind(granted, now);
                    return Vec::new();
                }
                self.next = Some((now + CHECK_AGAIN).min(until));
                vec![Order::Check(granted.lease.address)]
            }
            State::Bound => {
                self.enter(State::Renewing, now);
                self.wake(now)
            }
            State::Renewing if now >= self.rebind => {
                self.enter(State::Rebinding, now);
                self.wake(now)
            }
            State::Renewing => self.renewal(Some(self.rebind), now),
            State::Rebinding => {
                let end = self.lease.as_ref().and_then(|lease| lease.until);
                self.renewal(end, now)
            }
        }
    }

    /// When [`Client::wake`] has something to do, or there is something to tell.
    pub fn deadline(&self, now: Moment) -> Option<Moment> {
        let end = self.lease.as_ref().and_then(|lease| lease.until);
        let tell = Some(self.silent_since + SILENCE).filter(|at| *at > now && self.asks());
        [self.next.filter(|_| self.port.is_some()), end, tell].into_iter().flatten().min()
    }

    /// What a person should know.
    pub fn trouble(&self, now: Moment) -> Option<Trouble> {
        let silent = self.asks() && now.since(self.silent_since) >= SILENCE;
        let tell = |code, what: &str| Some(Trouble { code, what: what.to_owned() });
        if self.refusals >= REFUSALS {
            return tell("dhcp.refused", "the server refuses every address that is asked for");
        }
        if silent && self.trouble.is_none() {
            return tell("dhcp.no-answer", "no DHCP server answers");
        }
        if self.state == State::Rebinding {
            return tell("dhcp.not-renewed", "no DHCP server renews the lease, which will run out");
        }
        self.trouble.clone()
    }

    /// Whether it waits for its first word from a server.
    fn asks(&self) -> bool {
        match self.state {
            State::Selecting | State::Requesting { .. } | State::Rebooting => self.port.is_some(),
            State::Idle
            | State::Checking { .. }
            | State::Bound
            | State::Renewing
            | State::Rebinding => false,
        }
    }

    fn run_out(&mut self, now: Moment) {
        let over = self.lease.as_ref().and_then(|lease| lease.until).is_some_and(|end| end <= now);
        if !over {
            return;
        }
        let was_in_force = self.in_force;
        self.lose();
        if self.port.is_some() && was_in_force {
            self.silent_since = now;
            self.enter(State::Selecting, now);
        }
    }

    fn lose(&mut self) {
        self.decided = true;
        self.in_force = false;
        self.lease = None;
    }

    fn refused(&mut self, now: Moment) {
        self.refusals += 1;
        self.silent_since = now;
        self.lose();
        let doubled = PAUSE_REFUSED.saturating_mul(1 << self.refusals.saturating_sub(1).min(6));
        // The first refusal says only that we are elsewhere now.
        let pause = if self.refusals == 1 { Duration::ZERO } else { doubled };
        self.pause(pause, now);
    }

    fn pause(&mut self, pause: Duration, now: Moment) {
        self.state = State::Idle;
        self.next = Some(now + pause);
    }

    fn bind(&mut self, granted: Granted, now: Moment) {
        let Granted { lease, renew, rebind } = granted;
        self.decided = true;
        self.in_force = true;
        self.refusals = 0;
        self.trouble = None;
        self.renew = renew.unwrap_or(now);
        self.rebind = rebind.unwrap_or(now);
        self.lease = Some(lease);
        self.state = State::Bound;
        // One without end is never renewed.
        self.next = renew;
    }

    fn enter(&mut self, state: State, now: Moment) {
        self.state = state;
        self.tries = 0;
        self.next = Some(now);
        let goes_on = matches!(self.state, State::Requesting { .. } | State::Checking { .. });
        if !goes_on {
            self.renew_number();
        }
    }

    fn again(&mut self, kind: Kind, now: Moment) -> Vec<Order> {
        let message = self.message(kind, now);
        let pause = PAUSE_FIRST.saturating_mul(1 << self.tries.min(8)).min(PAUSE_MAX);
        self.tries += 1;
        self.next = Some(now + self.jittered(pause));
        vec![Order::Send(message)]
    }

    fn renewal(&mut self, end: Option<Moment>, now: Moment) -> Vec<Order> {
        let message = self.message(Kind::Request, now);
        let left = end.map_or(PAUSE_MAX, |end| end.since(now) / 2);
        let again = now + self.jittered(left.max(RENEWAL_MIN));
        self.tries += 1;
        self.next = Some(end.map_or(again, |end| again.min(end)));
        vec![Order::Send(message)]
    }

    /// The message of the present state (RFC 2131, table 5).
    fn message(&self, kind: Kind, now: Moment) -> Message {
        let seconds = now.since(self.silent_since).as_secs();
        let plain = Message {
            kind,
            xid: self.xid,
            seconds: u16::try_from(seconds).unwrap_or(u16::MAX),
            // Some servers answer nothing else; most links hear answers to their own address, and
            // some nothing else. So it is tried both ways.
            broadcast: self.tries % 4 >= 2,
            own: None,
            wanted: None,
            server: None,
            to: None,
        };
        let lease = self.lease.as_ref();
        match &self.state {
            State::Requesting { address, server } => {
                Message { wanted: Some(*address), server: Some(*server), ..plain }
            }
            State::Selecting | State::Rebooting => {
                Message { wanted: lease.map(|lease| lease.address), ..plain }
            }
            State::Renewing => Message {
                broadcast: false,
                own: lease.map(|lease| lease.address),
                to: lease.map(|lease| (lease.server, lease.via)),
                ..plain
            },
            State::Rebinding => {
                Message { broadcast: false, own: lease.map(|lease| lease.address), ..plain }
            }
            State::Idle | State::Checking { .. } | State::Bound => plain,
        }
    }

    fn renew_number(&mut self) {
        self.xid = u32::try_from(self.dice() >> 32).unwrap_or(1);
    }

    /// A second more or less (RFC 2131, 4.1), of short pauses a quarter.
    fn jittered(&mut self, pause: Duration) -> Duration {
        let range = (pause / 4).min(Duration::from_secs(1));
        let part = u32::try_from(self.dice() % 2001).unwrap_or(1000);
        pause - range + range * part / 1000
    }

    /// Marsaglia's xorshift: numbers that differ between routers, no secrets.
    fn dice(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// The message that gives a lease back.
pub fn release(lease: &Lease, xid: u32) -> Message {
    Message {
        kind: Kind::Release,
        xid,
        seconds: 0,
        broadcast: false,
        own: Some(lease.address),
        wanted: None,
        server: Some(lease.server),
        to: Some((lease.server, lease.via)),
    }
}
