//! Names and addresses for a LAN: the real dnsmasq as ours and as the ISPs' resolvers, which answer
//! only their own customers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use anywan_lab::names::{self, Resolver, child_pid, lookup, lookups, udhcpc};
use anywan_lab::{Announcer, Config, Daemon, Family, Fault, Netns, Spec, Topology, until};

use crate::common::{DEADLINE, in_both_layouts};

/// A router whose WANs are preferred in their order, each with its ISP's resolver.
pub(crate) fn config(topology: &Topology) -> Config {
    let mut config = Config::of(topology).priorities(&[1, 2, 3]);
    for (wan, number) in config.wans.iter_mut().zip(1..) {
        let list = format!("[\"{}\"]", names::address(topology, number));
        wan.more.push(("dns".to_owned(), list));
    }
    config.extra = "[dns]\nhosts = [\"192.0.2.80 nas\"]\n".to_owned();
    config
}

pub(crate) fn served(n: u8) -> Result<(Topology, Vec<Resolver>)> {
    served_by(&Spec::routed(n))
}

fn served_by(spec: &Spec) -> Result<(Topology, Vec<Resolver>)> {
    let topology = spec.clone().build()?;
    let resolvers = (1..=topology.wans().len()).map(|k| Resolver::honest(&topology, k));
    let resolvers = resolvers.collect::<Result<_>>()?;
    Ok((topology, resolvers))
}

/// Waits until a client can look names up; says what address it was given.
pub(crate) fn wait_served(topology: &Topology, name: &str) -> Result<String> {
    let (client, router) = (topology.client_space(1), topology.lan_address(Family::V4));
    until(DEADLINE, "names to be looked up", || {
        lookup(client, router, name, Duration::from_millis(500))?.context("no address")
    })
}

#[test]
fn a_lan_client_is_lent_an_address_and_looks_names_up() -> Result<()> {
    let (topology, _resolvers) = served(2)?;
    let client = topology.client_space(1);
    let link = client.run("ip -o link show dev eth0")?;
    let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    let mac = mac.context("a hardware address")?.to_owned();
    let router = topology.lan_address(Family::V4).to_string();
    let net = router.rsplit_once('.').context("an IPv4 address")?.0.to_owned();
    let mut config = config(&topology);
    config.lans[0].1.push((
        "dhcp".to_owned(),
        format!("{{ range = \"{net}.150-{net}.160\", leases = [\"{} {net}.77 printer\"] }}", mac),
    ));
    let daemon = Daemon::start_up(&topology, &config)?;
    let lease = until(DEADLINE, "a lease", || udhcpc(client))?;
    ensure!(lease.contains(&format!("ip={net}.77 ")), "the lease that is kept for it: {lease}");
    ensure!(lease.contains(&format!("router={router} ")), "this router: {lease}");
    ensure!(lease.contains(&format!("dns={router} ")), "this router's DNS: {lease}");
    ensure!(lease.contains("domain=lan "), "{lease}");
    client.run("ip link set eth0 address 02:00:5e:00:00:77")?;
    let other = until(DEADLINE, "another lease", || udhcpc(client))?;
    ensure!(
        other.contains(&format!("ip={net}.15")) || other.contains(&format!("ip={net}.16")),
        "{other}"
    );
    ensure!(wait_served(&topology, "www.test")? == "198.18.1.80", "the first WAN's answer");
    for (name, address) in
        [("nas", "192.0.2.80"), ("nas.lan", "192.0.2.80"), ("printer.lan", &format!("{net}.77"))]
    {
        let found = wait_served(&topology, name)?;
        ensure!(found == address, "{name} is {found}");
    }
    let own = lookup(topology.router(), topology.lan_address(Family::V4), "nas", DEADLINE)?;
    ensure!(own.as_deref() == Some("192.0.2.80"), "the router itself is told {own:?}");
    ensure!(daemon.status()?.problems().is_empty(), "{:?}", daemon.status()?.problems());
    Ok(())
}

#[test]
fn a_wan_dies_and_no_name_is_refused_and_none_waits_long() -> Result<()> {
    in_both_layouts(2, |spec| {
        let (topology, _resolvers) = served_by(&spec)?;
        let daemon = Daemon::start_up(&topology, &config(&topology))?;
        ensure!(wait_served(&topology, "kept.test")? == "198.18.1.80");
        let pid = child_pid(&daemon)?;
        let client = topology.client_space(1).clone();
        let router = topology.lan_address(Family::V4);
        let asking = lookups(&client, router, Duration::from_millis(20));
        until(DEADLINE, "some answers", || asking.ensure_answers(20))?;
        topology.break_wan(1, &Fault::GatewaySilent)?;
        daemon.wait_state("wan1", Family::V4, &["down"])?;
        until(DEADLINE, "answers by the second WAN", || {
            asking.ensure_answers_of("198.18.2.80", 20)
        })?;
        topology.mend_wan(1, &Fault::GatewaySilent)?;
        daemon.wait_state("wan1", Family::V4, &["up"])?;
        until(DEADLINE, "answers by the first WAN", || asking.ensure_last("198.18.1.80"))?;
        let answers = asking.stop()?;
        let failed = answers.iter().filter(|a| a.address.is_none()).count();
        let longest = answers.iter().map(|a| a.took).max().unwrap_or_default();
        // Each waits as long as programs do, so an answer that came too late is none.
        ensure!(failed == 0, "{failed} of {} failed, at most {longest:?}", answers.len());
        ensure!(child_pid(&daemon)? == pid, "dnsmasq was started anew");
        Ok(())
    })
}

/// The packets of a WAN's counters, out and back.
fn counted(topology: &Topology, wan: usize) -> Result<[u64; 2]> {
    let of = |way: &str| -> Result<u64> {
        let line = format!("nft list counter inet anywan {way}4_{wan}");
        let text = topology.router().run(&line)?;
        let packets = text.split_whitespace().skip_while(|w| *w != "packets").nth(1);
        packets.context("a counter")?.parse().context("a number")
    };
    Ok([of("out")?, of("back")?])
}

#[test]
fn an_isps_resolver_that_answers_hides_no_line_that_is_dead_beyond_it() -> Result<()> {
    in_both_layouts(2, |spec| {
        let (topology, _resolvers) = served_by(&spec)?;
        let mut daemon = Daemon::start_up(&topology, &config(&topology))?;
        ensure!(wait_served(&topology, "first.test")? == "198.18.1.80");
        daemon.follow_events()?;
        let before = counted(&topology, 1)?;
        let router = topology.lan_address(Family::V4);
        let asking = lookups(topology.client_space(1), router, Duration::from_millis(20));
        until(DEADLINE, "some answers", || asking.ensure_answers(20))?;
        ensure!(
            counted(&topology, 1)? == before,
            "questions to the resolver are taken for traffic"
        );
        // The resolver is before the place where nothing gets through.
        topology.break_wan(1, &Fault::Blackhole)?;
        daemon.wait_state("wan1", Family::V4, &["down"])?;
        until(DEADLINE, "answers by the second WAN", || asking.ensure_last("198.18.2.80"))?;
        let answers = asking.stop()?;
        ensure!(answers.iter().all(|a| a.address.is_some()), "some names were not answered");
        let states = daemon.events()?;
        let states = states.iter().filter(|e| e["wan"] == "wan1" && e["family"] == "ipv4");
        let states: Vec<&str> = states.filter_map(|e| e["new"].as_str()).collect();
        ensure!(!states.contains(&"impaired"), "it counts as impaired first: {states:?}");
        ensure!(states.contains(&"down"), "{states:?}");
        Ok(())
    })
}

#[test]
fn a_switch_costs_no_cache_and_works_with_names_known_before() -> Result<()> {
    let (topology, resolvers) = served(2)?;
    let daemon = Daemon::start_up(&topology, &config(&topology))?;
    ensure!(wait_served(&topology, "kept.test")? == "198.18.1.80");
    topology.break_wan(1, &Fault::Blackhole)?;
    daemon.wait_state("wan1", Family::V4, &["down"])?;
    ensure!(wait_served(&topology, "new.test")? == "198.18.2.80", "asked of the second WAN");
    ensure!(wait_served(&topology, "kept.test")? == "198.18.1.80", "remembered");
    ensure!(!resolvers[1].log().contains("kept.test"), "the second ISP was asked for it");
    Ok(())
}

#[test]
fn resolvers_that_lie_or_say_nothing_are_left() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    let _liar = Resolver::liar(&topology, 1)?;
    let _silent = Resolver::silent(&topology, 1)?;
    let _honest = Resolver::spare(&topology, 1)?;
    let mut config = config(&topology);
    let [liar, silent, honest] = names::three(&topology, 1);
    config.wans[0].more = vec![("dns".to_owned(), format!("[\"{liar}\", \"{silent}\"]"))];
    config.extra = format!("[dns]\nupstreams = [\"{honest}\"]\n");
    let daemon = Daemon::start_up(&topology, &config)?;
    let told = |code: &str, address: &str| {
        daemon.wait_status(&format!("{code} of {address}"), |status| {
            status.problems().iter().any(|p| p.contains(code) && p.contains(address))
        })
    };
    told("dns.lies", &liar)?;
    until(3 * DEADLINE, "the silent one to be found", || told("dns.silent", &silent).map(drop))?;
    let (client, router) = (topology.client_space(1), topology.lan_address(Family::V4));
    until(DEADLINE, "only the honest one to be asked", || {
        let begun = Instant::now();
        let name = format!("n{}.test", begun.elapsed().as_nanos());
        let found = lookup(client, router, &name, Duration::from_secs(3))?;
        ensure!(found.as_deref() == Some("198.18.1.81"), "{name} is {found:?}");
        let found = lookup(client, router, "no-such-name.invalid", Duration::from_secs(3))?;
        ensure!(found.is_none(), "an invented address {found:?}");
        Ok(())
    })
}

#[test]
fn a_killed_daemon_leaves_names_and_the_next_one_finds_dnsmasq() -> Result<()> {
    let (topology, _resolvers) = served(2)?;
    let mut daemon = Daemon::start_up(&topology, &config(&topology))?;
    wait_served(&topology, "a.test")?;
    let pid = child_pid(&daemon)?;
    daemon.kill();
    ensure!(wait_served(&topology, "b.test")? == "198.18.1.80", "with no daemon there");
    daemon.launch()?;
    daemon.wait_all_up()?;
    ensure!(child_pid(&daemon)? == pid, "the same dnsmasq");
    anywan_lab::command::run_ok(&["kill", "-9", &pid.to_string()], "")?;
    until(DEADLINE, "another dnsmasq", || {
        ensure!(child_pid(&daemon)? != pid);
        Ok(())
    })?;
    wait_served(&topology, "c.test")?;
    let outcome = daemon.cli(&["down"])?;
    ensure!(outcome.status == 0, "{outcome:?}");
    ensure!(child_pid(&daemon).is_err(), "dnsmasq is left behind");
    Ok(())
}

#[test]
fn a_taken_port_is_told_with_its_holder_and_served_once_it_is_free() -> Result<()> {
    let (topology, _resolvers) = served(1)?;
    let router: &Netns = topology.router();
    let holder =
        router.inside(|| std::net::UdpSocket::bind((topology.lan_address(Family::V4), 53)))??;
    let daemon = Daemon::start_up(&topology, &config(&topology))?;
    let me = format!("({}) has", std::process::id());
    daemon.wait_status("the holder to be named", |status| {
        let named = |p: &String| p.contains("child.ended") && p.contains(&me);
        status.problems().iter().any(named)
    })?;
    drop(holder);
    wait_served(&topology, "www.test")?;
    Ok(())
}

#[test]
fn an_announced_resolver_is_asked_and_learnt_anew_after_a_restart() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    let own = "fd00:99:1::53";
    let resolver = Resolver::honest_at(&topology, 1, own)?;
    let mut config = config(&topology);
    config.wans[0].more.clear();
    let mut daemon = Daemon::start_up(&topology, &config)?;
    let announcer = Announcer::start(&topology, 1, own)?;
    ensure!(wait_served(&topology, "first.test")? == "198.18.1.80");
    ensure!(resolver.log().contains("first.test"), "asked of the announced one");
    let servers = daemon.path("anywan.sock.children/dnsmasq/servers");
    let line = format!("server={own}@{}", topology.wan(1).interface);
    ensure!(std::fs::read_to_string(&servers)?.contains(&line), "by its own WAN alone");
    daemon.kill();
    ensure!(wait_served(&topology, "second.test")? == "198.18.1.80", "with no daemon there");
    let asked = announcer.asked();
    daemon.launch()?;
    until(DEADLINE, "the router to be asked", || {
        ensure!(announcer.asked() > asked);
        Ok(())
    })?;
    until(DEADLINE, "the resolver to be known again", || {
        ensure!(std::fs::read_to_string(&servers)?.contains(&line));
        Ok(())
    })?;
    ensure!(wait_served(&topology, "third.test")? == "198.18.1.80");
    Ok(())
}
