//! Connections from the internet, to the router or through somebody's port forward, are answered
//! through the WAN they came in by. Others are kept out.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::netns::Namespaces;
use anywan_lab::servers::{ECHO, Servers};
use anywan_lab::wait::until_true;
use anywan_lab::{Client, Config, Daemon, Failure, Family, Netns, Spec, Topology};

use crate::common::{DEADLINE, ensure_nothing_wrong, every_kind, in_both_layouts};

/// A port that somebody's DNAT rule leads to a LAN host.
const FORWARDED: u16 = 7100;

/// Somebody on the internet who asks the outside address of WAN `number`.
fn visitor_of(topology: &Topology, number: usize, port: u16) -> Client {
    let wan = topology.wan(number);
    topology.visitor().to(Family::BOTH.map(|family| (wan.outside(family), port).into()).to_vec())
}

#[test]
fn the_router_answers_through_the_wan_that_was_asked() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let _daemon = Daemon::start_up(&topology, &Config::of(&topology).priorities(&[1, 2, 3]))?;
        let wans = topology.wans().iter();
        let own: Vec<_> =
            wans.flat_map(|wan| Family::BOTH.iter().filter_map(|f| wan.own(*f))).collect();
        let _servers = Servers::start(topology.router(), &own)?;
        for number in 1..=3 {
            topology.forward_port(number, ECHO)?;
            for (proto, family) in every_kind() {
                visitor_of(&topology, number, ECHO).reach(proto, family)?;
            }
        }
        ensure_nothing_wrong(&topology)
    })
}

#[test]
fn a_port_forward_answers_through_the_wan_that_was_asked() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let _daemon = Daemon::start_up(&topology, &Config::of(&topology).priorities(&[1, 2, 3]))?;
        let hosts = Family::BOTH.map(|family| topology.client_addresses(1, family)[0]);
        let _servers = Servers::start(topology.client_space(1), &hosts)?;
        forward_foreign(&topology)?;
        for number in 1..=3 {
            topology.forward_port(number, FORWARDED)?;
            for (proto, family) in every_kind() {
                visitor_of(&topology, number, FORWARDED).reach(proto, family)?;
            }
        }
        ensure_nothing_wrong(&topology)
    })
}

/// Somebody else's table in the router: every own address's port leads to the LAN host.
fn forward_foreign(topology: &Topology) -> Result<()> {
    let mut text =
        "table inet foreign {\n chain pre {\n  type nat hook prerouting priority dstnat\n"
            .to_owned();
    for (word, family) in [("ip", Family::V4), ("ip6", Family::V6)] {
        let host = topology.client_addresses(1, family)[0];
        let to = if family == Family::V4 {
            format!("{host}:{ECHO}")
        } else {
            format!("[{host}]:{ECHO}")
        };
        for own in topology.wans().iter().filter_map(|wan| wan.own(family)) {
            text += &format!(
                "  {word} daddr {own} meta l4proto {{ tcp, udp }} th dport {FORWARDED} dnat {word} to {to}\n"
            );
        }
    }
    topology.router().nft(&(text + " }\n}\n")).map(drop)
}

/// Without NAT in the way, an outsider could reach a LAN host: an ISP's own machine tries.
#[test]
fn nobody_outside_reaches_a_lan_host_uninvited() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let _daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    let hosts = Family::BOTH.map(|family| topology.client_addresses(1, family)[0]);
    let _servers = Servers::start(topology.client_space(1), &hosts)?;
    let isp = topology.isp(1);
    isp.run("ip route add 10.1.0.0/24 via 192.168.101.2")?;
    isp.run("ip -6 route add fd00:1::/64 via 2001:db8:1::2")?;
    topology.internet().run("ip route add 10.1.0.0/24 via 198.51.100.101")?;
    topology.internet().run("ip -6 route add fd00:1::/64 via 2001:db8:ff::101")?;
    let outsider = topology.visitor().timeout(std::time::Duration::from_millis(500));
    for (proto, family) in every_kind() {
        let host = hosts[usize::from(family == Family::V6)];
        let placed = outsider.clone().to(vec![(host, ECHO).into()]).place(3, proto, family)?;
        ensure!(placed.worked() == 0, "{placed}");
        let got_in = placed.failures.keys().any(|f| matches!(f, Failure::Stranger(_)));
        ensure!(!got_in, "{proto:?} {family:?}: {placed}");
    }
    Ok(())
}

/// The router's DNS port is for its LAN.
#[test]
fn the_routers_dns_port_is_closed_to_the_internet_and_open_to_the_lan() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    let daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    // Any server on that port will do; it also has to answer at all, so the LAN asks it first.
    let line = "dnsmasq -k -C /dev/null -u root -R -h -A /x.test/192.0.2.1 --log-facility=-";
    let pid_file = format!("--pid-file={}", daemon.path("dns.pid").display());
    let line: Vec<&str> = line.split(' ').chain([&*pid_file]).collect();
    let _dns = topology.router().spawn(&line, Some(&daemon.path("log")))?;
    topology.forward_port(1, 53)?;
    let ask = |space: &Netns, server: &str| -> Result<bool> {
        let args = ["timeout", "2", "busybox", "nslookup", "x.test", server];
        Ok(space.try_run(&args)?.stdout.contains("192.0.2.1"))
    };
    let inside = topology.lan_address(Family::V4).to_string();
    until_true(DEADLINE, "an answer on the LAN", || ask(topology.client_space(1), &inside))
        .with_context(|| daemon.log_tail())?;
    let outside = topology.wan(1).outside(Family::V4).to_string();
    ensure!(!ask(topology.internet(), &outside)?, "the internet may ask the router's DNS");
    Ok(())
}

/// Somebody on a WAN's own subnet - the admin's PC in front of the router, a modem's page - is
/// answered directly, not through the gateway, also after the first packet.
#[test]
fn neighbours_on_a_wans_own_subnet_are_answered_directly() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let spaces = Namespaces::create(&["pc".to_owned()])?;
    let pc = spaces.get("pc");
    let neighbour = |family| topology.wan(2).own(family).map(neighbour_of);
    let hosts = Family::BOTH.map(|family| neighbour(family).expect("the WAN has both"));
    let link = format!("ip link add pc0 link lan netns {} type macvlan mode bridge", pc.name());
    topology.isp(2).run(&link)?;
    let [host4, host6] = hosts;
    pc.ip_batch(&format!(
        "link set lo up\nlink set pc0 up\naddr add {host4}/24 dev pc0\n\
         addr add {host6}/64 dev pc0 nodad"
    ))?;
    let _daemon = Daemon::start_up(&topology, &Config::of(&topology).priorities(&[1, 2]))?;
    // What goes to the gateway instead is lost there.
    topology.break_wan(2, &anywan_lab::Fault::Blackhole)?;
    let _page = Servers::start(pc, &hosts)?;
    let own = Family::BOTH.map(|family| topology.wan(2).own(family).expect("the WAN has both"));
    let _ssh = Servers::start(topology.router(), &own)?;
    for (host, own) in hosts.into_iter().zip(own) {
        pc.inside(|| talk_to(own)).flatten_context("the PC with the router")?;
        topology.router().inside(|| talk_to(host)).flatten_context("the router with the PC")?;
        let lan = topology.client_space(1);
        lan.inside(|| talk_to(host)).flatten_context("a LAN host with the PC")?;
    }
    Ok(())
}

/// Another address of the same subnet.
fn neighbour_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            [a, b, c, 77].into()
        }
        IpAddr::V6(v6) => {
            let mut segments = v6.segments();
            segments[7] = 0x77;
            segments.into()
        }
    }
}

/// A conversation of several turns with an echo server.
fn talk_to(host: IpAddr) -> Result<()> {
    use std::io::{Read as _, Write as _};
    let patience = std::time::Duration::from_secs(5);
    let mut stream = std::net::TcpStream::connect_timeout(&(host, ECHO).into(), patience)?;
    stream.set_read_timeout(Some(patience))?;
    for turn in 0..3 {
        stream.write_all(b"x\n")?;
        let got = stream.read(&mut [0; 100]).with_context(|| format!("turn {turn}"))?;
        ensure!(got > 0, "turn {turn}: it has ended");
    }
    Ok(())
}

/// Two layers of results, with what was tried.
trait FlattenContext {
    fn flatten_context(self, what: &str) -> Result<()>;
}

impl FlattenContext for Result<Result<()>> {
    fn flatten_context(self, what: &str) -> Result<()> {
        self.and_then(|inner| inner).with_context(|| what.to_owned())
    }
}
