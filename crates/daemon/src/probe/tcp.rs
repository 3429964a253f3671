//! One TCP probe: a handshake, whose success and refusal both prove that the way there and back
//! works. Nothing is sent on the connection, and nothing of it lingers: it is reset at once.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anywan_core::steps::Probe;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use super::{Question, words};

/// Asks and answers one question; as long as its timeout at most.
pub(super) async fn ask(question: Question, to: SocketAddr) {
    match timeout(question.probe.timeout, handshake(&question.probe, to)).await {
        Ok(Ok(round_trip)) => question.answer(Ok(round_trip)),
        Ok(Err(error)) => {
            let why = words::plain(&error, &question.probe.device);
            question.silent(why);
        }
        Err(_) => {
            let why = question.unanswered();
            question.silent(why);
        }
    }
}

async fn handshake(probe: &Probe, to: SocketAddr) -> io::Result<Duration> {
    let sent = Instant::now();
    match connect(probe, to).await {
        Ok(_connection) => Ok(sent.elapsed()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(sent.elapsed()),
        Err(error) => Err(error),
    }
}

/// Connects through the probe's WAN.
pub(super) async fn connect(probe: &Probe, to: SocketAddr) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    socket.bind_device(Some(probe.device.as_bytes()))?;
    socket.set_mark(probe.mark.0)?;
    // Closing then sends a reset: neither we nor the target keep a dying connection.
    socket.set_linger(Some(Duration::ZERO))?;
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}
