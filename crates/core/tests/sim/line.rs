//! The fake internet: lines, what ails them, and what becomes of a packet there. In: a line, its
//! faults, a packet, the moment. Out: its fate, or what a person with a view of the whole would
//! say of the line. Pure functions of their arguments; the engine's opinion is unknown here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anywan_core::config::Kind;
use anywan_core::names::{Family, IfIndex, PerFamily};
use anywan_core::time::Moment;

use crate::dice::{fraction, hash};

/// A SYN is sent again after one second, then after two (RFC 6298, 2.1 and 5.5).
const SYN_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// Answers arrive at whole steps of this: so some arrive at the same instant.
const GRAIN: Duration = Duration::from_millis(1);
/// More independent loss than this, and a line is no longer plainly healthy.
const HEALTHY_LOSS: f64 = 0.05;
/// A line with fewer living targets than this says too little about itself under loss.
const LIVING_TARGETS: usize = 2;

/// One line to the internet, with the interface that leads to it.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// From 1; the WAN's name and interface are `wanN`.
    pub(crate) number: u8,
    /// The present index of its interface, or the next one while it is away.
    pub(crate) index: IfIndex,
    pub(crate) families: PerFamily<bool>,
    /// Its addresses and gateways are in the file, and put there by us: no other program does.
    pub(crate) fixed: bool,
    /// The gateway's last byte: 1 at first, another after it moved.
    pub(crate) gateway: u8,
    pub(crate) rtt: Duration,
    /// How much round trips vary, as a standard deviation.
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
}

/// Which way packets vanish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Both,
    Out,
    Back,
}

/// What may ail a line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ail {
    /// Packets vanish without a sign.
    Silent(Way),
    /// Each packet is lost by itself with this probability.
    Loss(f64),
    /// Gilbert's model: good and bad stretches of about these lengths; in bad ones half is lost.
    Bursts { good: Duration, bad: Duration },
    /// A brown-out: slow, and a third is lost.
    BrownOut,
    /// A mobile line whose queue is full: 300 to 1500 ms that swing within seconds, packets
    /// overtake each other.
    Saturated,
    /// The target of this place in the family's list does not answer.
    Deaf(usize),
    /// Nothing asked this way is answered.
    Dead(Kind),
    /// The carrier lets only this share of echoes pass.
    EchoLimit(f64),
    /// The cable is out.
    NoCarrier,
    /// The interface is gone, and comes back under another index.
    Gone,
    /// The address, and what was learnt with it, is lost.
    NoAddress,
}

/// Something that ails a line, for one family or both.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub(crate) line: u8,
    pub(crate) family: Option<Family>,
    pub(crate) ail: Ail,
}

impl Fault {
    fn concerns(&self, line: &Line, family: Family) -> bool {
        self.line == line.number && self.family.is_none_or(|f| f == family)
    }
}

/// One packet that asks, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    pub(crate) family: Family,
    pub(crate) kind: Kind,
    /// The target's place in the family's list.
    pub(crate) place: usize,
    pub(crate) sequence: u64,
    pub(crate) at: Moment,
}

/// What a person who sees everything would say of one family of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It works, but for one deaf target or up to 5 % loss at most.
    Healthy,
    /// It works somehow, and nobody can say what should be concluded.
    Murky,
    /// Nothing gets through.
    Dead,
}

impl Line {
    pub(crate) fn name(&self) -> String {
        format!("wan{}", self.number)
    }

    pub(crate) fn address(&self, family: Family) -> IpAddr {
        let n = self.number;
        match family {
            Family::Ipv4 => Ipv4Addr::new(192, 168, n, 2).into(),
            Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, n.into(), 0, 0, 0, 0, 2).into(),
        }
    }

    pub(crate) fn gateway(&self, family: Family) -> IpAddr {
        let last = self.gateway;
        match family {
            Family::Ipv4 => Ipv4Addr::new(192, 168, self.number, last).into(),
            Family::Ipv6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into()).into(),
        }
    }

    /// The faults that concern one family.
    pub(crate) fn ails<'a>(
        &'a self,
        family: Family,
        faults: &'a [Fault],
    ) -> impl Iterator<Item = &'a Ail> {
        faults.iter().filter(move |f| f.concerns(self, family)).map(|f| &f.ail)
    }

    pub(crate) fn has(&self, faults: &[Fault], ail: &Ail) -> bool {
        faults.iter().any(|f| f.line == self.number && f.ail == *ail)
    }

    /// How the line is, for a list of `targets` that a side asks.
    pub(crate) fn condition(
        &self,
        family: Family,
        faults: &[Fault],
        targets: &[Kind],
    ) -> Condition {
        let mut loss = self.loss;
        let mut deaf = vec![false; targets.len()];
        let mut worst = Condition::Healthy;
        if !*self.families.get(family) {
            return Condition::Dead;
        }
        for ail in self.ails(family, faults) {
            match ail {
                // Without targets nobody asks, and nobody can know.
                Ail::Silent(_) if targets.is_empty() => worst = Condition::Murky,
                Ail::Silent(_) | Ail::NoCarrier | Ail::Gone | Ail::NoAddress => {
                    return Condition::Dead;
                }
                Ail::Loss(more) => loss = 1.0 - (1.0 - loss) * (1.0 - more),
                Ail::Bursts { .. } | Ail::BrownOut | Ail::Saturated => worst = Condition::Murky,
                Ail::Deaf(place) => {
                    if let Some(deaf) = deaf.get_mut(*place) {
                        *deaf = true;
                    }
                }
                Ail::Dead(_) | Ail::EchoLimit(_) => worst = Condition::Murky,
            }
        }
        let deaf = deaf.iter().filter(|d| **d).count();
        let living = targets.len() - deaf;
        // Whose only target is deaf, or the only one heard under loss, tells too little.
        let heard = targets.is_empty() || living >= if loss > 0.0 { LIVING_TARGETS } else { 1 };
        if loss > HEALTHY_LOSS || deaf > 1 || !heard { Condition::Murky } else { worst }
    }

    /// Whether anything gets through.
    pub(crate) fn passes(&self, family: Family, faults: &[Fault]) -> bool {
        let cut =
            |ail: &Ail| matches!(ail, Ail::Silent(_) | Ail::NoCarrier | Ail::Gone | Ail::NoAddress);
        *self.families.get(family) && !self.ails(family, faults).any(cut)
    }

    /// The round trip of a question, or `None` when no answer ever comes.
    pub(crate) fn answer(
        &self,
        seed: u64,
        faults: &[Fault],
        question: Question,
    ) -> Option<Duration> {
        let again = || {
            SYN_AGAIN
                .into_iter()
                .find_map(|after| Some(after + self.one_packet(seed, faults, question, after)?))
        };
        let first = self.one_packet(seed, faults, question, Duration::ZERO);
        match question.kind {
            Kind::Icmp | Kind::Dns => first,
            // A handshake asks again by itself.
            Kind::Tcp => first.or_else(again),
            // A handshake, and the question.
            Kind::Http => first.or_else(again).map(|trip| trip * 2),
        }
    }

    fn one_packet(
        &self,
        seed: u64,
        faults: &[Fault],
        question: Question,
        after: Duration,
    ) -> Option<Duration> {
        let at = question.at + after;
        let about = |what: u64| {
            let Question { family, place, sequence, .. } = question;
            let place = u64::try_from(place).expect("a list is short");
            let nanos = nanos(at.since_start());
            let line = u64::from(self.number) << 8 | u64::from(u32::from(family.digit()));
            fraction(&[seed, line, place, sequence, nanos, what])
        };
        let mut delay = self.rtt.as_secs_f64() + self.jitter.as_secs_f64() * bell(about);
        let mut lost = about(1) < self.loss;
        for (ail, salt) in self.ails(question.family, faults).zip(10..) {
            match ail {
                Ail::Silent(_) | Ail::NoCarrier | Ail::Gone | Ail::NoAddress => return None,
                Ail::Loss(share) => lost |= about(salt) < *share,
                Ail::Bursts { good, bad } => {
                    lost |= self.is_bad(seed, at, *good, *bad) && about(salt) < 0.5;
                }
                Ail::BrownOut => {
                    delay += 0.2 + about(salt) * 0.8;
                    lost |= about(salt + 100) < 0.33;
                }
                Ail::Saturated => delay += self.queue(seed, at) + about(salt) * 0.2,
                Ail::Deaf(place) if *place == question.place => return None,
                Ail::Deaf(_) => {}
                Ail::Dead(kind) if *kind == question.kind => return None,
                Ail::Dead(_) => {}
                Ail::EchoLimit(share) => {
                    lost |= question.kind == Kind::Icmp && about(salt) > *share;
                }
            }
        }
        let delay = Duration::from_secs_f64(delay.max(0.001));
        let grains = delay.as_nanos().div_ceil(GRAIN.as_nanos());
        (!lost).then(|| GRAIN * u32::try_from(grains).expect("a round trip is short"))
    }

    /// Whether a moment falls into a bad stretch: time is cut into cycles, each with its bad
    /// stretch somewhere.
    fn is_bad(&self, seed: u64, at: Moment, good: Duration, bad: Duration) -> bool {
        let cycle = nanos(good + bad);
        let now = nanos(at.since_start());
        let begins = hash(&[seed, u64::from(self.number), now / cycle]) % nanos(good);
        let inside = now % cycle;
        (begins..begins + nanos(bad)).contains(&inside)
    }

    /// The delay of a full queue in seconds: it swings between 0.3 and 1.3 within seconds.
    fn queue(&self, seed: u64, at: Moment) -> f64 {
        let step = Duration::from_millis(1500);
        let now = nanos(at.since_start());
        let level = |n: u64| fraction(&[seed, u64::from(self.number), n, 77]);
        let (n, part) = (now / nanos(step), now % nanos(step));
        let part = Duration::from_nanos(part).as_secs_f64() / step.as_secs_f64();
        0.3 + level(n) * (1.0 - part) + level(n + 1) * part
    }
}

/// A number that is 0 on average and varies by 1, nearly normal: a sum of four even ones.
fn bell(about: impl Fn(u64) -> f64) -> f64 {
    let sum: f64 = (2..6).map(about).sum();
    (sum - 2.0) * 3.0_f64.sqrt()
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).expect("a simulation is shorter than 500 years")
}
