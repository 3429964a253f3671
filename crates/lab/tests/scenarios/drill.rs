//! A drill cuts a WAN off by our own table: the switch is a real one, it is measured, and whatever
//! ends the drill also undoes the cut.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::command::Running;
use anywan_lab::daemon::program;
use anywan_lab::{Config, Daemon, Failure, Family, Proto, Spec, Topology, until};
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{
    DEADLINE, dialers, flows_of_every_kind, in_both_layouts, wait_all_by, wait_dialled,
};

fn start(spec: Spec) -> Result<(Topology, Daemon)> {
    let topology = spec.build()?;
    let daemon = Daemon::start_up(&topology, &Config::of(&topology).priorities(&[1, 2, 3]))?;
    wait_all_by(&topology.client(1), 1)?;
    Ok((topology, daemon))
}

/// Begins a drill of WAN 1 that is longer than any test.
fn spawn(topology: &Topology, daemon: &Daemon) -> Result<Running> {
    let (anywan, socket) = (program("anywan")?, daemon.path("anywan.sock").display().to_string());
    let line = [&*anywan, "--socket", &socket, "drill", "wan1", "--yes", "--for", "5m"];
    topology.router().spawn(&line, Some(&daemon.path("drill")))
}

/// The same, and waits until WAN 1 is found dead.
fn begin(topology: &Topology, daemon: &Daemon) -> Result<Running> {
    let running = spawn(topology, daemon)?;
    for family in Family::BOTH {
        daemon.wait_state("wan1", family, &["down"]).with_context(|| log_of(daemon))?;
    }
    wait_all_by(&topology.client(1), 2)?;
    Ok(running)
}

fn log_of(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.path("drill")).unwrap_or_default()
}

/// Checks that nothing of a cut is in the kernel.
fn ensure_mended(topology: &Topology) -> Result<()> {
    let maps = ["from_wan", "from_shared", "restore4", "restore6"];
    for map in maps {
        let text = topology.router().run(&format!("nft list map inet anywan {map}"))?;
        ensure!(!text.contains("cut_"), "{text}");
    }
    Ok(())
}

#[test]
fn a_drill_makes_the_whole_switch_measures_it_and_puts_everything_back() -> Result<()> {
    in_both_layouts(3, |spec| {
        let (topology, daemon) = start(spec)?;
        let client = topology.client(1);
        let (silent, udp) =
            (client.flows(10, Proto::Tcp, Family::V4)?, client.flows(10, Proto::Udp, Family::V4)?);
        let dialling = dialers(&client);
        wait_dialled(&dialling, |wan| wan == 1)?;
        let said = daemon.cli(&["drill", "wan1", "--yes", "--for", "20s", "--json"])?;
        let course: Value =
            serde_json::from_str(&said.stdout).with_context(|| format!("{said:?}"))?;
        ensure!(said.status == 0 && course["passed"] == true, "{course}");
        for family in ["ipv4", "ipv6"] {
            let of = |list: &str| {
                let all = course[list].as_array().map_or(&[][..], Vec::as_slice);
                all.iter().find(|one| one["family"] == family).cloned().unwrap_or_default()
            };
            ensure!(of("found_dead")["ms"].is_u64(), "{course}");
            let new = of("new_connections");
            ensure!(new["failed"].as_u64() > Some(0) && new["recovered"] == true, "{course}");
            ensure!(of("established")["told_ms"].is_u64(), "{course}");
        }
        ensure!(course["flows_told"].as_u64() >= Some(20), "{course}");
        ensure!(course["back_ms"].is_u64(), "{course}");
        ensure_mended(&topology)?;
        // All of it was real for clients, too.
        let broken = silent.wait_for_breaks(DEADLINE);
        ensure!(broken.failures().get(&Failure::Reset) == Some(&10), "{broken}");
        let said = udp.exchange(Duration::from_secs(1));
        ensure!(said.failures().is_empty() && said.kept() + said.moved() == 10, "{said}");
        wait_dialled(&dialling, |wan| wan == 1)?;
        for dialler in dialling {
            let report = dialler.stop()?;
            ensure!(report.sequence() == [1, 2, 1], "{report}");
        }
        Ok(())
    })
}

#[test]
fn while_a_wan_is_cut_off_no_flow_of_a_lan_gets_a_word_through() -> Result<()> {
    in_both_layouts(2, |spec| {
        let topology = spec.build()?;
        // Nothing but the cut is to be seen: no heartbeat finds it out, and nobody takes over.
        let config = Config::of(&topology).priorities(&[1, 2]).health("interval", r#""1h""#);
        let daemon = Daemon::start_up(&topology, &config)?;
        wait_all_by(&topology.client(1), 1)?;
        let flows = flows_of_every_kind(&topology.client(1), 5)?;
        let _drill = spawn(&topology, &daemon)?;
        until(DEADLINE, "the cut", || {
            let text = topology.router().run("nft list map inet anywan restore6")?;
            ensure!(text.contains("cut_keep6_1"), "{text}");
            Ok(())
        })?;
        daemon.signal(Signal::STOP)?;
        let before = topology.counts(1)?;
        let said = flows.exchange(Duration::from_millis(500));
        let seen = topology.counts(1)?.since(before);
        daemon.signal(Signal::CONT)?;
        ensure!(said.failures().get(&Failure::TimedOut) == Some(&20), "{said}");
        // What the drill tries itself are new connections of the router to targets of probes.
        ensure!(seen.up == seen.probes, "{seen:?}");
        Ok(())
    })
}

#[test]
fn a_drill_ends_with_whoever_asked_for_it() -> Result<()> {
    in_both_layouts(2, |spec| {
        let (topology, daemon) = start(spec)?;
        let mut drill = begin(&topology, &daemon)?;
        drill.signal(Signal::INT)?;
        until(DEADLINE, "its end", || drill.ended()?.context("it runs"))?;
        daemon.wait_all_up()?;
        wait_all_by(&topology.client(1), 1)?;
        ensure_mended(&topology)
    })
}

#[test]
fn a_daemon_that_is_ended_or_killed_leaves_no_wan_cut_off() -> Result<()> {
    in_both_layouts(2, |spec| {
        let (topology, mut daemon) = start(spec)?;
        let _first = begin(&topology, &daemon)?;
        let status = daemon.terminate()?;
        ensure!(status == 0, "it ended with {status}");
        ensure_mended(&topology)?;
        daemon.launch()?;
        daemon.wait_all_up()?;
        wait_all_by(&topology.client(1), 1)?;
        let _second = begin(&topology, &daemon)?;
        daemon.kill();
        daemon.launch()?;
        daemon.wait_all_up()?;
        ensure_mended(&topology)?;
        wait_all_by(&topology.client(1), 1)
    })
}

#[test]
fn there_is_no_drill_when_nothing_could_take_over_or_one_is_running() -> Result<()> {
    let (topology, daemon) = start(Spec::routed(2))?;
    let said = daemon.cli(&["drill", "wan1"])?;
    ensure!(said.status == 2 && said.stderr.contains("--yes"), "nobody to ask: {said:?}");
    let drill = begin(&topology, &daemon)?;
    let said = daemon.cli(&["drill", "wan2", "--yes"])?;
    ensure!(said.status == 1 && said.stderr.contains("a drill of wan1 is running"), "{said:?}");
    drop(drill);
    daemon.wait_all_up()?;
    topology.break_wan(2, &anywan_lab::Fault::Blackhole)?;
    for family in Family::BOTH {
        daemon.wait_state("wan2", family, &["down"])?;
    }
    let said = daemon.cli(&["drill", "wan1", "--yes"])?;
    ensure!(said.status == 1 && said.stderr.contains("no other WAN works"), "{said:?}");
    wait_all_by(&topology.client(1), 1)
}
