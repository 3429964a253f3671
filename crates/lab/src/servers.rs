//! Servers in a namespace: one thread, thousands of connections.
//!
//! Echo (port 7000, TCP and UDP) answers whatever it gets with the peer's address as a line of
//! text, which tells a client what the world sees it as. Discard (7001) reads and stays silent,
//! stream (7002) sends zeros as fast as they are taken. Beside them, where asked for: DNS (UDP 53),
//! a page (TCP 80) that says 204, and a portal (8080) that sends everybody elsewhere. The thread
//! ends when the value drops.

mod words;

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Result, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use socket2::{Domain, Socket, Type};

use crate::netns::Netns;

/// Port of the echo servers, TCP and UDP.
pub const ECHO: u16 = 7000;
/// Port of the TCP server that only reads.
pub const DISCARD: u16 = 7001;
/// Port of the TCP server that only writes.
pub const STREAM: u16 = 7002;

/// Port of the DNS server, UDP: every name has an address.
pub const DNS: u16 = 53;
/// Port of the server whose every page is empty, with status 204.
pub const PAGE: u16 = 80;
/// Port of a captive portal: it redirects whatever is asked of it.
pub const PORTAL: u16 = 8080;

/// Key of the channel whose closing ends the thread.
const STOP: u64 = 0;

/// Running servers.
#[derive(Debug)]
pub struct Servers {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Servers {
    /// Starts echo, discard and stream on each of `addresses` in `space`; they accept when this
    /// returns.
    pub fn start(space: &Netns, addresses: &[IpAddr]) -> anyhow::Result<Servers> {
        Servers::offer(space, addresses, &TALK)
    }

    /// The same with DNS and pages beside them: whatever a probe may ask.
    pub fn start_services(space: &Netns, addresses: &[IpAddr]) -> anyhow::Result<Servers> {
        let services = [(Kind::Dns, Type::DGRAM, DNS), (Kind::Page, Type::STREAM, PAGE)];
        Servers::offer(space, addresses, &[&TALK[..], &services].concat())
    }

    /// Starts a captive portal on each of `addresses`; who is led there is the caller's affair.
    pub fn start_portal(space: &Netns, addresses: &[IpAddr]) -> anyhow::Result<Servers> {
        Servers::offer(space, addresses, &[(Kind::Portal, Type::STREAM, PORTAL)])
    }

    fn offer(space: &Netns, addresses: &[IpAddr], doors: &[Door]) -> anyhow::Result<Servers> {
        // A socket belongs to the namespace it was made in, wherever it is used later.
        let mut house = space.inside(|| House::open(addresses, doors))??;
        let (stop, stopped) = UnixStream::pair()?;
        house.watch(&stopped, STOP)?;
        let thread = thread::spawn(move || {
            let _stopped = stopped;
            house.serve()
        });
        Ok(Servers { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Echo,
    Discard,
    Stream,
    Dns,
    Page,
    Portal,
}

/// What is offered, how, on which port.
type Door = (Kind, Type, u16);

const TALK: [Door; 4] = [
    (Kind::Echo, Type::STREAM, ECHO),
    (Kind::Echo, Type::DGRAM, ECHO),
    (Kind::Discard, Type::STREAM, DISCARD),
    (Kind::Stream, Type::STREAM, STREAM),
];

#[derive(Debug)]
enum Guest {
    Door(Kind, Socket),
    Udp(Kind, UdpSocket),
    Talk(Kind, TcpStream, IpAddr),
}

struct House {
    epoll: OwnedFd,
    guests: HashMap<u64, Guest>,
    next: u64,
}

impl House {
    fn open(addresses: &[IpAddr], doors: &[Door]) -> Result<House> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut house = House { epoll, guests: HashMap::new(), next: STOP + 1 };
        for address in addresses {
            for (kind, how, port) in doors {
                // One UDP socket an address, so that an answer leaves from the address asked.
                let door = bound(*how, (*address, *port).into())?;
                if *how == Type::STREAM {
                    door.listen(4096)?;
                    house.admit(Guest::Door(*kind, door))?;
                } else {
                    house.admit(Guest::Udp(*kind, door.into()))?;
                }
            }
        }
        Ok(house)
    }

    fn watch(&self, source: impl AsFd, key: u64) -> Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(key), EventFlags::IN)?)
    }

    fn admit(&mut self, guest: Guest) -> Result<()> {
        let flags = match &guest {
            Guest::Talk(Kind::Stream, ..) => EventFlags::OUT,
            Guest::Door(..) | Guest::Udp(..) | Guest::Talk(..) => EventFlags::IN,
        };
        let source = match &guest {
            Guest::Door(_, socket) => socket.as_fd(),
            Guest::Udp(_, socket) => socket.as_fd(),
            Guest::Talk(_, stream, _) => stream.as_fd(),
        };
        epoll::add(&self.epoll, source, EventData::new_u64(self.next), flags)?;
        self.guests.insert(self.next, guest);
        self.next += 1;
        Ok(())
    }

    fn serve(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(256);
        loop {
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let key = event.data.u64();
                if key == STOP {
                    return Ok(());
                }
                let mut admitted = Vec::new();
                if let Some(guest) = self.guests.get_mut(&key) {
                    // Whoever fails has left; closing its socket also ends the watching.
                    if serve_one(guest, &mut admitted).is_err() {
                        self.guests.remove(&key);
                    }
                }
                for guest in admitted {
                    self.admit(guest)?;
                }
            }
        }
    }
}

fn bound(kind: Type, address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Serves what is ready; an error means that the guest is gone.
fn serve_one(guest: &mut Guest, admitted: &mut Vec<Guest>) -> Result<()> {
    match guest {
        Guest::Door(kind, door) => accept_all(*kind, door, admitted),
        Guest::Udp(kind, socket) => answer_datagrams(*kind, socket),
        Guest::Talk(Kind::Echo | Kind::Dns, stream, peer) => {
            if drain(stream)? > 0 {
                stream.write_all(line(*peer).as_bytes())?;
            }
            Ok(())
        }
        Guest::Talk(Kind::Page, stream, _) => say_last(stream, words::EMPTY_PAGE),
        Guest::Talk(Kind::Portal, stream, _) => say_last(stream, words::ELSEWHERE),
        Guest::Talk(Kind::Discard, stream, _) => drain(stream).map(drop),
        Guest::Talk(Kind::Stream, stream, _) => match stream.write(&[0; 65536]) {
            Ok(_) => Ok(()),
            Err(error) => would_block(error).map(drop),
        },
    }
}

fn line(peer: IpAddr) -> String {
    format!("{peer}\n")
}

/// Zero when the error is only that nothing is there.
fn would_block(error: std::io::Error) -> Result<usize> {
    if error.kind() == ErrorKind::WouldBlock { Ok(0) } else { Err(error) }
}

/// A door stays open whatever happens to those who come in.
fn accept_all(kind: Kind, door: &Socket, admitted: &mut Vec<Guest>) -> Result<()> {
    while let Ok((socket, peer)) = door.accept() {
        let ready = socket.set_nonblocking(true).and_then(|()| socket.set_tcp_nodelay(true));
        if let (Ok(()), Some(peer)) = (ready, peer.as_socket()) {
            admitted.push(Guest::Talk(kind, socket.into(), peer.ip()));
        }
    }
    Ok(())
}

/// Answers whatever was asked and ends the conversation.
fn say_last(stream: &mut TcpStream, answer: &str) -> Result<()> {
    if drain(stream)? == 0 {
        return Ok(());
    }
    stream.write_all(answer.as_bytes())?;
    Err(ErrorKind::UnexpectedEof.into())
}

/// Errors of a UDP socket (an ICMP refusal of an earlier answer) concern one peer: ignored.
fn answer_datagrams(kind: Kind, socket: &UdpSocket) -> Result<()> {
    let mut buffer = [0; 2048];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((count, peer)) => answer_datagram(kind, socket, &buffer[..count], peer),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => {}
        }
    }
}

fn answer_datagram(kind: Kind, socket: &UdpSocket, asked: &[u8], peer: SocketAddr) {
    let answer = match kind {
        Kind::Dns => words::resolve(asked),
        Kind::Echo | Kind::Discard | Kind::Stream | Kind::Page | Kind::Portal => {
            Some(line(peer.ip()).into_bytes())
        }
    };
    if let Some(answer) = answer {
        let _ = socket.send_to(&answer, peer);
    }
}

/// Reads all there is; the peer's end of the stream is an error.
fn drain(stream: &mut TcpStream) -> Result<usize> {
    let mut buffer = [0; 65536];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => total += count,
            Err(error) => return would_block(error).map(|_| total),
        }
    }
}
