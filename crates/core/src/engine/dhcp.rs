//! The DHCP clients of all WANs that have one: told how their links are, woken, heard. Their leases
//! become facts like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::report::problem;
use super::{Engine, replace};
use crate::api::Problem;
use crate::config::{Addressing, Gateway, Wan};
use crate::dhcp::{Client, Order, Port, Reply};
use crate::facts::numbered_all;
use crate::names::{IfIndex, Mac, WanId};
use crate::observed::Lease;
use crate::steps::Ask;
use crate::time::Moment;

/// What was heard on a WAN's link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DhcpNews {
    /// A server's message to us.
    Reply(Reply),
    /// Somebody has this address.
    Taken {
        /// The address.
        address: Ipv4Addr,
        /// Who.
        by: Mac,
    },
}

/// A lease, and where it was got; to be kept for the next run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLease {
    /// The interface's name.
    pub interface: String,
    /// Its hardware address.
    pub mac: Mac,
    /// The lease.
    pub lease: Lease,
}

/// The clients.
#[derive(Debug, Default)]
pub(super) struct Clients {
    by_wan: BTreeMap<WanId, Client>,
    /// Of an earlier run, by the WAN's name.
    kept: BTreeMap<String, Lease>,
    seed: u64,
    /// When one is due.
    due: Option<Moment>,
    /// When they were looked at last.
    looked: Moment,
}

impl Engine {
    /// Goes on with the leases of an earlier run, by the WANs' names. `seed` is to differ between
    /// routers and runs.
    pub fn resume(&mut self, leases: BTreeMap<String, KeptLease>, seed: u64) {
        self.clients.seed = seed;
        self.clients.kept = leases.into_iter().map(|(name, kept)| (name, kept.lease)).collect();
    }

    /// The leases to be kept for the next run, by the WANs' names.
    pub fn leases(&self) -> BTreeMap<String, KeptLease> {
        let named = self.config.wans.iter().chain(&self.config.retiring);
        named
            .filter_map(|wan| {
                let client = self.clients.by_wan.get(self.numbers.get(&wan.name)?)?;
                let (_, link) = self.observed.link_named(&wan.interface)?;
                let (interface, mac) = (wan.interface.clone(), link.mac?);
                let lease = client.last_lease()?.clone();
                Some((wan.name.clone(), KeptLease { interface, mac, lease }))
            })
            .collect()
    }

    /// Where the daemon should listen for servers.
    pub fn dhcp_ports(&self) -> BTreeMap<WanId, Port> {
        let clients = self.clients.by_wan.iter();
        let listening = clients.filter(|(_, client)| client.listens());
        listening.filter_map(|(id, client)| Some((*id, client.port()?))).collect()
    }

    /// Tells all clients how their links are, and lets them do what is due.
    pub(super) fn mind_dhcp(&mut self, now: Moment) {
        if self.leaving || !(self.stale || self.clients.due.is_some_and(|due| due <= now)) {
            return;
        }
        self.tell_links(now);
        let ids: Vec<WanId> = self.clients.by_wan.keys().copied().collect();
        for id in ids {
            let Some(client) = self.clients.by_wan.get_mut(&id) else { continue };
            let orders = client.wake(now);
            self.order(id, orders);
        }
        self.take_leases(now);
    }

    fn tell_links(&mut self, now: Moment) {
        let wans = numbered_all(&self.config, &self.numbers);
        let asking = wans.into_iter().filter(|(_, wan)| wan.address == Addressing::Dhcp);
        let asking: Vec<(WanId, String, String)> =
            asking.map(|(id, wan)| (id, wan.name.clone(), wan.interface.clone())).collect();
        self.clients.by_wan.retain(|id, _| asking.iter().any(|(other, ..)| other == id));
        for (id, name, interface) in asking {
            let found = self.observed.link_named(&interface);
            let usable = found.filter(|(_, link)| link.up && link.carrier);
            let port = usable.and_then(|(device, link)| Some(Port { device, mac: link.mac? }));
            let addresses = &self.observed.addresses;
            let holds = |address: Ipv4Addr| {
                addresses.iter().any(|a| {
                    a.address == IpAddr::V4(address)
                        && port.is_some_and(|port| port.device == a.device)
                })
            };
            let clients = &mut self.clients;
            let seed = clients.seed ^ (u64::from(id.0) << 56);
            let kept = &mut clients.kept;
            // What retires goes on with a lease whose address is there, and asks for no other.
            let retires = self.config.retiring.iter().any(|wan| wan.name == name);
            let goes_on = || kept.get(&name).is_some_and(|lease| holds(lease.address));
            if retires && !clients.by_wan.contains_key(&id) && !goes_on() {
                continue;
            }
            let client = clients.by_wan.entry(id);
            let client = client.or_insert_with(|| Client::new(kept.remove(&name), seed));
            client.link(port, holds, now);
        }
    }

    fn order(&mut self, wan: WanId, orders: Vec<Order>) {
        let port = self.clients.by_wan.get(&wan).and_then(Client::port);
        let Some(Port { device, mac }) = port else { return };
        self.asks.extend(orders.into_iter().map(|order| Ask::Dhcp { wan, device, mac, order }));
    }

    /// Makes facts of what the clients have.
    fn take_leases(&mut self, now: Moment) {
        let clients = &self.clients.by_wan;
        let leases = clients.iter().filter_map(|(id, c)| Some((*id, c.lease()?.clone()))).collect();
        let undecided: BTreeSet<WanId> =
            clients.iter().filter(|(_, c)| !c.is_decided()).map(|(id, _)| *id).collect();
        self.clients.looked = now;
        self.clients.due = clients.values().filter_map(|client| client.deadline(now)).min();
        let changed = replace(&mut self.observed.leases, leases);
        self.stale |= replace(&mut self.observed.undecided, undecided) || changed;
        // Problems come and go with time alone.
        self.undecided |= !self.clients.by_wan.is_empty();
        if changed {
            self.attempts.hurry(now);
        }
    }

    pub(super) fn hear_dhcp(&mut self, wan: WanId, news: &DhcpNews, now: Moment) {
        let lans = self.lan_networks();
        let Some(client) = self.clients.by_wan.get_mut(&wan) else { return };
        let orders = match news {
            DhcpNews::Reply(reply) => {
                client.hear(reply, &lans, now);
                Vec::new()
            }
            DhcpNews::Taken { address, by } => client.taken(*address, *by, now),
        };
        self.order(wan, orders);
        self.take_leases(now);
    }

    /// Gives all leases back.
    pub(super) fn release_leases(&mut self, now: Moment) {
        let ids: Vec<WanId> = self.clients.by_wan.keys().copied().collect();
        for id in ids {
            let Some(client) = self.clients.by_wan.get_mut(&id) else { continue };
            let message = client.release(now);
            self.order(id, message.into_iter().map(Order::Send).collect());
        }
        self.take_leases(now);
    }

    pub(super) fn dhcp_deadline(&self) -> Option<Moment> {
        self.clients.due
    }

    /// The networks that no WAN may have: those of LANs' interfaces.
    fn lan_networks(&self) -> Vec<Ipv4Net> {
        let lans: BTreeSet<IfIndex> = self
            .config
            .lans
            .iter()
            .filter_map(|lan| Some(self.observed.link_named(&lan.interface)?.0))
            .collect();
        let own = self.observed.addresses.iter().filter(|a| lans.contains(&a.device));
        own.filter_map(|a| match a.address {
            IpAddr::V4(address) => Ipv4Net::new(address, a.prefix).ok(),
            IpAddr::V6(_) => None,
        })
        .collect()
    }

    pub(super) fn dhcp_problems(&self, wan: &Wan, id: WanId, at: &str) -> Vec<Problem> {
        let Some(client) = self.clients.by_wan.get(&id) else { return Vec::new() };
        let mut problems = Vec::new();
        if let Some(trouble) = client.trouble(self.clients.looked) {
            problems.push(problem(trouble.code, at, &trouble.what, hint(trouble.code)));
        }
        let has_none = client.lease().is_some_and(|lease| lease.gateway.is_none());
        if has_none && wan.gateway == Gateway::Auto {
            let what = "the lease names no router";
            problems.push(problem("dhcp.no-gateway", at, what, hint("dhcp.no-gateway")));
        }
        problems
    }
}

fn hint(code: &str) -> &'static str {
    match code {
        "dhcp.no-answer" => {
            "it goes on asking; is the modem on, and has its server addresses left to give?"
        }
        "dhcp.refused" => "it goes on asking; does the provider know this hardware address?",
        "dhcp.not-renewed" => "it goes on asking; connections stay until the lease runs out",
        "dhcp.lan-subnet" => "give the LAN another network, or the modem",
        "dhcp.address-taken" => "it was declined; two devices on the WAN's side have one address",
        "dhcp.no-gateway" => "write its `gateway` in the file",
        _ => "it waits for another server's offer; is there a stranger's server on the line?",
    }
}
