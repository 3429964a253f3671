//! How soon those hear of a lost WAN who have connections through it.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use anywan_lab::dial::{Failure, Proto};
use anywan_lab::fault::Fault;
use anywan_lab::flows::Break;
use anywan_lab::notices::Notices;
use anywan_lab::topology::{Family, SERVERS, Topology};
use anywan_lab::tunnel::{Manner, Tunnel};

use crate::outage::lab;
use crate::report::{Page, median, ms, worst};

const DEADLINE: Duration = Duration::from_secs(60);
/// How often a client that speaks says a word.
const SPEAK: Duration = Duration::from_millis(50);
/// Until round trips are known.
const WARM: Duration = Duration::from_secs(2);

/// What one run brought, in ms: from detection to the last reset, to all working again through
/// the next WAN, and from the fault to the last reset.
struct Run {
    told: f64,
    working: f64,
    since_fault: f64,
}

/// The table.
pub(crate) fn told(page: &mut Page, runs: usize) -> Result<()> {
    let note = format!(
        "A blackhole. Detection is the first transaction of the switch; every flow ends in \
         ECONNRESET. {runs} runs each."
    );
    let columns = [
        "who",
        "last one told after detection, median",
        "worst",
        "all work again after detection, median",
        "worst",
        "last one told after the fault, median",
    ];
    page.table("Established connections", &note, &columns);
    type Measure = fn() -> Result<Run>;
    let cases: [(&str, Measure); 3] = [
        ("20 TCP clients, half of them only listening", twenty),
        ("1,000 idle flows of one client", || thousand(false)),
        ("the same behind a firewall that drops what is invalid", || thousand(true)),
    ];
    for (who, measure) in cases {
        let all: Vec<Run> = (0..runs).map(|_| measure()).collect::<Result<_>>()?;
        let of = |get: fn(&Run) -> f64| all.iter().map(get).collect::<Vec<f64>>();
        let (told, working) = (of(|run| run.told), of(|run| run.working));
        page.row(&[
            who.to_owned(),
            format!("{:.0} ms", median(&told)),
            format!("{:.0} ms", worst(&told)),
            format!("{:.0} ms", median(&working)),
            format!("{:.0} ms", worst(&working)),
            format!("{:.0} ms", median(&of(|run| run.since_fault))),
        ]);
    }
    page.end();
    tunnels(page, runs)
}

/// Breaks WAN 1; when that was, and when the switch began.
fn fail(topology: &Topology) -> Result<(Instant, Instant)> {
    sleep(WARM);
    let notices = Notices::listen(topology.router())?;
    let fault = Instant::now();
    topology.break_wan(1, &Fault::Blackhole)?;
    notices.next_transaction(DEADLINE)?;
    Ok((fault, Instant::now()))
}

fn run(fault: Instant, detected: Instant, breaks: &[Break], working: Instant) -> Result<Run> {
    ensure!(breaks.iter().all(|end| end.how == Failure::Reset), "{breaks:?}");
    let last = breaks.iter().map(|end| end.at).max().unwrap_or(detected);
    Ok(Run {
        told: ms(last.saturating_duration_since(detected)),
        working: ms(working.saturating_duration_since(detected)),
        since_fault: ms(last - fault),
    })
}

fn twenty() -> Result<Run> {
    let (topology, _daemon) = lab(|config| config)?;
    let client = topology.client(1).from(topology.client_addresses(1, Family::V4));
    let mut flows = client.flows(20, Proto::Tcp, Family::V4)?;
    let listening = flows.halve().watch(None);
    let speaking = flows.watch(Some(SPEAK));
    let (fault, detected) = fail(&topology)?;
    let mut breaks = speaking.wait_all_broken(DEADLINE)?;
    breaks.extend(listening.wait_all_broken(DEADLINE)?);
    let again = client.flows(20, Proto::Tcp, Family::V4)?;
    let working = Instant::now();
    ensure!(again.on(2) == 20, "all through the next WAN");
    run(fault, detected, &breaks, working)
}

fn thousand(firewall: bool) -> Result<Run> {
    let (topology, _daemon) = lab(|config| config)?;
    if firewall {
        topology.client_space(1).nft(
            "table inet firewall {
               chain in { type filter hook input priority 0; ct state invalid drop; }
               chain out { type filter hook output priority 0; ct state invalid drop; }
             }",
        )?;
    }
    let watched = topology.client(1).flows(1000, Proto::Tcp, Family::V4)?.watch(None);
    let (fault, detected) = fail(&topology)?;
    let breaks = watched.wait_all_broken(DEADLINE)?;
    // One that happens to reuse the port of a flow that was just reset may be refused.
    let again = topology.client(1).place(1000, Proto::Tcp, Family::V4)?;
    let working = Instant::now();
    ensure!(again.worked() > 900 && again.by_wan.len() == 1, "by the next WAN: {again}");
    run(fault, detected, &breaks, working)
}

/// Conversations that move by themselves.
fn tunnels(page: &mut Page, runs: usize) -> Result<()> {
    let note = format!(
        "A blackhole, and datagrams every 10 ms: how long the near end hears nothing, detection \
         included. {runs} runs each."
    );
    page.table("Datagrams that can move", &note, &["like", "median", "worst"]);
    for (like, manner) in [("QUIC", Manner::Quic), ("WireGuard", Manner::WireGuard)] {
        let mut spans = Vec::new();
        for _ in 0..runs {
            let (topology, _daemon) = lab(|config| config)?;
            let server = SocketAddr::new(SERVERS[1].0.into(), 4_430);
            let tunnel = Tunnel::start(&topology, 1, server, manner)?;
            fail(&topology)?;
            tunnel.wait_heard(50, DEADLINE)?;
            let report = tunnel.stop()?;
            ensure!(report.wans == [1, 2], "{report:?}");
            spans.push(ms(report.longest_silence));
        }
        let time = |value: f64| format!("{value:.0} ms");
        page.row(&[like.to_owned(), time(median(&spans)), time(worst(&spans))]);
    }
    page.end();
    Ok(())
}
