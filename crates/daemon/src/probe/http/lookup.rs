//! The addresses of names, found through one WAN and kept for minutes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anywan_core::names::{Family, WanId};
use anywan_core::steps::Probe;
use tokio::time::Instant;

use super::super::dns;

/// How long an address is used without asking again: as long as the short-lived names of content
/// networks live. A probe that fails asks again anyway.
const KEEP: Duration = Duration::from_secs(300);

/// Addresses kept: sixteen names for each side of 62 WANs. Beyond that all are forgotten.
const KEPT_MAX: usize = 62 * 2 * 16;

/// Resolvers asked for one name, one after the other: as many as the C library asks.
const RESOLVERS_MAX: usize = 3;

/// Where the system's resolvers stand.
const SYSTEM: &str = "/etc/resolv.conf";

type Known = BTreeMap<(WanId, Family, String), (IpAddr, Instant)>;

/// What names were resolved to, through which WAN; shared by the tasks of all probes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<Known>>);

impl Addresses {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, probe: &Probe, name: &str) -> Option<IpAddr> {
        let key = (probe.wan, probe.family, name.to_owned());
        self.known().get(&key).filter(|(_, until)| *until > Instant::now()).map(|(ip, _)| *ip)
    }

    fn keep(&self, probe: &Probe, name: &str, address: IpAddr) {
        let mut known = self.known();
        if known.len() >= KEPT_MAX {
            known.clear();
        }
        let key = (probe.wan, probe.family, name.to_owned());
        known.insert(key, (address, Instant::now() + KEEP));
    }

    /// Forgets what a name was resolved to through the probe's WAN.
    pub(super) fn forget(&self, probe: &Probe, name: &str) {
        self.known().remove(&(probe.wan, probe.family, name.to_owned()));
    }
}

/// The address of `name` in the probe's family, as seen through its WAN, or why there is none.
pub(super) async fn resolve(
    probe: &Probe,
    name: &str,
    addresses: &Addresses,
    deadline: Instant,
) -> Result<IpAddr, String> {
    if let Some(address) = addresses.find(probe, name) {
        return Ok(address);
    }
    let resolvers = match probe.resolvers.as_slice() {
        [] => system(&std::fs::read_to_string(SYSTEM).unwrap_or_default(), probe.family),
        given => given.to_owned(),
    };
    let mut why = format!("no DNS server to ask for {name}: add a `dns://` target");
    for (nth, server) in (0..).zip(resolvers.iter().take(RESOLVERS_MAX)) {
        let left = u32::try_from(resolvers.len().min(RESOLVERS_MAX)).unwrap_or(1) - nth;
        // Equal shares of the time that is left; one of them is for the page.
        let share = deadline.saturating_duration_since(Instant::now()) / (left + 1);
        let asked = dns::exchange(probe, *server, name, probe.family, share).await;
        let said = match asked {
            Err(why) => why,
            Ok((_, answer)) => match (answer.addresses.first(), answer.error()) {
                (Some(address), _) => {
                    addresses.keep(probe, name, *address);
                    return Ok(*address);
                }
                (None, Some(why)) => why,
                (None, None) => format!("it has no {} address", probe.family),
            },
        };
        why = format!("{name} is not resolved by {}: {said}", server.ip());
    }
    Err(why)
}

/// The servers of a resolv.conf (resolv.conf(5)), those of the family first. One on this host is
/// none: it cannot be asked through a WAN.
fn system(text: &str, family: Family) -> Vec<SocketAddr> {
    let mut servers: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .filter(|server: &IpAddr| !server.is_loopback() && !server.is_unspecified())
        .collect();
    servers.sort_by_key(|server| Family::of(*server) != family);
    servers.into_iter().map(|server| SocketAddr::new(server, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_servers_are_those_that_a_wan_leads_to() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nsearch lan\n\
                    nameserver\t2001:db8::53\nnameserver fe80::1%eth0\nnameserver ::1\n";
        let shown = |family| -> Vec<String> {
            system(text, family).iter().map(ToString::to_string).collect()
        };
        assert_eq!(shown(Family::Ipv4), ["192.0.2.53:53", "[2001:db8::53]:53"]);
        assert_eq!(shown(Family::Ipv6), ["[2001:db8::53]:53", "192.0.2.53:53"]);
        assert!(system("", Family::Ipv4).is_empty());
    }
}
