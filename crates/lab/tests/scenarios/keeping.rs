//! No packet of an established flow leaves by another WAN than its own while that WAN lives.

use anyhow::{Result, ensure};
use anywan_lab::{Config, Daemon, Family, Fault, Spec};

use crate::common::{
    dialers, ensure_all_kept, ensure_none_failed, ensure_nothing_wrong, flows_of_every_kind,
    in_both_layouts, talk, wait_dialled,
};

#[test]
fn flows_stay_on_their_wan_through_failover_and_failback_of_others() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
        let mut flows = flows_of_every_kind(&topology.client(1), 30)?;
        ensure!((1..=3).all(|number| flows.on(number) > 0), "flows on every WAN");
        let lost = flows.take_from(2);
        let talking = talk(flows);
        for fault in [Fault::Blackhole, Fault::CarrierLost, Fault::GatewaySilent] {
            topology.break_wan(2, &fault)?;
            for family in Family::BOTH {
                daemon.wait_state("wan2", family, &["down"])?;
            }
            // The lost WAN's flows may end or move, but must not stray.
            lost.exchange(std::time::Duration::from_millis(300));
            topology.mend_wan(2, &fault)?;
            daemon.wait_all_up()?;
        }
        ensure_all_kept(talking)?;
        ensure_nothing_wrong(&topology)
    })
}

#[test]
fn flows_stay_on_their_wan_through_reload_and_restart() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let config = Config::of(&topology);
        let mut daemon = Daemon::start_up(&topology, &config)?;
        let talking = talk(flows_of_every_kind(&topology.client(1), 30)?);
        let dialling = dialers(&topology.client(1));
        daemon.reload(&config.clone().weights(&[1, 9, 9]))?;
        wait_dialled(&dialling, |_| true)?;
        daemon.kill();
        daemon.launch()?;
        daemon.wait_all_up()?;
        daemon.terminate()?;
        wait_dialled(&dialling, |_| true)?;
        daemon.launch()?;
        daemon.wait_all_up()?;
        ensure_none_failed(dialling)?;
        ensure_all_kept(talking)?;
        ensure_nothing_wrong(&topology)
    })
}

#[test]
fn flows_of_before_the_daemon_go_on_over_their_wan() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    // Somebody's plain masquerading router was at work before us, over the first WAN.
    topology.forward_plainly(1)?;
    let flows = flows_of_every_kind(&topology.client(1), 10)?;
    ensure!(flows.on(1) == 40);
    let talking = talk(flows);
    let _daemon = Daemon::start_up(&topology, &Config::of(&topology).priorities(&[1, 2]))?;
    ensure_all_kept(talking)?;
    ensure_nothing_wrong(&topology)
}
