//! Building it: namespaces, links, addresses, routes and NAT, a few batches for each box.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Family, Spec, Topology, Wan, plan};
use crate::counters;
use crate::netns::{Namespaces, Netns};
use crate::servers::Servers;
use crate::wait::{slower, until};

/// A safety net for what takes a second at most.
const PLUGGED: Duration = Duration::from_secs(30);

pub(super) fn build(spec: Spec) -> Result<Topology> {
    ensure!((1..=60).contains(&spec.wans.len()), "1 to 60 WANs");
    let wans = plan::wans(&spec);
    let mut spaces = Namespaces::create(&roles(&spec))?;
    if spec.router_here {
        spaces.lend("router", Netns::own()?);
    }
    for role in roles(&spec) {
        prepare(&role, spaces.get(&role))?;
    }
    plug(&spec, &wans, &spaces)?;
    address(&spec, &wans, &spaces)?;
    wait_forwarding(&spaces)?;
    let directory = Arc::new(plan::directory(&wans));
    let mut topology = Topology { servers: None, spaces, spec, wans, directory };
    let addresses: Vec<IpAddr> = plan::SERVERS
        .iter()
        .chain(&plan::TARGETS)
        .flat_map(|(v4, v6)| [IpAddr::from(*v4), (*v6).into()])
        .collect();
    topology.servers = Some(Servers::start_services(topology.internet(), &addresses)?);
    Ok(topology)
}

fn roles(spec: &Spec) -> Vec<String> {
    let mut roles = ["switch", "net", "workbench"].map(str::to_owned).to_vec();
    roles.extend((!spec.router_here).then(|| "router".to_owned()));
    roles.extend((1..=spec.wans.len()).map(|number| format!("isp{number}")));
    roles.extend((1..=spec.clients).map(|number| format!("client{number}")));
    roles
}

/// Kernel settings, before there are links: `default` is what new links start with.
fn prepare(role: &str, space: &Netns) -> Result<()> {
    // No waiting for duplicate address detection anywhere; nobody sends router advertisements
    // unless a test starts it.
    space.set_sysctls(&[
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
    ])?;
    if role.starts_with("isp") {
        // The kernel's own 10 s. Within that a host whose connection is over may ask and hear of it.
        let closed = slower(Duration::from_secs(10)).as_secs().to_string();
        space.set_sysctls(&[
            ("net.netfilter.nf_conntrack_tcp_timeout_close", closed.as_str()),
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.send_redirects", "0"),
            ("net.ipv4.conf.default.send_redirects", "0"),
            // A packet in the middle of a flow that did not begin here is a stray: count it.
            ("net.netfilter.nf_conntrack_tcp_loose", "0"),
            // Refusals and unreachables count for nothing if the kernel holds them back.
            ("net.ipv4.icmp_ratelimit", "0"),
        ])?;
    }
    if role == "router" || role.starts_with("isp") {
        // The kernel's own 30 s, or flows that are idle meanwhile are forgotten.
        let idle = slower(Duration::from_secs(30)).as_secs().to_string();
        space.set_sysctls(&[("net.netfilter.nf_conntrack_udp_timeout", idle.as_str())])?;
    }
    if role == "router" {
        // As a fresh Debian has them; a new namespace may inherit the host's instead.
        space.set_sysctls(&[
            ("net.ipv4.ip_forward", "0"),
            ("net.ipv6.conf.all.forwarding", "0"),
            ("net.ipv4.conf.all.send_redirects", "1"),
            ("net.ipv4.conf.default.send_redirects", "1"),
            ("net.ipv4.conf.all.ignore_routes_with_linkdown", "0"),
            ("net.ipv4.conf.default.ignore_routes_with_linkdown", "0"),
            ("net.ipv4.fib_multipath_hash_policy", "0"),
            ("net.ipv6.fib_multipath_hash_policy", "0"),
        ])?;
    }
    Ok(())
}

/// The cables.
fn plug(spec: &Spec, wans: &[Wan], spaces: &Namespaces) -> Result<()> {
    let name = |role: &str| spaces.get(role).name().to_owned();
    let (router, switch, net) = (name("router"), name("switch"), name("net"));
    let mut cables = String::new();
    let mut cable = |near: &str, a: &str, far: &str, b: &str| {
        let _ = writeln!(cables, "link add {a} netns {near} type veth peer name {b} netns {far}");
    };
    cable(&router, if spec.one_armed { "eth0" } else { "lan0" }, &switch, "r");
    for number in 1..=spec.clients {
        cable(&name(&format!("client{number}")), "eth0", &switch, &format!("c{number}"));
    }
    for wan in wans {
        let isp = name(&format!("isp{}", wan.number));
        let (there, port) = if wan.shared { (&switch, "i1") } else { (&router, &*wan.interface) };
        cable(&isp, "lan", there, port);
        cable(&isp, "net0", &net, &format!("p{}", wan.number));
    }
    // Older kernels look a new link's name up where `ip` runs, not where the link will be.
    spaces.get("workbench").ip_batch(&cables)
}

/// Addresses, routes, bridges and NAT; the boxes side by side.
fn address(spec: &Spec, wans: &[Wan], spaces: &Namespaces) -> Result<()> {
    thread::scope(|scope| {
        let mut jobs = vec![
            scope.spawn(|| spaces.get("switch").ip_batch(&switch(spec))),
            scope.spawn(|| spaces.get("net").ip_batch(&internet(wans))),
            scope.spawn(|| spaces.get("router").ip_batch(&router(spec, wans))),
        ];
        for number in 1..=usize::from(spec.clients) {
            let space = spaces.get(&format!("client{number}"));
            jobs.push(scope.spawn(move || space.ip_batch(&client(spec, number))));
        }
        for wan in wans {
            let space = spaces.get(&format!("isp{}", wan.number));
            jobs.push(scope.spawn(move || {
                space.ip_batch(&isp(wan))?;
                space.nft(&counters::ruleset(wan)).map(drop)
            }));
        }
        jobs.into_iter()
            .try_for_each(|job| job.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// A port of a bridge forwards nothing until the kernel's own worker has noticed its carrier: up to
/// a second after.
fn wait_forwarding(spaces: &Namespaces) -> Result<()> {
    for role in ["switch", "net"] {
        until(PLUGGED, "the ports of a switch to forward", || {
            let ports = spaces.get(role).run("bridge link")?;
            ensure!(ports.lines().all(|port| port.contains("state forwarding")), "{ports}");
            Ok(())
        })?;
    }
    Ok(())
}

const BRIDGE: &str = "link add br0 type bridge mcast_snooping 0\nlink set br0 up\n";

fn switch(spec: &Spec) -> String {
    let clients = (1..=spec.clients).map(|number| format!("c{number}"));
    let shared = spec.one_armed.then(|| "i1".to_owned());
    let ports = ["r".to_owned()].into_iter().chain(clients).chain(shared);
    ports.fold(BRIDGE.to_owned(), |text, port| text + &format!("link set {port} master br0 up\n"))
}

fn internet(wans: &[Wan]) -> String {
    let mut text = BRIDGE.to_owned();
    for wan in wans {
        let _ = writeln!(text, "link set p{} master br0 up", wan.number);
    }
    for (v4, v6) in plan::SERVERS.iter().chain(&plan::TARGETS) {
        let _ = writeln!(text, "addr add {v4}/24 dev br0\naddr add {v6}/64 nodad dev br0");
    }
    text
}

fn client(spec: &Spec, number: usize) -> String {
    let mut text = "link set eth0 up\n".to_owned();
    for family in Family::BOTH {
        for at in 0..spec.client_addresses {
            let address = plan::client_address(spec, number, at, family);
            let _ = writeln!(text, "addr add {address}{} dev eth0", tail(family));
        }
        let _ = writeln!(text, "route add default via {}", plan::lan_router(spec, family));
    }
    text
}

/// Prefix length and options: without `nodad` an address is unusable for a moment, even where
/// duplicate detection is off.
fn tail(family: Family) -> &'static str {
    match family {
        Family::V4 => "/24",
        Family::V6 => "/64 nodad",
    }
}

fn router(spec: &Spec, wans: &[Wan]) -> String {
    let mut text = String::new();
    if !spec.one_armed {
        text.push_str("link set lan0 up\n");
        for family in Family::BOTH {
            let address = plan::lan_router(spec, family);
            let _ = writeln!(text, "addr add {address}{} dev lan0", tail(family));
        }
    }
    for wan in wans {
        let _ = writeln!(text, "link set {} up", wan.interface);
        if wan.spec.addressed {
            text += &router_addresses(wan);
        }
    }
    text
}

/// `ip` commands that give the router its addresses on a WAN and, if asked for, default routes.
pub(crate) fn router_addresses(wan: &Wan) -> String {
    let mut text = String::new();
    let (dev, metric) = (&wan.interface, 100 + wan.number);
    for family in Family::BOTH {
        let (Some(own), Some(gateway)) = (wan.own(family), wan.gateway(family)) else { continue };
        let _ = writeln!(text, "addr replace {own}{} dev {dev}", tail(family));
        if wan.spec.main_route {
            let _ = writeln!(text, "route replace default via {gateway} dev {dev} metric {metric}");
        }
    }
    text
}

fn isp(wan: &Wan) -> String {
    let (v4, v6) = wan.outside;
    format!(
        "link set net0 up\naddr add {v4}/24 dev net0\naddr add {v6}/64 nodad dev net0\n{}",
        isp_lan(wan)
    )
}

/// `ip` commands that bring up an ISP's side of the line.
pub(crate) fn isp_lan(wan: &Wan) -> String {
    let mut text = "link set lan up\n".to_owned();
    for family in Family::BOTH {
        if let Some(gateway) = wan.gateway(family) {
            let _ = writeln!(text, "addr replace {gateway}{} dev lan", tail(family));
        }
    }
    text
}
