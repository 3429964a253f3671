//! A lane: the task that sends the echo probes of one WAN and family through a kept socket and
//! matches replies by source, id, sequence and payload. Started by the prober on the first
//! probe; ends when it has had no probe for [`IDLE_MAX`], or when the prober is gone.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anywan_core::config::Target;
use anywan_core::names::{Family, WanId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::packet::{Echo, ROOM};
use super::socket::{self, EchoSocket};
use super::{Question, words};

/// A lane unused for so long closes its socket: well beyond the longest heartbeat of a line
/// that is in use without traffic charges, and opening one again costs 50 us.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Packets taken from the queue in one turn, so that a flood cannot keep the runtime for itself.
const TURN_MAX: usize = 64;

/// The id of a WAN's echoes: its number, and a part that tells this process from others, so that
/// neither WANs with equal addresses nor a second daemon answer for each other.
pub(super) fn id(wan: WanId, cookie: u64) -> u16 {
    let [high, low, ..] = cookie.to_be_bytes();
    u16::from(wan.0) << 10 | u16::from_be_bytes([high, low]) & 0x03ff
}

/// Works until there is nothing more to do.
pub(super) async fn run(
    mut questions: mpsc::Receiver<Question>,
    family: Family,
    id: u16,
    cookie: u64,
) {
    let next = Echo { id, cookie, number: 0 };
    let mut lane = Lane { family, next, socket: None, pending: Vec::new() };
    let mut open = true;
    let mut used = Instant::now();
    while open || !lane.pending.is_empty() {
        let wake = lane.first_deadline().unwrap_or(used + IDLE_MAX);
        tokio::select! {
            question = questions.recv(), if open => match question {
                Some(question) => {
                    used = Instant::now();
                    lane.ask(question);
                }
                None => open = false,
            },
            () = readable(lane.socket.as_ref()) => lane.receive_all(),
            () = sleep_until(wake) => {
                // What has come in is read first: the lane, not the answer, may be late.
                lane.receive_all();
                lane.expire(Instant::now());
                if used.elapsed() >= IDLE_MAX {
                    // What is in the channel already is still received, then `None`.
                    questions.close();
                }
            }
        }
    }
}

async fn readable(socket: Option<&EchoSocket>) {
    match socket {
        // An error is told by the next send or receive.
        Some(socket) => drop(socket.readable().await),
        None => std::future::pending().await,
    }
}

/// One WAN's one family.
struct Lane {
    family: Family,
    /// What the next request says.
    next: Echo,
    socket: Option<EchoSocket>,
    /// Requests without a reply: a handful, so they are searched one by one.
    pending: Vec<Pending>,
}

/// A request without a reply.
struct Pending {
    number: u64,
    to: IpAddr,
    sent: Instant,
    deadline: Instant,
    question: Question,
}

impl Lane {
    fn ask(&mut self, question: Question) {
        let Target::Icmp(to) = question.probe.target else {
            return question.silent("not an echo probe");
        };
        let request = self.next.request(self.family);
        let sent = match self.bind(&question) {
            Ok(socket) => {
                let sent = Instant::now();
                socket.send(&request, to).map(|()| sent)
            }
            Err(error) => Err(error),
        };
        match sent {
            Ok(sent) => {
                let deadline = sent + question.probe.timeout;
                let number = self.next.number;
                self.pending.push(Pending { number, to, sent, deadline, question });
            }
            Err(error) => {
                let why = words::plain(&error, &question.probe.device);
                question.silent(why);
            }
        }
        self.next.number += 1;
    }

    /// The socket for a question: the one kept, unless interface or mark are others now.
    fn bind(&mut self, question: &Question) -> io::Result<&EchoSocket> {
        let (device, mark) = (&question.probe.device, question.probe.mark);
        let kept = self.socket.take().filter(|socket| socket.serves(device, mark));
        let socket = match kept {
            Some(socket) => socket,
            None => {
                // No reply can come any more: they would have come to the old socket.
                for pending in self.pending.drain(..) {
                    let device = &pending.question.probe.device;
                    let why = format!("interface {device} was gone before the answer came");
                    pending.question.silent(why);
                }
                EchoSocket::open(self.family, device, mark)?
            }
        };
        Ok(self.socket.insert(socket))
    }

    fn receive_all(&mut self) {
        let Some(socket) = &self.socket else { return };
        let mut buffer = [0; ROOM];
        for _ in 0..TURN_MAX {
            match socket.receive(&mut buffer) {
                Ok(received) => {
                    let echo = Echo::from_reply(self.family, &buffer[..received.length]);
                    if let Some(echo) = echo.filter(|echo| self.next.is_of_one_lane_with(echo)) {
                        take_reply(
                            &mut self.pending,
                            echo.number,
                            received.source,
                            received.waited,
                        );
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An error of the socket is taken by reading it; the next turn goes on.
                Err(error) => tracing::debug!(%error, "receive an echo reply"),
            }
        }
    }

    fn first_deadline(&self) -> Option<Instant> {
        self.pending.iter().map(|pending| pending.deadline).min()
    }

    fn expire(&mut self, now: Instant) {
        while let Some(at) = self.pending.iter().position(|pending| pending.deadline <= now) {
            let question = self.pending.swap_remove(at).question;
            let why = question.unanswered();
            question.silent(why);
        }
    }
}

/// Answers the request that a reply belongs to, if there still is one. What counts is when the
/// kernel received the reply, however late it is read.
fn take_reply(pending: &mut Vec<Pending>, number: u64, source: IpAddr, waited: Option<Duration>) {
    let wanted = |one: &Pending| one.number == number && one.to == source;
    let Some(at) = pending.iter().position(wanted) else { return };
    let found = pending.swap_remove(at);
    let round_trip = socket::round_trip(found.sent, waited);
    if round_trip > found.question.probe.timeout {
        let why = found.question.unanswered();
        found.question.silent(why);
    } else {
        found.question.answer(Ok(round_trip));
    }
}
