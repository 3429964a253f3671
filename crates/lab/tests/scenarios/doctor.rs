//! `anywan doctor` finds what works against the router, with the daemon at work and without.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::{Config, Daemon, Spec, Topology, until};
use serde_json::Value;

use crate::common::DEADLINE;

/// What the doctor finds, as "grade code at", and its exit status.
fn examined(daemon: &Daemon) -> Result<(Vec<String>, i32)> {
    let path = |name: &str| daemon.path(name).display().to_string();
    let (file, state) = (path("anywan.toml"), path("state"));
    let outcome = daemon.cli(&["doctor", &file, "--state-dir", &state, "--json"])?;
    let found: Value = serde_json::from_str(&outcome.stdout)
        .with_context(|| format!("the doctor says {outcome:?}"))?;
    let findings = found["findings"].as_array().context("findings")?;
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or("?").to_owned();
    let line = |f: &Value| ["grade", "code", "at"].map(|key| text(f, key)).join(" ");
    ensure!(findings.iter().all(|f| !text(f, "what").is_empty() && !text(f, "hint").is_empty()));
    Ok((findings.iter().map(line).collect(), outcome.status))
}

/// Checks what is wrong; notes about the lab's private addresses aside.
fn ensure_wrong(daemon: &Daemon, expected: &[&str]) -> Result<()> {
    let (found, status) = examined(daemon)?;
    let wrong: Vec<&String> = found.iter().filter(|line| line.starts_with("wrong ")).collect();
    ensure!(wrong == expected, "{found:?} instead of {expected:?}");
    ensure!(status == i32::from(!wrong.is_empty()), "exit status {status}: {found:?}");
    Ok(())
}

fn ensure_noted(daemon: &Daemon, expected: &str) -> Result<()> {
    let (found, _) = examined(daemon)?;
    ensure!(found.iter().any(|line| line == expected), "{expected} in {found:?}");
    Ok(())
}

fn lab() -> Result<(Topology, Daemon)> {
    let topology = Spec::routed(2).build()?;
    let daemon = Daemon::prepare(&topology, &Config::of(&topology))?;
    fs::create_dir_all(daemon.path("state"))?;
    Ok((topology, daemon))
}

#[test]
fn a_sound_router_has_nothing_wrong_before_and_while_it_steers() -> Result<()> {
    let (_topology, mut daemon) = lab()?;
    ensure_wrong(&daemon, &[])?;
    daemon.launch()?;
    daemon.wait_all_up()?;
    ensure_wrong(&daemon, &[])
}

#[test]
fn what_works_against_the_router_is_found() -> Result<()> {
    let (topology, mut daemon) = lab()?;
    let router = topology.router();
    let wan = &topology.wan(2).interface;
    // Somebody's firewall.
    router.nft("add table ip filter")?;
    router
        .nft("add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")?;
    ensure_noted(&daemon, "note firewall.drops-forwarded chain ip filter FORWARD")?;
    router.nft("delete table ip filter")?;
    // Another program of the kind; only its name matters. A copy could be busy: a child of another
    // test holds what is being written open for a moment.
    let rival = daemon.path("dpinger");
    symlink("/bin/sleep", &rival)?;
    let running = router.spawn(&[&rival.display().to_string(), "600"], None)?;
    until(DEADLINE, "the rival to be seen", || {
        ensure_wrong(&daemon, &["wrong rival.program dpinger"])
    })?;
    drop(running);
    // A strict filter is no matter before anywan steers; it is loosened then.
    router.set_sysctls(&[(&format!("net.ipv4.conf.{wan}.rp_filter"), "1")])?;
    ensure_noted(&daemon, "note wan.strict-path-filter wan wan2")?;
    daemon.launch()?;
    ensure_wrong(&daemon, &[])?;
    // The WAN's box uses the LAN's network.
    router.run(&format!("ip addr add 10.1.0.77/24 dev {wan} noprefixroute"))?;
    ensure_wrong(&daemon, &["wrong wan.same-network wan wan2"])?;
    router.run(&format!("ip addr del 10.1.0.77/24 dev {wan}"))?;
    router.run(&format!("ip addr flush dev {wan}"))?;
    ensure_wrong(&daemon, &["wrong wan.not-ready wan wan2"])?;
    router.run(&format!("ip link del {wan}"))?;
    ensure_wrong(&daemon, &["wrong interface.missing wan wan2"])
}

#[test]
fn a_bad_file_is_shown_as_check_shows_it() -> Result<()> {
    let (_topology, daemon) = lab()?;
    daemon.write_config("[[wan]]\nname = \"a\"\ninterfase = \"w1\"\n")?;
    let file = daemon.path("anywan.toml").display().to_string();
    let outcome = daemon.cli(&["doctor", &file])?;
    ensure!(outcome.status == 2 && outcome.stdout.is_empty(), "{outcome:?}");
    ensure!(outcome.stderr.contains("interface"), "the nearest key: {outcome:?}");
    Ok(())
}
