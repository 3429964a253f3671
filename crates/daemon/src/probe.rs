//! Asks questions through one WAN only. In: [`Probe`]s. Out: for each exactly one
//! [`ProbeResult`]. Concludes nothing about a WAN, repeats nothing, chooses no target.
//!
//! Echo probes go through a kept socket for each WAN and family, owned by one task, its *lane*
//! (`probe/icmp.rs`); every other probe is a task of its own with a socket of its own
//! (`probe/tcp.rs`, `probe/dns.rs`, `probe/http.rs`). A lane ends when it has not been used for
//! long; all tasks end, having answered, after the [`Prober`] is dropped.

pub mod dns;
pub mod http;
mod icmp;
pub mod packet;
mod socket;
mod tcp;
mod words;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use anywan_core::config::Target;
use anywan_core::names::{Family, WanId};
use anywan_core::steps::{Failure, Probe, ProbeResult};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Probes asked whose result has not been taken from the channel: 62 WANs of two families with
/// four targets each, and four rounds of a burst under way at the same time.
pub const UNDER_WAY_MAX: usize = 2_048;

/// Questions that wait until a lane runs: several rounds of a burst to all targets.
const LANE_QUEUE_MAX: usize = 64;

/// Sends probes. Lives inside a tokio runtime with I/O and time.
#[derive(Debug)]
pub struct Prober {
    lanes: BTreeMap<(WanId, Family), mpsc::Sender<Question>>,
    results: mpsc::Sender<ProbeResult>,
    /// What names of HTTP targets were resolved to, shared by their tasks.
    addresses: http::Addresses,
    /// In every echo; unknown outside, so that no answer can be forged from afar.
    cookie: u64,
}

impl Prober {
    /// A prober, and where its results arrive.
    pub fn new() -> (Prober, mpsc::Receiver<ProbeResult>) {
        let (results, receiver) = mpsc::channel(UNDER_WAY_MAX);
        // std takes the keys of a RandomState from the system's source of randomness.
        let cookie = RandomState::new().hash_one(std::process::id());
        (
            Prober {
                lanes: BTreeMap::new(),
                results,
                addresses: http::Addresses::default(),
                cookie,
            },
            receiver,
        )
    }

    /// Sends a probe; never waits.
    ///
    /// # Errors
    /// With the probe's one result, which then does not arrive in the channel: too many probes
    /// are under way.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn send(&mut self, probe: Probe) -> Result<(), Box<ProbeResult>> {
        // The place of the result is taken first, so that no result ever waits for its reader.
        let Ok(place) = self.results.clone().try_reserve_owned() else {
            let why = format!("not sent: {UNDER_WAY_MAX} probes are under way already");
            return Err(Box::new(result(probe, Err(Failure::Silent(why)))));
        };
        let question = Question { probe, place };
        match question.probe.target {
            Target::Icmp(_) => self.send_echo(question),
            Target::Tcp(address, port) => {
                tokio::spawn(tcp::ask(question, (address, port).into()));
            }
            Target::Dns { .. } => {
                tokio::spawn(dns::ask(question));
            }
            Target::Http(_) => {
                tokio::spawn(http::ask(question, self.addresses.clone()));
            }
        }
        Ok(())
    }

    fn send_echo(&mut self, question: Question) {
        let (wan, family) = (question.probe.wan, question.probe.family);
        let (cookie, id) = (self.cookie, icmp::id(wan, self.cookie));
        let lane = self.lanes.entry((wan, family)).or_insert_with(|| open_lane(family, id, cookie));
        match lane.try_send(question) {
            Ok(()) => {}
            Err(TrySendError::Full(question)) => {
                question.silent("not sent: too many probes are waiting");
            }
            Err(TrySendError::Closed(question)) => {
                *lane = open_lane(family, id, cookie);
                // A new lane has room, and its receiver lives at least until it has run once.
                lane.try_send(question).unwrap_or_else(|refused| {
                    refused.into_inner().silent("not sent: no lane");
                });
            }
        }
    }
}

fn open_lane(family: Family, id: u16, cookie: u64) -> mpsc::Sender<Question> {
    let (sender, questions) = mpsc::channel(LANE_QUEUE_MAX);
    tokio::spawn(icmp::run(questions, family, id, cookie));
    sender
}

/// A probe and the place that is kept for its result.
#[derive(Debug)]
struct Question {
    probe: Probe,
    place: mpsc::OwnedPermit<ProbeResult>,
}

impl Question {
    /// Gives the one result.
    fn answer(self, outcome: Result<Duration, Failure>) {
        self.place.send(result(self.probe, outcome));
    }

    /// Gives the one result: no answer, and why.
    fn silent(self, why: impl Into<String>) {
        self.answer(Err(Failure::Silent(why.into())));
    }

    /// What to say when the time is over.
    fn unanswered(&self) -> String {
        words::unanswered(self.probe.timeout)
    }
}

fn result(probe: Probe, outcome: Result<Duration, Failure>) -> ProbeResult {
    let Probe { wan, family, target, sequence, .. } = probe;
    ProbeResult { wan, family, target, sequence, outcome }
}
