//! `anywan down` leaves nothing of ours, and what is not ours is never touched.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use anywan_lab::{Config, Daemon, Family, Fault, Proto, Snapshot, Topology, until};

use crate::common::{DEADLINE, every_kind, in_both_layouts, wait_all_by};

/// Rules, routes and tables of somebody else: Docker, Tailscale and an old hand's rules.
fn foreign_things(topology: &Topology) -> Result<()> {
    let mut lines = String::new();
    for at in 0..20 {
        let priority = 300 + 400 * at;
        let _ =
            writeln!(lines, "rule add pref {priority} from 203.0.113.{at} lookup {}", 4000 + at);
        let _ = writeln!(lines, "route add 203.0.113.{at}/32 dev lo table {}", 4000 + at);
        let _ = writeln!(lines, "-6 rule add pref {priority} from 2001:db8:cafe::{at} lookup main");
    }
    for (priority, action) in
        [(5210, "lookup main"), (5230, "lookup default"), (5250, "unreachable")]
    {
        let _ = writeln!(lines, "rule add pref {priority} fwmark 0x80000/0xff0000 {action}");
    }
    let _ = writeln!(lines, "rule add pref 5270 lookup 52");
    // `-6` is no batch command; each line runs by itself.
    for line in lines.lines() {
        topology.router().run(&format!("ip {line}"))?;
    }
    topology.router().nft(
        "table ip nat {
           chain DOCKER { }
           chain PREROUTING {
             type nat hook prerouting priority dstnat; policy accept;
             fib daddr type local counter jump DOCKER
           }
           chain POSTROUTING {
             type nat hook postrouting priority srcnat; policy accept;
             ip saddr 172.17.0.0/16 oifname != \"docker0\" counter masquerade
           }
         }
         table ip filter {
           chain DOCKER-USER { counter return; }
           chain FORWARD { type filter hook forward priority filter; policy accept;
             counter jump DOCKER-USER
           }
         }
         table inet other {
           set s { type ipv4_addr; elements = { 192.0.2.7 }; }
         }",
    )?;
    Ok(())
}

#[test]
fn down_leaves_exactly_what_was_before_and_traffic_flowing() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        foreign_things(&topology)?;
        let before = Snapshot::take(topology.router())?;
        let config = Config::of(&topology).priorities(&[1, 2, 3]);
        let mut daemon = Daemon::start_up(&topology, &config)?;
        wait_all_by(&topology.client(1), 1)?;
        // A life with all that it brings.
        topology.break_wan(1, &Fault::Blackhole)?;
        wait_all_by(&topology.client(1), 2)?;
        topology.mend_wan(1, &Fault::Blackhole)?;
        wait_all_by(&topology.client(1), 1)?;
        daemon.reload(&config.clone().priorities(&[2, 2, 1]))?;
        wait_all_by(&topology.client(1), 3)?;

        let outcome = daemon.cli(&["down"])?;
        ensure!(outcome.status == 0, "{outcome:?}");
        ensure!(daemon.wait_end()? == 0, "the daemon exits, too");
        let diff = before.diff(&Snapshot::take(topology.router())?);
        ensure!(diff.is_empty(), "{diff}");
        ensure!(topology.router_client().connect(Proto::Tcp, Family::V4)? == 1);
        ensure!(topology.router_client().connect(Proto::Udp, Family::V6)? == 1);
        Ok(())
    })
}

#[test]
fn down_works_without_a_daemon_too() -> Result<()> {
    let topology = anywan_lab::Spec::routed(2).build()?;
    let before = Snapshot::take(topology.router())?;
    let mut daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    daemon.kill();
    let state = daemon.path("state").display().to_string();
    let outcome = daemon.cli(&["down", "--state-dir", &state])?;
    ensure!(outcome.status == 0, "{outcome:?}");
    let diff = before.diff(&Snapshot::take(topology.router())?);
    ensure!(diff.is_empty(), "{diff}");
    Ok(())
}

#[test]
fn foreign_things_are_never_touched() -> Result<()> {
    in_both_layouts(2, |spec| {
        let topology = spec.build()?;
        foreign_things(&topology)?;
        // Sysctls are ours to set, and to put back.
        let foreign = |topology: &Topology| -> Result<Snapshot> {
            Ok(Snapshot::take(topology.router())?.without(|section, _| section == "sysctl"))
        };
        let before = foreign(&topology)?;
        let config = Config::of(&topology).priorities(&[1, 2]);
        let mut daemon = Daemon::start_up(&topology, &config)?;
        let untouched = |when: &str| -> Result<()> {
            let lost = before.lost_in(&foreign(&topology)?);
            ensure!(lost.is_empty(), "{when}: {}", lost.join("\n"));
            Ok(())
        };
        untouched("after the start")?;
        topology.break_wan(1, &Fault::GatewaySilent)?;
        wait_all_by(&topology.client(1), 2)?;
        untouched("after a failover")?;
        topology.mend_wan(1, &Fault::GatewaySilent)?;
        wait_all_by(&topology.client(1), 1)?;
        daemon.kill();
        daemon.launch()?;
        daemon.wait_all_up()?;
        untouched("after a restart")
    })
}

#[test]
fn without_any_default_route_before_down_leaves_a_plain_one() -> Result<()> {
    let topology = anywan_lab::Spec::routed(2).without_main_routes().build()?;
    let mut daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    let placed = topology.client(1).place(60, Proto::Tcp, Family::V6)?;
    ensure!(placed.by_wan.len() == 2 && placed.failed() == 0, "{placed}");
    ensure!(daemon.cli(&["down"])?.status == 0);
    daemon.wait_end()?;
    until(DEADLINE, "the router's own connections", || {
        for (proto, family) in every_kind() {
            topology.router_client().connect(proto, family)?;
        }
        Ok(())
    })
}
