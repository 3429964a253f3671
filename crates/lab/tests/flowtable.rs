//! Flows that somebody's flowtable carries past all rules (firewalld and OpenWrt's fw4 set one up):
//! when their WAN dies they are told like all others.
//!
//! Needs flowtables in the kernel, so this program runs in the VM (`vm/run`); anywhere else it fails
//! and says so.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::dial::Failure;
use anywan_lab::{Config, Daemon, Family, Fault, Proto, Spec, Topology, until};

/// Safety net for whatever is waited for: the machine is slow.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often a client that speaks says a word.
const SPEAK: Duration = Duration::from_millis(100);
/// Flows of each kind.
const FLOWS: usize = 6;
/// What a firewall adds that wants established flows to be fast.
const FLOWTABLE: &str = "table inet firewall {
    flowtable fast { hook ingress priority filter; devices = { lan0, w1, w2 }; }
    chain forward {
        type filter hook forward priority filter; policy accept;
        meta l4proto { tcp, udp } ct state established flow add @fast
    }
}";

/// Flows of a protocol that the flowtable carries now.
fn offloaded(topology: &Topology, protocol: &str) -> Result<usize> {
    let list = topology.router().run(&format!("conntrack -L -p {protocol}"))?;
    Ok(list.lines().filter(|line| line.contains("[OFFLOAD]")).count())
}

#[test]
fn flows_that_a_flowtable_carries_are_told_when_their_wan_dies() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let config = Config::of(&topology).priorities(&[1, 2]);
    let daemon = Daemon::start_up(&topology, &config)?;
    // Longer than is waited for: or the flowtable would give a silent flow up by itself.
    topology.router().set_sysctls(&[
        ("net.netfilter.nf_flowtable_tcp_timeout", "600"),
        ("net.netfilter.nf_flowtable_udp_timeout", "600"),
    ])?;
    topology.router().nft(FLOWTABLE).context(
        "flowtables are not in this kernel\n\nhint: this test runs in the VM: crates/lab/vm/run",
    )?;
    let client = topology.client(1).timeout(Duration::from_secs(5));
    let mut tcp = client.flows(FLOWS, Proto::Tcp, Family::V4)?;
    let udp = client.flows(FLOWS, Proto::Udp, Family::V4)?;
    ensure!(tcp.on(1) == FLOWS && udp.on(1) == FLOWS, "all begin on wan1");
    // Established on both ways, they are offloaded by their next words.
    until(DEADLINE, "all flows to be offloaded", || {
        ensure!(tcp.exchange(DEADLINE).all_kept() && udp.exchange(DEADLINE).all_kept());
        let [of_tcp, of_udp] = [offloaded(&topology, "tcp")?, offloaded(&topology, "udp")?];
        ensure!(of_tcp >= FLOWS && of_udp >= FLOWS, "{of_tcp} of TCP, {of_udp} of UDP");
        Ok(())
    })?;
    let listening = tcp.halve().watch(None);
    let speaking = tcp.watch(Some(SPEAK));
    topology.break_wan(1, &Fault::Blackhole)?;
    for (who, watched) in [("those who listen", listening), ("those who speak", speaking)] {
        let breaks = watched.wait_all_broken(DEADLINE).context(who)?;
        let reset = breaks.iter().all(|end| end.how == Failure::Reset);
        ensure!(reset, "{who}: {breaks:?}\n{}", daemon.log_tail());
    }
    until(DEADLINE, "datagrams to go on by the next WAN", || {
        let said = udp.exchange(Duration::from_secs(5));
        ensure!(said.moved() == FLOWS, "{said}");
        Ok(())
    })?;
    let again = client.flows(FLOWS, Proto::Tcp, Family::V4)?;
    ensure!(again.on(2) == FLOWS, "{} of {FLOWS} through the next WAN", again.on(2));
    Ok(())
}
