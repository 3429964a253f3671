//! kill -9, restart, upgrade and changed configs, under load: no flow lost, no connection refused.

use anyhow::{Result, ensure};
use anywan_lab::{Config, Daemon, Spec, Topology, until};

use crate::common::{
    DEADLINE, dialers, ensure_all_kept, ensure_none_failed, ensure_nothing_wrong,
    flows_of_every_kind, in_both_layouts, talk, wait_dialled,
};

/// Runs `change` under load; checks that nothing was lost.
fn under_load(
    topology: &Topology,
    change: impl FnOnce(&[anywan_lab::client::Dialer; 2]) -> Result<()>,
) -> Result<()> {
    let client = topology.client(1);
    let talking = talk(flows_of_every_kind(&client, 25)?);
    let dialling = dialers(&client);
    wait_dialled(&dialling, |_| true)?;
    change(&dialling)?;
    wait_dialled(&dialling, |_| true)?;
    ensure_none_failed(dialling)?;
    ensure_all_kept(talking)?;
    ensure_nothing_wrong(topology)
}

#[test]
fn killed_and_restarted_ten_times_nothing_is_lost() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let mut daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
        under_load(&topology, |dialling| {
            for _ in 0..10 {
                daemon.kill();
                wait_dialled(dialling, |_| true)?;
                daemon.launch()?;
            }
            daemon.wait_all_up().map(drop)
        })
    })
}

#[test]
fn ended_and_started_anew_as_by_an_upgrade_nothing_is_lost() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let mut daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
        under_load(&topology, |dialling| {
            let status = daemon.terminate()?;
            ensure!(status == 0, "it ended with {status}");
            wait_dialled(dialling, |_| true)?;
            daemon.launch()?;
            daemon.wait_all_up().map(drop)
        })
    })
}

#[test]
fn a_killed_daemon_comes_back_to_the_same_choice_without_touching_the_kernel() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let config = Config::of(&topology).priorities(&[1, 2]);
    let mut daemon = Daemon::start_up(&topology, &config)?;
    crate::common::wait_all_by(&topology.client(1), 1)?;
    let before = anywan_lab::Snapshot::take(topology.router())?;
    daemon.kill();
    daemon.launch()?;
    daemon.wait_all_up()?;
    let diff = before.diff(&anywan_lab::Snapshot::take(topology.router())?);
    ensure!(diff.is_empty(), "{diff}");
    Ok(())
}

/// Waits until new connections use exactly these WANs.
fn wait_used(topology: &Topology, wans: &[usize]) -> Result<()> {
    until(DEADLINE, &format!("{wans:?} to be used"), || {
        for (proto, family) in crate::common::every_kind() {
            let placed = topology.client(1).place(60, proto, family)?;
            ensure!(placed.failed() == 0, "{placed}");
            ensure!(placed.by_wan.keys().eq(wans), "{placed}");
        }
        Ok(())
    })
}

#[test]
fn a_wan_is_added_by_sighup() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let whole = Config::of(&topology);
    let mut two = whole.clone();
    two.wans.pop();
    let daemon = Daemon::start_up(&topology, &two)?;
    wait_used(&topology, &[1, 2])?;
    under_load(&topology, |_| {
        daemon.reload(&whole)?;
        wait_used(&topology, &[1, 2, 3])
    })
}

#[test]
fn a_wan_is_removed_by_sighup() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let whole = Config::of(&topology);
    let mut without = whole.clone();
    without.wans.remove(1);
    let daemon = Daemon::start_up(&topology, &whole)?;
    under_load(&topology, |_| {
        daemon.reload(&without)?;
        wait_used(&topology, &[1, 3])
    })
}

#[test]
fn a_wan_is_removed_while_no_daemon_runs() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let whole = Config::of(&topology);
    let mut without = whole.clone();
    without.wans.remove(1);
    let mut daemon = Daemon::start_up(&topology, &whole)?;
    under_load(&topology, |_| {
        daemon.terminate()?;
        daemon.write_config(&without.to_toml())?;
        daemon.launch()?;
        wait_used(&topology, &[1, 3])
    })
}

#[test]
fn wans_change_their_order_in_the_file_by_sighup() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let config = Config::of(&topology);
    let mut reversed = config.clone();
    reversed.wans.reverse();
    let daemon = Daemon::start_up(&topology, &config)?;
    under_load(&topology, |_| {
        daemon.reload(&reversed)?;
        // The status lists them in the file's order: the new file is in force.
        daemon
            .wait_status("the new order", |status| status.0["wans"][0]["name"] == "wan3")
            .map(drop)
    })
}

#[test]
fn wans_get_other_weights_by_sighup() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let config = Config::of(&topology);
    let daemon = Daemon::start_up(&topology, &config)?;
    under_load(&topology, |_| {
        daemon.reload(&config.clone().weights(&[1, 4]))?;
        until(DEADLINE, "the new weights", || {
            let placed = topology.client(1).place(500, anywan_lab::Proto::Tcp, V4)?;
            ensure!((placed.percent(2) - 80.0).abs() <= 3.0, "{placed}");
            Ok(())
        })
    })
}

use anywan_lab::Family::V4;
