//! One TCP probe: a handshake, whose success and refusal both prove that the way there and back
//! works. Nothing is sent on the connection, and nothing of it lingers: it is reset at once.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout};

use super::{Question, words};

/// Asks and answers one question; as long as its timeout at most.
pub(super) async fn ask(question: Question, to: SocketAddr) {
    let outcome = match timeout(question.probe.timeout, handshake(&question, to)).await {
        Ok(Ok(round_trip)) => Ok(round_trip),
        Ok(Err(error)) => Err(words::plain(&error, &question.probe.device)),
        Err(_) => Err(question.unanswered()),
    };
    question.answer(outcome);
}

async fn handshake(question: &Question, to: SocketAddr) -> io::Result<Duration> {
    let probe = &question.probe;
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    socket.bind_device(Some(probe.device.as_bytes()))?;
    socket.set_mark(probe.mark.0)?;
    // Closing then sends a reset: neither we nor the target keep a dying connection.
    socket.set_linger(Some(Duration::ZERO))?;
    let socket = TcpSocket::from_std_stream(socket.into());
    let sent = Instant::now();
    match socket.connect(to).await {
        Ok(_connection) => Ok(sent.elapsed()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(sent.elapsed()),
        Err(error) => Err(error),
    }
}
