//! What the kernel does by itself when an address comes or goes, and how files change hands.

use std::net::IpAddr;

use crate::names::{Family, fingerprint};
use crate::observed::{Address, Observed, OwnAddress, ResolvConf, ResolvFile, Writer};

/// An address is there, with these lifetimes.
pub(super) fn put_address(observed: &mut Observed, own: &OwnAddress) {
    observed.addresses.retain(|there| !(there.ours && own.is(there)));
    let OwnAddress { device, address, prefix, until } = *own;
    let global = match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    observed.addresses.insert(Address {
        device,
        address,
        prefix,
        peer: None,
        global,
        deprecated: false,
        ours: true,
        until,
    });
}

/// An address is gone. With the last IPv4 address of an interface go all IPv4 routes over it.
pub(super) fn delete_address(observed: &mut Observed, own: &OwnAddress) {
    let before = observed.addresses.len();
    observed.addresses.retain(|there| !(there.ours && own.is(there)));
    let same = |there: &Address| {
        there.device == own.device && Family::of(there.address) == Family::of(own.address)
    };
    let was_there = observed.addresses.len() < before;
    if was_there && own.address.is_ipv4() && !observed.addresses.iter().any(same) {
        let led_there = |family, device| family == Family::Ipv4 && device == own.device;
        observed.routes.retain(|r| !r.hops.iter().any(|hop| led_there(r.family, hop.device)));
    }
}

/// What is not ours is noted, what is ours is not.
pub(super) fn take_resolv_conf(is: &mut ResolvConf, text: &str) {
    let ours = ResolvFile::Ours(fingerprint([text]));
    match std::mem::replace(&mut is.file, ours) {
        ResolvFile::Others(writer) => is.before = Some(writer),
        ResolvFile::Ours(_) => {}
        ResolvFile::Untouchable => is.file = ResolvFile::Untouchable,
    }
}

/// Only what is ours goes.
pub(super) fn give_back_resolv_conf(is: &mut ResolvConf) {
    if let ResolvFile::Ours(_) = is.file {
        is.file = ResolvFile::Others(is.before.take().unwrap_or(Writer::Unknown));
    }
}
