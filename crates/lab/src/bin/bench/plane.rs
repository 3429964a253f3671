//! What the rules cost a packet: the same load through anywan, through a plain router with one
//! masquerade rule, and through the least that steers at all, in turn, in one run.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use anywan_lab::daemon::{Config, Daemon};
use anywan_lab::topology::{Family, Spec, Topology};
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use crate::load::{Sink, connections_per_second, megabits_per_second, only_the_first_cpu};
use crate::report::{Page, median};

/// Labs of each kind, one after the other: where one's memory happens to lie makes it a percent faster or
/// slower than another.
const LABS: usize = 10;
/// Turns of each contestant, in all labs.
const TURNS: usize = 100;
const SPAN: Duration = Duration::from_millis(300);
/// Connections are counted in short turns, many of them: the speed of a shared machine drifts.
const SHORT_TURNS: usize = 1000;
const SHORT: Duration = Duration::from_millis(30);

struct Contestant {
    name: &'static str,
    topology: Topology,
    // Kept alive, dropped before its topology's namespaces are of use to nobody.
    _daemon: Option<Daemon>,
    _sink: Sink,
    results: Vec<f64>,
}

/// What makes a router of a topology.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Least,
    Anywan,
}

/// Whether the kernel asks of each packet if its source can be reached (`rp_filter`, RFC 3704):
/// the kernel's own default and Debian 12's is not to, Debian 13's (package linux-sysctl-defaults)
/// is to, loosely.
#[derive(Clone, Copy)]
enum PathCheck {
    None,
    Loose,
}

fn contestant(name: &'static str, wans: u8, kind: Kind, check: PathCheck) -> Result<Contestant> {
    let topology = Spec::routed(wans).build()?;
    if let PathCheck::Loose = check {
        topology.router().set_sysctls(&[("net.ipv4.conf.all.rp_filter", "2")])?;
    }
    let daemon = match kind {
        Kind::Plain => {
            topology.forward_plainly(1)?;
            None
        }
        Kind::Least => {
            steer_barely(&topology)?;
            None
        }
        Kind::Anywan => Some(Daemon::start_up(&topology, &quiet(&topology))?),
    };
    let sink = Sink::start(topology.internet())?;
    Ok(Contestant { name, topology, _daemon: daemon, _sink: sink, results: Vec::new() })
}

/// Probes so rare that the rules alone are measured, and one WAN that serves, as on the plain
/// router: load spread over 60 ISPs would measure the caches of this machine.
fn quiet(topology: &Topology) -> Config {
    let mut priorities = vec![2; topology.wans().len()];
    priorities[0] = 1;
    Config::of(topology).priorities(&priorities).health("interval", r#""60s""#)
}

/// The least that gives each flow a WAN and keeps it there: three ip rules, three tables of one route,
/// four maps and a mark. It counts nothing, protects nothing, knows no failure and no IPv6. Whatever
/// steers by marks costs this much.
fn steer_barely(topology: &Topology) -> Result<()> {
    topology.forward_plainly(1)?;
    let (mut rules, mut chains) = (String::new(), String::new());
    let (mut devices, mut keep, mut leave) = (Vec::new(), Vec::new(), Vec::new());
    for (wan, number) in topology.wans().iter().zip(1..) {
        let gateway = wan.gateway(Family::V4).context("a WAN without IPv4")?;
        let (device, table) = (wan.interface.as_str(), 1000 + number);
        writeln!(rules, "route add default via {gateway} dev {device} table {table}")?;
        writeln!(rules, "rule add pref {table} fwmark {number} lookup {table}")?;
        writeln!(chains, "chain keep{number} {{ meta mark set {number}\n }}")?;
        writeln!(chains, "chain leave{number} {{ ct mark set {number} masquerade\n }}")?;
        devices.push(format!("\"{device}\" : accept"));
        keep.push(format!("{number} : goto keep{number}"));
        leave.push(format!("\"{device}\" : goto leave{number}"));
    }
    let slots: Vec<String> = (0..256).map(|slot| format!("{slot} : goto keep1")).collect();
    let [devices, keep, leave, slots] = [devices, keep, leave, slots].map(|all| all.join(", "));
    topology.router().ip_batch(&rules)?;
    topology.router().nft(&format!(
        "delete table inet plain
         table inet least {{
           map from {{ type iface_index : verdict; elements = {{ {devices} }}; }}
           map restore {{ typeof ct mark : verdict; elements = {{ {keep} }}; }}
           map slots {{ typeof numgen inc mod 256 : verdict; elements = {{ {slots} }}; }}
           map out {{ type iface_index : verdict; elements = {{ {leave} }}; }}
           {chains}
           chain prerouting {{
             type filter hook prerouting priority dstnat + 10
             iif vmap @from
             ct mark vmap @restore
             numgen inc mod 256 vmap @slots
           }}
           chain postrouting {{
             type nat hook postrouting priority srcnat
             oif vmap @out
           }}
         }}"
    ))?;
    Ok(())
}

/// All of them, in labs of their own: groups, each led by the plain router with which the others
/// are compared.
fn contestants() -> Result<Vec<Vec<Contestant>>> {
    use Kind::{Anywan, Least, Plain};
    use PathCheck::{Loose, None};
    Ok(vec![
        vec![
            contestant("plain forwarding, one masquerade rule", 3, Plain, None)?,
            contestant("the same once more", 3, Plain, None)?,
            contestant("the least that steers, 3 WANs", 3, Least, None)?,
            contestant("anywan, 3 WANs", 3, Anywan, None)?,
        ],
        vec![
            contestant("plain, in a lab of 60 WANs", 60, Plain, None)?,
            contestant("anywan, 60 WANs", 60, Anywan, None)?,
        ],
        vec![
            contestant("plain, 3 WANs, Debian 13's parameters", 3, Plain, Loose)?,
            contestant("the least that steers, the same", 3, Least, Loose)?,
            contestant("anywan, the same", 3, Anywan, Loose)?,
        ],
    ])
}

fn contest(
    page: &mut Page,
    unit: &str,
    turns: usize,
    measure: impl Fn(&Topology) -> Result<f64>,
) -> Result<()> {
    let mut sums: Vec<(&str, Vec<f64>, Vec<f64>)> = Vec::new();
    for _ in 0..LABS {
        let mut groups = contestants()?;
        let mut all: Vec<&mut Contestant> = groups.iter_mut().flatten().collect();
        for one in &all {
            measure(&one.topology)?;
        }
        for round in 0..turns / LABS {
            // Another one begins each time, so that drift hits all alike.
            for turn in 0..all.len() {
                let place = (turn + round) % all.len();
                let result = measure(&all[place].topology)?;
                all[place].results.push(result);
            }
        }
        let led = groups.iter().flat_map(|group| group.iter().map(|one| (one, &group[0])));
        for (place, (one, plain)) in led.enumerate() {
            let pairs = one.results.iter().zip(&plain.results).map(|(a, b)| a / b);
            if sums.len() == place {
                sums.push((one.name, Vec::new(), Vec::new()));
            }
            sums[place].1.extend(&one.results);
            sums[place].2.extend(pairs);
        }
    }
    for (name, results, ratios) in sums {
        page.row(&[
            name.to_owned(),
            format!("{:.0} {unit}", median(&results)),
            format!("{:.3}", median(&ratios)),
        ]);
    }
    page.end();
    Ok(())
}

/// New connections a second.
pub(crate) fn connections(page: &mut Page) -> Result<()> {
    page.table(
        "New connections",
        &format!(
            "One client, one after the other; {SHORT_TURNS} turns of 30 ms each, in rotation, in {LABS} labs."
        ),
        &["router", "median", "ratio to plain in the same lab, median of pairs"],
    );
    contest(page, "/s", SHORT_TURNS, |topology| {
        let server = "198.51.100.10".parse()?;
        connections_per_second(topology.client_space(1), server, SHORT)
    })
}

/// Throughput of established flows.
pub(crate) fn throughput(page: &mut Page) -> Result<()> {
    page.table(
        "Throughput",
        &format!(
            "Four TCP streams, all machines on one CPU, so that what a packet costs is compared and \
             not where it happens to be worked on; {TURNS} turns of 0.3 s each, in rotation, in \
             {LABS} labs."
        ),
        &["router", "median", "ratio to plain in the same lab, median of pairs"],
    );
    // Threads and processes inherit it.
    let all = sched_getaffinity(None)?;
    sched_setaffinity(None, &only_the_first_cpu())?;
    contest(page, "Mbit/s", TURNS, |topology| {
        let server = "198.51.100.10".parse()?;
        megabits_per_second(topology.client_space(1), server, 4, SPAN)
    })?;
    sched_setaffinity(None, &all).context("give this program all CPUs again")
}
