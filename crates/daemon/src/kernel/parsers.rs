//! Every parser of bytes from the kernel behind one door, so that a test can throw anything at all
//! of them. In: a datagram. Out: in how many places something was understood. Not for the daemon.

use std::collections::BTreeMap;

use anywan_core::observed::MAPS;
use anywan_core::time::Moment;

use super::addresses::address;
use super::announced::announced;
use super::conntrack::{destroyed, doomed, unanswered, waiting};
use super::links::{link, neighbour};
use super::monitor::hint;
use super::nft::counters::counter;
use super::nft::elements::element;
use super::nft::{foreign, structure};
use super::routes::{beyond_defaults, route};
use super::rules::{foreign_priority, rule};
use super::socket::outcome;
use super::wire::{Attributes, Messages};

/// Has every parser read every message, whatever its type, and counts those that found something.
pub fn parse(datagram: &[u8]) -> usize {
    let mut neighbours = BTreeMap::new();
    let mut found = 0;
    for message in Messages(datagram) {
        let payload = message.payload;
        let _ = (outcome(&message), beyond_defaults(payload));
        let understood = [
            doomed(payload).is_some(),
            unanswered(payload).is_some(),
            waiting(payload).is_some(),
            destroyed(payload, u32::MAX).is_some(),
            counter(payload).is_some(),
            link(payload).is_some(),
            address(payload, Moment::default()).is_some(),
            neighbour(payload).is_some(),
            route(payload).is_some(),
            foreign_priority(payload).is_some(),
            rule(payload).is_some(),
            foreign::name_of(payload).is_some(),
            !hint(&message, &mut neighbours).is_empty(),
        ];
        found += understood.iter().filter(|yes| **yes).count();
        // An option has eight bytes at least, and is read once.
        found += announced(payload).len();
        structure::digest(payload);
        for spec in &MAPS {
            let lists = Attributes::after(payload, super::nft::NFGENMSG);
            found += lists.flat_map(|l| l.nested()).filter_map(|e| element(spec, e)).count();
        }
    }
    found
}
