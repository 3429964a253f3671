//! The router's own programs ask its own DNS: resolv.conf changes hands, whoever had it, and comes back
//! as it was. Each daemon here has a file of its own; the machine's is never touched.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::command::run_ok;
use anywan_lab::names::{self, Resolver, child_pid, lookup};
use anywan_lab::{Config, Daemon, Family, Spec, Topology, until};

use crate::common::DEADLINE;

/// Where ours says that names are asked for.
const OURS: &str = "nameserver 127.0.0.87\n";

struct House {
    daemon: Daemon,
    topology: Topology,
    _resolver: Resolver,
}

fn config(topology: &Topology) -> Config {
    let mut config = Config::of(topology);
    let list = format!("[\"{}\"]", names::address(topology, 1));
    config.wans[0].more.push(("dns".to_owned(), list));
    config.extra = "[dns]\nhosts = [\"192.0.2.80 nas\"]\n".to_owned();
    config
}

impl House {
    /// A router with one WAN; `before` makes the file as it was before us.
    fn new(before: impl FnOnce(&Path) -> Result<()>) -> Result<House> {
        let topology = Spec::routed(1).build()?;
        let _resolver = Resolver::honest(&topology, 1)?;
        let daemon = Daemon::prepare(&topology, &config(&topology))?;
        before(&daemon.path("etc/resolv.conf"))?;
        Ok(House { daemon, topology, _resolver })
    }

    fn file(&self) -> PathBuf {
        self.daemon.path("etc/resolv.conf")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap_or_default()
    }

    fn is_ours(&self) -> bool {
        let is_link = fs::symlink_metadata(self.file()).is_ok_and(|is| is.is_symlink());
        !is_link && self.text().starts_with("# Written by anywan") && self.text().contains(OURS)
    }

    fn wait_ours(&self) -> Result<()> {
        until(DEADLINE, "the router to ask its own DNS", || {
            ensure!(self.is_ours(), "{:?}; {:?}", self.text(), self.daemon.status()?.problems());
            Ok(())
        })
    }

    fn wait_text(&self, text: &str) -> Result<()> {
        until(DEADLINE, "the file of before", || {
            ensure!(self.text() == text, "{:?}", self.text());
            Ok(())
        })
    }

    /// A program on the router looks a name up as the file says.
    fn look_up(&self, name: &str) -> Result<Option<String>> {
        let server = self.text();
        let server = server.lines().find_map(|line| line.strip_prefix("nameserver "));
        let server = server.context("a server in the file")?.parse()?;
        lookup(self.topology.router(), server, name, Duration::from_secs(2))
    }

    /// A host of the LAN looks a name up.
    fn wait_served(&self) -> Result<()> {
        let router = self.topology.lan_address(Family::V4);
        until(DEADLINE, "the LAN to be served", || {
            let client = self.topology.client_space(1);
            lookup(client, router, "nas", Duration::from_millis(500))?.context("no address")
        })
        .map(drop)
    }

    fn down(&self) -> Result<()> {
        let outcome = self.daemon.cli(&["down"])?;
        ensure!(outcome.status == 0, "{outcome:?}");
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context("write the file of before")
}

const BEFORE: &str = "# mine\nnameserver 192.0.2.53\noptions timeout:1\n";

#[test]
fn the_router_asks_its_own_dns_and_down_puts_the_file_back() -> Result<()> {
    let mut house = House::new(|file| write(file, BEFORE))?;
    house.daemon.launch()?;
    house.daemon.wait_all_up()?;
    house.wait_ours()?;
    until(DEADLINE, "a name of the internet", || {
        let found = house.look_up("www.test")?;
        ensure!(found.as_deref() == Some("198.18.1.80"), "{found:?}");
        Ok(())
    })?;
    ensure!(house.look_up("nas")?.as_deref() == Some("192.0.2.80"), "a name of the house");
    ensure!(house.daemon.status()?.problems().is_empty(), "{:?}", house.daemon.status()?);
    house.down()?;
    ensure!(house.text() == BEFORE, "{:?}", house.text());
    let left = fs::read_dir(house.daemon.path("state"))?.filter_map(Result::ok);
    let left: Vec<_> = left.map(|e| e.file_name()).filter(|n| n != "lock").collect();
    ensure!(left.iter().all(|n| !n.to_string_lossy().contains("resolv")), "{left:?}");
    Ok(())
}

#[test]
fn a_link_of_systemd_resolved_and_of_resolvconf_comes_back() -> Result<()> {
    for target in ["../run/systemd/resolve/stub-resolv.conf", "/run/resolvconf/resolv.conf"] {
        let mut house = House::new(|file| Ok(symlink(target, file)?))?;
        house.daemon.launch()?;
        house.daemon.wait_all_up()?;
        house.wait_ours()?;
        house.down()?;
        ensure!(fs::read_link(house.file())? == Path::new(target));
    }
    Ok(())
}

#[test]
fn after_a_kill_and_a_reboot_the_file_of_before_comes_back() -> Result<()> {
    let mut house = House::new(|file| write(file, BEFORE))?;
    house.daemon.launch()?;
    house.daemon.wait_all_up()?;
    house.wait_ours()?;
    house.daemon.kill();
    ensure!(house.is_ours(), "a killed daemon leaves names");
    ensure!(house.look_up("nas")?.as_deref() == Some("192.0.2.80"), "and they are answered");
    // What a reboot leaves of a program of ours: its record at most.
    run_ok(&["kill", "-9", &child_pid(&house.daemon)?.to_string()], "")?;
    let state = house.daemon.path("state").display().to_string();
    let outcome = house.daemon.cli(&["down", "--state-dir", &state])?;
    ensure!(outcome.status == 0, "{outcome:?}");
    ensure!(house.text() == BEFORE, "{:?}", house.text());
    Ok(())
}

#[test]
fn while_dnsmasq_does_not_run_the_file_of_before_is_there() -> Result<()> {
    let mut house = House::new(|file| write(file, BEFORE))?;
    house.daemon.launch()?;
    house.daemon.wait_all_up()?;
    house.wait_ours()?;
    let pid = child_pid(&house.daemon)?;
    run_ok(&["kill", "-9", &pid.to_string()], "")?;
    house.wait_text(BEFORE)?;
    until(DEADLINE, "another dnsmasq", || {
        ensure!(child_pid(&house.daemon)? != pid);
        Ok(())
    })?;
    until(3 * DEADLINE, "one that runs well", || house.wait_ours())
}

#[test]
fn without_the_section_or_with_resolv_conf_false_the_file_goes_back() -> Result<()> {
    let mut house = House::new(|file| write(file, BEFORE))?;
    house.daemon.launch()?;
    house.daemon.wait_all_up()?;
    house.wait_ours()?;
    let mut other = config(&house.topology);
    other.extra = "[dns]\nresolv_conf = false\n".to_owned();
    house.daemon.reload(&other)?;
    house.wait_text(BEFORE)?;
    house.daemon.reload(&config(&house.topology))?;
    house.wait_ours()?;
    other.extra.clear();
    house.daemon.reload(&other)?;
    house.wait_text(BEFORE)
}

#[test]
fn who_replaces_the_file_again_and_again_is_named_and_left_alone() -> Result<()> {
    let mut house = House::new(|file| write(file, BEFORE))?;
    house.daemon.launch()?;
    house.daemon.wait_all_up()?;
    house.wait_ours()?;
    house.daemon.follow_events()?;
    let theirs = "# Generated by NetworkManager\nnameserver 192.0.2.99\n";
    // An address that comes or goes has the daemon look, as with real managers.
    let router = house.topology.router();
    for round in 1..=4 {
        write(&house.file(), theirs)?;
        router.run(&format!("ip address replace 192.0.2.{round}/32 dev lo"))?;
        house.wait_ours()?;
    }
    let repaired = |event: &serde_json::Value| {
        event["kind"] == "repair" && event["new"] == "have the router ask its own DNS"
    };
    until(DEADLINE, "the repairs to be told", || {
        ensure!(house.daemon.events()?.iter().any(repaired), "{:?}", house.daemon.events()?);
        Ok(())
    })?;
    write(&house.file(), theirs)?;
    router.run("ip address replace 192.0.2.5/32 dev lo")?;
    house.daemon.wait_status("the fight to be told", |status| {
        let told = |p: &String| p.contains("resolv-conf-contested") && p.contains("NetworkManager");
        status.problems().iter().any(told)
    })?;
    ensure!(house.text() == theirs, "{:?}", house.text());
    house.down()?;
    ensure!(house.text() == theirs, "what others wrote last: {:?}", house.text());
    Ok(())
}

/// In a mount namespace of the daemon's own, as a container or a service has it.
fn launch_mounted(house: &mut House, mounts: &str) -> Result<()> {
    let script = format!("{mounts} && exec \"$@\"");
    house.daemon.launch_unready(&["unshare", "-m", "sh", "-c", &script, "sh"])?;
    house.daemon.wait_steering()?;
    house.daemon.wait_all_up().map(drop)
}

#[test]
fn a_file_that_is_mounted_by_itself_is_written_in_place() -> Result<()> {
    let mut house = House::new(|file| write(file, "nobody reads this\n"))?;
    let (inner, file) = (house.daemon.path("inner"), house.file());
    write(&inner, BEFORE)?;
    let mounts = format!("mount --bind {} {}", inner.display(), file.display());
    launch_mounted(&mut house, &mounts)?;
    until(DEADLINE, "the mounted file to be ours", || {
        let text = fs::read_to_string(&inner)?;
        ensure!(text.contains(OURS), "{text:?}");
        Ok(())
    })?;
    house.down()?;
    ensure!(fs::read_to_string(&inner)? == BEFORE);
    ensure!(house.text() == "nobody reads this\n", "the file below the mount");
    Ok(())
}

#[test]
fn a_read_only_folder_is_told_and_lans_are_served_all_the_same() -> Result<()> {
    let mut house = House::new(|file| write(file, BEFORE))?;
    let folder = house.daemon.path("etc").display().to_string();
    let mounts = format!("mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}");
    launch_mounted(&mut house, &mounts)?;
    house.daemon.wait_status("the failure to be told", |status| {
        let told = |p: &String| p.contains("resolv-conf-failed") && p.contains("Read-only");
        status.problems().iter().any(told)
    })?;
    house.wait_served()?;
    ensure!(house.text() == BEFORE);
    house.down()
}

#[test]
fn the_machines_own_file_is_left_alone_by_a_daemon_in_a_namespace_of_its_own() -> Result<()> {
    let mut house = House::new(|file| write(file, BEFORE))?;
    let etc = house.daemon.path("machine");
    run_ok(&["cp", "-a", "/etc", &etc.display().to_string()], "")?;
    // It may be a link.
    let _ = fs::remove_file(etc.join("resolv.conf"));
    write(&etc.join("resolv.conf"), BEFORE)?;
    ensure!(house.daemon.command_line()?[7] == "--resolv-conf");
    // Without that option the machine's file is meant, which is one of its own here, to be safe.
    let script = format!(
        "mount --bind {} /etc && exec \"$1\" \"$2\" \"$3\" \"$4\" \"$5\" \"$6\" \"$7\"",
        etc.display()
    );
    house.daemon.launch_unready(&["unshare", "-m", "sh", "-c", &script, "sh"])?;
    house.daemon.wait_steering()?;
    house.daemon.wait_all_up()?;
    house.wait_served()?;
    house.down()?;
    ensure!(fs::read_to_string(etc.join("resolv.conf"))? == BEFORE);
    ensure!(house.text() == BEFORE);
    Ok(())
}
