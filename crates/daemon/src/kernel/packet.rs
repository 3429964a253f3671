//! Sockets for whole Ethernet frames of one interface (`AF_PACKET`): they work with no address, and
//! past all rules and routes. In: the interface, the protocol, a filter. Out: a socket.
#![expect(unsafe_code, reason = "the socket's address has no safe wrapper")]

use std::io;
use std::mem::size_of;

use anywan_core::names::IfIndex;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frames {
    /// IPv4 with UDP to the port of DHCP clients, unfragmented.
    Dhcp,
    /// ARP.
    Arp,
}

impl Frames {
    fn protocol(self) -> u16 {
        match self {
            Frames::Dhcp => libc::ETH_P_IP as u16,
            Frames::Arp => libc::ETH_P_ARP as u16,
        }
    }
}

/// A frame is at most that long, also with a large MTU: DHCP's messages are small.
pub(crate) const FRAME: usize = 2048;

/// Opens a socket that sends and receives frames of one kind on one interface.
pub(crate) fn open(device: IfIndex, frames: Frames) -> io::Result<Socket> {
    // Protocol 0: nothing is received before the filter is there and the socket bound.
    let socket =
        Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))?;
    if frames == Frames::Dhcp {
        socket.attach_filter(&udp_to_clients())?;
    }
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the addresses that the storage is made for.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = frames.protocol().to_be();
    address.sll_ifindex = i32::try_from(device.0).map_err(io::Error::other)?;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>());
    // SAFETY: the storage holds a `sockaddr_ll` of this length.
    let address = unsafe { SockAddr::new(storage, length.map_err(io::Error::other)?) };
    socket.bind(&address)?;
    Ok(socket)
}

/// Has the reactor watch a socket.
pub(crate) fn watched(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket moves into the AsyncFd, which has it for itself until it is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    watched.map_err(Into::into)
}

/// A classic filter over an Ethernet frame: offsets are 14 for IPv4's header, 23 for its protocol,
/// 20 for its fragment offset, and 16 behind that header for UDP's destination port.
fn udp_to_clients() -> [SockFilter; 9] {
    let op = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    let (load_byte, load_half, load_indexed) = (
        libc::BPF_LD | libc::BPF_B | libc::BPF_ABS,
        libc::BPF_LD | libc::BPF_H | libc::BPF_ABS,
        libc::BPF_LD | libc::BPF_H | libc::BPF_IND,
    );
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let any_of = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    let header_length = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
    let give = libc::BPF_RET | libc::BPF_K;
    [
        op(load_byte, 0, 0, 23),
        op(equal, 0, 6, 17),
        op(load_half, 0, 0, 20),
        op(any_of, 4, 0, 0x1fff),
        op(header_length, 0, 0, 14),
        op(load_indexed, 0, 0, 16),
        op(equal, 0, 1, 68),
        op(give, 0, 0, u32::MAX),
        op(give, 0, 0, 0),
    ]
}
