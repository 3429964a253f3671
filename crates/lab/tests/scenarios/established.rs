//! Who has a connection through a WAN that dies hears of it, also who only listens, and is served
//! by the next one; datagrams that can move, move. Nobody else notices anything.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::dial::Failure;
use anywan_lab::flows::{Break, Watched};
use anywan_lab::servers::{ECHO, Servers};
use anywan_lab::topology::SERVERS;
use anywan_lab::tunnel::{Manner, Tunnel};
use anywan_lab::{Config, Daemon, Family, Fault, Flows, Proto, Spec, Topology};

use crate::common::{
    DEADLINE, ensure_all_kept, ensure_nothing_wrong_since, ensure_others_sources_since,
    flows_of_every_kind, in_both_layouts, talk, wait_all_by, wait_down,
};

/// How often a client that speaks says a word.
const SPEAK: Duration = Duration::from_millis(50);
/// Longer than any retransmission takes to come again.
const LONG: Duration = Duration::from_secs(30);

fn config(topology: &Topology) -> Config {
    Config::of(topology).every_kind().priorities(&[1, 2, 3])
}

/// Checks that every break was a reset, not a timeout.
fn ensure_resets(breaks: &[Break]) -> Result<()> {
    ensure!(breaks.iter().all(|end| end.how == Failure::Reset), "{breaks:?}");
    Ok(())
}

/// `n` connections of a family through WAN 1.
fn open(topology: &Topology, n: usize, family: Family) -> Result<Flows> {
    let client = topology.client(1).from(topology.client_addresses(1, family));
    let flows = client.flows(n, Proto::Tcp, family)?;
    ensure!(flows.on(1) == n, "all begin on wan1");
    Ok(flows)
}

/// Half of the flows speak, half of them only listen.
fn half_and_half(mut flows: Flows) -> [Watched; 2] {
    let listening = flows.halve().watch(None);
    [flows.watch(Some(SPEAK)), listening]
}

/// All of the flows are told that their WAN 1 is lost, and new ones work through WAN 2.
fn all_are_told(topology: &Topology, watched: [Watched; 2], n: usize) -> Result<()> {
    for (who, flows) in ["those who speak", "those who listen"].iter().zip(watched) {
        ensure_resets(&flows.wait_all_broken(DEADLINE).context(*who)?)?;
    }
    for family in Family::BOTH {
        let client = topology.client(1).from(topology.client_addresses(1, family));
        let again = client.flows(n, Proto::Tcp, family)?;
        ensure!(again.on(2) == n, "{} of {n} through the next WAN", again.on(2));
    }
    Ok(())
}

fn clients_hear_of(spec: Spec, fault: &Fault) -> Result<()> {
    let topology = spec.clients(1, 20).build()?;
    let daemon = Daemon::start_up(&topology, &config(&topology))?;
    wait_all_by(&topology.client(1), 1)?;
    let flows = open(&topology, 20, Family::V4)?.and(open(&topology, 20, Family::V6)?);
    let watched = half_and_half(flows);
    topology.break_wan(1, fault)?;
    all_are_told(&topology, watched, 20).with_context(|| daemon.log_tail())
}

#[test]
fn twenty_clients_half_of_them_only_listening_hear_of_a_blackhole() -> Result<()> {
    in_both_layouts(3, |spec| clients_hear_of(spec, &Fault::Blackhole))
}

#[test]
fn they_hear_of_a_silent_gateway() -> Result<()> {
    in_both_layouts(3, |spec| clients_hear_of(spec, &Fault::GatewaySilent))
}

#[test]
fn they_hear_of_a_lost_carrier() -> Result<()> {
    in_both_layouts(3, |spec| clients_hear_of(spec, &Fault::CarrierLost))
}

/// The kernel itself deletes the entries of flows whose address is gone.
#[test]
fn they_hear_of_an_address_that_is_gone() -> Result<()> {
    clients_hear_of(Spec::routed(3), &Fault::AddressGone)
}

#[test]
fn they_hear_of_an_interface_that_is_gone() -> Result<()> {
    clients_hear_of(Spec::routed(3), &Fault::InterfaceGone)
}

/// A thousand of one client, of which only some can be told in one go by many a kernel's limits.
fn idle_flows_are_told(fault: &Fault, firewall: bool) -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let _daemon = Daemon::start_up(&topology, &config(&topology))?;
    wait_all_by(&topology.client(1), 1)?;
    if firewall {
        topology.client_space(1).nft(
            "table inet firewall {
               chain in { type filter hook input priority 0; ct state invalid drop; }
               chain out { type filter hook output priority 0; ct state invalid drop; }
             }",
        )?;
    }
    let flows = open(&topology, 1000, Family::V4)?.and(open(&topology, 200, Family::V6)?);
    let watched = flows.watch(None);
    topology.break_wan(1, fault)?;
    ensure_resets(&watched.wait_all_broken(DEADLINE)?)
}

#[test]
fn a_thousand_idle_flows_of_one_client_are_told() -> Result<()> {
    idle_flows_are_told(&Fault::Blackhole, false)
}

#[test]
fn a_thousand_idle_flows_are_told_when_the_address_is_gone() -> Result<()> {
    idle_flows_are_told(&Fault::AddressGone, false)
}

#[test]
fn clients_behind_a_firewall_that_drops_what_is_invalid_are_told() -> Result<()> {
    idle_flows_are_told(&Fault::Blackhole, true)
}

#[test]
fn clients_behind_such_a_firewall_are_told_when_the_interface_is_gone() -> Result<()> {
    idle_flows_are_told(&Fault::InterfaceGone, true)
}

fn tunnels_go_on(spec: Spec, fault: &Fault) -> Result<()> {
    let topology = spec.build()?;
    let daemon = Daemon::start_up(&topology, &config(&topology))?;
    wait_all_by(&topology.client(1), 1)?;
    let mut tunnels = Vec::new();
    for (port, manner) in [(4430, Manner::Quic), (51_820, Manner::WireGuard)] {
        for server in [IpAddr::from(SERVERS[1].0), SERVERS[1].1.into()] {
            let tunnel = Tunnel::start(&topology, 1, (server, port).into(), manner)?;
            tunnel.wait_heard(20, DEADLINE)?;
            tunnels.push(tunnel);
        }
    }
    topology.break_wan(1, fault)?;
    wait_down(&daemon, "wan1")?;
    for tunnel in tunnels {
        tunnel.wait_heard(50, DEADLINE).context("it goes on")?;
        let report = tunnel.stop().context("no error for the application")?;
        ensure!(report.wans == [1, 2], "{report:?}");
    }
    Ok(())
}

#[test]
fn quic_and_wireguard_go_on_through_the_next_wan() -> Result<()> {
    for fault in [Fault::Blackhole, Fault::CarrierLost] {
        in_both_layouts(3, |spec| {
            // The shared interface itself keeps its carrier.
            tunnels_go_on(spec, &fault)
        })
        .with_context(|| format!("{fault:?}"))?;
    }
    tunnels_go_on(Spec::routed(3), &Fault::AddressGone).context("address gone")
}

/// A second LAN behind the router, with a server on it.
fn second_lan(topology: &Topology, config: &mut Config) -> Result<Servers> {
    let other = topology.client_space(2);
    topology.router().ip_batch(&format!(
        "link add lan1 type veth peer name eth1 netns {other}
         link set lan1 up
         addr add 10.2.0.1/24 dev lan1
         addr add fd00:2::1/64 nodad dev lan1",
        other = other.name(),
    ))?;
    other.ip_batch(
        "link set eth1 up
         addr add 10.2.0.2/24 dev eth1
         addr add fd00:2::2/64 nodad dev eth1
         route replace default via 10.2.0.1
         route replace default via fd00:2::1",
    )?;
    config.lans.push(("lan1".to_owned(), Vec::new()));
    Servers::start(other, &["10.2.0.2".parse()?, "fd00:2::2".parse()?])
}

/// Whoever has no flow through the lost WAN notices nothing of its end, nor of its return.
fn others_notice_nothing(faults: &[Fault], with_own: bool) -> Result<()> {
    let topology = Spec::routed(3).clients(2, 4).build()?;
    let mut config = Config::of(&topology).every_kind();
    let _server = second_lan(&topology, &mut config)?;
    let daemon = Daemon::start_up(&topology, &config)?;
    let mut through = flows_of_every_kind(&topology.client(1), 30)?;
    let own = if with_own { 30 } else { 0 };
    let mut own = flows_of_every_kind(&topology.router_client(), own)?;
    let lost = through.take_from(1).and(own.take_from(1));
    ensure!(through.len() > 40 && !lost.is_empty(), "flows on every WAN");
    ensure!(own.len() > 40 || !with_own, "the router's own flows too");
    let mut neighbour = topology.client(1).to(vec![
        ("10.2.0.2".parse::<IpAddr>()?, ECHO).into(),
        ("fd00:2::2".parse::<IpAddr>()?, ECHO).into(),
    ]);
    for family in Family::BOTH {
        neighbour = neighbour.known_as(topology.client_addresses(1, family)[0], 0);
    }
    let lan = flows_of_every_kind(&neighbour, 10)?;
    let idle = topology.client(1).flows(60, Proto::Tcp, Family::V4)?;
    let before = topology.all_counts()?;
    let talking = talk(through.and(own).and(lan));
    let listening = idle.watch(None);
    for fault in faults {
        topology.break_wan(1, fault)?;
        wait_down(&daemon, "wan1")?;
        lost.exchange(Duration::from_millis(300));
        topology.mend_wan(1, fault)?;
        daemon.wait_all_up()?;
    }
    ensure_all_kept(talking)?;
    let touched: Vec<_> = listening.breaks().into_iter().filter(|end| end.wan != 1).collect();
    ensure!(touched.is_empty(), "{touched:?}");
    ensure!(listening.stop()?.exchange(LONG).all_kept());
    if with_own {
        return ensure_nothing_wrong_since(&topology, &before);
    }
    // The lost flows spoke on, maybe before the router knew that the kernel had forgotten them:
    // to it those words belonged to nobody.
    ensure_others_sources_since(&topology, &before)
}

#[test]
fn flows_of_others_and_the_routers_own_are_not_touched() -> Result<()> {
    others_notice_nothing(&[Fault::Blackhole, Fault::CarrierLost], true)
}

/// Without the router's own flows: a TCP socket over IPv6 that was reset but is still open keeps
/// the route it had used, and Linux (6.18) waits for it before it lets an interface go. These stay
/// open here; a program closes what was reset.
#[test]
fn flows_of_others_are_not_touched_when_the_interface_is_gone() -> Result<()> {
    others_notice_nothing(&[Fault::AddressGone, Fault::InterfaceGone], false)
}

/// With nothing to move to, waiting is better than being told; who comes back first carries on
/// what it had.
#[test]
fn with_all_wans_dead_nobody_is_told_and_the_first_that_is_back_carries_on() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let daemon = Daemon::start_up(&topology, &config(&topology))?;
        wait_all_by(&topology.client(1), 1)?;
        // The others die first, so that there never is anything to move to.
        for number in [3, 2] {
            topology.break_wan(number, &Fault::Blackhole)?;
            wait_down(&daemon, &topology.wan(number).name)?;
        }
        let flows = open(&topology, 50, Family::V4)?.and(open(&topology, 50, Family::V6)?);
        let watched = flows.watch(None);
        topology.break_wan(1, &Fault::Blackhole)?;
        wait_down(&daemon, "wan1")?;
        // The daemon's own next round of probes is over: the decision stands.
        let enough = topology.counts(1)?.probes + 40;
        anywan_lab::until(LONG, "some rounds of probes", || {
            let probes = topology.counts(1)?.probes;
            ensure!(probes >= enough, "{probes} of {enough}");
            Ok(())
        })?;
        ensure!(watched.breaks().is_empty(), "{:?}", watched.breaks());
        topology.mend_wan(1, &Fault::Blackhole)?;
        wait_all_by(&topology.client(1), 1)?;
        let exchange = watched.stop()?.exchange(LONG);
        ensure!(exchange.all_kept() && exchange.results.len() == 100, "{exchange}");
        Ok(())
    })
}

/// What two WANs have lost is told by the third, and by the one that comes back.
#[test]
fn all_wans_that_die_together_keep_their_flows_until_one_is_back() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let daemon = Daemon::start_up(&topology, &Config::of(&topology).every_kind())?;
    let mut flows = topology.client(1).flows(60, Proto::Tcp, Family::V4)?;
    let mut watched = Vec::new();
    for number in 1..=3 {
        ensure!(flows.on(number) > 0, "flows on every WAN");
        watched.push(flows.take_from(number).watch(None));
    }
    for number in 1..=3 {
        topology.break_wan(number, &Fault::Blackhole)?;
    }
    for number in 1..=3 {
        wait_down(&daemon, &topology.wan(number).name)?;
    }
    for (number, flows) in (1..).zip(&watched) {
        let breaks = flows.breaks();
        ensure!(breaks.is_empty(), "{} of wan{number} were told", breaks.len());
    }
    topology.mend_wan(2, &Fault::Blackhole)?;
    wait_all_by(&topology.client(1), 2)?;
    for (number, flows) in (1..).zip(watched) {
        if number == 2 {
            let exchange = flows.stop()?.exchange(LONG);
            ensure!(exchange.all_kept() && !exchange.results.is_empty(), "{exchange}");
        } else {
            ensure_resets(&flows.wait_all_broken(DEADLINE)?)?;
        }
    }
    Ok(())
}

/// Kills the daemon when the kernel has announced so many transactions of nftables: in the middle.
fn kill_after(topology: &Topology, daemon: &mut Daemon, transactions: u32) -> Result<()> {
    let notices = anywan_lab::notices::Notices::listen(topology.router())?;
    topology.break_wan(1, &Fault::Blackhole)?;
    for number in 1..=transactions {
        notices.next_transaction(DEADLINE).with_context(|| format!("transaction {number}"))?;
    }
    daemon.kill();
    Ok(())
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_switch_finishes_it_when_it_is_back() -> Result<()> {
    for transactions in 1..=2 {
        let topology = Spec::routed(3).clients(1, 20).build()?;
        let mut daemon = Daemon::start_up(&topology, &config(&topology))?;
        wait_all_by(&topology.client(1), 1)?;
        let flows = open(&topology, 20, Family::V4)?.and(open(&topology, 20, Family::V6)?);
        let watched = half_and_half(flows);
        let server = SocketAddr::new(SERVERS[1].0.into(), 51_820);
        let tunnel = Tunnel::start(&topology, 1, server, Manner::WireGuard)?;
        tunnel.wait_heard(20, DEADLINE)?;
        kill_after(&topology, &mut daemon, transactions)?;
        daemon.launch()?;
        wait_down(&daemon, "wan1")?;
        all_are_told(&topology, watched, 20)
            .with_context(|| format!("killed after transaction {transactions}"))?;
        tunnel.wait_heard(50, DEADLINE)?;
        let report = tunnel.stop()?;
        ensure!(report.wans == [1, 2], "{report:?}");
    }
    Ok(())
}
