//! Passwords and PINs in files that others may read: told by the keys that hold them, never with what
//! they hold, by daemon, `check` and `doctor`; nothing else changes for it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use anywan_lab::daemon::WanConfig;
use anywan_lab::{Config, Daemon, Spec, Topology, until};

use crate::common::{DEADLINE, wait_all_by};

/// What must be seen nowhere.
const SECRETS: [&str; 2] = ["hunter2-secret", "73591"];

/// A router with a modem that is not plugged in.
fn config(topology: &Topology, ppp: &str) -> Config {
    let mut config = Config::of(topology).priorities(&[1, 2]);
    let keys = format!("{{ device = \"/dev/anywan-lab-none\", user = \"u\", {ppp} }}");
    config.wans.push(WanConfig {
        name: "umts".to_owned(),
        interface: "ppp7".to_owned(),
        gateway: None,
        gateway6: None,
        priority: 3,
        weight: 1,
        more: vec![("ppp".to_owned(), keys)],
    });
    config
}

fn allow(daemon: &Daemon, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(daemon.path("anywan.toml"), fs::Permissions::from_mode(mode))?)
}

/// What daemon, `check` and `doctor` say of readable secrets, a line or more each.
fn told(daemon: &Daemon) -> Result<[String; 3]> {
    let file = daemon.path("anywan.toml").display().to_string();
    let state = daemon.path("state").display().to_string();
    let status = daemon.cli(&["status"])?;
    let check = daemon.cli(&["check", &file])?;
    ensure!(check.status == 0 && check.stdout.contains("is fine"), "{check:?}");
    let doctor = daemon.cli(&["doctor", &file, "--state-dir", &state])?;
    let all = [status.stdout + &status.stderr, check.stdout + &check.stderr, doctor.stdout];
    for (text, secret) in all.iter().flat_map(|text| SECRETS.map(|secret| (text, secret))) {
        ensure!(!text.contains(secret), "{text}");
    }
    Ok(all)
}

fn ensure_told(daemon: &Daemon, expected: bool) -> Result<()> {
    // The file is looked at with each full reading, too.
    until(3 * DEADLINE, "secrets to be judged", || {
        for text in told(daemon)? {
            let is_told = text.contains("secret.readable")
                && text.contains("mode 644")
                && text.contains("`secret` of umts, `pin` of umts")
                && text.contains("chmod 600");
            ensure!(is_told == expected, "{text}");
            ensure!(expected || !text.contains("secret.readable"), "{text}");
        }
        Ok(())
    })
}

#[test]
fn secrets_in_a_configuration_that_others_may_read_are_told_until_they_may_not() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let inline = format!("secret = {:?}, pin = {:?}", SECRETS[0], SECRETS[1]);
    let mut daemon = Daemon::prepare(&topology, &config(&topology, &inline))?;
    allow(&daemon, 0o644)?;
    daemon.launch()?;
    daemon.wait_all_up()?;
    ensure_told(&daemon, true)?;
    wait_all_by(&topology.client(1), 1)?;
    allow(&daemon, 0o600)?;
    ensure_told(&daemon, false)?;
    // A reload looks at once.
    allow(&daemon, 0o644)?;
    ensure!(daemon.cli(&["reload"])?.status == 0);
    let status = daemon.cli(&["status"])?.stdout;
    ensure!(status.contains("secret.readable"), "{status}");
    ensure!(!fs::read_to_string(daemon.path("log"))?.contains(SECRETS[0]), "it is in the log");
    Ok(())
}

#[test]
fn a_password_file_that_others_may_read_is_told_by_all() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let mut daemon = Daemon::prepare(&topology, &config(&topology, "number = \"*99#\""))?;
    let file = daemon.path("password");
    fs::write(&file, format!("{}\n", SECRETS[0]))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640))?;
    let named = config(&topology, &format!("secret_file = {:?}", file));
    daemon.write_config(&named.to_toml())?;
    allow(&daemon, 0o644)?;
    daemon.launch()?;
    until(DEADLINE, "all to tell", || {
        for text in told(&daemon)? {
            ensure!(text.contains("dial.secret-file") && text.contains("mode 640"), "{text}");
            ensure!(!text.contains("secret.readable"), "there is none in the file itself: {text}");
        }
        Ok(())
    })
}
