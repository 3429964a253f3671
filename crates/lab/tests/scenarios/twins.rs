//! Two WANs that look the same: one subnet and gateway address, or even one own address.

use anyhow::{Result, ensure};
use anywan_lab::{Config, Daemon, Family, Fault, Spec};

use crate::common::{
    ensure_all_kept, ensure_nothing_wrong, every_kind, flows_of_every_kind, talk, wait_all_by,
};

fn twins_work(spec: Spec) -> Result<()> {
    let topology = spec.build()?;
    let config = Config::of(&topology);
    let daemon = Daemon::start_up(&topology, &config)?;
    for (proto, family) in every_kind() {
        let placed = topology.client(1).place(300, proto, family)?;
        ensure!(placed.failed() == 0 && placed.by_wan.len() == 3, "{proto:?} {family:?} {placed}");
    }
    // Both are probed: each one's death is seen, and only its own.
    for (dead, twin) in [(2, 3), (3, 2)] {
        let mut flows = flows_of_every_kind(&topology.client(1), 20)?;
        flows.take_from(dead);
        let talking = talk(flows);
        topology.break_wan(dead, &Fault::Blackhole)?;
        for family in Family::BOTH {
            let name = &topology.wan(dead).name;
            let status = daemon.wait_state(name, family, &["down"])?;
            let other = status.state(&topology.wan(twin).name, family);
            ensure!(other == "up", "the twin is {other}");
        }
        for (proto, family) in every_kind() {
            let placed = topology.client(1).place(60, proto, family)?;
            ensure!(placed.failed() == 0 && !placed.by_wan.contains_key(&dead), "{placed}");
        }
        topology.mend_wan(dead, &Fault::Blackhole)?;
        daemon.wait_all_up()?;
        ensure_all_kept(talking)?;
    }
    ensure_nothing_wrong(&topology)?;
    // As the only usable one, each carries everything.
    for alone in [2, 3] {
        let mut priorities = [9, 9, 9];
        priorities[alone - 1] = 1;
        daemon.reload(&config.clone().priorities(&priorities))?;
        wait_all_by(&topology.client(1), alone)?;
        wait_all_by(&topology.router_client(), alone)?;
    }
    Ok(())
}

#[test]
fn two_wans_with_the_same_subnet_and_gateway_address_both_work() -> Result<()> {
    twins_work(Spec::routed(3).same_subnet(3, 2))
}

#[test]
fn two_wans_with_the_same_own_address_both_work() -> Result<()> {
    twins_work(Spec::routed(3).same_address(3, 2))
}

#[test]
fn two_wans_with_the_same_own_address_work_beside_a_shared_interface() -> Result<()> {
    twins_work(Spec::one_armed(3).same_address(3, 2))
}
