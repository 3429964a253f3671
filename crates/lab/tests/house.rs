//! The whole house at once. One after the other all three WANs die, and come back in every order.
//!
//! Needs PPP in the kernel, so this program runs in the VM (`vm/run`); anywhere else it fails and
//! says so.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::house::{House, ORDERS, lan_net};
use anywan_lab::names::udhcpc;
use anywan_lab::{Family, Proto, until};

/// Safety net for whatever is waited for: dialling takes seconds, and the machine is slow.
const DEADLINE: Duration = Duration::from_secs(180);

#[test]
fn all_three_die_and_come_back_in_every_order_and_the_best_that_works_serves() -> Result<()> {
    let mut house = House::build(|config| config)?;
    for number in 1..=3 {
        house.wait_up(number)?;
    }
    let net = lan_net(house.topology());
    let lease = until(DEADLINE, "a lease", || udhcpc(house.topology().client_space(1)))?;
    ensure!(lease.contains(&format!("ip={net}.15")) || lease.contains(&format!("ip={net}.160")));
    ensure!(
        lease.contains(&format!("dns={} ", house.topology().lan_address(Family::V4))),
        "{lease}"
    );
    house.wait_serves(1)?;
    for order in ORDERS {
        house.fail(1)?;
        house.wait_serves(2)?;
        house.fail(2)?;
        house.wait_serves(3)?;
        house.fail(3)?;
        let client = house.topology().client(1);
        until(DEADLINE, "new connections to be refused", || {
            let by = client.connect(Proto::Tcp, Family::V4);
            ensure!(by.is_err(), "by {by:?}");
            Ok(())
        })?;
        let mut best = 3;
        for number in order {
            house.mend(number)?;
            house.wait_up(number)?;
            best = best.min(number);
            house.wait_serves(best).with_context(|| format!("{order:?}, {number} is back"))?;
        }
    }
    Ok(())
}
