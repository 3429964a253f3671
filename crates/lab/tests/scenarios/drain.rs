//! A WAN that is taken out of service by hand gets no new flows, keeps those it has, and outlives
//! a restart; while nothing else works it serves.

use anyhow::{Result, ensure};
use anywan_lab::{Config, Daemon, Family, Fault};

use crate::common::{
    dialers, ensure_all_kept, ensure_none_failed, ensure_nothing_wrong, flows_of_every_kind,
    in_both_layouts, talk, wait_all_by, wait_dialled,
};

#[test]
fn a_drained_wan_gets_no_new_flows_and_keeps_its_own_through_a_restart() -> Result<()> {
    in_both_layouts(2, |spec| {
        let topology = spec.build()?;
        let config = Config::of(&topology).priorities(&[1, 2]);
        let mut daemon = Daemon::start_up(&topology, &config)?;
        let client = topology.client(1);
        wait_all_by(&client, 1)?;
        let talking = talk(flows_of_every_kind(&client, 10)?);
        let dialling = dialers(&client);
        wait_dialled(&dialling, |wan| wan == 1)?;

        let said = daemon.cli(&["drain", "wan1"])?;
        ensure!(said.status == 0 && said.stdout.starts_with("wan1 is drained"), "{said:?}");
        wait_dialled(&dialling, |wan| wan == 2)?;
        wait_all_by(&client, 2)?;
        ensure!(daemon.status()?.wan("wan1")["drained"] == true, "the status says so");
        daemon.kill();
        daemon.launch()?;
        daemon.wait_all_up()?;
        wait_all_by(&client, 2)?;
        ensure!(daemon.status()?.wan("wan1")["drained"] == true, "it is kept");
        daemon.reload(&config.clone().weights(&[3, 1]))?;
        wait_all_by(&client, 2)?;

        let said = daemon.cli(&["undrain", "wan1"])?;
        ensure!(said.status == 0 && said.stdout.contains("in service again"), "{said:?}");
        wait_dialled(&dialling, |wan| wan == 1)?;
        wait_all_by(&client, 1)?;
        ensure_none_failed(dialling)?;
        ensure_all_kept(talking)?;
        ensure_nothing_wrong(&topology)
    })
}

#[test]
fn a_drained_wan_serves_while_nothing_else_works() -> Result<()> {
    in_both_layouts(2, |spec| {
        let topology = spec.build()?;
        let daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
        let client = topology.client(1);
        ensure!(daemon.cli(&["drain", "wan1"])?.status == 0, "it is drained");
        wait_all_by(&client, 2)?;
        topology.break_wan(2, &Fault::Blackhole)?;
        for family in Family::BOTH {
            daemon.wait_state("wan2", family, &["down"])?;
        }
        wait_all_by(&client, 1)?;
        topology.mend_wan(2, &Fault::Blackhole)?;
        wait_all_by(&client, 2)
    })
}

#[test]
fn a_wan_that_nobody_knows_is_refused_with_the_nearest_name() -> Result<()> {
    let topology = anywan_lab::Spec::routed(1).build()?;
    let daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    for command in ["drain", "undrain", "drill"] {
        let said = daemon.cli(&[command, "wna1"])?;
        let wanted = "error: there is no WAN called wna1\nhint: did you mean wan1?\n";
        ensure!(said.status == 1 && said.stderr == wanted, "{said:?}");
    }
    Ok(())
}
