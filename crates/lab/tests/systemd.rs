//! The service under systemd: the unit that is shipped, as `make install` puts it, in a router that
//! is a whole machine. Whatever systemd does to the daemon, no word of an established flow is lost.
//!
//! Runs in the VM, as the machine's only service (`crates/lab/vm/systemd`); anywhere else it fails
//! and says so. The machine has booted without a network interface; each test plugs one LAN and
//! three WANs in, and takes the service as it finds it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::command::{Outcome, run, run_ok};
use anywan_lab::daemon::{Status, child_in};
use anywan_lab::modem::Sim;
use anywan_lab::names::{self, Resolver, lookup, udhcpc};
use anywan_lab::{Family, Modem, Netns, Proto, Spec, Topology, until};
use rustix::process::{Pid, Signal, kill_process};

/// Safety net for whatever is waited for: an emulated machine is slow.
const DEADLINE: Duration = Duration::from_secs(180);
const CONFIG: &str = "/etc/anywan/anywan.toml";
const NOBODY: &str = "0 of 3 WANs up";
const ALL: &str = "3 of 3 WANs up";

fn systemctl(verb: &str) -> Result<Outcome> {
    run(&["systemctl", verb, "anywan.service"], "")
}

/// [`systemctl`] that must succeed, and has done what it says when it returns.
fn order(verb: &str) -> Result<()> {
    run_ok(&["systemctl", verb, "anywan.service"], "").map(drop)
}

/// What systemd knows of the service.
fn known(property: &str) -> Result<String> {
    let property = format!("--property={property}");
    let text = run_ok(&["systemctl", "show", "anywan.service", &property, "--value"], "")?;
    Ok(text.trim().to_owned())
}

/// Checks that systemd says so of the service, now.
fn ensure_known(property: &str, value: &str) -> Result<()> {
    let now = known(property)?;
    ensure!(now == value, "{property} is {now:?}, not {value:?}");
    Ok(())
}

fn wait_known(property: &str, value: &str) -> Result<()> {
    until(DEADLINE, property, || ensure_known(property, value)).with_context(journal)
}

fn main_process() -> Result<Pid> {
    let pid = known("MainPID")?;
    Pid::from_raw(pid.parse()?).with_context(|| format!("the service has no process: {pid}"))
}

/// The last of what the service and systemd have said about it.
fn journal() -> String {
    let words = ["journalctl", "-b", "-u", "anywan.service", "-n", "100", "--no-pager"];
    run(&words, "").map_or_else(|error| error.to_string(), |outcome| outcome.stdout)
}

fn status() -> Result<Status> {
    let text = run_ok(&["anywan", "status", "--json"], "")?;
    Ok(Status(serde_json::from_str(&text).context("the status")?))
}

/// Checks that this is a machine of our own, and that nothing is plugged in.
fn unplugged() -> Result<()> {
    let hint = "hint: these tests run in the VM: crates/lab/vm/systemd";
    ensure!(Path::new("/run/vm/job/pid1").exists(), "this is no machine of our own\n\n{hint}");
    until(DEADLINE, "the interfaces of the test before to be gone", || {
        let links = run_ok(&["ip", "-o", "link"], "")?;
        ensure!(links.lines().count() == 1, "{links}");
        Ok(())
    })
}

/// Plugs one LAN and three WANs in.
fn plug() -> Result<Topology> {
    unplugged()?;
    // The interfaces are there at once, but their addresses would not be usable for a while.
    let here = Netns::own()?;
    for on in ["all", "default"] {
        here.set_sysctls(&[(&format!("net.ipv6.conf.{on}.accept_dad"), "0")])?;
    }
    Spec::routed(3).with_router_here().build()
}

fn wait_all_up() -> Result<()> {
    until(DEADLINE, "all WANs to be up", || {
        let now = status()?;
        let up = |number: u8| {
            Family::BOTH.iter().all(|family| now.state(&format!("wan{number}"), *family) == "up")
        };
        ensure!((1..=3).all(up), "{}", now.summary());
        Ok(())
    })
    .with_context(journal)?;
    wait_known("StatusText", ALL)
}

/// Words are exchanged on flows over all WANs while `change` happens, and for some rounds before
/// and after; checks that none was lost and none took another WAN.
fn under_flows(change: impl FnOnce() -> Result<()>) -> Result<()> {
    let topology = plug()?;
    order("start")?;
    wait_all_up()?;
    let client = topology.client(1).timeout(Duration::from_secs(60));
    let mut flows = client.flows(12, Proto::Tcp, Family::V4)?;
    flows = flows.and(client.flows(12, Proto::Tcp, Family::V6)?);
    for number in 1..=3 {
        ensure!(flows.on(number) > 0, "none of the flows is on wan{number}");
    }
    let before = flows.exchange(DEADLINE);
    ensure!(before.all_kept(), "before anything happened: {before}");
    let talking = flows.keep_talking(Duration::from_millis(100), DEADLINE);
    change().with_context(journal)?;
    let (flows, rounds) = talking.stop();
    let lossy: Vec<String> =
        rounds.iter().filter(|round| !round.all_kept()).map(ToString::to_string).collect();
    ensure!(!rounds.is_empty() && lossy.is_empty(), "of {}: {lossy:?}", rounds.len());
    let after = flows.exchange(DEADLINE);
    ensure!(after.all_kept(), "afterwards: {after}");
    Ok(())
}

/// Replaces a piece of the configuration by another; returns the text as it was.
fn edit(old: &str, new: &str) -> Result<String> {
    let text = fs::read_to_string(CONFIG)?;
    ensure!(text.contains(old), "{text}");
    fs::write(CONFIG, text.replacen(old, new, 1))?;
    Ok(text)
}

#[test]
fn the_boot_was_complete_without_a_wan_and_ready_before_the_network() -> Result<()> {
    unplugged()?;
    let done = run_ok(&["journalctl", "-b", "-o", "json", "JOB_RESULT=done", "--no-pager"], "")?;
    let mut units = Vec::new();
    for line in done.lines() {
        let entry: serde_json::Value = serde_json::from_str(line)?;
        units.push(entry["UNIT"].as_str().unwrap_or_default().to_owned());
    }
    let place = |unit: &str| {
        let place = units.iter().position(|other| other == unit);
        place.with_context(|| format!("{unit} was started: {units:?}"))
    };
    ensure!(place("anywan.service")? < place("network.target")?, "{units:?}");
    ensure!(place("anywan.service")? < place("network-online.target")?, "{units:?}");
    ensure!(place("anywan.service")? < place("multi-user.target")?, "{units:?}");
    // What it said first was said with nothing to steer.
    let first = ["journalctl", "-b", "-u", "anywan.service", "-o", "cat", "--no-pager"];
    let first = run_ok(&first, "")?;
    let steering = first.find("steering").context("it steers")?;
    ensure!(first[..steering].contains("the interface w1 does not exist"), "{first}");
    Ok(())
}

#[test]
fn systemd_finds_no_fault_in_the_unit() -> Result<()> {
    let unit = "/etc/systemd/system/anywan.service";
    let outcome = run(&["systemd-analyze", "verify", "--man=no", unit], "")?;
    ensure!(outcome.status == 0 && outcome.stderr.is_empty(), "{outcome:?}");
    Ok(())
}

#[test]
fn it_is_ready_without_an_interface_and_uses_wans_when_they_appear() -> Result<()> {
    unplugged()?;
    order("restart")?;
    ensure_known("ActiveState", "active")?;
    ensure_known("StatusText", NOBODY)?;
    let topology = plug()?;
    wait_all_up()?;
    for family in Family::BOTH {
        let client = topology.client(1).timeout(Duration::from_secs(60));
        let placed = client.place(30, Proto::Tcp, family)?;
        ensure!(placed.failed() == 0 && placed.by_wan.keys().eq(&[1, 2, 3]), "{placed}");
    }
    Ok(())
}

#[test]
fn down_leaves_it_stopped_and_a_start_returns_once_it_steers() -> Result<()> {
    let topology = plug()?;
    order("start")?;
    wait_all_up()?;
    let restarts = known("NRestarts")?;
    run_ok(&["anywan", "down"], "")?;
    // `activating` would come in between if it were to be started again.
    until(DEADLINE, "the service to have ended", || {
        let now = known("ActiveState")?;
        ensure!(!["active", "deactivating"].contains(&&*now), "{now}");
        Ok(())
    })?;
    for (property, value) in
        [("ActiveState", "inactive"), ("SubState", "dead"), ("Result", "success")]
    {
        ensure_known(property, value)?;
    }
    ensure_known("NRestarts", &restarts)?;
    let tables = run_ok(&["nft", "list", "tables"], "")?;
    ensure!(!tables.contains("anywan"), "{tables}");
    order("start")?;
    ensure_known("ActiveState", "active")?;
    // At once: nothing is waited for.
    let client = topology.client(1).timeout(Duration::from_secs(60));
    let placed = client.place(30, Proto::Tcp, Family::V4)?;
    ensure!(placed.failed() == 0, "{placed}");
    Ok(())
}

#[test]
fn a_restart_and_a_stop_lose_no_word() -> Result<()> {
    under_flows(|| {
        let first = main_process()?;
        order("restart")?;
        ensure_known("ActiveState", "active")?;
        ensure!(main_process()? != first, "it is another process");
        wait_all_up()?;
        order("stop")?;
        ensure_known("ActiveState", "inactive")?;
        ensure_known("Result", "success")?;
        order("start")?;
        wait_all_up()
    })
}

#[test]
fn a_reload_is_in_force_when_it_returns_and_a_bad_file_is_told() -> Result<()> {
    under_flows(|| {
        let process = main_process()?;
        let text = edit("name = \"wan1\"", "weight = 8\nname = \"wan1\"")?;
        order("reload")?;
        let now = status()?;
        ensure!(now.share_percent("wan1") == 80.0, "{}", now.summary());
        edit("weight = 8", "weight = \"much\"")?;
        let refused = systemctl("reload")?;
        ensure!(refused.status != 0, "{refused:?}");
        let now = status()?;
        ensure!(now.share_percent("wan1") == 80.0, "{}", now.summary());
        ensure_known("ActiveState", "active")?;
        fs::write(CONFIG, text)?;
        order("reload")?;
        // The quiet way, which says nothing when it is done.
        edit("name = \"wan1\"", "weight = 8\nname = \"wan1\"")?;
        kill_process(main_process()?, Signal::HUP)?;
        until(DEADLINE, "the new weight", || {
            let now = status()?;
            ensure!(now.share_percent("wan1") == 80.0, "{}", now.summary());
            Ok(())
        })?;
        edit("weight = 8\n", "")?;
        order("reload")?;
        wait_known("ActiveState", "active")?;
        ensure!(main_process()? == process, "it is the same process");
        Ok(())
    })
}

/// Waits until systemd has started another process in the place of `former`, and it is ready.
fn wait_started_anew(former: Pid) -> Result<()> {
    until(DEADLINE, "another process", || {
        ensure!(main_process()? != former, "it is still {former:?}");
        ensure_known("ActiveState", "active")
    })
}

#[test]
fn a_daemon_that_hangs_is_killed_and_started_anew_and_no_word_is_lost() -> Result<()> {
    under_flows(|| {
        let hung = main_process()?;
        let restarts: u32 = known("NRestarts")?.parse()?;
        kill_process(hung, Signal::STOP)?;
        wait_started_anew(hung)?;
        ensure_known("NRestarts", &(restarts + 1).to_string())?;
        let said = journal();
        ensure!(said.contains("Watchdog timeout"), "{said}");
        ensure!(said.contains("Failed with result 'watchdog'"), "{said}");
        wait_all_up()
    })
}

#[test]
fn a_daemon_that_is_killed_is_started_anew_and_no_word_is_lost() -> Result<()> {
    under_flows(|| {
        let killed = main_process()?;
        kill_process(killed, Signal::KILL)?;
        wait_started_anew(killed)?;
        wait_all_up()
    })
}

/// The process of a program that runs for the service.
fn child(name: &str) -> Result<Pid> {
    child_in(&Path::new("/run/anywan/anywan.sock.children").join(name))
}

/// The file as it was, put back however the test ends.
struct Former(String);

impl Drop for Former {
    fn drop(&mut self) {
        let _ = fs::write(CONFIG, &self.0);
    }
}

#[test]
fn dnsmasq_and_pppd_work_within_the_unit_and_outlive_a_restart() -> Result<()> {
    let topology = plug()?;
    let _resolver = Resolver::honest(&topology, 1)?;
    let modem = Modem::new(topology.isp(3), Sim::Ready)?;
    let port = modem.port();
    run_ok(&["ip", "addr", "flush", "dev", "w3"], "")?;
    let router = topology.lan_address(Family::V4);
    let net = router.to_string();
    let net = net.rsplit_once('.').context("an IPv4 address")?.0;

    let file = fs::read_to_string(CONFIG)?;
    let former = Former(file.clone());
    let third = "interface = \"w3\"\ngateway = \"192.168.103.1\"\ngateway6 = \"2001:db8:3::1\"\n";
    ensure!(file.contains(third), "{file}");
    let dhcp = format!("\ndhcp = {{ range = \"{net}.150-{net}.160\" }}\n");
    let dns = format!("\"w1\"\ndns = [{:?}]\n", names::address(&topology, 1));
    let ppp = format!("interface = \"ppp7\"\nppp = {{ device = {port:?}, apn = \"internet\" }}\n");
    let file = file.replacen("\"lan0\"\n", &format!("\"lan0\"{dhcp}"), 1);
    let file = file.replacen("\"w1\"\n", &dns, 1).replacen(third, &ppp, 1) + "[dns]\n";
    fs::write(CONFIG, file)?;
    order("start")?;
    order("reload")?;

    let client = topology.client_space(1);
    let wait_served = |when: &str| -> Result<()> {
        until(DEADLINE, &format!("the line to be up {when}"), || {
            let now = status()?;
            ensure!(now.state("wan3", Family::V4) == "up", "{}", now.summary());
            Ok(())
        })?;
        until(DEADLINE, &format!("names to be looked up {when}"), || {
            let found = lookup(client, router, "www.test", Duration::from_secs(5))?;
            ensure!(found.as_deref() == Some("198.18.1.80"), "{found:?}");
            Ok(())
        })?;
        until(DEADLINE, &format!("an address to be lent {when}"), || {
            let lease = udhcpc(client)?;
            ensure!(lease.contains(&format!("dns={router} ")), "{lease}");
            Ok(())
        })
    };
    wait_served("at first").with_context(journal)?;
    let programs = ["dnsmasq", "ppp-wan3"];
    let before = programs.map(child);
    let before: Vec<Pid> = before.into_iter().collect::<Result<_>>()?;
    order("restart")?;
    wait_served("after a restart").with_context(journal)?;
    for (name, pid) in programs.iter().zip(&before) {
        ensure!(child(name)? == *pid, "{name} was started anew");
    }
    kill_process(before[1], Signal::KILL)?;
    until(DEADLINE, "another pppd", || {
        ensure!(child("ppp-wan3")? != before[1]);
        Ok(())
    })
    .with_context(journal)?;
    wait_served("after pppd was killed").with_context(journal)?;
    // The third WAN's resolvers have gone and come back meanwhile.
    let mut said = vec![journal()];
    for name in programs {
        said.push(fs::read_to_string(format!("/run/anywan/anywan.sock.children/{name}/log"))?);
    }
    for refusal in ["ermission denied", "not permitted", "ead-only"] {
        ensure!(!said.iter().any(|text| text.contains(refusal)), "{refusal}: {}", said.concat());
    }
    run_ok(&["anywan", "down"], "").with_context(journal)?;
    ensure!(!Path::new("/sys/class/net/ppp7").exists(), "the line is up");
    drop(former);
    until(DEADLINE, "the service to have ended", || ensure_known("ActiveState", "inactive"))
}

#[test]
fn within_the_sandbox_of_the_unit_resolv_conf_is_taken_and_given_back() -> Result<()> {
    let _topology = plug()?;
    order("start")?;
    wait_all_up()?;
    let file = || fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let (before, text) = (file(), fs::read_to_string(CONFIG)?);
    fs::write(CONFIG, format!("{text}[dns]\nupstreams = [\"198.51.100.20\"]\n"))?;
    order("reload")?;
    until(DEADLINE, "the file to be ours", || {
        ensure!(file().starts_with("# Written by anywan"), "{:?}", file());
        Ok(())
    })
    .with_context(journal)?;
    fs::write(CONFIG, text)?;
    order("reload")?;
    until(DEADLINE, "the file of before", || {
        ensure!(file() == before, "{:?}", file());
        Ok(())
    })
    .with_context(journal)
}
