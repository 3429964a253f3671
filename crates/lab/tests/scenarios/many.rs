//! Sixty WANs, twenty of them flapping: still correct, and the daemon stays small.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::{Config, Daemon, Families, Family, Fault, Proto, Spec, until};

use crate::common::DEADLINE;

/// How many of the WANs, the first, have IPv6 too.
const DUAL: usize = 20;

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}

#[test]
fn sixty_wans_with_twenty_flapping_stay_correct() -> Result<()> {
    // All namespaces of a machine share one neighbour table per family, of 1,024 entries: sixty
    // ISPs with both families, beside other tests, overflow the one of IPv6.
    let mut spec = Spec::routed(60);
    for number in DUAL + 1..=60 {
        spec = spec.wan(number, |wan| wan.families = Families::V4);
    }
    let topology = spec.build()?;
    let config = Config::of(&topology).health("interval", r#""1s""#);
    let daemon = Daemon::start(&topology, &config)?;
    until(DEADLINE * 2, "sixty WANs to be up", || daemon.wait_all_up())?;
    let placed = topology.client(1).place(1200, Proto::Tcp, Family::V4)?;
    ensure!(placed.failed() == 0 && placed.by_wan.len() == 60, "{placed}");
    let flapping = 11..=30;
    let steady = |number: usize| !flapping.contains(&number);
    for _ in 0..3 {
        for number in flapping.clone() {
            topology.break_wan(number, &Fault::CarrierLost)?;
        }
        let status = daemon.wait_status("twenty to be down", |status| {
            flapping.clone().all(|n| status.state(&format!("wan{n}"), Family::V4) == "down")
        })?;
        // A suspect still serves: twenty carriers at once hold up a probe's answer now and then.
        let serves =
            |n: usize| ["up", "suspect"].contains(&status.state(&format!("wan{n}"), Family::V4));
        ensure!(
            (1..=60).filter(|n| steady(*n)).all(serves),
            "{}\n{}",
            status.summary(),
            daemon.log_tail()
        );
        for family in Family::BOTH {
            let placed = topology.client(1).place(400, Proto::Tcp, family)?;
            ensure!(placed.failed() == 0, "{placed}");
            ensure!(placed.by_wan.keys().all(|wan| steady(*wan)), "{placed}");
        }
        for number in flapping.clone() {
            topology.mend_wan(number, &Fault::CarrierLost)?;
        }
    }
    // The hold time doubles with each flap, so this takes its time.
    until(DEADLINE * 4, "all to be back", || daemon.wait_all_up())?;
    let placed = topology.client(1).place(1200, Proto::Udp, Family::V6)?;
    ensure!(placed.failed() == 0 && placed.by_wan.len() == DUAL, "{placed}");
    let resident = resident_kib(daemon.pid()?)?;
    ensure!(resident < 64 * 1024, "{resident} KiB resident");
    Ok(())
}
