//! The lab proves itself: packets flow, each fault has its effect and its undo, counters count,
//! outages are seen, nothing is left behind. No daemon takes part.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use anywan_lab::dhcp::Dhcp;
use anywan_lab::servers::{ECHO, Servers};
use anywan_lab::wait::until_true;
use anywan_lab::{Failure, Families, Family, Fault, Proto, Snapshot, Spec, Topology};

const DEADLINE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(300);
const BEAT: Duration = Duration::from_millis(10);

fn every_kind() -> impl Iterator<Item = (Proto, Family)> {
    Proto::BOTH.into_iter().flat_map(|proto| Family::BOTH.map(|family| (proto, family)))
}

/// Whether a new connection works, quickly.
fn works(topology: &Topology, family: Family) -> Result<bool> {
    let placed = topology.client(1).timeout(SHORT).place(1, Proto::Tcp, family)?;
    Ok(placed.failed() == 0)
}

fn wait_until_works(topology: &Topology, what: &str) -> Result<()> {
    for family in Family::BOTH {
        until_true(DEADLINE, what, || works(topology, family))?;
    }
    Ok(())
}

fn ensure_all_go_by(topology: &Topology, number: usize) -> Result<()> {
    for (proto, family) in every_kind() {
        let placed = topology.client(1).place(20, proto, family)?;
        ensure!(placed.only() == Some(number), "{proto:?} {family:?}: {placed}");
    }
    Ok(())
}

#[test]
fn a_plain_router_carries_every_kind_of_flow_over_each_wan() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    ensure!(!works(&topology, Family::V4)?, "a fresh router forwards nothing");
    for number in 1..=3 {
        topology.forward_plainly(number)?;
        ensure_all_go_by(&topology, number)?;
        ensure!(topology.router_client().connect(Proto::Tcp, Family::V6)? == number);
    }
    for counts in topology.all_counts()? {
        ensure!(counts.new_tcp >= 40 && counts.new_udp >= 40, "{counts:?}");
        ensure!(counts.up > 160 && counts.down > 80, "{counts:?}");
        ensure!(counts.wrong() == 0, "{counts:?}");
    }
    Ok(())
}

#[test]
fn one_armed_the_first_wan_is_on_the_lans_own_interface() -> Result<()> {
    let topology = Spec::one_armed(2).clients(2, 2).build()?;
    for number in 1..=2 {
        topology.forward_plainly(number)?;
        ensure_all_go_by(&topology, number)?;
    }
    let counts = topology.counts(1)?;
    ensure!(counts.wrong() == 0 && counts.new_tcp >= 40, "{counts:?}");
    ensure!(topology.client_addresses(2, Family::V4).len() == 2);
    Ok(())
}

#[test]
fn wans_may_share_subnet_gateway_and_own_address() -> Result<()> {
    for spec in [Spec::routed(2).same_subnet(2, 1), Spec::routed(2).same_address(2, 1)] {
        let topology = spec.without_main_routes().build()?;
        ensure!(topology.wan(1).v4.map(|leg| leg.gateway) == topology.wan(2).v4.map(|l| l.gateway));
        for number in 1..=2 {
            topology.forward_plainly(number)?;
            // The address of the other WAN's interface is ours too, so only IPv4 is certain to
            // resolve neighbours on both by itself.
            let placed = topology.client(1).place(5, Proto::Tcp, Family::V4)?;
            ensure!(placed.only() == Some(number), "{placed}");
        }
    }
    Ok(())
}

#[test]
fn a_wan_has_the_families_it_was_asked_to_have() -> Result<()> {
    let spec = Spec::routed(2).wan(1, |wan| wan.families = Families::V4);
    let topology = spec.wan(2, |wan| wan.families = Families::V6).build()?;
    topology.forward_plainly(1)?;
    topology.forward_plainly(2)?;
    let client = topology.client(1);
    ensure!(client.connect(Proto::Tcp, Family::V4)? == 1);
    ensure!(client.connect(Proto::Tcp, Family::V6)? == 2);
    Ok(())
}

#[test]
fn each_fault_stops_the_wan_and_its_undo_brings_it_back() -> Result<()> {
    for spec in [Spec::routed(1), Spec::one_armed(1)] {
        let topology = spec.build()?;
        topology.forward_plainly(1)?;
        let mut faults = vec![Fault::CarrierLost, Fault::GatewaySilent, Fault::Blackhole];
        if !topology.spec().one_armed {
            faults.extend([Fault::InterfaceGone, Fault::AddressGone]);
        }
        for fault in faults {
            wait_until_works(&topology, "the healthy WAN")?;
            topology.break_wan(1, &fault)?;
            for family in Family::BOTH {
                ensure!(!works(&topology, family)?, "{fault:?} has no effect on {family:?}");
            }
            topology.mend_wan(1, &fault)?;
            topology.forward_plainly(1)?;
            wait_until_works(&topology, &format!("the WAN after {fault:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn faults_differ_in_what_the_router_can_see() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    topology.forward_plainly(1)?;
    let router = topology.router();
    let link = |word: &str| -> Result<bool> { Ok(router.run("ip link show w1")?.contains(word)) };
    let ping = |to: String| -> Result<bool> {
        Ok(router.try_run(&["ping", "-c1", "-W1", &to])?.status == 0)
    };
    let gateway = topology.wan(1).gateway(Family::V4).map(|gateway| gateway.to_string());
    let gateway = gateway.expect("the WAN has IPv4");

    topology.break_wan(1, &Fault::CarrierLost)?;
    until_true(DEADLINE, "NO-CARRIER", || link("NO-CARRIER"))?;
    topology.mend_wan(1, &Fault::CarrierLost)?;
    until_true(DEADLINE, "carrier", || Ok(!link("NO-CARRIER")?))?;

    topology.break_wan(1, &Fault::Blackhole)?;
    ensure!(ping(gateway.clone())? && !link("NO-CARRIER")?, "a blackhole is beyond the gateway");
    ensure!(!ping("198.51.100.10".to_owned())?);
    topology.mend_wan(1, &Fault::Blackhole)?;

    topology.break_wan(1, &Fault::GatewaySilent)?;
    ensure!(!ping(gateway)? && !link("NO-CARRIER")?, "a silent gateway keeps its carrier");
    Ok(())
}

#[test]
fn a_fault_of_one_family_or_one_server_leaves_the_rest() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    topology.forward_plainly(1)?;
    topology.break_wan(1, &Fault::BlackholeOf(Family::V4))?;
    ensure!(!works(&topology, Family::V4)?);
    until_true(DEADLINE, "IPv6", || works(&topology, Family::V6))?;
    topology.mend_wan(1, &Fault::BlackholeOf(Family::V4))?;
    topology.break_wan(1, &Fault::Swallow("ip daddr 198.51.100.11".to_owned()))?;
    until_true(DEADLINE, "the first server", || works(&topology, Family::V4))?;
    let other = topology.client(1).timeout(SHORT).to(vec![([198, 51, 100, 11], ECHO).into()]);
    ensure!(other.place(1, Proto::Tcp, Family::V4)?.failed() == 1);
    Ok(())
}

#[test]
fn loss_loses_about_the_percentage_asked_for() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    topology.forward_plainly(1)?;
    topology.break_wan(1, &Fault::Loss(50))?;
    // Each way: a quarter of the questions is answered; of 1,000, these bounds are 10 sigma.
    let placed = topology.client(1).timeout(SHORT).place(1000, Proto::Udp, Family::V4)?;
    ensure!((100..400).contains(&placed.worked()), "{placed}");
    Ok(())
}

#[test]
fn isps_count_wrong_sources_and_strays() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    topology.forward_plainly(1)?;
    let flows = topology.client(1).flows(5, Proto::Tcp, Family::V4)?;
    ensure!(flows.on(1) == 5 && flows.exchange(DEADLINE).all_kept());
    // Masquerade would kill the moved flows; a router without it sends them on as they are.
    topology.router().nft("delete table inet plain")?;
    topology.router().run("ip route replace default via 192.168.102.1 dev w2")?;
    let before = topology.counts(2)?;
    let exchange = flows.exchange(SHORT);
    ensure!(exchange.kept() == 0 && exchange.failures().contains_key(&Failure::TimedOut));
    let seen = topology.counts(2)?.since(before);
    ensure!(seen.foreign_source + seen.stray + seen.stray_reset > 0, "{seen:?}");
    ensure!(seen.wrong() > 0 && seen.new_tcp == 0, "{seen:?}");
    Ok(())
}

#[test]
fn one_armed_isps_count_hosts_that_bypass_the_router() -> Result<()> {
    let topology = Spec::one_armed(1).build()?;
    topology.client_space(1).run("ip route replace default via 192.168.101.1")?;
    ensure!(topology.client(1).connect(Proto::Tcp, Family::V4)? == 1);
    let counts = topology.counts(1)?;
    ensure!(counts.other_host > 0 && counts.foreign() == 0, "{counts:?}");
    Ok(())
}

#[test]
fn a_dialer_sees_an_outage_and_its_length() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    topology.forward_plainly(1)?;
    for family in Family::BOTH {
        topology.forward_plainly(1)?;
        let dialer = topology.client(1).timeout(SHORT).dial(Proto::Tcp, family, BEAT);
        dialer.wait_for(20, DEADLINE, |wan| wan == 1)?;
        topology.break_wan(1, &Fault::Blackhole)?;
        until_true(DEADLINE, "failures", || Ok(dialer.so_far().failed() >= 20))?;
        topology.forward_plainly(2)?;
        dialer.wait_for(20, DEADLINE, |wan| wan == 2)?;
        let report = dialer.stop()?;
        ensure!(report.sequence() == [1, 2], "{report}");
        // 20 failures, a beat of 10 ms apart, at the very least.
        ensure!(report.longest_outage() >= Duration::from_millis(190), "{report}");
        topology.mend_wan(1, &Fault::Blackhole)?;
    }
    Ok(())
}

#[test]
fn a_dialer_without_an_outage_reports_none() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    topology.forward_plainly(1)?;
    let dialer = topology.client(1).dial(Proto::Udp, Family::V6, BEAT);
    dialer.wait_for(20, DEADLINE, |_| true)?;
    let report = dialer.stop()?;
    ensure!(report.failed() == 0 && report.longest_outage().is_zero(), "{report}");
    Ok(())
}

#[test]
fn two_thousand_connections_can_stay_open() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    topology.forward_plainly(1)?;
    let flows = topology.client(1).flows(2000, Proto::Tcp, Family::V4)?;
    let exchange = flows.exchange(DEADLINE);
    ensure!(exchange.all_kept(), "{exchange}");
    Ok(())
}

#[test]
fn a_refused_and_an_unroutable_connection_are_told_apart() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    topology.forward_plainly(1)?;
    let client = topology.client(1);
    let closed = client.clone().to(vec![([198, 51, 100, 10], 9).into()]);
    let placed = closed.place(1, Proto::Tcp, Family::V4)?;
    ensure!(placed.failures.contains_key(&Failure::Refused), "{placed}");
    topology.client_space(1).run("ip route del default")?;
    let placed = client.place(1, Proto::Tcp, Family::V4)?;
    ensure!(placed.failures.contains_key(&Failure::Unreachable), "{placed}");
    Ok(())
}

#[test]
fn servers_run_in_any_box() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    let addresses = topology.client_addresses(1, Family::V4);
    let _servers = Servers::start(topology.client_space(1), &addresses)?;
    let visitor = topology.router_client().to(vec![(addresses[0], ECHO).into()]);
    let placed = visitor.place(1, Proto::Tcp, Family::V4)?;
    let own = topology.lan_address(Family::V4);
    // It answers, with an address that is no ISP's.
    ensure!(placed.failures.contains_key(&Failure::Stranger(own)), "{placed}");
    Ok(())
}

#[test]
fn a_visitor_reaches_the_router_through_a_forwarded_port() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    topology.forward_plainly(2)?;
    topology.forward_port(2, ECHO)?;
    let wan = topology.wan(2);
    let own: Vec<_> = Family::BOTH.iter().filter_map(|family| wan.own(*family)).collect();
    let _servers = Servers::start(topology.router(), &own)?;
    let outside = Family::BOTH.map(|family| (wan.outside(family), ECHO).into());
    let visitor = topology.visitor().to(outside.to_vec());
    for (proto, family) in every_kind() {
        let seen = visitor.reach(proto, family)?;
        ensure!(topology.wan_of(seen).is_none(), "the visitor's own address: {seen}");
    }
    Ok(())
}

#[test]
fn a_dhcp_client_gets_an_address_and_then_another() -> Result<()> {
    let spec = Spec::routed(1).wan(1, |wan| wan.addressed = false);
    let topology = spec.build()?;
    let subnet = |host| Ipv4Addr::new(192, 168, 101, host);
    let mut dhcp = Dhcp::start(&topology, 1, subnet(2), subnet(1))?;
    for (address, gateway) in [(2, 1), (77, 9)] {
        if address != 2 {
            dhcp.offer(subnet(address), subnet(gateway))?;
            dhcp.renew()?;
        }
        let wanted = [
            format!("inet {}/24", subnet(address)),
            format!("default via {} dev w1", subnet(gateway)),
        ];
        until_true(DEADLINE, "the lease", || {
            let (addresses, routes) = ("ip addr show dev w1", "ip route show default");
            let text = topology.router().run(addresses)? + &topology.router().run(routes)?;
            Ok(wanted.iter().all(|wanted| text.contains(wanted)))
        })
        .with_context(|| dhcp.log())?;
    }
    Ok(())
}

#[test]
fn a_snapshot_shows_exactly_what_was_changed() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let before = Snapshot::take(topology.router())?;
    ensure!(before.diff(&Snapshot::take(topology.router())?).is_empty());
    topology.router().run("ip rule add pref 77 lookup 77")?;
    topology.router().run("ip -6 route add 2001:db8:77::/64 dev w1 table 77")?;
    topology.router().nft("table ip x { chain y { }; }")?;
    topology.router().set_sysctls(&[("net.ipv4.conf.w1.rp_filter", "2")])?;
    let diff = before.diff(&Snapshot::take(topology.router())?);
    for word in ["77: from all", "2001:db8:77::/64", "table ip x", "w1/rp_filter = 2"] {
        ensure!(diff.lines.iter().any(|line| line.contains(word)), "{word} is not in\n{diff}");
    }
    topology.router().run("ip rule del pref 77")?;
    topology.router().run("ip -6 route flush table 77")?;
    topology.router().nft("delete table ip x")?;
    topology.router().set_sysctls(&[("net.ipv4.conf.w1.rp_filter", "0")])?;
    let diff = before.diff(&Snapshot::take(topology.router())?);
    ensure!(diff.is_empty(), "{diff}");
    Ok(())
}

#[test]
fn after_a_panic_neither_namespaces_nor_processes_are_left() -> Result<()> {
    let shared = std::sync::Mutex::new((Vec::new(), 0));
    let panicked = std::panic::catch_unwind(|| {
        let topology = Spec::routed(2).build().expect("the lab works here");
        let names = topology.namespaces().map(|space| space.name().to_owned()).collect();
        // Leaves a grandchild behind that nobody but the namespace knows of.
        let line = ["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"];
        let outcome = topology.router().try_run(&line).expect("a shell");
        *shared.lock().expect("nobody panics holding it") =
            (names, outcome.stdout.trim().parse::<u32>().expect("a process id"));
        let _resident = topology.router().spawn(&["sleep", "1000"], None).expect("sleep");
        panic!("on purpose");
    });
    ensure!(panicked.is_err());
    let (names, orphan) = shared.into_inner()?;
    ensure!(!names.is_empty());
    for name in names {
        ensure!(!Path::new("/run/netns").join(&name).exists(), "{name} is left");
    }
    until_true(DEADLINE, "the orphan's end", || {
        // A zombie that nobody reaps has ended, too.
        let status = std::fs::read_to_string(format!("/proc/{orphan}/stat")).unwrap_or_default();
        Ok(status.is_empty() || status.contains(") Z "))
    })
}

#[test]
fn a_failing_command_shows_its_words_and_its_error() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    let Err(error) = topology.router().ip_batch("link set lo up\nlink set nowhere up\n") else {
        bail!("a link that does not exist was set up");
    };
    let text = format!("{error:#}");
    ensure!(text.contains("nowhere") && text.contains(topology.router().name()), "{text}");
    Ok(())
}

#[test]
fn sixty_wans_can_be_built() -> Result<()> {
    let topology = Spec::routed(60).build()?;
    for number in [1, 37, 60] {
        topology.forward_plainly(number)?;
        ensure!(topology.client(1).connect(Proto::Tcp, Family::V6)? == number);
    }
    Ok(())
}
