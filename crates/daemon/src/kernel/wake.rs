//! Wakes TCP clients that only listen: sends them empty segments that seem to come from their
//! server, with numbers outside the window. A client must answer such a segment with an ACK (RFC
//! 9293, 3.10.7.4), and our table answers that ACK with a reset that carries the right number. In:
//! flows. Out: how many were dealt with, and when to go on. It reads nothing, and a segment alone
//! does no harm: it carries no data, and no flag that ends anything.
//!
//! The segments carry a mark by which the routing takes them to LANs only, and by which our table
//! keeps them out of conntrack. A stack that insists on timestamps in every segment (RFC 7323,
//! 3.2) may ignore them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anywan_core::names::{Family, Mark, PerFamily};
use anywan_core::observed::TcpFlow;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::debug;

use super::error::{KernelError, Refused};

/// How many flows one call deals with: 256 segments, which fit the queue of an interface (1,000
/// packets) and nearly that of a neighbour whose hardware address must be asked for (some 270).
const FLOWS: usize = 64;
/// How long one call may take, on the daemon's only thread; 64 flows take about 1 ms, on a
/// Raspberry Pi 2 some ten times that.
const SPAN: Duration = Duration::from_millis(3);
/// Between two calls, so that no queue on the way overflows: what is sent must be delivered, and
/// answers to it with resets, which nobody sends a second time.
const PAUSE: Duration = Duration::from_millis(1);
/// The pause where the machine is slow: when a call was cut short by `SPAN` or by a full queue, the
/// kernel that delivers is at least as slow, and has more to do than we who only send.
const LONG_PAUSE: Duration = Duration::from_millis(12);
/// Room for segments on their way: some 5,000. The kernel holds up to 270 for each client whose
/// hardware address it asks for in vain, for three seconds; such clients must not stop the others.
const ROOM: usize = 4 * 1024 * 1024;
/// Sequence and acknowledgement numbers of the segments. Of two numbers half the space apart at
/// most one is inside a window (RFC 7323: at most a quarter of the space), and firewalls that drop
/// what is invalid let those through that lie behind, in both spaces.
const NUMBERS: [(u32, u32); 4] =
    [(HERE, HERE), (HERE, HERE ^ HALF), (HERE ^ HALF, HERE), (HERE ^ HALF, HERE ^ HALF)];
const HERE: u32 = 0x2a5a_5a5a;
const HALF: u32 = 1 << 31;
/// A window that would not stop a client, should a number happen to be inside its own.
const WINDOW: u16 = u16::MAX;
const TTL: u8 = 64;
const TCP_HEADER: usize = 20;
const ACK: u8 = 0x10;

/// What one call of [`Kernel::wake`](super::Kernel::wake) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// How many flows, from the first on, were dealt with; 0 when a queue is full.
    pub done: usize,
    /// How long to wait before the next call.
    pub pause: Duration,
}

impl Portion {
    fn whole(done: usize) -> Portion {
        Portion { done, pause: PAUSE }
    }

    fn cut_short(done: usize) -> Portion {
        Portion { done, pause: LONG_PAUSE }
    }
}

/// The raw sockets, opened when first needed.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    sockets: PerFamily<Option<Socket>>,
    mark: Option<Mark>,
}

impl Waker {
    /// Sends the clients of the first flows their segments, as many as may be sent without blocking
    /// or overflowing a queue. Flows whose client cannot be reached count as dealt with.
    pub(crate) fn wake(&mut self, flows: &[TcpFlow], ask: Mark) -> Result<Portion, KernelError> {
        if self.mark != Some(ask) {
            *self = Waker { mark: Some(ask), ..Waker::default() };
        }
        let begun = Instant::now();
        for (done, flow) in flows.iter().take(FLOWS).enumerate() {
            if done > 0 && begun.elapsed() > SPAN {
                return Ok(Portion::cut_short(done));
            }
            let Some(socket) = self.socket(flow.family, ask)? else { continue };
            for (sequence, acknowledgement) in NUMBERS {
                let Some(packet) = segment(flow, sequence, acknowledgement) else { break };
                match send(socket, &packet, flow.client.ip()) {
                    Ok(()) => {}
                    // All four go again.
                    Err(error) if is_full(&error) => return Ok(Portion::cut_short(done)),
                    Err(error) => {
                        // Not on a LAN, or a firewall of the router's owner forbids it.
                        debug!(client = %flow.client, %error, "cannot wake a client");
                        break;
                    }
                }
            }
        }
        Ok(Portion::whole(flows.len().min(FLOWS)))
    }

    /// The socket of a family; `None` where the kernel has no such family.
    fn socket(&mut self, family: Family, ask: Mark) -> Result<Option<&Socket>, KernelError> {
        let socket = self.sockets.get_mut(family);
        if socket.is_none() {
            match open(family, ask) {
                Ok(opened) => *socket = Some(opened),
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                Err(error) => {
                    return Err(KernelError::Open {
                        what: "the raw socket that wakes clients",
                        hint: "run anywand as root, or with CAP_NET_RAW and CAP_NET_ADMIN",
                        source: Refused::Socket(error),
                    });
                }
            }
        }
        Ok(socket.as_ref())
    }
}

fn open(family: Family, ask: Mark) -> io::Result<Socket> {
    let domain = match family {
        Family::Ipv4 => Domain::IPV4,
        Family::Ipv6 => Domain::IPV6,
    };
    // IPPROTO_RAW: we write the IP header, and nothing is ever received (raw(7)).
    let protocol = Some(Protocol::from(libc::IPPROTO_RAW));
    let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), protocol)?;
    socket.set_mark(ask.0)?;
    if sockopt::set_socket_send_buffer_size_force(&socket, ROOM).is_err() {
        socket.set_send_buffer_size(ROOM)?;
    }
    Ok(socket)
}

fn send(socket: &Socket, packet: &[u8], client: IpAddr) -> io::Result<()> {
    let to = SocketAddr::new(client, 0).into();
    loop {
        match socket.send_to(packet, &to) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM))
}

/// An empty segment from a flow's server to its client with its IP header; `None` when the ends
/// are of different families.
fn segment(flow: &TcpFlow, sequence: u32, acknowledgement: u32) -> Option<Vec<u8>> {
    let mut tcp = Vec::with_capacity(TCP_HEADER);
    tcp.extend(flow.server.port().to_be_bytes());
    tcp.extend(flow.client.port().to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledgement.to_be_bytes());
    tcp.extend([(TCP_HEADER as u8 / 4) << 4, ACK]);
    tcp.extend(WINDOW.to_be_bytes());
    // Checksum and urgent pointer.
    tcp.extend([0; 4]);
    let (header, pseudo) = match (flow.server.ip(), flow.client.ip()) {
        (IpAddr::V4(server), IpAddr::V4(client)) => ipv4(server, client),
        (IpAddr::V6(server), IpAddr::V6(client)) => ipv6(server, client),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let sum = checksum(&[&pseudo[..], &tcp].concat());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    Some([header, tcp].concat())
}

/// The IPv4 header, whose checksum the kernel fills in, and the TCP pseudo-header (RFC 9293, 3.1).
fn ipv4(server: Ipv4Addr, client: Ipv4Addr) -> (Vec<u8>, Vec<u8>) {
    let length = (20 + TCP_HEADER) as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    // No identification, never fragmented.
    header.extend([0, 0, 0x40, 0, TTL, libc::IPPROTO_TCP as u8, 0, 0]);
    header.extend(server.octets());
    header.extend(client.octets());
    let mut pseudo = [server.octets(), client.octets()].concat();
    pseudo.extend([0, libc::IPPROTO_TCP as u8, 0, TCP_HEADER as u8]);
    (header, pseudo)
}

/// The IPv6 header, and the pseudo-header (RFC 8200, 8.1).
fn ipv6(server: Ipv6Addr, client: Ipv6Addr) -> (Vec<u8>, Vec<u8>) {
    let mut header = vec![0x60, 0, 0, 0, 0, TCP_HEADER as u8, libc::IPPROTO_TCP as u8, TTL];
    header.extend(server.octets());
    header.extend(client.octets());
    let mut pseudo = [server.octets(), client.octets()].concat();
    pseudo.extend([0, 0, 0, TCP_HEADER as u8, 0, 0, 0, libc::IPPROTO_TCP as u8]);
    (header, pseudo)
}

/// The internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_segments_cover_both_halves_of_both_spaces() {
        let far = |a: u32, b: u32| a.wrapping_sub(b) == HALF;
        let [a, b, c, d] = NUMBERS;
        assert!(a.0 == b.0 && far(a.1, b.1) && c.0 == d.0 && far(c.1, d.1) && far(a.0, c.0));
    }

    #[test]
    fn a_segment_has_the_right_lengths_and_checksum() {
        for (client, server, header) in [
            ("192.0.2.7:40000", "198.51.100.1:443", 20),
            ("[2001:db8::7]:40000", "[2001:db8:f::1]:443", 40),
        ] {
            let client: SocketAddr = client.parse().expect("an address");
            let server: SocketAddr = server.parse().expect("an address");
            let (family, outside) = (Family::of(client.ip()), client.ip());
            let flow = TcpFlow { family, client, server, outside, mark: 0 };
            let packet = segment(&flow, 1, 2).expect("one family");
            assert_eq!(packet.len(), header + TCP_HEADER);
            let (_, mut sum) = match (server.ip(), client.ip()) {
                (IpAddr::V4(s), IpAddr::V4(c)) => ipv4(s, c),
                (IpAddr::V6(s), IpAddr::V6(c)) => ipv6(s, c),
                _ => unreachable!("both are of one family"),
            };
            sum.extend(&packet[header..]);
            assert_eq!(checksum(&sum), 0);
        }
    }
}
