//! Measures a drill with ordinary connections of the router: every 50 ms a new one to one of the
//! WAN's own TCP targets, and one that is held open and says nothing. In: who answers. Out: what
//! became of them. Talks to nobody else, and sends no data: only handshakes.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anywan_core::api::DrillPlan;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::print::drill::{Established, Measured, NewConnections};

/// Between two new connections: the resolution of what is measured.
const PACE: Duration = Duration::from_millis(50);
/// A connection that is not there by then has failed: the first SYN is repeated after a second
/// (RFC 6298, 2.1), and may by then go another way.
const PATIENCE: Duration = Duration::from_millis(900);
/// Failures that are so close belong to one outage.
const ONE_OUTAGE: Duration = Duration::from_secs(2);

/// One attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    at: Instant,
    worked: bool,
}

/// The measuring of one drill, under way. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Measuring {
    families: Vec<OneFamily>,
}

#[derive(Debug)]
struct OneFamily {
    family: &'static str,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    dialling: JoinHandle<()>,
    /// Ends when the connection does.
    held: Option<JoinHandle<Instant>>,
}

impl Drop for OneFamily {
    fn drop(&mut self) {
        self.dialling.abort();
        if let Some(held) = &self.held {
            held.abort();
        }
    }
}

impl Measuring {
    /// Finds out which targets take connections, and begins. A family without any is not measured.
    pub(super) async fn begin(plan: &DrillPlan) -> Measuring {
        let mut families = Vec::new();
        for (family, is_v4) in [("ipv4", true), ("ipv6", false)] {
            let mut answering = Vec::new();
            for target in plan.targets.iter().filter(|target| target.is_ipv4() == is_v4) {
                if connects(*target).await {
                    answering.push(*target);
                }
            }
            let Some(first) = answering.first().copied() else { continue };
            let own = plan.addresses.iter().find(|address| address.is_ipv4() == is_v4);
            let held = match own {
                Some(own) => hold(*own, first).await,
                None => None,
            };
            let attempts = Arc::default();
            let dialling = tokio::spawn(dial(answering, Arc::clone(&attempts)));
            families.push(OneFamily { family, attempts, dialling, held });
        }
        Measuring { families }
    }

    /// Ends, and says what became of connections since the cut.
    pub(super) async fn end(mut self, cut: Instant) -> Measured {
        // What is under way has its chance.
        tokio::time::sleep(PATIENCE).await;
        let mut measured = Measured::default();
        for one in &mut self.families {
            let mut attempts = one.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone();
            attempts.sort_by_key(|attempt| attempt.at);
            measured.new_connections.push(judge(one.family, &attempts));
            if let Some(held) = one.held.take() {
                let family = one.family.to_owned();
                let over = if held.is_finished() { held.await.ok() } else { None };
                let told_ms = over.map(|at| millis(at.saturating_duration_since(cut)));
                measured.established.push(Established { family, told_ms });
            }
        }
        measured
    }
}

async fn connects(target: SocketAddr) -> bool {
    timeout(PATIENCE, TcpStream::connect(target)).await.is_ok_and(|done| done.is_ok())
}

/// Opens a connection from the WAN's own address, and waits for its end.
async fn hold(own: IpAddr, target: SocketAddr) -> Option<JoinHandle<Instant>> {
    let socket = if own.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.ok()?;
    socket.bind(SocketAddr::new(own, 0)).ok()?;
    let mut stream = timeout(PATIENCE, socket.connect(target)).await.ok()?.ok()?;
    Some(tokio::spawn(async move {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        Instant::now()
    }))
}

/// Tries a new connection every [`PACE`], to one target after the other.
async fn dial(targets: Vec<SocketAddr>, attempts: Arc<Mutex<Vec<Attempt>>>) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for target in targets.iter().cycle() {
        pace.tick().await;
        let (target, attempts) = (*target, Arc::clone(&attempts));
        tokio::spawn(async move {
            let at = Instant::now();
            let worked = connects(target).await;
            let attempt = Attempt { at, worked };
            attempts.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
        });
    }
}

/// The longest outage: from the beginning of its first attempt that failed to that of the first
/// one that worked after its last failure.
fn judge(family: &str, attempts: &[Attempt]) -> NewConnections {
    let mut outages: Vec<(Instant, Instant)> = Vec::new();
    for failed in attempts.iter().filter(|attempt| !attempt.worked) {
        match outages.last_mut() {
            Some((_, last)) if failed.at - *last <= ONE_OUTAGE => *last = failed.at,
            Some(_) | None => outages.push((failed.at, failed.at)),
        }
    }
    let span = |(first, last): &(Instant, Instant)| {
        let next = attempts.iter().find(|attempt| attempt.worked && attempt.at > *last);
        next.map_or(*last, |next| next.at) - *first
    };
    NewConnections {
        family: family.to_owned(),
        tried: attempts.len(),
        failed: attempts.iter().filter(|attempt| !attempt.worked).count(),
        outage_ms: millis(outages.iter().map(span).max().unwrap_or_default()),
        recovered: attempts.last().is_none_or(|attempt| attempt.worked),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage(pattern: &str) -> (u64, bool) {
        let begin = Instant::now();
        let attempts: Vec<Attempt> = (0..)
            .zip(pattern.chars())
            .map(|(n, c)| Attempt { at: begin + PACE * n, worked: c == '+' })
            .collect();
        let found = judge("ipv4", &attempts);
        (found.outage_ms, found.recovered)
    }

    #[test]
    fn an_outage_lasts_from_its_first_failure_to_the_first_success_after_its_last() {
        assert_eq!(outage("++++"), (0, true));
        assert_eq!(outage("++--++"), (100, true));
        assert_eq!(outage("+-+-+-++"), (250, true), "only a share of them fails");
        assert_eq!(outage("++--"), (50, false));
        let apart = format!("+--{}---+", "+".repeat(60));
        assert_eq!(outage(&apart), (150, true));
    }
}
