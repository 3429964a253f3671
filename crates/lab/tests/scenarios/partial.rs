//! WANs that work in part: left when what people need is dead or too bad, kept when it is not.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::client::Dialer;
use anywan_lab::servers::{PORTAL, Servers};
use anywan_lab::{Config, Daemon, Family, Fault, Flows, Proto, Spec, Topology, until};

use crate::common::{
    dialers, ensure_all_kept, flows_of_every_kind, in_both_layouts, talk, wait_all_by,
    wait_dialled, wait_down,
};

/// Longer than a whole interval, a burst and the samples that losses need, many times over.
const LONG: Duration = Duration::from_secs(60);

/// Every kind of probe and a page, at a quick pace; WAN 1 is the best, WAN 2 the next.
fn config(topology: &Topology) -> Config {
    Config::of(topology).every_kind_and_page().priorities(&[1, 2, 3])
}

/// What kills the handshakes of new TCP connections, and nothing else.
fn no_handshakes() -> Fault {
    Fault::Swallow("tcp flags & (syn | ack) == syn".to_owned())
}

fn no_echoes() -> [Fault; 2] {
    ["icmp type echo-request", "icmpv6 type echo-request"]
        .map(|what| Fault::Swallow(what.to_owned()))
}

fn no_dns() -> Fault {
    Fault::Swallow("udp dport 53".to_owned())
}

/// So many percent of what the router sends are lost.
fn loss(percent: u32) -> Fault {
    Fault::Swallow(format!("iifname lan numgen random mod 100 < {percent}"))
}

/// Waits until ISP 1 has seen `count` more probes.
pub(crate) fn wait_probes(topology: &Topology, count: u64) -> Result<()> {
    let enough = topology.counts(1)?.probes + count;
    until(LONG * 3, "many probes", || {
        let probes = topology.counts(1)?.probes;
        ensure!(probes >= enough, "{probes} of {enough}");
        Ok(())
    })
}

/// WAN 1 is left by new connections for WAN 2, in this state; it carries its own flows on, and
/// new ones again when the fault is over.
fn left(
    topology: &Topology,
    faults: &[Fault],
    state: &str,
    keep: impl FnOnce(&Topology) -> Result<Flows>,
) -> Result<()> {
    let daemon = Daemon::start_up(topology, &config(topology))?;
    wait_all_by(&topology.client(1), 1)?;
    let kept = keep(topology)?;
    let dialling = dialers(&topology.client(1));
    wait_dialled(&dialling, |wan| wan == 1)?;
    for fault in faults {
        topology.break_wan(1, fault)?;
    }
    for family in Family::BOTH {
        daemon.wait_status(state, |status| status.state("wan1", family) == state)?;
    }
    wait_dialled(&dialling, |wan| wan == 2)?;
    let kept = talk(kept);
    wait_probes(topology, 50)?;
    ensure_all_kept(kept)?;
    topology.mend_wan(1, &faults[0])?;
    wait_all_by_patiently(topology, 1)?;
    // Whose turn comes less often on a busy machine may not have noticed yet.
    wait_dialled(&dialling, |wan| wan == 1)?;
    for dialler in dialling {
        let report = dialler.stop()?;
        let sequence = report.sequence();
        ensure!(sequence == [1, 2, 1], "{report}, by {sequence:?}\n{}", daemon.log_tail());
    }
    Ok(())
}

/// An impaired line proves itself for the hold time without one fault.
fn wait_all_by_patiently(topology: &Topology, number: usize) -> Result<()> {
    until(LONG, "the mended WAN to be used", || {
        crate::common::ensure_all_by(&topology.client(1), number)
    })
}

/// WAN 1 is not left in the time of so many probes; no connection fails that the fault lets live.
fn not_left(topology: &Topology, faults: &[Fault], probes: u64, failing: bool) -> Result<()> {
    let daemon = Daemon::start_up(topology, &config(topology))?;
    wait_all_by(&topology.client(1), 1)?;
    let dialling = dialers(&topology.client(1));
    wait_dialled(&dialling, |wan| wan == 1)?;
    for fault in faults {
        topology.break_wan(1, fault)?;
    }
    wait_probes(topology, probes)?;
    wait_dialled(&dialling, |wan| wan == 1)?;
    ensure_never_left(dialling, failing).with_context(|| daemon.log_tail())
}

fn ensure_never_left(dialling: [Dialer; 2], failing: bool) -> Result<()> {
    for dialler in dialling {
        let report = dialler.stop()?;
        ensure!(report.sequence() == [1], "{report}, by {:?}", report.sequence());
        ensure!(failing || report.failed() == 0, "{report}");
    }
    Ok(())
}

fn flows(topology: &Topology) -> Result<Flows> {
    flows_of_every_kind(&topology.client(1), 5)
}

fn no_flows(topology: &Topology) -> Result<Flows> {
    topology.client(1).flows(0, Proto::Tcp, Family::V4)
}

#[test]
fn a_wan_that_takes_no_new_tcp_connections_is_left_by_new_ones_alone() -> Result<()> {
    in_both_layouts(3, |spec| left(&spec.build()?, &[no_handshakes()], "impaired", flows))
}

/// The first SYN of such an attempt was lost and has bound it to WAN 1: the next finds WAN 2.
#[test]
fn an_attempt_that_got_no_answer_goes_on_by_the_next_wan() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let daemon = Daemon::start_up(&topology, &config(&topology))?;
        let client = topology.client(1).timeout(LONG);
        wait_all_by(&client, 1)?;
        topology.break_wan(1, &no_handshakes())?;
        let attempts = Family::BOTH.map(|family| {
            let client = client.clone();
            std::thread::spawn(move || client.place(20, Proto::Tcp, family))
        });
        for (attempt, family) in attempts.into_iter().zip(Family::BOTH) {
            let placed = attempt.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            ensure!(
                placed.worked() == 20 && placed.only() == Some(2),
                "{placed}\n{}",
                daemon.log_tail()
            );
            ensure!(daemon.status()?.state("wan1", family) == "impaired");
        }
        Ok(())
    })
}

#[test]
fn a_wan_without_dns_is_left_by_new_connections_alone() -> Result<()> {
    left(&Spec::routed(3).build()?, &[no_dns()], "impaired", flows)
}

#[test]
fn a_wan_that_loses_thirty_percent_is_left() -> Result<()> {
    left(&Spec::routed(3).build()?, &[loss(30)], "impaired", no_flows)
}

#[test]
fn a_wan_that_answers_no_echoes_is_not_left() -> Result<()> {
    in_both_layouts(3, |spec| not_left(&spec.build()?, &no_echoes(), 300, false))
}

/// At default settings as many probes take some five minutes.
#[test]
fn a_wan_that_steadily_loses_five_percent_is_never_left() -> Result<()> {
    not_left(&Spec::routed(3).build()?, &[loss(5)], 3_000, true)
}

#[test]
fn a_wan_with_one_deaf_target_is_not_left() -> Result<()> {
    let deaf = ["ip daddr 198.51.100.20", "ip6 daddr 2001:db8:ff::20"];
    let deaf =
        deaf.map(|what| Fault::Swallow(format!("{what} meta l4proto {{ icmp, ipv6-icmp }}")));
    in_both_layouts(3, |spec| not_left(&spec.build()?, &deaf, 300, false))
}

/// Whoever has not signed in is led to the box's own page; all else is swallowed or, as here,
/// works: only the page tells.
#[test]
fn a_captive_portal_is_found_out_and_left() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let daemon = Daemon::start_up(&topology, &config(&topology))?;
    wait_all_by(&topology.client(1), 1)?;
    let wan = topology.wan(1);
    let box_addresses = Family::BOTH.map(|family| wan.gateway(family).expect("dual stack"));
    let portal = Servers::start_portal(topology.isp(1), &box_addresses)?;
    topology.isp(1).nft(&format!(
        "add rule inet isp inbound iifname lan tcp dport 80 redirect to :{PORTAL}"
    ))?;
    for family in Family::BOTH {
        daemon.wait_state("wan1", family, &["portal"])?;
    }
    wait_all_by(&topology.client(1), 2)?;
    // Somebody signs in.
    topology.isp(1).nft("flush chain inet isp inbound")?;
    drop(portal);
    wait_all_by_patiently(&topology, 1)
}

/// The metered standby is asked rarely, so that its death goes unnoticed until it is needed.
#[test]
fn a_standby_that_had_died_unnoticed_is_passed_over() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let metered = |wan: &mut anywan_lab::daemon::WanConfig| {
        wan.more.push(("metered".to_owned(), "true".to_owned()));
    };
    let daemon = Daemon::start_up(&topology, &config(&topology).wan(2, metered))?;
    wait_all_by(&topology.client(1), 1)?;
    let dialling = dialers(&topology.client(1));
    wait_dialled(&dialling, |wan| wan == 1)?;
    topology.break_wan(2, &Fault::Blackhole)?;
    topology.break_wan(1, &Fault::Blackhole)?;
    wait_dialled(&dialling, |wan| wan == 3)?;
    for name in ["wan1", "wan2"] {
        wait_down(&daemon, name)?;
    }
    wait_all_by(&topology.client(1), 3)?;
    Ok(())
}
