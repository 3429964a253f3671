//! The drivers of interfaces (`ETHTOOL_GDRVINFO`). In: links. Out: the same with their drivers'
//! names. Asked once for each index: an interface keeps its driver, and an index is not used again.
#![expect(unsafe_code, reason = "the request has no safe wrapper")]

use std::collections::BTreeMap;
use std::mem::size_of;
use std::os::fd::AsRawFd as _;

use anywan_core::names::IfIndex;
use anywan_core::observed::Link;
use rustix::net::{AddressFamily, SocketType};

const GDRVINFO: u32 = 3;
const SIOCETHTOOL: u64 = 0x8946;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// What is known of drivers.
#[derive(Debug, Default)]
pub(crate) struct Drivers {
    known: BTreeMap<IfIndex, Option<String>>,
}

impl Drivers {
    /// Fills in the drivers.
    pub(crate) fn name(&mut self, links: &mut BTreeMap<IfIndex, Link>) {
        self.known.retain(|index, _| links.contains_key(index));
        for (index, link) in links {
            let ask = || driver(&link.name);
            link.driver = self.known.entry(*index).or_insert_with(ask).clone();
        }
    }
}

/// The driver of the interface of this name; `None` where the kernel does not say.
fn driver(name: &str) -> Option<String> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    let mut info = DriverInfo { command: GDRVINFO, driver: [0; 32], rest: [0; 160] };
    // SAFETY: all zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the kernel writes at most a `struct ethtool_drvinfo`, which `info` is, and both live
    // until the call is over.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    let end = info.driver.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&info.driver[..end]).ok()?;
    (done == 0 && !text.is_empty()).then(|| text.to_owned())
}

const _: () = assert!(size_of::<DriverInfo>() == 196);
