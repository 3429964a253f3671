//! What several scenarios share.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::client::Dialer;
use anywan_lab::flows::{Exchange, Talking};
use anywan_lab::{Client, Daemon, Family, Flows, IspCounts, Netns, Proto, Spec, Topology, until};

/// Safety net for whatever is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);
/// Between two attempts of a dialer.
pub(crate) const BEAT: Duration = Duration::from_millis(10);

/// Both layouts, with `n` WANs.
pub(crate) fn layouts(n: u8) -> [Spec; 2] {
    [Spec::routed(n), Spec::one_armed(n)]
}

/// Runs a scenario in both layouts.
pub(crate) fn in_both_layouts(n: u8, scenario: impl Fn(Spec) -> Result<()>) -> Result<()> {
    for spec in layouts(n) {
        let name = if spec.one_armed { "one-armed" } else { "routed" };
        scenario(spec).context(name)?;
    }
    Ok(())
}

/// TCP and UDP over IPv4 and IPv6.
pub(crate) fn every_kind() -> [(Proto, Family); 4] {
    let of = |proto| Family::BOTH.map(|family| (proto, family));
    let ([a, b], [c, d]) = (of(Proto::Tcp), of(Proto::Udp));
    [a, b, c, d]
}

/// Checks that new flows of every kind all go by WAN `number`.
pub(crate) fn ensure_all_by(client: &Client, number: usize) -> Result<()> {
    for (proto, family) in every_kind() {
        let placed = client.place(20, proto, family)?;
        ensure!(placed.only() == Some(number), "{proto:?} {family:?} by {number}: {placed}");
    }
    Ok(())
}

/// Waits until new flows of every kind all go by WAN `number`.
pub(crate) fn wait_all_by(client: &Client, number: usize) -> Result<()> {
    let client = client.clone().timeout(Duration::from_millis(500));
    until(DEADLINE, &format!("all to go by wan{number}"), || ensure_all_by(&client, number))
}

/// `n` open flows of every kind.
pub(crate) fn flows_of_every_kind(client: &Client, n: usize) -> Result<Flows> {
    let mut flows: Option<Flows> = None;
    for (proto, family) in every_kind() {
        let more = client.flows(n, proto, family)?;
        flows = Some(match flows {
            Some(flows) => flows.and(more),
            None => more,
        });
    }
    flows.context("there are kinds of flows")
}

/// Talks on flows in the background; a word may take long, but none may be lost.
pub(crate) fn talk(flows: Flows) -> Talking {
    flows.keep_talking(Duration::from_millis(20), Duration::from_secs(5))
}

/// Checks that no word was lost and none took another WAN; returns the flows.
pub(crate) fn ensure_all_kept(talking: Talking) -> Result<Flows> {
    let (flows, rounds) = talking.stop();
    ensure!(!rounds.is_empty(), "nothing was said");
    let bad: Vec<String> =
        rounds.iter().filter(|round| !round.all_kept()).map(Exchange::to_string).collect();
    ensure!(bad.is_empty(), "{} of {} rounds: {}", bad.len(), rounds.len(), bad.join("; "));
    Ok(flows)
}

/// A TCP dialer for each family.
pub(crate) fn dialers(client: &Client) -> [Dialer; 2] {
    let client = client.clone().timeout(Duration::from_secs(5));
    Family::BOTH.map(|family| client.dial(Proto::Tcp, family, BEAT))
}

/// Waits until new connections of both families work, on WANs that `fits` likes.
pub(crate) fn wait_dialled(dialers: &[Dialer; 2], fits: impl Fn(usize) -> bool) -> Result<()> {
    dialers.iter().try_for_each(|dialer| dialer.wait_for(30, DEADLINE, &fits))
}

/// Stops the dialers; checks that no connection failed.
pub(crate) fn ensure_none_failed(dialers: [Dialer; 2]) -> Result<()> {
    for dialer in dialers {
        let report = dialer.stop()?;
        ensure!(report.attempts.len() >= 20 && report.failed() == 0, "{report}");
    }
    Ok(())
}

/// Waits until a WAN is down in both families.
pub(crate) fn wait_down(daemon: &Daemon, name: &str) -> Result<()> {
    Family::BOTH.iter().try_for_each(|family| daemon.wait_state(name, *family, &["down"]).map(drop))
}

/// Checks that no ISP saw a packet that should not have come its way.
pub(crate) fn ensure_nothing_wrong(topology: &Topology) -> Result<()> {
    ensure_nothing_wrong_since(topology, &vec![IspCounts::default(); topology.wans().len()])
}

/// The same, for the time after `before` was read.
pub(crate) fn ensure_nothing_wrong_since(topology: &Topology, before: &[IspCounts]) -> Result<()> {
    ensure_none_since(topology, before, 1, IspCounts::wrong)
}

/// Checks that no ISP saw a flow's source address that is not ours there. A probe that was under way
/// when its WAN lost its address goes on until its time is over: a handshake begun in the moment
/// before the daemon knew is tried again a second later, with the address that the kernel took.
pub(crate) fn ensure_own_sources_since(topology: &Topology, before: &[IspCounts]) -> Result<()> {
    ensure_none_since(topology, before, 1, |counts| counts.foreign_source)
}

/// The same where WAN 1 loses its address. On an interface without one the kernel's masquerade
/// takes that of another, so a packet that leaves before the daemon has heard of it may carry that.
pub(crate) fn ensure_others_sources_since(topology: &Topology, before: &[IspCounts]) -> Result<()> {
    ensure_none_since(topology, before, 2, IspCounts::foreign)
}

fn ensure_none_since(
    topology: &Topology,
    before: &[IspCounts],
    first: usize,
    count: impl Fn(IspCounts) -> u64,
) -> Result<()> {
    let all = (1..).zip(topology.all_counts()?.into_iter().zip(before));
    for (number, (now, before)) in all.skip(first - 1) {
        let counts = now.since(*before);
        ensure!(count(counts) == 0, "ISP {number}: {counts:?}");
    }
    Ok(())
}

/// ICMP messages of a kind (`Redirects`, `DestUnreachs`) that a box has received: IPv4, IPv6.
pub(crate) fn icmp_received(space: &Netns, kind: &str) -> Result<[u64; 2]> {
    let v4 = space.run("cat /proc/net/snmp")?;
    let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let wanted = format!("In{kind}");
    let mut both = names.split(' ').zip(values.split(' '));
    let (_, v4) = both.find(|(name, _)| *name == wanted).with_context(|| wanted.clone())?;
    let v6 = space.run("cat /proc/net/snmp6")?;
    let wanted = format!("Icmp6In{kind}");
    let mut lines = v6.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let (_, v6) = lines.find(|(name, _)| *name == wanted).with_context(|| wanted.clone())?;
    Ok([v4.parse()?, v6.trim().parse()?])
}
