//! Which interface each LAN and WAN of the file means now. The one place that knows: everybody
//! else sees a configuration that has names only. In: the configuration as written, the interfaces
//! there are. Out: names, and where more than one interface fits.
//!
//! What means an interface by its hardware follows it under any name and index. A text that fits
//! no interface stays as it is; no interface can have that name, because no name has a colon.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, Selector};
use crate::names::IfIndex;
use crate::observed::Link;

/// The texts that fit several interfaces, with the name of the one taken and of the others.
pub type Doubts = BTreeMap<String, (String, Vec<String>)>;

/// Writes into `config` the interfaces' present names, where `written` means them by something
/// else. Both have the same LANs and WANs.
pub fn resolve(config: &mut Config, written: &Config, links: &BTreeMap<IfIndex, Link>) -> Doubts {
    let (names, doubts) = names_of(written, links);
    let put = |place: &mut String, text: &String| {
        let name = names.get(text).unwrap_or(text);
        if place != name {
            place.clone_from(name);
        }
    };
    for (lan, as_written) in config.lans.iter_mut().zip(&written.lans) {
        put(&mut lan.interface, &as_written.interface);
    }
    let wans = config.wans.iter_mut().chain(&mut config.retiring);
    for (wan, as_written) in wans.zip(written.wans.iter().chain(&written.retiring)) {
        put(&mut wan.interface, &as_written.interface);
    }
    doubts
}

/// The same configuration with names, for a look at a machine.
pub fn resolved(written: &Config, links: &BTreeMap<IfIndex, Link>) -> Config {
    let mut config = written.clone();
    resolve(&mut config, written, links);
    config
}

/// The name for each text that is none. What is most exact has its interface first; each of the
/// others takes the lowest index that is left.
fn names_of(
    written: &Config,
    links: &BTreeMap<IfIndex, Link>,
) -> (BTreeMap<String, String>, Doubts) {
    let texts = written.lans.iter().map(|lan| &lan.interface);
    let texts = texts.chain(written.wans.iter().map(|wan| &wan.interface));
    let by_exactness: BTreeSet<(Selector, &String)> =
        texts.map(|text| (Selector::of(text), text)).collect();
    let retiring = written.retiring.iter().map(|wan| &wan.interface);
    let retiring: Vec<(Selector, &String)> = retiring
        .map(|text| (Selector::of(text), text))
        .filter(|one| !by_exactness.contains(one))
        .collect();
    let (mut names, mut doubts) = (BTreeMap::new(), Doubts::new());
    let mut taken: BTreeSet<IfIndex> = BTreeSet::new();
    for (selector, text) in by_exactness.into_iter().chain(retiring) {
        let all = || links.iter().filter(|(_, link)| fits(&selector, link));
        let mut fitting: Vec<(&IfIndex, &Link)> =
            all().filter(|(index, _)| !taken.contains(index)).collect();
        // Who retires takes nobody's interface away, and may have had what another text means now.
        if fitting.is_empty() && written.retiring.iter().any(|wan| wan.interface == *text) {
            fitting = all().collect();
        }
        // A VLAN or a bridge has the hardware address of what it stands on.
        if fitting.iter().any(|(_, link)| link.parent.is_some()) {
            fitting.retain(|(_, link)| link.parent.is_some());
        }
        let Some(((index, link), others)) = fitting.split_first() else { continue };
        taken.insert(**index);
        if let Selector::Name(_) = selector {
            continue;
        }
        names.insert(text.clone(), link.name.clone());
        if !others.is_empty() {
            let others = others.iter().map(|(_, other)| other.name.clone()).collect();
            doubts.insert(text.clone(), (link.name.clone(), others));
        }
    }
    (names, doubts)
}

fn fits(selector: &Selector, link: &Link) -> bool {
    match selector {
        Selector::Name(name) => link.name == *name,
        Selector::Mac(mac) => link.mac == Some(*mac),
        Selector::Usb(port) => {
            // The kernel names the function of the device that sits in the port: `1-1.3:1.0`.
            let device = link.parent.as_deref().and_then(|parent| parent.split_once(':'));
            device.is_some_and(|(device, _)| device == port)
        }
        Selector::Driver(driver) => link.driver.as_ref() == Some(driver),
    }
}

#[cfg(test)]
mod tests;
