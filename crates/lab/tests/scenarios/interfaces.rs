//! Interfaces that are meant by their hardware, under whatever name and index.

use anyhow::{Context as _, Result, ensure};
use anywan_lab::{Config, Daemon, Family, Fault, Netns, Proto, Spec, Topology, until};

use crate::common::{DEADLINE, ensure_all_kept, ensure_nothing_wrong, flows_of_every_kind, talk};

fn mac(space: &Netns, dev: &str) -> Result<String> {
    let text = space.run(&format!("ip -o link show dev {dev}"))?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "link/ether");
    Ok(words.nth(1).context("an Ethernet interface")?.to_owned())
}

fn ensure_used(topology: &Topology, number: usize) -> Result<()> {
    for family in Family::BOTH {
        let placed = topology.client(1).place(60, Proto::Tcp, family)?;
        ensure!(placed.failed() == 0 && placed.by_wan.contains_key(&number), "{placed}");
    }
    Ok(())
}

fn meant(topology: &Topology, number: usize, by: &str) -> Config {
    Config::of(topology).wan(number, |wan| wan.interface = by.to_owned())
}

/// Renames a WAN's interface; before Linux 6.2 only one that is down can be, as udev does it.
fn rename(topology: &Topology, number: usize, to: &str) -> Result<()> {
    let (router, wan) = (topology.router(), topology.wan(number));
    let from = &wan.interface;
    if router.try_run(&["ip", "link", "set", from, "name", to])?.status == 0 {
        return Ok(());
    }
    let own = wan.own(Family::V6).context("dual stack")?;
    router.ip_batch(&format!(
        "link set {from} down\nlink set {from} name {to}\nlink set {to} up\n\
         addr replace {own}/64 nodad dev {to}"
    ))
}

#[test]
fn a_renamed_interface_is_followed_and_nobody_elses_flows_notice() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let router = topology.router();
    let by = format!("mac:{}", mac(router, "w2")?);
    let daemon = Daemon::start_up(&topology, &meant(&topology, 2, &by))?;
    daemon.wait_state("wan2", Family::V4, &["up"])?;
    ensure_used(&topology, 2)?;
    let mut flows = flows_of_every_kind(&topology.client(1), 12)?;
    flows.take_from(2);
    let talking = talk(flows);
    rename(&topology, 2, "stick7")?;
    until(DEADLINE, "the new name", || {
        let status = daemon.status()?;
        let wan = status.wan("wan2");
        ensure!(wan["interface"] == "stick7" && wan["ipv4"]["state"] == "up", "{wan}");
        Ok(())
    })?;
    daemon.wait_state("wan2", Family::V6, &["up"])?;
    ensure_used(&topology, 2)?;
    ensure_all_kept(talking)?;
    ensure_nothing_wrong(&topology)
}

/// Plugs WAN 2's stick out, and in again under another name; its addresses are anywan's.
#[test]
fn a_stick_that_is_plugged_in_again_under_another_name_is_the_same_wan() -> Result<()> {
    let topology = Spec::routed(3).wan(2, |wan| wan.addressed = false).build()?;
    let router = topology.router();
    let address = mac(router, "w2")?;
    let wan2 = topology.wan(2);
    let own = |family| wan2.own(family).map(|a| a.to_string()).unwrap_or_default();
    let list = format!(r#"["{}/24", "{}/64"]"#, own(Family::V4), own(Family::V6));
    let config = meant(&topology, 2, &format!("mac:{address}"))
        .wan(2, |wan| wan.more.push(("address".to_owned(), list)));
    let daemon = Daemon::start_up(&topology, &config)?;
    daemon.wait_state("wan2", Family::V4, &["up"])?;
    let mut flows = flows_of_every_kind(&topology.client(1), 12)?;
    flows.take_from(2);
    let talking = talk(flows);
    topology.break_wan(2, &Fault::InterfaceGone)?;
    daemon.wait_state("wan2", Family::V4, &["down"])?;
    topology.plug_wan(2, "usb9", &address)?;
    until(DEADLINE, "the WAN is back", || {
        let status = daemon.status()?;
        let wan = status.wan("wan2");
        ensure!(wan["interface"] == "usb9", "{wan}");
        for family in ["ipv4", "ipv6"] {
            ensure!(wan[family]["state"] == "up", "{wan}");
        }
        Ok(())
    })?;
    ensure_used(&topology, 2)?;
    ensure_all_kept(talking)?;
    Ok(())
}

#[test]
fn by_its_driver_the_first_that_is_free_is_taken_and_the_doubt_is_told() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    // All interfaces of the lab are veths; WAN 2 is the only one that nobody names.
    let daemon = Daemon::start_up(&topology, &meant(&topology, 2, "driver:veth"))?;
    daemon.wait_state("wan2", Family::V4, &["up"])?;
    let status = daemon.status()?;
    ensure!(status.wan("wan2")["interface"] == "w2", "{}", status.wan("wan2"));
    ensure!(status.problems().is_empty(), "{:?}", status.problems());
    topology.router().run("ip link add x9 type veth peer name x9p")?;
    until(DEADLINE, "a problem that names the others", || {
        let problems = daemon.status()?.problems();
        let told = |p: &String| p.starts_with("wan.interface-ambiguous") && p.contains("x9");
        ensure!(problems.iter().any(told), "{problems:?}");
        Ok(())
    })?;
    ensure_used(&topology, 2)
}
