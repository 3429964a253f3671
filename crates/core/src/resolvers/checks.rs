//! Whether a resolver is good. Each is asked now and then, through its WAN: in turn for a name that
//! exists, and for one that cannot (RFC 6761: nothing ends in `.invalid`). One that does not answer
//! three times in a row is silent; one that gives the second an address lies, as do resolvers that
//! send people who mistype a name to advertisements. In: answers. Out: [`Consultation`]s to
//! make, and the [`Fault`] of each resolver.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Known, Resolver};
use crate::names::{WanId, fingerprint};
use crate::time::Moment;

/// Between two questions to a resolver that is well.
const PERIOD: Duration = Duration::from_secs(60);
/// The same where data costs money: some 200 kB a month.
const PERIOD_METERED: Duration = Duration::from_secs(1800);
/// Between two while something is not known yet, or seems wrong.
const SOON: Duration = Duration::from_secs(1);
/// How long an answer may take: longer than a resolver that has to ask far away itself.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// So many questions without an answer are no accident.
const SILENT: u8 = 3;
/// The first questions come soon one after the other: one of each kind.
const FIRST: u32 = 2;

/// What is wrong with a resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It invents addresses for names that do not exist.
    Lies,
    /// It does not answer, or cannot find out.
    Silent,
}

/// What a resolver said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The response code, 0 to 15.
    pub code: u8,
    /// There was an address in the answer.
    pub address: bool,
}

/// One question to one resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consultation {
    /// Who is asked.
    pub resolver: Resolver,
    /// For what.
    pub name: String,
    /// Its number: an answer to another one is none.
    pub sequence: u64,
}

/// What is known of all resolvers.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    by_resolver: BTreeMap<Resolver, Check>,
    sequence: u64,
}

#[derive(Debug, Clone, Default)]
struct Check {
    next: Moment,
    asked: u32,
    unanswered: u8,
    lies: bool,
    /// The number of the question that is on its way, and whether it is the one for a lie.
    waiting: Option<(u64, bool)>,
}

impl Checks {
    /// What is wrong with a resolver, as far as is known.
    pub fn fault(&self, resolver: &Resolver) -> Option<Fault> {
        let check = self.by_resolver.get(resolver)?;
        if check.unanswered >= SILENT {
            Some(Fault::Silent)
        } else {
            check.lies.then_some(Fault::Lies)
        }
    }

    /// Those that something is wrong with.
    pub fn faults(&self) -> impl Iterator<Item = (Resolver, Fault)> {
        self.by_resolver.keys().filter_map(|r| Some((*r, self.fault(r)?)))
    }

    /// Forgets resolvers that are not known any more, and begins with new ones.
    pub fn keep(&mut self, known: &Known, now: Moment) {
        self.by_resolver.retain(|resolver, _| known.contains_key(resolver));
        for resolver in known.keys() {
            let new = || Check { next: now, ..Check::default() };
            self.by_resolver.entry(*resolver).or_insert_with(new);
        }
    }

    /// When the next question is due of those that `works` allows.
    pub fn deadline(&self, works: impl Fn(&Resolver) -> bool) -> Option<Moment> {
        let due = self.by_resolver.iter().filter(|(r, _)| works(r));
        due.map(|(_, check)| check.next).min()
    }

    /// The questions that are due. Only a WAN that `works` proves anything about who is behind it;
    /// `name` is one that exists, `metered` says where data costs money.
    pub fn due(
        &mut self,
        works: impl Fn(&Resolver) -> bool,
        metered: impl Fn(WanId) -> bool,
        name: impl Fn(WanId) -> String,
        now: Moment,
    ) -> Vec<Consultation> {
        let mut questions = Vec::new();
        for (resolver, check) in &mut self.by_resolver {
            if !works(resolver) {
                // What was silent may have been the line.
                check.unanswered = 0;
                check.next = check.next.min(now + SOON);
                continue;
            }
            if check.next > now {
                continue;
            }
            if check.waiting.is_some() {
                check.unanswered = check.unanswered.saturating_add(1).min(SILENT);
            }
            self.sequence += 1;
            let lie = check.asked % 2 == 1;
            check.asked = check.asked.wrapping_add(1);
            check.waiting = Some((self.sequence, lie));
            let hurry = check.asked <= FIRST || (1..SILENT).contains(&check.unanswered);
            let period = if metered(resolver.0) { PERIOD_METERED } else { PERIOD };
            check.next = now + if hurry { SOON + PATIENCE } else { period };
            let name = if lie { no_name(*resolver, self.sequence) } else { name(resolver.0) };
            questions.push(Consultation { resolver: *resolver, name, sequence: self.sequence });
        }
        questions
    }

    /// Takes an answer in; `None` when there was none.
    pub fn take(&mut self, resolver: Resolver, sequence: u64, said: Option<Said>, now: Moment) {
        let Some(check) = self.by_resolver.get_mut(&resolver) else { return };
        let Some((_, lie)) = check.waiting.filter(|(number, _)| *number == sequence) else {
            return;
        };
        check.waiting = None;
        // A server that refuses to look for a name that cannot be is an honest one.
        let answered = said.is_some_and(|said| lie || matches!(said.code, 0 | 3));
        if !answered {
            check.unanswered = check.unanswered.saturating_add(1).min(SILENT);
        } else if !lie {
            check.unanswered = 0;
        }
        if let (true, Some(said)) = (lie, said) {
            check.lies = said.address;
        }
        if check.asked < FIRST || (1..SILENT).contains(&check.unanswered) {
            check.next = check.next.min(now + SOON);
        }
    }
}

/// A name that does not exist and that nobody has asked for before.
fn no_name((wan, address): Resolver, sequence: u64) -> String {
    let (wan, address, sequence) = (wan.to_string(), address.to_string(), sequence.to_string());
    format!("{:016x}.invalid", fingerprint([wan.as_str(), &address, &sequence]))
}

impl Consultation {
    /// The address that is asked.
    pub fn server(&self) -> IpAddr {
        self.resolver.1
    }
}
