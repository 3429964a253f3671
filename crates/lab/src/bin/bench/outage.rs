//! What a client notices of a fault, at default settings: new connections, established ones, the
//! way back; and what a metered standby costs meanwhile.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use anywan_lab::client::{Attempt, DialReport};
use anywan_lab::daemon::{Config, Daemon, WanConfig};
use anywan_lab::dial::{Failure, Proto};
use anywan_lab::fault::Fault;
use anywan_lab::notices::Notices;
use anywan_lab::topology::{Family, Spec, Topology};
use serde_json::Value;

use crate::established;
use crate::report::{Page, median, ms, worst};

/// Runs of each fault.
const RUNS: usize = 10;
/// Between two attempts.
const BEAT: Duration = Duration::from_millis(10);
/// Some rounds of heartbeats, so that round trips are known.
const WARM: Duration = Duration::from_secs(2);
/// The kernel announces a change of carrier at once when none was before for so long.
const QUIET: Duration = Duration::from_secs(3);
/// An attempt is given up after less than any retransmission, which could make a failure look like
/// a slow success.
const PATIENCE: Duration = Duration::from_millis(500);
/// A SYN that is on the line when its end is pulled out is lost, whatever a router does, and sent
/// again after a second (RFC 6298); the attempt fails only if that one is lost, too.
const PATIENCE_FOR_LINKS: Duration = Duration::from_secs(2);
/// Each run breaks the WAN so much later than the one before: traffic is counted and heartbeats come
/// in rounds, of which no run is to meet the same moment.
const LATER: Duration = Duration::from_millis(37);
/// For whatever is waited for.
const DEADLINE: Duration = Duration::from_secs(60);
/// The cost of a standby is counted for at least so long.
const COUNTED: Duration = Duration::from_secs(600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// Something that goes wrong.
struct Case {
    what: &'static str,
    faults: Vec<(usize, Fault)>,
    /// Before it happens.
    wait: Duration,
    /// Attempts are given up after so long.
    patience: Duration,
    /// The WAN that takes over.
    next: usize,
    /// Whether WAN 2 is metered.
    metered: bool,
}

impl Case {
    fn of(what: &'static str, fault: Fault) -> Case {
        let faults = vec![(1, fault)];
        Case { what, faults, wait: WARM, patience: PATIENCE, next: 2, metered: false }
    }

    /// Something that ends the link or its address.
    fn of_link(what: &'static str, fault: Fault) -> Case {
        Case { wait: QUIET, patience: PATIENCE_FOR_LINKS, ..Case::of(what, fault) }
    }
}

fn swallow(what: &str) -> Fault {
    Fault::Swallow(what.to_owned())
}

fn cases() -> Vec<Case> {
    let mut all = vec![
        Case::of_link("carrier lost", Fault::CarrierLost),
        Case::of_link("interface removed", Fault::InterfaceGone),
        Case::of_link("address lost", Fault::AddressGone),
        Case::of("blackhole beyond the gateway", Fault::Blackhole),
        Case::of("gateway silent, with carrier", Fault::GatewaySilent),
    ];
    all.push(Case {
        faults: vec![(2, Fault::Blackhole), (1, Fault::Blackhole)],
        next: 3,
        metered: true,
        ..Case::of("blackhole, and the metered standby was dead before", Fault::Blackhole)
    });
    all.push(Case::of("new TCP connections dead", swallow("tcp flags & (syn | ack) == syn")));
    all.push(Case::of("DNS dead", swallow("udp dport 53")));
    let loss = swallow("iifname lan numgen random mod 100 < 30");
    all.push(Case::of("30 % of what is sent is lost", loss));
    all
}

/// All of it.
pub(crate) fn all(page: &mut Page) -> Result<()> {
    let standby = Standby::begin()?;
    new_connections(page)?;
    idle(page)?;
    established::told(page, RUNS)?;
    back(page)?;
    standby.end(page)
}

/// A lab with three WANs in the order of their numbers, and the daemon at default settings.
pub(crate) fn lab(change: impl FnOnce(Config) -> Config) -> Result<(Topology, Daemon)> {
    let topology = Spec::routed(3).clients(1, 20).build()?;
    let config = Config::of(&topology).as_by_default().priorities(&[1, 2, 3]);
    let daemon = Daemon::start_up(&topology, &change(config))?;
    Ok((topology, daemon))
}

fn metered(wan: &mut WanConfig) {
    wan.more.push(("metered".to_owned(), "true".to_owned()));
}

fn new_connections(page: &mut Page) -> Result<()> {
    let time = |value: f64| format!("{value:.0} ms");
    let note = format!(
        "Three WANs, default settings; a client tries a new connection every 10 ms, and so is the \
         traffic of the line. The WAN of the best priority fails, another takes over. Left after: \
         from the fault to the first connection through the next WAN. Outage: the longest span \
         without a success, which a fault that takes only a part need not have. Failed: of the \
         attempts begun after the fault. An attempt fails after {}, and with carrier, interface or \
         address lost after {}. Cut and told: begun while the fault was made (its command takes \
         some milliseconds), connected, and then reset as the WAN's established connections are; \
         a reset before that would have been a refusal. Slowest: of the attempts that worked; a \
         SYN that is lost with the link is sent again after a second. {RUNS} runs each, at any \
         moment of the rounds of counting and heartbeats.",
        time(ms(PATIENCE)),
        time(ms(PATIENCE_FOR_LINKS)),
    );
    let columns = [
        "fault",
        "left after, median",
        "worst",
        "outage, median",
        "worst",
        "failed, median",
        "worst",
        "cut and told, worst",
        "slowest, worst",
    ];
    page.table("Outage for new connections", &note, &columns);
    for case in cases() {
        let (mut left, mut outage, mut slowest) = (Vec::new(), Vec::new(), Vec::new());
        let (mut failed, mut told) = (Vec::new(), Vec::new());
        for run in 0..u32::try_from(RUNS)? {
            let run = fail(&case, LATER * run)?;
            let after = run.report.between(run.at, Instant::now());
            let by_next = after.attempts.iter().find(|a| a.result == Ok(case.next));
            left.push(ms(by_next.context("the next WAN")?.at - run.at));
            // From the attempt before the fault on.
            let around = run.report.between(run.at - BEAT * 2, Instant::now());
            outage.push(ms(around.longest_outage()));
            let cut = after.attempts.iter().filter(|attempt| run.was_cut(attempt)).count();
            told.push(f64::from(u32::try_from(cut)?));
            failed.push(f64::from(u32::try_from(after.failed() - cut)?));
            let worked = after.attempts.iter().filter(|attempt| attempt.result.is_ok());
            slowest.push(ms(worked.map(|attempt| attempt.took).max().unwrap_or_default()));
        }
        page.row(&[
            case.what.to_owned(),
            time(median(&left)),
            time(worst(&left)),
            time(median(&outage)),
            time(worst(&outage)),
            format!("{:.0}", median(&failed)),
            format!("{:.0}", worst(&failed)),
            format!("{:.0}", worst(&told)),
            time(worst(&slowest)),
        ]);
    }
    page.end();
    Ok(())
}

/// What a client saw of a fault.
struct Run {
    report: DialReport,
    /// When its command was given; with several, the last.
    at: Instant,
    /// When that had been carried out.
    made: Instant,
}

impl Run {
    /// Whether an attempt was connected when the WAN went, and told so. A connection that is not yet
    /// established would have been refused instead (`tcp_reset` in the kernel).
    fn was_cut(&self, attempt: &Attempt) -> bool {
        attempt.at < self.made && attempt.result == Err(Failure::Reset)
    }
}

/// One run in a new lab, with the fault so much `later`.
fn fail(case: &Case, later: Duration) -> Result<Run> {
    let (topology, _daemon) =
        lab(|config| if case.metered { config.wan(2, metered) } else { config })?;
    let client = topology.client(1).timeout(case.patience);
    let dialer = client.dial(Proto::Tcp, Family::V4, BEAT);
    // The switch of a new lab may take a moment to see its cables.
    dialer.wait_for(30, DEADLINE, |taken| taken == 1)?;
    sleep(case.wait + later);
    let mut at = Instant::now();
    for (number, fault) in &case.faults {
        at = Instant::now();
        topology.break_wan(*number, fault)?;
    }
    let made = Instant::now();
    dialer.wait_for(30, DEADLINE, |taken| taken == case.next)?;
    Ok(Run { report: dialer.stop()?, at, made })
}

/// Nobody uses the line.
fn idle(page: &mut Page) -> Result<()> {
    let note = format!(
        "The same without any traffic: from the fault to the first transaction of the switch, \
         seen on netlink. {RUNS} runs each, at any moment of the round of heartbeats."
    );
    page.table("Detection on an idle line", &note, &["fault", "median", "worst"]);
    let cases = [
        ("blackhole beyond the gateway", Fault::Blackhole),
        ("gateway silent, with carrier", Fault::GatewaySilent),
    ];
    for (what, fault) in cases {
        let mut spans = Vec::new();
        for run in 0..u32::try_from(RUNS)? {
            let (topology, _daemon) = lab(|config| config)?;
            sleep(WARM + Duration::from_millis(100) * run);
            let notices = Notices::listen(topology.router())?;
            let begin = Instant::now();
            topology.break_wan(1, &fault)?;
            notices.next_transaction(DEADLINE)?;
            spans.push(ms(begin.elapsed()));
        }
        let time = |value: f64| format!("{value:.0} ms");
        page.row(&[what.to_owned(), time(median(&spans)), time(worst(&spans))]);
    }
    page.end();
    Ok(())
}

/// How soon a WAN is used again after a single clean outage.
fn back(page: &mut Page) -> Result<()> {
    const TIMES: usize = 5;
    let note = format!(
        "A blackhole of 3 s, for the first time: from its end to the first new connection \
         through the WAN, and the switches in all. {TIMES} runs."
    );
    page.table("Failback", &note, &["median", "worst", "switches, worst"]);
    let (mut spans, mut switches) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let (topology, _daemon) = lab(|config| config)?;
        let client = topology.client(1).timeout(Duration::from_millis(500));
        let dialer = client.dial(Proto::Tcp, Family::V4, BEAT);
        sleep(WARM);
        topology.break_wan(1, &Fault::Blackhole)?;
        sleep(Duration::from_secs(3));
        let mended = Instant::now();
        topology.mend_wan(1, &Fault::Blackhole)?;
        dialer.wait_for(30, DEADLINE, |taken| taken == 1)?;
        let report = dialer.stop()?;
        let after = report.between(mended, Instant::now());
        let first = after.attempts.iter().find(|attempt| attempt.result == Ok(1));
        spans.push((first.context("back")?.at - mended).as_secs_f64());
        switches.push(f64::from(u32::try_from(report.sequence().len() - 1)?));
    }
    page.row(&[
        format!("{:.1} s", median(&spans)),
        format!("{:.1} s", worst(&spans)),
        format!("{:.0}", worst(&switches)),
    ]);
    page.end();
    Ok(())
}

/// A lab in the background, whose second WAN is a metered standby.
struct Standby {
    // Before the namespaces that it lives in.
    _daemon: Daemon,
    topology: Topology,
    begun: Instant,
    before: Line,
}

/// What a line has carried, both ways, in bytes with Ethernet headers.
#[derive(Clone, Copy)]
struct Line {
    /// In all.
    all: f64,
    /// Beyond the ISP: everything but neighbour discovery.
    beyond: f64,
}

impl Standby {
    fn begin() -> Result<Standby> {
        let (topology, daemon) = lab(|config| config.wan(2, metered))?;
        topology.isp(2).nft(
            "table inet cost {
               counter beyond { }
               chain forward { type filter hook forward priority 0; counter name beyond; }
             }",
        )?;
        // The first answers, by which a WAN is found to work.
        sleep(WARM);
        let before = carried(&topology)?;
        Ok(Standby { _daemon: daemon, topology, begun: Instant::now(), before })
    }

    fn end(self, page: &mut Page) -> Result<()> {
        sleep(COUNTED.saturating_sub(self.begun.elapsed()));
        let (after, before, span) = (carried(&self.topology)?, self.before, self.begun.elapsed());
        let note = format!(
            "What the line of a metered WAN that serves nothing carries, both ways, both families, with \
             Ethernet headers, counted for {} s and extrapolated to 30 days.",
            span.as_secs()
        );
        page.table("Cost of a metered standby", &note, &["", "counted", "a month"]);
        let all = after.all - before.all;
        let probes = after.beyond - before.beyond;
        let rows = [("probes and answers", probes), ("neighbour discovery", all - probes)];
        for (what, counted) in rows {
            let month = counted / span.as_secs_f64() * MONTH.as_secs_f64() / 1e6;
            let cells = [format!("{:.1} kB", counted / 1e3), format!("{month:.1} MB")];
            page.row(&std::iter::once(what.to_owned()).chain(cells).collect::<Vec<_>>());
        }
        page.end();
        Ok(())
    }
}

/// What the line of WAN 2 has carried.
#[expect(clippy::cast_precision_loss, reason = "kilobytes")]
fn carried(topology: &Topology) -> Result<Line> {
    const ETHERNET: u64 = 14;
    let isp = topology.isp(2);
    let read = |command: &str| -> Result<Value> { Ok(serde_json::from_str(&isp.run(command)?)?) };
    let links = read("ip -j -s link show lan")?;
    let bytes = |way: &str| links[0]["stats64"][way]["bytes"].as_u64().context("bytes");
    let counters = read("nft -j list counter inet cost beyond")?;
    let items = counters["nftables"].as_array().context("a list")?;
    let counter = items.iter().find_map(|item| item.get("counter")).context("the counter")?;
    let count = |key: &str| counter[key].as_u64().context("a count");
    Ok(Line {
        all: (bytes("rx")? + bytes("tx")?) as f64,
        beyond: (count("bytes")? + count("packets")? * ETHERNET) as f64,
    })
}
