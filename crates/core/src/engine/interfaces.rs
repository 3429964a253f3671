//! The interfaces that the file means, by the names that they have now; and addresses whose
//! lifetimes are told anew with each reading.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::report::problem;
use super::{Engine, replace};
use crate::api::Problem;
use crate::config::{Config, Wan};
use crate::facts;
use crate::names::IfIndex;
use crate::observed::{Address, Link, OwnAddress};
use crate::time::Moment;

/// The kernel tells lifetimes in whole seconds: the same one differs so much from reading to reading.
const JITTER: Duration = Duration::from_secs(3);

/// What was read, with ends of lifetimes as they were told before where they are the same.
fn steady(before: &BTreeSet<Address>, now: BTreeSet<Address>) -> BTreeSet<Address> {
    let settled = |mut address: Address| {
        let own = OwnAddress::of(&address);
        let until = before.iter().find(|old| own.is(old)).and_then(|old| old.until);
        if let (Some(old), Some(new)) = (until, address.until) {
            if old.since(new).max(new.since(old)) <= JITTER {
                address.until = Some(old);
            }
        }
        address
    };
    now.into_iter().map(settled).collect()
}

impl Engine {
    pub(super) fn take_links(&mut self, links: BTreeMap<IfIndex, Link>, now: Moment) {
        self.read.links = true;
        let changed = replace(&mut self.observed.links, links);
        self.name_interfaces();
        self.facts_changed(changed, now);
    }

    pub(super) fn take_addresses(&mut self, addresses: BTreeSet<Address>, now: Moment) {
        self.read.addresses = true;
        let addresses = steady(&self.observed.addresses, addresses);
        let changed = replace(&mut self.observed.addresses, addresses);
        self.facts_changed(changed, now);
    }

    /// Takes another file's text as written.
    pub(super) fn rewrite(&mut self, written: Config) {
        self.config = written.clone();
        self.written = written;
        self.name_interfaces();
    }

    /// Finds out how the interfaces are called now.
    pub(super) fn name_interfaces(&mut self) {
        self.doubts = facts::resolve(&mut self.config, &self.written, &self.observed.links);
    }

    /// What is written of a WAN's interface fits several.
    pub(super) fn interface_doubts(&self, wan: &Wan, at: &str) -> Vec<Problem> {
        let written = self.written.wans.iter().find(|w| w.name == wan.name);
        let doubt = written.and_then(|w| Some((&w.interface, self.doubts.get(&w.interface)?)));
        let Some((text, (taken, others))) = doubt else { return Vec::new() };
        let what = format!("{text} fits {taken}, which is taken, and also {}", others.join(", "));
        let hint = "`usb:` or `mac:` can tell them apart; `ip -d link` shows both";
        vec![problem("wan.interface-ambiguous", at, &what, hint)]
    }
}
