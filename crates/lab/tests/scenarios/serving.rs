//! dnsmasq that is not installed, refuses its files, or is killed again and again: told in plain
//! words and with its own, tried with pauses that grow, served as soon as it is mended. Routing goes
//! on meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use anywan_lab::command::run_ok;
use anywan_lab::names::{Resolver, address, child_pid};
use anywan_lab::{Config, Daemon, Families, Family, Fault, Proto, Spec, Topology, until};

use crate::common::{
    DEADLINE, dialers, ensure_none_failed, ensure_own_sources_since, wait_dialled,
};
use crate::names::{config, served, wait_served};

/// Pauses grow meanwhile, and an end is told until its successor has run for a while.
const PATIENCE: Duration = Duration::from_secs(60);

fn problem(daemon: &Daemon, words: &[&str]) -> Result<String> {
    let problems = daemon.status()?.problems();
    let found = problems.iter().find(|p| words.iter().all(|word| p.contains(word)));
    found.cloned().ok_or_else(|| anyhow::anyhow!("none with {words:?}: {problems:?}"))
}

fn ensure_no_problem(daemon: &Daemon) -> Result<()> {
    until(PATIENCE, "no problem", || {
        let problems = daemon.status()?.problems();
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(())
    })
}

fn ensure_routed(topology: &Topology) -> Result<()> {
    for family in Family::BOTH {
        let placed = topology.client(1).place(30, Proto::Tcp, family)?;
        ensure!(placed.failed() == 0, "{placed}");
    }
    Ok(())
}

/// Lends addresses too.
fn lending(topology: &Topology) -> Config {
    let mut config = config(topology);
    let router = topology.lan_address(Family::V4).to_string();
    let net = router.trim_end_matches(|c: char| c != '.');
    let range = format!("{{ range = \"{net}150-{net}160\" }}");
    config.lans[0].1.push(("dhcp".to_owned(), range));
    config
}

#[test]
fn a_missing_dnsmasq_is_told_with_its_package_and_serves_once_it_is_there() -> Result<()> {
    let (topology, _resolvers) = served(2)?;
    let path = run_ok(&["sh", "-c", "command -v dnsmasq"], "")?;
    let path = path.trim();
    let mut daemon = Daemon::prepare(&topology, &config(&topology))?;
    // For this daemon alone there is nothing that could be run.
    let script = format!("mount --bind /dev/null {path}; exec \"$@\"");
    daemon.launch_unready(&["unshare", "-m", "sh", "-c", &script, "sh"])?;
    daemon.wait_steering()?;
    daemon.wait_all_up()?;
    until(DEADLINE, "the package to be named", || {
        problem(&daemon, &["child.not-started", "dnsmasq", "not installed", "dnsmasq-base"])
    })?;
    ensure_routed(&topology)?;
    let pid = daemon.pid()?.to_string();
    run_ok(&["nsenter", "-t", &pid, "-m", "umount", path], "")?;
    until(PATIENCE, "names", || wait_served(&topology, "www.test"))?;
    ensure_no_problem(&daemon)
}

#[test]
fn a_dnsmasq_that_refuses_its_files_is_told_with_its_words_and_serves_once_it_is_mended()
-> Result<()> {
    let (topology, _resolvers) = served(2)?;
    let mut daemon = Daemon::prepare(&topology, &lending(&topology))?;
    // Where it keeps its leases, somebody has made a folder.
    let obstacle = daemon.path("state").join("dhcp.leases");
    fs::create_dir_all(&obstacle)?;
    daemon.launch()?;
    daemon.wait_all_up()?;
    until(DEADLINE, "its words", || {
        let words = ["child.ended", "exit code 3 (a file", "dhcp.leases", "Is a directory"];
        problem(&daemon, &words)
    })?;
    ensure_routed(&topology)?;
    fs::remove_dir(&obstacle)?;
    until(PATIENCE, "names", || wait_served(&topology, "www.test"))?;
    ensure_no_problem(&daemon)
}

#[test]
fn a_dnsmasq_that_is_killed_again_and_again_waits_longer_each_time_and_disturbs_nothing()
-> Result<()> {
    let (topology, _resolvers) = served(2)?;
    let daemon = Daemon::start_up(&topology, &config(&topology))?;
    let dialling = dialers(&topology.client(1));
    wait_served(&topology, "a.test")?;
    for (pause, name) in [(1, "b.test"), (2, "c.test"), (4, "d.test")] {
        let (pid, begun) = (child_pid(&daemon)?, Instant::now());
        run_ok(&["kill", "-9", &pid.to_string()], "")?;
        until(DEADLINE, "the end to be told", || {
            problem(&daemon, &["child.ended", "dnsmasq", "signal 9"])
        })?;
        until(DEADLINE, "another dnsmasq", || {
            ensure!(child_pid(&daemon)? != pid);
            Ok(())
        })?;
        let waited = begun.elapsed();
        ensure!(waited >= Duration::from_secs(pause), "only {waited:?} before it ran again");
        wait_served(&topology, name)?;
    }
    wait_dialled(&dialling, |_| true)?;
    ensure_none_failed(dialling)?;
    ensure_no_problem(&daemon)
}

/// A router with both ISPs on one wire, each with a subnet of its own there. IPv6 takes a source by
/// the interface alone, so only one of them has it.
fn on_one_wire() -> Result<Topology> {
    let topology = Spec::one_armed(2).wan(2, |wan| wan.families = Families::V4).build()?;
    let router = topology.router();
    let switch = topology.namespaces().find(|space| space.name().ends_with("-switch"));
    let switch = switch.context("the switch")?;
    router.run(&format!("ip link set w2 netns {}", switch.name()))?;
    switch.run("ip link set w2 master br0 up")?;
    let own = topology.wan(2).own(Family::V4).context("an address")?;
    router.run(&format!("ip address add {own}/24 dev eth0"))?;
    Ok(topology)
}

#[test]
fn resolvers_of_two_wans_on_one_interface_are_each_asked_through_their_own() -> Result<()> {
    let topology = on_one_wire()?;
    let far = |k| Resolver::honest(&topology, k);
    let near = |k: usize| {
        let gateway = topology.wan(k).gateway(Family::V4).context("a gateway")?;
        Resolver::honest_at(&topology, k, &gateway.to_string())
    };
    let resolvers = [[far(1)?, near(1)?], [far(2)?, near(2)?]];
    let mut config = Config::of(&topology);
    config.wans[1].interface = "eth0".to_owned();
    config.wans[1].gateway6 = Some("off".to_owned());
    for (wan, number) in config.wans.iter_mut().zip(1..) {
        let gateway = topology.wan(number).gateway(Family::V4).context("a gateway")?;
        let list = format!("[\"{}\", \"{gateway}\"]", address(&topology, number));
        wan.more.push(("dns".to_owned(), list));
    }
    config.extra = "[dns]\n".to_owned();
    let daemon = Daemon::start(&topology, &config)?;
    for name in ["wan1", "wan2"] {
        daemon.wait_state(name, Family::V4, &["up"])?;
    }
    let before = topology.all_counts()?;
    for proto in [Proto::Tcp, Proto::Udp] {
        for client in [topology.client(1), topology.router_client()] {
            let placed = client.place(60, proto, Family::V4)?;
            ensure!(placed.failed() == 0 && placed.by_wan.len() == 2, "{proto:?} {placed}");
        }
    }
    for n in 0..8 {
        wait_served(&topology, &format!("n{n}.test"))?;
    }
    until(DEADLINE, "every resolver to be asked by its own WAN's address", || {
        for (number, of_wan) in (1..).zip(&resolvers) {
            let own = topology.wan(number).own(Family::V4).context("an address")?;
            for resolver in of_wan {
                let log = resolver.log();
                ensure!(log.contains(&format!(".test from {own}")), "{number}: {log}");
                let asked = log.lines().filter(|line| line.contains(".test from "));
                let strange = asked.clone().find(|line| !line.ends_with(&format!(" {own}")));
                ensure!(strange.is_none(), "{number}: {strange:?}");
            }
        }
        Ok(())
    })?;
    ensure_own_sources_since(&topology, &before)?;
    // Each WAN's death leaves names to the other.
    for (dead, other) in [(1, 2), (2, 1)] {
        topology.break_wan(dead, &Fault::Blackhole)?;
        daemon.wait_state(&format!("wan{dead}"), Family::V4, &["down"])?;
        let found = wait_served(&topology, &format!("without{dead}.test"))?;
        ensure!(found == format!("198.18.{other}.80"), "{found}");
        topology.mend_wan(dead, &Fault::Blackhole)?;
        daemon.wait_state(&format!("wan{dead}"), Family::V4, &["up"])?;
    }
    Ok(())
}
