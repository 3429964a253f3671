//! The whole house at once: ADSL on the LAN's own network, a 4G stick with our own DHCP client, a 3G
//! modem that is dialled; hosts that are lent addresses and look names up. One after the other all
//! three die, and come back in every order.
//!
//! Needs PPP in the kernel, so this program runs in the VM (`vm/run`); anywhere else it fails and
//! says so.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::dhcp::Dhcp;
use anywan_lab::modem::{ADDRESSES, Sim};
use anywan_lab::names::{self, Resolver, lookup, udhcpc};
use anywan_lab::{Config, Daemon, Families, Family, Fault, Modem, Proto, Spec, Topology, until};

/// Safety net for whatever is waited for: dialling takes seconds, and the machine is slow.
const DEADLINE: Duration = Duration::from_secs(180);
/// The orders in which three WANs can come back.
const ORDERS: [[usize; 3]; 6] = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];

struct House {
    topology: Topology,
    daemon: Daemon,
    modem: Modem,
    _server: Dhcp,
    _resolvers: [Resolver; 3],
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

fn lan_net(topology: &Topology) -> String {
    let own = topology.lan_address(Family::V4).to_string();
    own.rsplit_once('.').map_or(own.clone(), |(net, _)| net.to_owned())
}

impl House {
    fn build() -> Result<House> {
        ensure!(
            Path::new("/dev/ppp").exists(),
            "PPP is not in this kernel\n\nhint: these tests run in the VM: crates/lab/vm/run"
        );
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
        let daemon = Daemon::start(&topology, &config(&topology, &modem))?;
        Ok(House { topology, daemon, modem, _server: server, _resolvers: resolvers, asked: 0 })
    }

    fn fail(&mut self, number: usize) -> Result<()> {
        match number {
            1 => self.topology.break_wan(1, &Fault::Blackhole),
            2 => self.topology.break_wan(2, &Fault::CarrierLost),
            _ => {
                self.modem.unplug();
                Ok(())
            }
        }
    }

    fn mend(&mut self, number: usize) -> Result<()> {
        match number {
            1 => self.topology.mend_wan(1, &Fault::Blackhole),
            2 => self.topology.mend_wan(2, &Fault::CarrierLost),
            _ => self.modem.plug_in(),
        }
    }

    /// New connections leave by this WAN, and a name that nobody has asked for is resolved behind it.
    fn ensure_serves(&mut self, number: usize) -> Result<()> {
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

    fn wait_up(&self, number: usize) -> Result<()> {
        until(DEADLINE, &format!("wan{number} to be up"), || {
            let status = self.daemon.status()?;
            let state = status.state(&format!("wan{number}"), Family::V4).to_owned();
            ensure!(state == "up", "{}", status.summary());
            Ok(())
        })
        .with_context(|| format!("the daemon's log:\n{}", self.daemon.log_tail()))
    }
}

#[test]
fn all_three_die_and_come_back_in_every_order_and_the_best_that_works_serves() -> Result<()> {
    let mut house = House::build()?;
    for number in 1..=3 {
        house.wait_up(number)?;
    }
    let net = lan_net(&house.topology);
    let lease = until(DEADLINE, "a lease", || udhcpc(house.topology.client_space(1)))?;
    ensure!(lease.contains(&format!("ip={net}.15")) || lease.contains(&format!("ip={net}.160")));
    ensure!(lease.contains(&format!("dns={} ", house.topology.lan_address(Family::V4))), "{lease}");
    house.ensure_serves(1)?;
    for order in ORDERS {
        house.fail(1)?;
        house.ensure_serves(2)?;
        house.fail(2)?;
        house.ensure_serves(3)?;
        house.fail(3)?;
        let client = house.topology.client(1);
        until(DEADLINE, "new connections to be refused", || {
            let by = client.connect(Proto::Tcp, Family::V4);
            ensure!(by.is_err(), "by {by:?}");
            Ok(())
        })?;
        let mut best = 3;
        for number in order {
            house.mend(number)?;
            house.wait_up(number)?;
            best = best.min(number);
            house.ensure_serves(best).with_context(|| format!("{order:?}, {number} is back"))?;
        }
    }
    Ok(())
}
