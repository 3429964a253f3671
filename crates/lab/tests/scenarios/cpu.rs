//! The work of the interfaces is spread over the CPUs, and goes back to where it was. Needs two CPUs
//! to show anything; the router's interfaces are pairs in the kernel, with one queue each.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::{Config, Daemon, Fault, Netns, Spec, Topology, until};
use serde_json::Value;

use crate::common::{DEADLINE, wait_all_by};

/// Nobody tells of changed masks: they wait for the full re-read, each 30 s.
const RE_READ: Duration = Duration::from_secs(60);
/// Runs what follows with the `/sys` of its network namespace, as `ip netns exec` does.
const WITH_SYS: [&str; 6] =
    ["unshare", "--mount", "sh", "-c", "mount -t sysfs sysfs /sys && exec \"$@\"", "with-sys"];

fn in_router(router: &Netns, script: &str) -> Result<String> {
    let line: Vec<&str> = WITH_SYS.into_iter().chain(["sh", "-c", script]).collect();
    let outcome = router.try_run(&line)?;
    ensure!(outcome.status == 0, "{script}: {outcome:?}");
    Ok(outcome.stdout.trim().to_owned())
}

/// Who goes on with what an interface has received, as a number.
fn mask(topology: &Topology, device: &str) -> Result<u64> {
    let script = format!("cat /sys/class/net/{device}/queues/rx-0/rps_cpus");
    let text = in_router(topology.router(), &script)?.replace(',', "");
    u64::from_str_radix(&text, 16).context(text)
}

fn put(topology: &Topology, device: &str, mask: u64) -> Result<()> {
    let script = format!("echo {mask:x} > /sys/class/net/{device}/queues/rx-0/rps_cpus");
    in_router(topology.router(), &script).map(drop)
}

/// Every CPU but the first, where interrupts come that nobody has placed.
fn others() -> Result<u64> {
    let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
    let (first, last) = online.trim().split_once('-').context("two CPUs, all of them online")?;
    let (first, last): (u32, u32) = (first.parse()?, last.parse()?);
    Ok((first + 1..=last).fold(0, |mask, cpu| mask | 1 << cpu))
}

fn wait_mask(topology: &Topology, device: &str, wanted: u64) -> Result<()> {
    until(RE_READ, &format!("{device} at {wanted:x}"), || {
        let now = mask(topology, device)?;
        ensure!(now == wanted, "{now:x}");
        Ok(())
    })
}

fn start(topology: &Topology, config: &Config) -> Result<Daemon> {
    let mut daemon = Daemon::prepare(topology, config)?;
    daemon.launch_unready(&WITH_SYS)?;
    daemon.wait_steering()?;
    daemon.wait_all_up()?;
    Ok(daemon)
}

fn interfaces(topology: &Topology) -> Vec<String> {
    let wans = topology.wans().iter().map(|wan| wan.interface.clone());
    let mut all: Vec<String> = wans.chain([topology.lan_interface().to_owned()]).collect();
    all.sort();
    all.dedup();
    all
}

/// Checks that the doctor shows the queues of all interfaces as they are to be.
fn ensure_shown(daemon: &Daemon, interfaces: &[String]) -> Result<()> {
    let path = |name: &str| daemon.path(name).display().to_string();
    let (file, state) = (path("anywan.toml"), path("state"));
    let outcome = daemon.cli_by(&WITH_SYS, &["doctor", &file, "--state-dir", &state, "--json"])?;
    let found: Value = serde_json::from_str(&outcome.stdout).with_context(|| outcome.stderr)?;
    let lines = found["placement"]["lines"].as_array().context("lines")?;
    for interface in interfaces {
        let of_it = |line: &&Value| line["interface"] == interface.as_str();
        let handed_on = lines
            .iter()
            .filter(of_it)
            .find(|line| line["what"].as_str().is_some_and(|what| what.contains("RPS")));
        let handed_on = handed_on.with_context(|| format!("{interface} in {found}"))?;
        ensure!(handed_on["now"] != "no CPU" && handed_on["wanted"].is_null(), "{handed_on}");
    }
    Ok(())
}

#[test]
fn queues_are_spread_from_the_start_to_the_end_and_go_back_as_they_were() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let others = others()?;
    let all = interfaces(&topology);
    // Somebody has had a thought of his own.
    put(&topology, &all[0], 1)?;
    let before: Vec<u64> = all.iter().map(|d| mask(&topology, d)).collect::<Result<_>>()?;

    let mut daemon = start(&topology, &Config::of(&topology))?;
    for device in &all {
        wait_mask(&topology, device, others)?;
    }
    ensure_shown(&daemon, &all)?;
    let plan = daemon.cli(&["plan", "--json"])?;
    ensure!(plan.stdout.contains("\"steps\":[]"), "{plan:?}");

    // A stick that comes late, and one that is put back the other way.
    let stick = topology.wan(2).interface.clone();
    topology.break_wan(2, &Fault::InterfaceGone)?;
    wait_all_by(&topology.client(1), 1)?;
    topology.mend_wan(2, &Fault::InterfaceGone)?;
    wait_mask(&topology, &stick, others)?;

    daemon.follow_events()?;
    let lan = topology.lan_interface();
    until(DEADLINE, "the events", || daemon.events().map(drop))?;
    put(&topology, lan, 1)?;
    wait_mask(&topology, lan, others)?;
    until(DEADLINE, "the repair to be told", || {
        let repaired = format!("set {lan}/rx-0/rps_cpus = {others:x}");
        let events = daemon.events()?;
        ensure!(events.iter().any(|event| event["new"] == *repaired), "{events:?}");
        Ok(())
    })?;

    ensure!(daemon.cli(&["down"])?.status == 0);
    daemon.wait_end()?;
    for (device, before) in all.iter().zip(before) {
        let now = mask(&topology, device)?;
        ensure!(now == before, "{device}: {now:x}, before {before:x}");
    }
    Ok(())
}

#[test]
fn switched_off_it_touches_nothing_and_puts_back_what_was_changed() -> Result<()> {
    let topology = Spec::one_armed(2).build()?;
    let (others, all) = (others()?, interfaces(&topology));
    put(&topology, &all[0], 1)?;
    let before: Vec<u64> = all.iter().map(|d| mask(&topology, d)).collect::<Result<_>>()?;
    let as_before = |when: &str| -> Result<()> {
        for (device, before) in all.iter().zip(&before) {
            let now = mask(&topology, device)?;
            ensure!(now == *before, "{when}: {device}: {now:x}, before {before:x}");
        }
        Ok(())
    };
    let on = Config::of(&topology);
    let off = on.clone().top("cpu", r#""off""#);

    let mut daemon = start(&topology, &off)?;
    as_before("off from the start")?;
    daemon.reload(&on)?;
    for device in &all {
        wait_mask(&topology, device, others)?;
    }
    // What was is known to the next daemon.
    daemon.kill();
    daemon.launch_unready(&WITH_SYS)?;
    daemon.wait_steering()?;
    for device in &all {
        wait_mask(&topology, device, others)?;
    }
    daemon.reload(&off)?;
    until(DEADLINE, "what was before", || as_before("off again"))?;
    let kept = fs::read_to_string(daemon.path("state").join("cpus.json"))?;
    ensure!(!kept.contains("rps_cpus"), "nothing is left to remember: {kept}");
    Ok(())
}

#[test]
fn down_without_a_daemon_puts_the_queues_back_too() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    let device = topology.wan(1).interface.clone();
    put(&topology, &device, 1)?;
    let mut daemon = start(&topology, &Config::of(&topology))?;
    wait_mask(&topology, &device, others()?)?;
    daemon.kill();
    let line = daemon.command_line()?;
    let line = line.iter().map(String::as_str);
    let line: Vec<&str> = WITH_SYS.into_iter().chain(line).chain(["--take-down"]).collect();
    let outcome = topology.router().try_run(&line)?;
    ensure!(outcome.status == 0, "{outcome:?}");
    ensure!(mask(&topology, &device)? == 1);
    Ok(())
}

#[test]
fn a_router_without_its_own_sys_is_served_all_the_same() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    // `setns` alone leaves the `/sys` of outside.
    let daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    let status = daemon.cli(&["status", "--json"])?;
    ensure!(status.stdout.contains("\"problems\":[]"), "{status:?}");
    let log = daemon.log_tail();
    ensure!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    Ok(())
}
