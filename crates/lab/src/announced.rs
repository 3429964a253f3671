//! What routers announce to hosts (RFC 4861, 8106), as it is on the wire: the kernel shows the
//! address and the route that it makes of it, but not the resolvers.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// For one solicitation; who wants more tries again.
const WAIT: Duration = Duration::from_secs(3);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// The fixed part, up to the options.
const FIXED: usize = 16;

/// One router advertisement.
#[derive(Debug, Clone)]
pub struct Announced {
    /// For how long it is a router for everything; zero: it is none.
    pub lifetime: Duration,
    /// The prefixes from which hosts make addresses of their own.
    pub prefixes: Vec<String>,
    /// Who resolves names.
    pub resolvers: Vec<Ipv6Addr>,
}

/// Asks for an advertisement as a host that has just come does.
pub fn solicit(space: &Netns, interface: &str) -> Result<Announced> {
    let index = index_of(space, interface)?;
    space.inside(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device_by_index_v6(Some(index))?;
        socket.set_multicast_hops_v6(255)?;
        let to = SocketAddrV6::new(ALL_ROUTERS, 0, 0, index.get());
        socket.send_to(&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &to.into())?;
        let end = Instant::now() + WAIT;
        let socket: std::net::UdpSocket = socket.into();
        let mut buffer = [0; 1500];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("nobody announces anything");
            }
            socket.set_read_timeout(Some(left))?;
            let Ok(length) = socket.recv(&mut buffer) else { continue };
            if let Some(announced) = read(&buffer[..length]) {
                return Ok(announced);
            }
        }
    })?
}

fn index_of(space: &Netns, interface: &str) -> Result<NonZeroU32> {
    let text = space.run(&format!("ip -o link show dev {interface}"))?;
    let number = text.split(':').next().context("an index")?;
    NonZeroU32::new(number.trim().parse()?).context("indices begin at 1")
}

fn read(message: &[u8]) -> Option<Announced> {
    let fixed = message.get(..FIXED).filter(|fixed| fixed[0] == ADVERTISEMENT)?;
    let seconds = u16::from_be_bytes([fixed[6], fixed[7]]);
    let mut announced = Announced {
        lifetime: Duration::from_secs(seconds.into()),
        prefixes: Vec::new(),
        resolvers: Vec::new(),
    };
    let mut rest = &message[FIXED..];
    while let [kind, units, ..] = *rest {
        let (option, after) = rest.split_at_checked(usize::from(units.max(1)) * 8)?;
        rest = after;
        let address = |at: usize| {
            let octets: [u8; 16] = option.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets))
        };
        match kind {
            // Autonomous: a host may make its address of it.
            3 if option[3] & 0x40 != 0 => {
                announced.prefixes.extend(address(16).map(|net| format!("{net}/{}", option[2])));
            }
            25 => announced.resolvers.extend((8..option.len()).step_by(16).filter_map(address)),
            _ => {}
        }
    }
    Some(announced)
}
