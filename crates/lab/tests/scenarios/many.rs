//! Sixty WANs, twenty of them flapping: still correct, and the daemon stays small.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::{Config, Daemon, Family, Fault, Proto, Spec, until};

use crate::common::DEADLINE;

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}

#[test]
fn sixty_wans_with_twenty_flapping_stay_correct() -> Result<()> {
    let topology = Spec::routed(60).build()?;
    let config = Config::of(&topology).health("interval", r#""1s""#);
    let daemon = Daemon::start(&topology, &config)?;
    until(DEADLINE * 2, "sixty WANs to be up", || daemon.wait_all_up())?;
    let placed = topology.client(1).place(1200, Proto::Tcp, Family::V4)?;
    ensure!(placed.failed() == 0 && placed.by_wan.len() == 60, "{placed}");
    let flapping = 41..=60;
    for _ in 0..3 {
        for number in flapping.clone() {
            topology.break_wan(number, &Fault::CarrierLost)?;
        }
        let status = daemon.wait_status("twenty to be down", |status| {
            flapping.clone().all(|n| status.state(&format!("wan{n}"), Family::V4) == "down")
        })?;
        let steady = (1..=40).all(|n| status.state(&format!("wan{n}"), Family::V4) == "up");
        ensure!(steady, "{}", status.summary());
        for family in Family::BOTH {
            let placed = topology.client(1).place(400, Proto::Tcp, family)?;
            ensure!(placed.failed() == 0, "{placed}");
            ensure!(placed.by_wan.keys().all(|wan| *wan <= 40), "{placed}");
        }
        for number in flapping.clone() {
            topology.mend_wan(number, &Fault::CarrierLost)?;
        }
    }
    // The hold time doubles with each flap, so this takes its time.
    until(DEADLINE * 4, "all to be back", || daemon.wait_all_up())?;
    let placed = topology.client(1).place(1200, Proto::Udp, Family::V6)?;
    ensure!(placed.failed() == 0 && placed.by_wan.len() == 60, "{placed}");
    let resident = resident_kib(daemon.pid()?)?;
    ensure!(resident < 64 * 1024, "{resident} KiB resident");
    Ok(())
}
