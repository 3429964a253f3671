//! Speaks DHCP for core's clients. In: [`Order`]s. Out: what servers, and owners of addresses, say
//! on the same link. Decides nothing, repeats nothing, and listens only where core wants it to.
//!
//! Frames are sent and received as they are (`kernel/packet.rs`): before there is an address nothing
//! else works, and afterwards neither rules nor somebody's firewall stand in the way. A renewal goes
//! to the hardware address that handed the lease over, so it needs no route. Each link has a task
//! that reads; it ends when the link is no longer listened to.

pub mod frame;
pub mod message;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anywan_core::dhcp::{Message, Order, Port};
use anywan_core::engine::{DhcpNews, KeptLease};
use anywan_core::names::{Mac, WanId};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::kernel::packet::{self, FRAME, Frames};

/// News that wait for the loop. More wait with the kernel, where those of one link do not displace
/// another's.
const NEWS_MAX: usize = 64;

/// What was heard, and on which WAN's link.
pub type Heard = (WanId, DhcpNews);

/// The links that are listened to.
#[derive(Debug)]
pub struct Dhcp {
    links: BTreeMap<WanId, Link>,
    news: mpsc::Sender<Heard>,
}

#[derive(Debug)]
struct Link {
    port: Port,
    dhcp: Arc<AsyncFd<Socket>>,
    arp: Arc<AsyncFd<Socket>>,
    /// Nobody reads it: it keeps the kernel from telling servers that nobody is there.
    _quiet: Option<Socket>,
    readers: [JoinHandle<()>; 2],
}

impl Drop for Link {
    fn drop(&mut self) {
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

impl Dhcp {
    /// One that listens nowhere, and where its news arrive.
    pub fn new() -> (Dhcp, mpsc::Receiver<Heard>) {
        let (news, heard) = mpsc::channel(NEWS_MAX);
        (Dhcp { links: BTreeMap::new(), news }, heard)
    }

    /// Stops listening anywhere else.
    pub fn listen_only(&mut self, ports: &BTreeMap<WanId, Port>) {
        self.links.retain(|wan, link| ports.get(wan) == Some(&link.port));
    }

    /// Carries an order out.
    ///
    /// # Errors
    /// What the kernel says; the client will ask again.
    pub fn carry_out(&mut self, wan: WanId, port: Port, order: &Order) -> io::Result<()> {
        if self.links.get(&wan).is_none_or(|link| link.port != port) {
            let link = Link::open(wan, port, &self.news)?;
            self.links.insert(wan, link);
        }
        let Some(link) = self.links.get(&wan) else { return Ok(()) };
        let (socket, frame) = match order {
            Order::Send(message) => (&link.dhcp, frame_of(message, port.mac)),
            Order::Check(address) => (&link.arp, frame::who_has(*address, port.mac)),
        };
        socket.get_ref().send(&frame).map(drop)
    }
}

impl Link {
    fn open(wan: WanId, port: Port, news: &mpsc::Sender<Heard>) -> io::Result<Link> {
        let open = |frames| packet::watched(packet::open(port.device, frames)?).map(Arc::new);
        let (dhcp, arp) = (open(Frames::Dhcp)?, open(Frames::Arp)?);
        let mac = port.mac;
        let readers = [
            tokio::spawn(read(Arc::clone(&dhcp), wan, news.clone(), move |frame| {
                reply(frame, mac)
            })),
            tokio::spawn(read(Arc::clone(&arp), wan, news.clone(), move |frame| taken(frame, mac))),
        ];
        Ok(Link { port, dhcp, arp, _quiet: quiet(port).ok(), readers })
    }
}

/// A port of clients that is open on an interface, and swallows everything.
fn quiet(port: Port) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_recv_buffer_size(0)?;
    socket.bind_device_by_index_v4(std::num::NonZeroU32::new(port.device.0))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)).into())?;
    Ok(socket)
}

async fn read(
    socket: Arc<AsyncFd<Socket>>,
    wan: WanId,
    news: mpsc::Sender<Heard>,
    understand: impl Fn(&[u8]) -> Option<DhcpNews>,
) {
    let mut buffer = [0; FRAME];
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        let received = ready.try_io(|socket| {
            rustix::net::recv(socket.get_ref(), &mut buffer, rustix::net::RecvFlags::empty())
                .map_err(io::Error::from)
        });
        match received {
            Ok(Ok((length, _))) => {
                if let Some(heard) = understand(&buffer[..length]) {
                    // Not dropped when there are many: a stranger that says much would drown the server.
                    if news.send((wan, heard)).await.is_err() {
                        return;
                    }
                }
            }
            // The interface went down or away; core hears of it too.
            Ok(Err(error)) => tracing::debug!(%error, "a link cannot be listened to now"),
            Err(_would_block) => {}
        }
    }
}

/// A server's message to the client with this hardware address.
pub fn reply(frame: &[u8], mac: Mac) -> Option<DhcpNews> {
    let (bytes, via) = frame::from_server(frame)?;
    message::read(bytes, mac, via).map(DhcpNews::Reply)
}

/// Who has an address, other than the one with this hardware address.
pub fn taken(frame: &[u8], mac: Mac) -> Option<DhcpNews> {
    let frame::Owner { address, mac: by } = frame::owner(frame, mac)?;
    Some(DhcpNews::Taken { address, by })
}

fn frame_of(message: &Message, mac: Mac) -> Vec<u8> {
    let name = rustix::system::uname();
    let host = name.nodename().to_str().ok().filter(|host| is_a_name(host));
    frame::to_server(&message::write(message, mac, host), mac, message.own, message.to)
}

fn is_a_name(host: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    host.chars().all(plain) && host != "localhost"
}

/// Gives leases back without anybody to hear of it; for when there is no daemon.
pub fn give_back(leases: &[(Port, KeptLease)]) {
    for (port, kept) in leases {
        let message = anywan_core::dhcp::release(&kept.lease, port.device.0);
        let sent = packet::open(port.device, Frames::Dhcp)
            .and_then(|socket| socket.send(&frame_of(&message, port.mac)));
        if let Err(error) = sent {
            tracing::warn!(%error, interface = kept.interface, "a lease was not given back");
        }
    }
}
