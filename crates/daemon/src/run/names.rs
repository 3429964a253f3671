//! What serving names needs of the world: answers of resolvers, the resolvers that others were told of,
//! and who has the port that dnsmasq wants.

use std::net::SocketAddr;

use anywan_core::config::Target;
use anywan_core::engine::Event;
use anywan_core::names::Family;
use anywan_core::observed::ChildEnd;
use anywan_core::resolvers::Said;
use anywan_core::steps::Probe;
use tokio::sync::mpsc;

use super::Daemon;
use crate::kernel::Announced;
use crate::ports;
use crate::probe::dns;
use crate::resolvers;

/// Answers of resolvers that wait for the loop: one that does not fit counts as none.
pub(super) const ANSWERS_MAX: usize = 512;
/// What dnsmasq says when somebody else has its port (strerror(EADDRINUSE)).
const IN_USE: &str = "Address already in use";

impl Daemon {
    /// Asks a resolver; what it says comes as an event.
    pub(super) fn consult(&self, probe: Probe) {
        tokio::spawn(ask(probe, self.answers.clone()));
    }

    /// Hands on what routers have announced.
    pub(super) fn hear_announced(&mut self, announced: Vec<Announced>) {
        for Announced { device, resolvers, lives } in announced {
            self.handle(Event::Announced { device, resolvers, lives });
        }
    }

    /// Reads again which resolvers others were told of, where that matters.
    pub(super) fn read_resolvers(&mut self) {
        if self.engine.serves_names() {
            let interfaces = self.engine.interfaces();
            let found = resolvers::read(std::path::Path::new("/"), &interfaces);
            self.handle(Event::Resolvers(found));
        }
    }
}

async fn ask(probe: Probe, answers: mpsc::Sender<Event>) {
    let Target::Dns { server, port, name } = &probe.target else { return };
    let (server, within) = (*server, probe.timeout);
    let to = SocketAddr::new(server, *port);
    let outcome = dns::exchange(&probe, to, name, Family::Ipv4, within).await;
    let answer = outcome.ok().map(|(_, answer)| answer);
    let said = answer.map(|a| Said { code: a.code, address: !a.addresses.is_empty() });
    let (wan, sequence) = (probe.wan, probe.sequence);
    // A loop that hangs hears of it as of an answer that did not come.
    let _ = answers.try_send(Event::Consulted { wan, server, sequence, said });
}

/// Adds who is in the way to what a program said.
pub(super) fn name_holder(end: &mut ChildEnd) {
    if !end.said.contains(IN_USE) {
        return;
    }
    let holders = ports::holders(&[53, 67, 547]);
    let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
    if !holders.is_empty() {
        end.said = format!("{}; in the way: {}", end.said, holders.join(", "));
    }
}
