//! The whole house at once: ADSL on the LAN's own network, a 4G stick with our own DHCP client, a 3G
//! modem that is dialled, each with its ISP's resolver; hosts on the LAN. Needs PPP in the kernel.
//! Owned: with it go its namespaces, its daemon and its servers.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::daemon::{Config, Daemon};
use crate::dhcp::Dhcp;
use crate::dial::Proto;
use crate::fault::Fault;
use crate::modem::{self, ADDRESSES, Modem, Sim};
use crate::names::{self, Resolver, lookup};
use crate::topology::{Families, Family, Spec, Topology};
use crate::wait::until;

/// Safety net for whatever is waited for: dialling takes seconds, and the machine is slow.
const DEADLINE: Duration = Duration::from_secs(180);
/// The orders in which three WANs can come back.
pub const ORDERS: [[usize; 3]; 6] =
    [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];

/// The house.
#[derive(Debug)]
pub struct House {
    // Before the namespaces that they live in.
    daemon: Daemon,
    modem: Modem,
    _server: Dhcp,
    _resolvers: [Resolver; 3],
    topology: Topology,
    /// Counts names that nobody has asked for yet.
    asked: usize,
}

fn config(topology: &Topology, modem: &Modem) -> Config {
    let net = lan_net(topology);
    let mut config = Config::of(topology)
        .priorities(&[1, 2, 3])
        .weights(&[8, 6, 3])
        .wan(1, |wan| {
            let list = format!("[{:?}]", names::address(topology, 1));
            wan.more.push(("dns".to_owned(), list));
        })
        .wan(2, |wan| {
            wan.gateway = Some("auto".to_owned());
            wan.more.push(("address".to_owned(), "\"dhcp\"".to_owned()));
        })
        .wan(3, |wan| {
            wan.interface = "ppp0".to_owned();
            wan.gateway = None;
            let ppp = format!("{{ device = {:?}, apn = \"internet\" }}", modem.port());
            wan.more.push(("ppp".to_owned(), ppp));
        });
    config.lans[0].1.push(("dhcp".to_owned(), format!("{{ range = \"{net}.150-{net}.160\" }}")));
    config.extra = "[dns]\nhosts = [\"192.0.2.80 nas\"]\n".to_owned();
    config
}

/// The first three numbers of the LAN's addresses.
pub fn lan_net(topology: &Topology) -> String {
    let own = topology.lan_address(Family::V4).to_string();
    own.rsplit_once('.').map_or(own.clone(), |(net, _)| net.to_owned())
}

impl House {
    /// The namespaces.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The daemon.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Builds it, and starts the daemon with a configuration that may be changed before; not all may
    /// be up yet.
    pub fn build(change: impl FnOnce(Config) -> Config) -> Result<House> {
        modem::ensure_ppp()?;
        let spec = Spec::one_armed(3)
            .wan(1, |wan| wan.families = Families::V4)
            .wan(2, |wan| (wan.families, wan.addressed) = (Families::V4, false))
            .wan(3, |wan| (wan.families, wan.addressed) = (Families::V4, false));
        let topology = spec.build()?;
        let subnet = |host| Ipv4Addr::new(192, 168, 102, host);
        let mut server = Dhcp::server(&topology, 2, subnet(2), subnet(1))?;
        server.resolvers(&names::address(&topology, 2))?;
        let modem = Modem::new(topology.isp(3), Sim::Ready)?;
        let resolvers = [
            Resolver::honest(&topology, 1)?,
            Resolver::honest(&topology, 2)?,
            Resolver::honest_at(&topology, 3, ADDRESSES[2])?,
        ];
        let daemon = Daemon::start(&topology, &change(config(&topology, &modem)))?;
        Ok(House { topology, daemon, modem, _server: server, _resolvers: resolvers, asked: 0 })
    }

    /// ADSL loses what it carries, the stick its carrier, the modem is unplugged.
    pub fn fail(&mut self, number: usize) -> Result<()> {
        match number {
            1 => self.topology.break_wan(1, &Fault::Blackhole),
            2 => self.topology.break_wan(2, &Fault::CarrierLost),
            _ => {
                self.modem.unplug();
                Ok(())
            }
        }
    }

    /// Takes that back.
    pub fn mend(&mut self, number: usize) -> Result<()> {
        match number {
            1 => self.topology.mend_wan(1, &Fault::Blackhole),
            2 => self.topology.mend_wan(2, &Fault::CarrierLost),
            _ => self.modem.plug_in(),
        }
    }

    /// Waits until new connections leave by this WAN and a name that nobody has asked for is resolved behind it.
    pub fn wait_serves(&mut self, number: usize) -> Result<()> {
        let client = self.topology.client(1);
        let log = || format!("the daemon's log:\n{}", self.daemon.log_tail());
        until(DEADLINE, &format!("connections by wan{number}"), || {
            let by = client.connect(Proto::Tcp, Family::V4)?;
            ensure!(by == number, "by wan{by}");
            Ok(())
        })
        .with_context(log)?;
        let (space, router) =
            (self.topology.client_space(1), self.topology.lan_address(Family::V4));
        let mut asked = self.asked;
        until(DEADLINE, &format!("names from behind wan{number}"), || {
            asked += 1;
            let found = lookup(space, router, &format!("x{asked}.test"), Duration::from_secs(5))?;
            ensure!(found == Some(format!("198.18.{number}.80")), "{found:?}");
            Ok(())
        })
        .with_context(log)?;
        self.asked = asked;
        Ok(())
    }

    /// Waits until the daemon says so.
    pub fn wait_up(&self, number: usize) -> Result<()> {
        until(DEADLINE, &format!("wan{number} to be up"), || {
            let status = self.daemon.status()?;
            let state = status.state(&format!("wan{number}"), Family::V4).to_owned();
            ensure!(state == "up", "{}", status.summary());
            Ok(())
        })
        .with_context(|| format!("the daemon's log:\n{}", self.daemon.log_tail()))
    }
}
