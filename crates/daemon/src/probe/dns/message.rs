//! The bytes of DNS questions and answers (RFC 1035 4). Bytes come from strangers: whatever they
//! are, reading them gives an [`Answer`] or nothing, looks at each byte once, and never panics.
//!
//! Written here because so little is needed: one question, and from an answer its code and the
//! addresses in it. Names in records are skipped, never followed, so no pointer can make a loop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anywan_core::names::Family;

/// Id, flags and four counts.
const HEADER: usize = 12;

/// The class of the internet.
const IN: u16 = 1;

/// Addresses taken from one answer: one is used, the others tell apart more than anybody asks.
const ADDRESSES_MAX: usize = 16;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    id: u16,
    /// The type of the records asked for: A or AAAA.
    record: u16,
    /// As it is on the wire, in lower case.
    name: Vec<u8>,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The response code: 0 to 15.
    pub code: u8,
    /// The addresses of the family asked for, whatever name they are said to belong to: that
    /// follows aliases.
    pub addresses: Vec<IpAddr>,
}

impl Query {
    /// The question for the addresses of `name` in a family; `None` if it is no name.
    pub fn new(id: u16, name: &str, family: Family) -> Option<Query> {
        let mut wire = Vec::with_capacity(name.len() + 2);
        for label in name.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?;
            wire.push(length);
            wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        }
        wire.push(0);
        let record = match family {
            Family::Ipv4 => 1,
            Family::Ipv6 => 28,
        };
        (wire.len() <= 255).then_some(Query { id, record, name: wire })
    }

    /// The message to send.
    pub fn bytes(&self) -> Vec<u8> {
        // One question, recursion desired.
        let mut bytes = Vec::with_capacity(HEADER + self.name.len() + 4);
        bytes.extend(self.id.to_be_bytes());
        bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        bytes.extend(&self.name);
        bytes.extend(self.record.to_be_bytes());
        bytes.extend(IN.to_be_bytes());
        bytes
    }

    /// The answer in a received message; `None` when it is anything else, or the answer to
    /// another question. One that was cut off is an answer too.
    pub fn answer(&self, bytes: &[u8]) -> Option<Answer> {
        let mut rest = Rest(bytes);
        let (id, flags) = (rest.number()?, rest.number()?);
        let (questions, records) = (rest.number()?, rest.number()?);
        rest.skip(4)?;
        let (response, operation) = (flags & 0x8000 != 0, flags & 0x7800);
        if id != self.id || !response || operation != 0 || questions != 1 {
            return None;
        }
        let name = rest.take(self.name.len())?;
        if !name.eq_ignore_ascii_case(&self.name) {
            return None;
        }
        if rest.number()? != self.record || rest.number()? != IN {
            return None;
        }
        let mut addresses = Vec::new();
        for _ in 0..records {
            // Cut off, or not a record: what came before it holds.
            let Some((record, data)) = rest.record() else { break };
            if record == self.record && addresses.len() < ADDRESSES_MAX {
                addresses.extend(address(data));
            }
        }
        let [_, low] = flags.to_be_bytes();
        Some(Answer { code: low & 0x0f, addresses })
    }
}

impl Answer {
    /// Why it is no good answer: the server could not or would not look the name up.
    pub fn error(&self) -> Option<String> {
        match self.code {
            0 | 3 => None,
            2 => Some("the DNS server failed (SERVFAIL)".to_owned()),
            5 => Some("the DNS server refused (REFUSED)".to_owned()),
            code => Some(format!("the DNS server answered with error {code}")),
        }
    }
}

fn address(data: &[u8]) -> Option<IpAddr> {
    match data.len() {
        4 => Some(Ipv4Addr::from(*data.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*data.first_chunk::<16>()?).into()),
        _ => None,
    }
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.take(length).map(|_| ())
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    /// The type and data of a record of the internet.
    fn record(&mut self) -> Option<(u16, &'a [u8])> {
        self.skip_name()?;
        let (record, class) = (self.number()?, self.number()?);
        self.skip(4)?;
        let length = self.number()?;
        let data = self.take(usize::from(length))?;
        Some((if class == IN { record } else { 0 }, data))
    }

    fn skip_name(&mut self) -> Option<()> {
        loop {
            match *self.take(1)?.first()? {
                0 => return Some(()),
                length @ 1..=63 => self.skip(usize::from(length))?,
                // A pointer ends a name (RFC 1035 4.1.4).
                0xc0..=0xff => return self.skip(1),
                64..=0xbf => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(family: Family) -> Query {
        Query::new(0x1234, "Example.com", family).expect("a name")
    }

    /// An answer with a CNAME, then an address.
    fn answered(query: &Query, data: &[u8]) -> Vec<u8> {
        let mut bytes = query.bytes();
        bytes[2..4].copy_from_slice(&[0x81, 0x80]);
        bytes[7] = 2;
        bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'x', 0xc0, 12]);
        bytes.extend([1, b'x', 0xc0, 12]);
        bytes.extend(query.record.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 9, 0, u8::try_from(data.len()).expect("short")]);
        bytes.extend(data);
        bytes
    }

    #[test]
    fn an_answer_gives_its_addresses_through_aliases() {
        let asked = query(Family::Ipv4);
        let answer = asked.answer(&answered(&asked, &[192, 0, 2, 7])).expect("an answer");
        assert_eq!(answer, Answer { code: 0, addresses: vec![[192, 0, 2, 7].into()] });
        let asked = query(Family::Ipv6);
        let answer = asked.answer(&answered(&asked, &[1; 16])).expect("an answer");
        assert_eq!(answer.addresses, [IpAddr::from([1_u8; 16])]);
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let asked = query(Family::Ipv4);
        let good = answered(&asked, &[192, 0, 2, 7]);
        for at in [0, 1, 2, 5, 12, 13, 20, 24, 26, 28] {
            let mut bytes = good.clone();
            bytes[at] ^= 0x80 >> (at % 2);
            assert_eq!(asked.answer(&bytes), None, "byte {at}");
        }
        assert_eq!(asked.answer(&asked.bytes()), None, "a question is no answer");
        assert_eq!(query(Family::Ipv6).answer(&good), None, "asked for IPv6");
    }

    #[test]
    fn the_case_of_a_name_does_not_matter_and_a_cut_answer_counts() {
        let asked = query(Family::Ipv4);
        let good = answered(&asked, &[192, 0, 2, 7]);
        let mut shouted = good.clone();
        shouted[13..20].make_ascii_uppercase();
        assert!(asked.answer(&shouted).is_some());
        for length in 29..good.len() {
            let answer = asked.answer(&good[..length]).expect("the question is whole");
            assert_eq!(answer.addresses, Vec::<IpAddr>::new(), "{length}");
        }
        for length in 0..29 {
            assert_eq!(asked.answer(&good[..length]), None, "{length}");
        }
    }

    #[test]
    fn that_a_name_does_not_exist_is_an_answer_and_a_servers_failure_is_none() {
        let error = |code| Answer { code, addresses: Vec::new() }.error();
        assert_eq!(error(0), None);
        assert_eq!(error(3), None);
        assert_eq!(error(2).as_deref(), Some("the DNS server failed (SERVFAIL)"));
        assert!(error(15).is_some());
    }

    #[test]
    fn only_names_can_be_asked_for() {
        let long = format!("{}com", "a.".repeat(200));
        for name in ["", ".", "a..b", "a.", &"a".repeat(64), &long] {
            assert_eq!(Query::new(1, name, Family::Ipv4), None, "{name}");
        }
    }
}
