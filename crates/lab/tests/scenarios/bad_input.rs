//! Bad files, missing interfaces, missing privileges, full disks and rude clients: a clear error
//! or problem each, and routing goes on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use anywan_lab::daemon::WanConfig;
use anywan_lab::{Config, Daemon, Family, Spec, Topology};

use crate::common::{ensure_all_kept, flows_of_every_kind, talk, wait_all_by};

/// What a daemon that must not start leaves in its log.
fn refusal(daemon: &mut Daemon, wrapper: &[&str]) -> Result<String> {
    daemon.launch_unready(wrapper)?;
    let status = daemon.wait_end()?;
    let log = daemon.log_tail();
    ensure!(status > 0, "it ended with {status}: {log}");
    ensure!(!log.contains("panicked"), "{log}");
    Ok(log)
}

fn bad_files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", Vec::new()),
        ("not UTF-8", b"[[lan]]\ninterface = \"\xff\xfe\"\n".to_vec()),
        ("not TOML", b"<xml>this is no config</xml>".to_vec()),
        ("huge", b"# a comment that goes on for ever\n".repeat(1 << 20)),
        ("an unknown key", b"[[wan]]\nname = \"a\"\ninterfase = \"w1\"\n".to_vec()),
        ("two errors", b"[[wan]]\nname = \"A!\"\ninterface = \"w1\"\nweight = 0\n".to_vec()),
    ]
}

#[test]
fn a_bad_file_is_refused_with_a_clear_error() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    let mut daemon = Daemon::prepare(&topology, &Config::of(&topology))?;
    let path = daemon.path("anywan.toml");
    for (kind, bytes) in bad_files() {
        fs::write(&path, bytes)?;
        let log = refusal(&mut daemon, &[])?;
        ensure!(log.contains("anywan.toml"), "{kind}: the file is named: {log}");
        let outcome = daemon.cli(&["check", &path.display().to_string()])?;
        ensure!(outcome.status == 2, "{kind}: check gave {outcome:?}");
        ensure!(!(outcome.stderr + &outcome.stdout).is_empty());
        fs::remove_file(daemon.path("log"))?;
    }
    fs::remove_file(&path)?;
    let log = refusal(&mut daemon, &[])?;
    ensure!(log.contains("anywan.toml"), "a missing file: {log}");
    fs::create_dir(&path)?;
    let log = refusal(&mut daemon, &[])?;
    ensure!(log.contains("anywan.toml"), "a folder: {log}");
    Ok(())
}

#[test]
fn a_bad_reload_is_refused_and_the_old_config_goes_on() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let config = Config::of(&topology).priorities(&[1, 2]);
    let daemon = Daemon::start_up(&topology, &config)?;
    wait_all_by(&topology.client(1), 1)?;
    let talking = talk(flows_of_every_kind(&topology.client(1), 5)?);
    for (kind, bytes) in bad_files() {
        fs::write(daemon.path("anywan.toml"), bytes)?;
        let outcome = daemon.cli(&["reload"])?;
        ensure!(outcome.status != 0, "{kind}: {outcome:?}");
        daemon.signal(rustix::process::Signal::HUP)?;
        crate::common::ensure_all_by(&topology.client(1), 1)?;
    }
    daemon.wait_status("the problem", |status| {
        status.problems().iter().any(|problem| problem.contains("config"))
    })?;
    daemon.reload(&config.clone().priorities(&[2, 1]))?;
    wait_all_by(&topology.client(1), 2)?;
    daemon.wait_status("no problem", |status| {
        !status.problems().iter().any(|problem| problem.contains("config"))
    })?;
    ensure_all_kept(talking).map(drop)
}

#[test]
fn a_missing_interface_is_waited_for_and_reported() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let mut config = Config::of(&topology).priorities(&[2, 1]);
    topology.router().run("ip link set w2 down")?;
    topology.router().run("ip link set w2 name usb9")?;
    let daemon = Daemon::start(&topology, &config)?;
    wait_all_by(&topology.client(1), 1)?;
    let told = |status: &anywan_lab::daemon::Status| {
        status.problems().iter().any(|problem| problem.contains("w2"))
    };
    daemon.wait_status("a problem that names it", told)?;
    topology.router().run("ip link set usb9 name w2")?;
    topology.router().run("ip link set w2 up")?;
    topology.mend_wan(2, &anywan_lab::Fault::AddressGone)?;
    wait_all_by(&topology.client(1), 2)?;
    daemon.wait_status("no such problem", |status| !told(status))?;
    config.wans.push(WanConfig {
        name: "never".to_owned(),
        interface: "nosuch0".to_owned(),
        gateway: None,
        gateway6: None,
        priority: 1,
        weight: 1,
        more: Vec::new(),
    });
    daemon.reload(&config)?;
    daemon.wait_status("a problem that names the new one", |status| {
        status.problems().iter().any(|problem| problem.contains("nosuch0"))
    })?;
    wait_all_by(&topology.client(1), 2)
}

#[test]
fn without_privileges_it_says_so() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    let mut daemon = Daemon::prepare(&topology, &Config::of(&topology))?;
    let log = refusal(&mut daemon, &["setpriv", "--bounding-set=-all", "--inh-caps=-all"])?;
    let told = ["CAP_NET_ADMIN", "root", "privilege", "ermission"];
    ensure!(told.iter().any(|word| log.contains(word)), "{log}");
    Ok(())
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_and_the_first_goes_on() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let first = Daemon::start_up(&topology, &Config::of(&topology))?;
    let talking = talk(flows_of_every_kind(&topology.client(1), 5)?);
    let line = first.command_line()?;
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let outcome = topology.router().try_run(&[&["timeout", "10"], &line[..]].concat())?;
    ensure!(![0, 124].contains(&outcome.status), "{outcome:?}");
    ensure!(!outcome.stderr.is_empty() && !outcome.stderr.contains("panicked"), "{outcome:?}");
    first.wait_all_up()?;
    ensure_all_kept(talking).map(drop)
}

#[test]
fn a_full_disk_does_not_stop_the_routing() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let config = Config::of(&topology).priorities(&[1, 2]);
    let mut daemon = Daemon::prepare(&topology, &config)?;
    let state = daemon.path("state").display().to_string();
    let script = format!(
        "mount -t tmpfs -o size=16k tmpfs {state}; cat /dev/zero >{state}/full; exec \"$@\""
    );
    daemon.launch_unready(&["unshare", "-m", "sh", "-c", &script, "sh"])?;
    daemon.wait_steering()?;
    daemon.wait_all_up()?;
    fail_over_and_back(&topology, &daemon)
}

fn fail_over_and_back(topology: &Topology, daemon: &Daemon) -> Result<()> {
    wait_all_by(&topology.client(1), 1)?;
    topology.break_wan(1, &anywan_lab::Fault::Blackhole)?;
    daemon.wait_state("wan1", Family::V4, &["down"])?;
    wait_all_by(&topology.client(1), 2)?;
    topology.mend_wan(1, &anywan_lab::Fault::Blackhole)?;
    wait_all_by(&topology.client(1), 1)
}

#[test]
fn rude_clients_of_the_socket_hurt_nobody() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let config = Config::of(&topology).priorities(&[1, 2]);
    let daemon = Daemon::start_up(&topology, &config)?;
    let path = daemon.path("anywan.sock");
    let mut held = Vec::new();
    for garbage in [&b"\xff\x00garbage"[..], b"GET / HTTP/9.9\r\n\r\n", b"\n", &[b'A'; 100_000]] {
        let mut rude = UnixStream::connect(&path)?;
        rude.set_write_timeout(Some(Duration::from_secs(1)))?;
        rude.set_read_timeout(Some(Duration::from_secs(1)))?;
        // It may well hang up in the middle; any answer will do.
        let _ = rude.write_all(garbage);
        let _ = rude.read(&mut [0; 1024]);
        held.push(rude);
    }
    for _ in 0..100 {
        let mut deaf = UnixStream::connect(&path)?;
        deaf.set_write_timeout(Some(Duration::from_secs(1)))?;
        let _ = deaf.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
        held.push(deaf);
    }
    daemon.status()?;
    fail_over_and_back(&topology, &daemon)?;
    daemon.status().map(drop)
}
