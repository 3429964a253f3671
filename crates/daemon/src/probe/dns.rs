//! One DNS probe: a question over UDP, asked through one WAN, with an id and a port that nobody
//! else knows. Any answer to it proves the way there and back and the server behind it; that the
//! name does not exist is an answer, that the server could not or would not look is none.
//!
//! The question is always for an A record, over IPv6 too: it is the way that is probed, not the
//! name, and every name that has been used as a target so far has one.

pub mod message;

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anywan_core::config::Target;
use anywan_core::names::Family;
use anywan_core::steps::Probe;
use tokio::time::{Instant, timeout_at};

use super::socket::{ServerSocket, round_trip};
use super::{Question, words};
use message::{Answer, Query};

/// Room for a message; the largest that is safe without fragments (RFC 9715). What is cut off
/// behind that is not looked at.
const ROOM: usize = 1_232;

/// Messages looked at for one question: a guesser gets no more tries than that.
const MESSAGES_MAX: usize = 256;

/// Asks and answers one question; as long as its timeout at most.
pub(super) async fn ask(question: Question) {
    let Target::Dns { server, port, name } = &question.probe.target else {
        return question.silent("not a DNS probe");
    };
    let server = SocketAddr::new(*server, *port);
    let within = question.probe.timeout;
    match exchange(&question.probe, server, name, Family::Ipv4, within).await {
        Ok((round_trip, answer)) => match answer.error() {
            None => question.answer(Ok(round_trip)),
            Some(why) => question.silent(why),
        },
        Err(why) => question.silent(why),
    }
}

/// Asks `server` through the probe's WAN for the addresses that `name` has in a family. The
/// answer and its round trip, or why there is none `within` that time.
pub(crate) async fn exchange(
    probe: &Probe,
    server: SocketAddr,
    name: &str,
    family: Family,
    within: Duration,
) -> Result<(Duration, Answer), String> {
    let plain = |error: io::Error| words::plain(&error, &probe.device);
    let Some(query) = Query::new(id(), name, family) else {
        return Err(format!("{name} cannot be asked for"));
    };
    let socket = ServerSocket::open(server, &probe.device, probe.mark).map_err(plain)?;
    let sent = Instant::now();
    let deadline = sent + within;
    socket.send(&query.bytes()).map_err(plain)?;
    let mut buffer = [0; ROOM];
    for _ in 0..MESSAGES_MAX {
        let received = match timeout_at(deadline, socket.receive(&mut buffer)).await {
            Ok(received) => received,
            // What has come in is read first: the reader, not the answer, may be late.
            Err(_) => socket.receive_now(&mut buffer),
        };
        let received = match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            other => other.map_err(plain)?,
        };
        if let Some(answer) = query.answer(&buffer[..received.length]) {
            let round_trip = round_trip(sent, received.waited);
            if round_trip > within {
                break;
            }
            return Ok((round_trip, answer));
        }
    }
    Err(words::unanswered(within))
}

/// A number that nobody can guess: std keys each RandomState from the system's randomness.
fn id() -> u16 {
    let [high, low, ..] = RandomState::new().hash_one(0_u8).to_be_bytes();
    u16::from_be_bytes([high, low])
}
