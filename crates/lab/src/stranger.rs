//! A stranger's DHCP server on a line: it answers every question at once, with garbage, or with
//! offers that nobody should believe. Owned: it ends with its value.
//!
//! It hears through a raw socket, so that a real server beside it loses nothing.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// So often it looks whether it is to end.
const TICK: Duration = Duration::from_millis(100);
/// Who it says it is.
const SELF: [u8; 4] = [10, 66, 66, 66];
/// The fixed part of a message, up to the options.
const FIXED: usize = 240;

/// The kinds of its messages (RFC 2132, 9.6).
const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// Something that it says.
#[derive(Debug, Clone)]
pub enum Lie {
    /// Bytes without any sense, so many.
    Noise(usize),
    /// A good offer that ends after so many bytes.
    CutOff(Granted, usize),
    /// A good offer, as an answer to another question.
    OtherNumber(Granted),
    /// A good offer, for another's hardware address.
    OtherHardware(Granted),
    /// A good offer whose options lie about their lengths.
    Overlong(Granted),
    /// An offer, and whatever is asked for is granted.
    Grants(Granted),
    /// What is asked for is refused.
    Refuses,
}

/// What it would give.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The address.
    pub address: Ipv4Addr,
    /// The mask.
    pub mask: Ipv4Addr,
    /// The router.
    pub router: Ipv4Addr,
    /// For how many seconds.
    pub seconds: u32,
    /// More options, as they are sent: code, length, value.
    pub more: Vec<u8>,
}

/// The server.
#[derive(Debug)]
pub struct Stranger {
    over: Arc<AtomicBool>,
    heard: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Stranger {
    /// Begins to answer on an interface, each question with all of `lies` in their order.
    pub fn start(space: &Netns, interface: &str, lies: Vec<Lie>) -> Result<Stranger> {
        let (over, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ends, count) = (Arc::clone(&over), Arc::clone(&heard));
        let (ears, mouth) = space.inside(|| open(interface))?.context("a stranger's sockets")?;
        let thread = space.thread(move || {
            let mut buffer = [0; 1500];
            while !ends.load(Ordering::Relaxed) {
                let Ok(length) = ears.recv(&mut buffer) else { continue };
                let Some(question) = question(&buffer[..length]) else { continue };
                for message in lies.iter().flat_map(|lie| lie.messages(question)) {
                    // The line may be down; then nobody hears anything.
                    let _ = mouth.send_to(&message, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Stranger { over, heard, thread: Some(thread) })
    }

    /// How many questions it has answered.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(interface: &str) -> Result<(UdpSocket, UdpSocket)> {
    let ears = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
    ears.bind_device(Some(interface.as_bytes()))?;
    ears.set_read_timeout(Some(TICK))?;
    let mouth = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    mouth.bind_device(Some(interface.as_bytes()))?;
    mouth.set_broadcast(true)?;
    Ok((ears.into(), mouth.into()))
}

/// A client's message to servers.
fn question(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let (udp, message) = packet.get(header..)?.split_at_checked(8)?;
    (udp[2..4] == [0, 67] && message.len() > FIXED && message[0] == 1).then_some(message)
}

impl Lie {
    fn messages(&self, question: &[u8]) -> Vec<Vec<u8>> {
        match self {
            Lie::Noise(length) => {
                // A simple generator will do: it only has to make no sense.
                let mut state = u32::from(question[7]) | 1;
                let mut byte = || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state.to_be_bytes()[0]
                };
                vec![(0..*length).map(|_| byte()).collect()]
            }
            Lie::CutOff(granted, length) => {
                let mut message = granted.message(question, OFFER);
                message.truncate(*length);
                vec![message]
            }
            Lie::OtherNumber(granted) => {
                let mut message = granted.message(question, OFFER);
                message[4] ^= 0x55;
                vec![message]
            }
            Lie::OtherHardware(granted) => {
                let mut message = granted.message(question, OFFER);
                message[33] ^= 0x55;
                vec![message]
            }
            Lie::Overlong(granted) => {
                let mut message = granted.message(question, OFFER);
                message.pop();
                message.extend([12, 250, b'x']);
                vec![message]
            }
            Lie::Grants(granted) => {
                vec![granted.message(question, OFFER), granted.message(question, ACK)]
            }
            Lie::Refuses => {
                let mut message = fixed(question, [0; 4]);
                message.extend([53, 1, NAK, 54, 4]);
                message.extend(SELF);
                message.push(255);
                vec![message]
            }
        }
    }
}

impl Granted {
    fn message(&self, question: &[u8], kind: u8) -> Vec<u8> {
        let mut message = fixed(question, self.address.octets());
        message.extend([53, 1, kind, 54, 4]);
        message.extend(SELF);
        message.extend([51, 4]);
        message.extend(self.seconds.to_be_bytes());
        message.extend([1, 4]);
        message.extend(self.mask.octets());
        message.extend([3, 4]);
        message.extend(self.router.octets());
        message.extend(&self.more);
        message.push(255);
        message
    }
}

/// The fixed part of an answer: the question's, with an address.
fn fixed(question: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut message = question[..FIXED].to_vec();
    message[0] = 2;
    message[16..20].copy_from_slice(&address);
    message
}
