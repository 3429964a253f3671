//! A host that answers echo requests as a test tells it to: forged, late, or honestly. The
//! kernel of its namespace must not answer itself.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::internet::Space;

/// One answer: after how long, from which address, and the ICMP message without a checksum.
pub(crate) struct Answer {
    pub(crate) after: Duration,
    pub(crate) from: IpAddr,
    pub(crate) message: Vec<u8>,
}

/// Runs until dropped.
pub(crate) struct Stranger {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stranger {
    /// Starts answering each echo request to `host` with what `answers` makes of it.
    pub(crate) fn start(
        space: &Space,
        host: IpAddr,
        answers: impl Fn(&[u8]) -> Vec<Answer> + Send + 'static,
    ) -> Stranger {
        let socket = space.inside(|| raw(host));
        let router = if host.is_ipv4() { "10.0.1.2" } else { "fd00:1::2" };
        let router = SocketAddr::new(router.parse().expect("an address"), 0);
        let elsewhere = if host.is_ipv4() { "192.0.2.9" } else { "2001:db8:2::9" };
        let elsewhere = space.inside(|| raw(elsewhere.parse().expect("an address")));
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Some(request) = request(&socket, host.is_ipv4()) else { continue };
                for answer in answers(&request) {
                    thread::sleep(answer.after);
                    let socket = if answer.from == host { &socket } else { &elsewhere };
                    let message = finish(answer.message, host.is_ipv4());
                    socket.send_to(&message, &router.into()).expect("send an answer");
                }
            }
        });
        Stranger { stop, thread: Some(thread) }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the stranger's thread");
        }
    }
}

fn raw(address: IpAddr) -> Socket {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))
        .expect("a raw socket\n  hint: run these tests as root");
    socket.bind(&SocketAddr::new(address, 0).into()).expect("bind it");
    socket
}

fn request(mut socket: &Socket, ipv4: bool) -> Option<Vec<u8>> {
    let mut buffer = [0; 200];
    let length = match socket.read(&mut buffer) {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
        Err(error) => panic!("receive a request: {error}"),
    };
    let (start, wanted) = if ipv4 { (20, 8) } else { (0, 128) };
    let message = &buffer[start..length];
    (message.first() == Some(&wanted)).then(|| message.to_vec())
}

/// Turns a request into a reply, with the IPv4 checksum; the kernel makes that of IPv6.
fn finish(mut message: Vec<u8>, ipv4: bool) -> Vec<u8> {
    message[2..4].fill(0);
    if !ipv4 {
        message[0] = 129;
        return message;
    }
    message[0] = 0;
    let words = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice");
    message[2..4].copy_from_slice(&(!folded).to_be_bytes());
    message
}
