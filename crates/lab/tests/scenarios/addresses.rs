//! Addresses that are anywan's own: added, repaired, taken out, and nobody else's touched.

use anyhow::{Context as _, Result, ensure};
use anywan_lab::dhcp::Dhcp;
use anywan_lab::{Config, Daemon, Families, Family, Netns, Proto, Spec, Topology, until};

use crate::common::{DEADLINE, ensure_all_kept, ensure_nothing_wrong, flows_of_every_kind, talk};

/// Three WANs of which the second has no addresses: its interface is down.
fn bare() -> Result<Topology> {
    let topology = Spec::routed(3).wan(2, |wan| wan.addressed = false).build()?;
    topology.router().run("ip link set w2 down")?;
    Ok(topology)
}

fn addressed(topology: &Topology, list: &str) -> Config {
    Config::of(topology).wan(2, |wan| wan.more.push(("address".to_owned(), list.to_owned())))
}

/// The addresses of an interface, but for the stranger's.
fn ours(space: &Netns, dev: &str) -> Result<Vec<String>> {
    let text = space.run(&format!("ip -o address show dev {dev} scope global"))?;
    let ours = text.lines().filter(|line| !line.contains("203.0.113.9"));
    Ok(ours.filter_map(|l| l.split_whitespace().nth(3).map(str::to_owned)).collect())
}

fn wait_ours(space: &Netns, expected: &[&str]) -> Result<()> {
    until(DEADLINE, &format!("{expected:?}"), || {
        let found = ours(space, "w2")?;
        ensure!(found == expected, "{found:?}");
        Ok(())
    })
}

#[test]
fn static_addresses_bring_a_wan_up_that_nobody_else_has_set_up() -> Result<()> {
    let topology = bare()?;
    let own = topology.wan(2).own(Family::V6);
    let list = format!(r#"["192.168.102.2/24", "{}/64"]"#, own.expect("it has both"));
    let daemon = Daemon::start_up(&topology, &addressed(&topology, &list))?;
    let client = topology.client(1);
    for family in Family::BOTH {
        let placed = client.place(90, Proto::Tcp, family)?;
        ensure!(placed.failed() == 0 && placed.by_wan.len() == 3, "{placed}");
    }
    ensure_nothing_wrong(&topology)?;
    // A second address is used where somebody binds to it, and goes without the first.
    let more = list.replace(']', r#", "192.168.102.3/24"]"#);
    daemon.reload(&addressed(&topology, &more))?;
    until(DEADLINE, "the second address", || {
        let found = ours(topology.router(), "w2")?;
        ensure!(found.iter().any(|a| a == "192.168.102.3/24"), "{found:?}");
        Ok(())
    })?;
    let bound = topology.router_client().from(vec!["192.168.102.3".parse()?]);
    // The rule for what has this source follows the address.
    until(DEADLINE, "what is bound to the second address to leave there", || {
        ensure!(bound.connect(Proto::Tcp, Family::V4)? == 2, "by another");
        Ok(())
    })?;
    let only = list.replace("192.168.102.2", "192.168.102.3");
    let talking = {
        let mut flows = flows_of_every_kind(&client, 12)?;
        flows.take_from(2);
        talk(flows)
    };
    daemon.reload(&addressed(&topology, &only))?;
    until(DEADLINE, "only the second address", || {
        let found = ours(topology.router(), "w2")?;
        let has = |text: &str| found.iter().any(|a| a == text);
        ensure!(has("192.168.102.3/24") && !has("192.168.102.2/24"), "{found:?}");
        Ok(())
    })?;
    daemon.wait_all_up()?;
    ensure_all_kept(talking)?;
    Ok(())
}

#[test]
fn what_somebody_deletes_is_back_and_what_somebody_adds_stays() -> Result<()> {
    let topology =
        Spec::routed(3).wan(2, |wan| (wan.families, wan.addressed) = (Families::V4, false));
    let topology = topology.build()?;
    let router = topology.router();
    let list = r#"["192.168.102.2/24", "192.168.102.3/24", "192.168.102.4/24"]"#;
    let mut daemon = Daemon::start_up(&topology, &addressed(&topology, list))?;
    let all = ["192.168.102.2/24", "192.168.102.3/24", "192.168.102.4/24"];
    let mut sorted = || {
        let mut found = ours(router, "w2")?;
        found.sort();
        ensure!(found == all, "{found:?}");
        Ok(())
    };
    sorted()?;
    router.run("ip address add 203.0.113.9/32 dev w2")?;
    for gone in ["192.168.102.3/24", "192.168.102.2/24"] {
        router.run(&format!("ip address del {gone} dev w2"))?;
        until(DEADLINE, "it is back", &mut sorted)?;
    }
    router.run("ip link set w2 down")?;
    daemon.wait_all_up()?;
    router.run("ip address flush dev w2")?;
    until(DEADLINE, "all are back", &mut sorted)?;
    router.run("ip address add 203.0.113.9/32 dev w2")?;
    daemon.wait_all_up()?;
    // A daemon that is killed knows its own again, also those that the file no longer has.
    daemon.kill();
    daemon.write_config(&addressed(&topology, r#""192.168.102.2/24""#).to_toml())?;
    daemon.launch()?;
    wait_ours(router, &["192.168.102.2/24"])?;
    daemon.wait_all_up()?;
    let ended = daemon.cli(&["down"])?;
    ensure!(ended.status == 0, "{ended:?}");
    let left = router.run("ip -4 -o address show dev w2")?;
    ensure!(!left.contains("192.168.102") && left.contains("203.0.113.9"), "{left}");
    Ok(())
}

#[test]
fn an_address_that_is_there_by_another_hand_is_used_and_left() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let router = topology.router();
    let before = router.run("ip -o address show dev w2")?;
    let daemon = Daemon::start_up(&topology, &addressed(&topology, r#""192.168.102.2/24""#))?;
    let now = router.run("ip -o address show dev w2")?;
    ensure!(now == before, "{before} {now}");
    let ended = daemon.cli(&["down"])?;
    ensure!(ended.status == 0, "{ended:?}");
    let left = router.run("ip -o address show dev w2")?;
    ensure!(left == before, "{before} {left}");
    Ok(())
}

#[test]
fn the_status_says_where_each_address_comes_from_and_when_a_lease_is_over() -> Result<()> {
    let spec = Spec::routed(3).wan(2, |wan| (wan.families, wan.addressed) = (Families::V4, false));
    let topology = spec.build()?;
    let own = topology.wan(3).own(Family::V4).context("an address")?;
    let gateway = topology.wan(3).gateway(Family::V4).context("a gateway")?;
    topology.router().run("ip address flush dev w3")?;
    let (lent, by) = ("192.168.102.2".parse()?, "192.168.102.1".parse()?);
    let _server = Dhcp::server(&topology, 2, lent, by)?;
    let config = Config::of(&topology)
        .wan(2, |wan| {
            wan.gateway = Some("auto".to_owned());
            wan.more.push(("address".to_owned(), "\"dhcp\"".to_owned()));
        })
        .wan(3, |wan| {
            (wan.gateway, wan.gateway6) = (Some(gateway.to_string()), None);
            wan.more.push(("address".to_owned(), format!("\"{own}/24\"")));
        });
    let daemon = Daemon::start(&topology, &config)?;
    let status = daemon.wait_status("all to be up", |status| {
        ["wan1", "wan2", "wan3"].iter().all(|name| status.state(name, Family::V4) == "up")
    })?;
    let of = |name: &str, key: &str| status.wan(name)["ipv4"][key].clone();
    ensure!(of("wan1", "address_from") == "observed" && of("wan1", "address_until").is_null());
    ensure!(of("wan2", "address_from") == "dhcp", "{}", status.summary());
    ensure!(of("wan3", "address_from") == "static" && of("wan3", "address_until").is_null());
    let until = of("wan2", "address_until");
    ensure!(until.as_str().is_some_and(|text| text.ends_with('Z')), "{until}");
    let table = daemon.cli(&["status"])?.stdout;
    ensure!(table.contains("192.168.102.2 (dhcp, 1m"), "of two minutes:\n{table}");
    ensure!(table.contains(&format!("{own} (static)")) && table.contains("(observed)"), "{table}");
    Ok(())
}
