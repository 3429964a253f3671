//! What others destroy of ours is repaired and reported, while the LAN's traffic goes on.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use anywan_lab::flows::Talking;
use anywan_lab::servers::{ECHO, STREAM};
use anywan_lab::topology::SERVERS;
use anywan_lab::{Config, Daemon, Failure, Family, Proto, Snapshot, Spec, Topology, until};
use rustix::process::Signal;

use crate::common::{
    DEADLINE, dialers, ensure_all_kept, flows_of_every_kind, talk, wait_all_by, wait_dialled,
};

/// The kernel tells nobody of most changed sysctls: those wait for the full re-read, each 30 s.
const RE_READ: Duration = Duration::from_secs(60);

/// Between two words: each moment without what is ours meets some.
const WORD: Duration = Duration::from_millis(1);

/// Enough for three SYNs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A damage, and words of which one must be in the event that reports its repair.
type Damage = (String, &'static [&'static str]);

/// Lines that the daemon added to a section of the router's state.
fn ours(before: &Snapshot, with: &Snapshot, section: &str) -> Vec<String> {
    let prefix = format!("{section}: + ");
    let lines = before.diff(with).lines.into_iter();
    lines.filter_map(|line| line.strip_prefix(&prefix).map(str::to_owned)).collect()
}

/// Everything of ours that can be taken away or changed, one command each.
fn damages(before: &Snapshot, with: &Snapshot) -> Result<Vec<Damage>> {
    let mut damages: Vec<Damage> = vec![
        ("nft flush ruleset".to_owned(), &["table", "nft"]),
        ("nft delete table inet anywan".to_owned(), &["table", "nft"]),
        ("nft flush chain inet anywan prerouting".to_owned(), &["chain", "table", "nft"]),
        ("sysctl -q -w net.ipv4.ip_forward=0".to_owned(), &["ip_forward", "forward"]),
        ("sysctl -q -w net.ipv4.fib_multipath_hash_policy=0".to_owned(), &["hash_policy"]),
        (
            "sysctl -q -w net.ipv4.conf.all.ignore_routes_with_linkdown=0".to_owned(),
            &["ignore_routes_with_linkdown"],
        ),
        ("sysctl -q -w net.ipv6.conf.all.forwarding=0".to_owned(), &["forward"]),
    ];
    for (command, section) in [("ip", "ip -4 -d rule"), ("ip -6", "ip -6 -d rule")] {
        let rules = ours(before, with, section);
        ensure!(rules.len() >= 4, "our rules: {rules:?}");
        let first = rules.first().and_then(|rule| rule.split(':').next());
        let last = rules.last().and_then(|rule| rule.split(':').next());
        for priority in [first, last] {
            let priority = priority.context("a rule's priority")?;
            damages.push((format!("{command} rule del pref {priority}"), &["rule"]));
        }
    }
    for (command, section) in
        [("ip", "ip -4 -d route show table all"), ("ip -6", "ip -6 -d route show table all")]
    {
        let routes = ours(before, with, section);
        let table =
            |route: &String| Some(route.split(" table ").nth(1)?.split(' ').next()?.to_owned());
        let mut tables: Vec<String> = routes.iter().filter_map(table).collect();
        tables.sort();
        tables.dedup();
        tables.retain(|table| table != "local");
        ensure!(tables.len() >= 2, "our tables: {tables:?}");
        for table in tables {
            damages.push((format!("{command} route flush table {table}"), &["route", "table"]));
        }
    }
    Ok(damages)
}

/// Waits until the router's state is whole again.
fn wait_repaired(topology: &Topology, whole: &Snapshot, deadline: Duration) -> Result<()> {
    until(deadline, "the repair", || {
        let diff = whole.diff(&Snapshot::take(topology.router())?);
        ensure!(diff.is_empty(), "{diff}");
        Ok(())
    })
}

/// Does the damage; waits until it is repaired and an event has named it.
fn survive(topology: &Topology, daemon: &Daemon, whole: &Snapshot, damage: &Damage) -> Result<()> {
    let (command, words) = damage;
    let known = daemon.events()?.len();
    topology.router().run(command)?;
    wait_repaired(topology, whole, RE_READ)?;
    until(DEADLINE, "the report", || {
        let events = daemon.events()?;
        let text: Vec<String> = events[known..].iter().map(|event| event.to_string()).collect();
        let named = words.iter().any(|word| text.iter().any(|line| line.contains(word)));
        ensure!(named, "none of {words:?} in {text:?}");
        Ok(())
    })
}

/// [`survive`] with traffic: new connections work again, and established ones were kept.
fn survive_with_traffic(
    topology: &Topology,
    daemon: &Daemon,
    whole: &Snapshot,
    damage: &Damage,
) -> Result<()> {
    // Thousands of connections of the damages before are still in every conntrack on the way; one
    // that reuses a port may need a second SYN. Opening them is not what is tested here.
    let client = topology.client(1).timeout(PATIENCE);
    let idle = flows_of_every_kind(&client, 10)?;
    // A word of UDP that meets the gap is lost by nature; TCP says it again.
    let tcp = client.flows(20, Proto::Tcp, Family::V4)?;
    let tcp = tcp.and(client.flows(20, Proto::Tcp, Family::V6)?);
    let talking = tcp.keep_talking(WORD, DEADLINE);
    let dialling = dialers(&topology.client(1));
    wait_dialled(&dialling, |_| true)?;
    survive(topology, daemon, whole, damage)?;
    wait_dialled(&dialling, |_| true).context("new connections")?;
    let exchange = idle.exchange(DEADLINE);
    ensure!(exchange.all_kept(), "idle flows: {exchange}");
    ensure_kept_or_reset(talking, damage)
}

/// Without our table there is no NAT: the router itself resets flows whose answers meet that gap,
/// and masquerade ends those that take another way. Those must hear of it. With it all are kept.
fn ensure_kept_or_reset(talking: Talking, damage: &Damage) -> Result<()> {
    if !damage.0.starts_with("nft ") {
        return ensure_all_kept(talking).map(drop).context("talking flows");
    }
    let (flows, rounds) = talking.stop();
    let last = flows.exchange(DEADLINE);
    for round in rounds.iter().chain([&last]) {
        let silent = round.failures().into_keys().find(|failure| *failure != Failure::Reset);
        ensure!(silent.is_none() && round.moved() == 0, "talking flows: {round}");
    }
    Ok(())
}

fn whatever_is_destroyed_is_repaired(spec: Spec) -> Result<()> {
    let topology = spec.build()?;
    // A flow of datagrams that is idle until a repair is one no more after half a minute.
    topology.router().run("sysctl -q -w net.netfilter.nf_conntrack_udp_timeout=3600")?;
    let before = Snapshot::take(topology.router())?;
    let mut daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    daemon.follow_events()?;
    let whole = settled(&topology)?;
    let mut bad = Vec::new();
    for damage in damages(&before, &whole)? {
        // All of them are tried, so that one report tells everything.
        if let Err(error) = survive_with_traffic(&topology, &daemon, &whole, &damage) {
            bad.push(format!("after `{}`: {error:#}", damage.0));
        }
    }
    ensure!(bad.is_empty(), "{}\nthe log:\n{}", bad.join("\n"), daemon.log_tail());
    Ok(())
}

#[test]
fn whatever_is_destroyed_is_repaired_and_reported_while_traffic_goes_on() -> Result<()> {
    whatever_is_destroyed_is_repaired(Spec::routed(2))
}

#[test]
fn the_same_with_a_shared_interface() -> Result<()> {
    whatever_is_destroyed_is_repaired(Spec::one_armed(2))
}

/// The router's state once it no longer changes.
fn settled(topology: &Topology) -> Result<Snapshot> {
    until(DEADLINE, "a state that stays", || {
        let first = Snapshot::take(topology.router())?;
        std::thread::sleep(Duration::from_millis(300));
        let diff = first.diff(&Snapshot::take(topology.router())?);
        ensure!(diff.is_empty(), "{diff}");
        Ok(first)
    })
}

#[test]
fn a_foreign_default_route_changes_nothing() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let config = Config::of(&topology).priorities(&[1, 2]);
    let _daemon = Daemon::start_up(&topology, &config)?;
    wait_all_by(&topology.client(1), 1)?;
    let talking = talk(flows_of_every_kind(&topology.client(1), 10)?);
    topology.router().run("ip route add default via 192.168.102.1 dev w2 metric 1")?;
    topology.router().run("ip -6 route add default via 2001:db8:2::1 dev w2 metric 1")?;
    crate::common::ensure_all_by(&topology.client(1), 1)?;
    crate::common::ensure_all_by(&topology.router_client(), 1)?;
    ensure_all_kept(talking)?;
    let routes = topology.router().run("ip route show default")?;
    ensure!(routes.contains("metric 1 ") || routes.contains("metric 1\n"), "left alone: {routes}");
    Ok(())
}

/// Others' tables that keep connection tracking at work while ours is away: what begins then gets
/// an entry. With a nat chain the kernel even notes for good that nothing was to be translated.
const OTHERS: [&str; 2] = [
    "table inet other {
       chain seen { type filter hook forward priority filter
         ct state new accept
       }
     }",
    "table inet other {
       chain seen { type nat hook postrouting priority srcnat
         ct state new accept
       }
     }",
];

/// Says a word every so often on one UDP socket until it is answered.
fn ask_again_and_again(topology: &Topology, family: Family) -> Result<()> {
    let own = topology.client_addresses(1, family)[0];
    let (v4, v6) = SERVERS[0];
    let server = match family {
        Family::V4 => SocketAddr::new(v4.into(), ECHO),
        Family::V6 => SocketAddr::new(v6.into(), ECHO),
    };
    let begun = Instant::now();
    topology.client_space(1).inside(|| {
        let socket = UdpSocket::bind(SocketAddr::new(own, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        while begun.elapsed() < DEADLINE {
            // A refusal is no answer.
            let _ = socket.send(b"x");
            if socket.recv(&mut [0; 64]).is_ok() {
                return Ok(());
            }
        }
        bail!("UDP over {family:?}: no answer")
    })?
}

/// Begins a flow of every kind while the table is away, gets it back, and waits for answers.
fn begin_without_table(topology: &Topology, bring_back: impl FnOnce() -> Result<()>) -> Result<()> {
    topology.router().run("nft delete table inet anywan")?;
    thread::scope(|scope| {
        let mut flows = Vec::new();
        for family in Family::BOTH {
            flows.push(scope.spawn(move || ask_again_and_again(topology, family)));
            let client = topology.client(1).timeout(DEADLINE);
            flows.push(scope.spawn(move || client.connect(Proto::Tcp, family).map(drop)));
        }
        for proto in ["udp", "tcp"] {
            for family in Family::BOTH {
                let (name, own) = (family.key(), topology.client_addresses(1, family)[0]);
                let list = format!("conntrack -L -f {name} -p {proto} -s {own} --dport {ECHO}");
                until(DEADLINE, "an untranslated flow", || {
                    let flows = topology.router().run(&list)?;
                    ensure!(flows.contains("[UNREPLIED]"), "{list}: {flows}");
                    Ok(())
                })?;
            }
        }
        bring_back()?;
        flows.into_iter().try_for_each(|flow| flow.join().expect("a flow does not panic"))
    })
}

#[test]
fn flows_that_begin_while_the_table_is_away_work_once_it_is_back() -> Result<()> {
    for others in OTHERS {
        let topology = Spec::routed(2).build()?;
        topology.router().nft(others)?;
        let mut daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
        daemon.signal(Signal::STOP)?;
        begin_without_table(&topology, || daemon.signal(Signal::CONT)).context(others)?;
        daemon.kill();
        begin_without_table(&topology, || daemon.launch()).context("and a restart")?;
    }
    Ok(())
}

/// Between two looks at a download: slow readers, whose servers always have more to say.
const SIP: Duration = Duration::from_millis(5);
/// Downloads of each family.
const DOWNLOADS: usize = 4;

/// Reads until something has come after `repaired`, or whatever else happens; says whether it went on
/// or was told that it is over.
fn download(mut from: TcpStream, repaired: &AtomicBool) -> Result<bool> {
    from.set_read_timeout(Some(DEADLINE))?;
    let mut went_on = 0;
    // What had come before may take some looks.
    while went_on < 1000 {
        went_on += usize::from(repaired.load(Ordering::Relaxed));
        match from.read(&mut [0; 16 * 1024]) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error).context("a download"),
            Ok(0) => bail!("a download ended"),
            Ok(_) => thread::sleep(SIP),
        }
    }
    Ok(true)
}

#[test]
fn downloads_that_meet_a_flush_go_on_or_are_told() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    let whole = settled(&topology)?;
    let (v4, v6) = SERVERS[0];
    let connect = |server: IpAddr| -> Result<TcpStream> {
        let connect = || TcpStream::connect(SocketAddr::new(server, STREAM));
        Ok(topology.client_space(1).inside(connect)??)
    };
    let mut told = 0;
    for _ in 0..2 {
        let repaired = AtomicBool::new(false);
        let servers = [IpAddr::from(v4), v6.into()].into_iter().cycle().take(2 * DOWNLOADS);
        let streams = servers.map(connect).collect::<Result<Vec<_>>>()?;
        told += thread::scope(|scope| -> Result<usize> {
            let downloads: Vec<_> = streams
                .into_iter()
                .map(|stream| scope.spawn(|| download(stream, &repaired)))
                .collect();
            thread::sleep(Duration::from_secs(1));
            // Long enough for servers to say again what was not acknowledged.
            daemon.signal(Signal::STOP)?;
            topology.router().run("nft flush ruleset")?;
            thread::sleep(Duration::from_secs(1));
            daemon.signal(Signal::CONT)?;
            let back = wait_repaired(&topology, &whole, DEADLINE);
            repaired.store(true, Ordering::Relaxed);
            let ends = downloads.into_iter().map(|d| d.join().expect("it does not panic"));
            let ends = ends.collect::<Result<Vec<bool>>>()?;
            back?;
            Ok(ends.into_iter().filter(|went_on| !went_on).count())
        })?;
    }
    ensure!(told > 0, "no download met the flush");
    Ok(())
}
