//! How long things take, and what the daemon costs while nothing happens.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use anywan_lab::daemon::{Config, Daemon};
use anywan_lab::dial::Proto;
use anywan_lab::fault::Fault;
use anywan_lab::topology::{Families, Family, Spec, Topology};

use crate::report::{Page, median, ms, worst};
use crate::watch::Watch;

/// Rounds of what takes a second or so.
const ROUNDS: usize = 10;
/// Rounds of what takes ten seconds.
const OUTAGES: usize = 5;
/// How long the idle daemon is watched.
const IDLE: Duration = Duration::from_secs(60);

fn row(page: &mut Page, what: &str, values: &[f64], unit: &str) {
    let cell = |value: f64| format!("{value:.1} {unit}");
    page.row(&[what.to_owned(), cell(median(values)), cell(worst(values))]);
}

/// From the start of the process until the socket is there, which is when it steers.
pub(crate) fn start(page: &mut Page) -> Result<()> {
    let note = format!("From spawning the process until it steers; {ROUNDS} starts each.");
    page.table("Start", &note, &["start", "median", "worst"]);
    for (what, wans) in [("3 WANs", 3), ("60 WANs", 60)] {
        let topology = Spec::routed(wans).build()?;
        let config = Config::of(&topology);
        let mut daemon = Daemon::start_up(&topology, &config)?;
        let (mut warm, mut cold) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            daemon.terminate()?;
            warm.push(ms(time_start(&mut daemon)?));
            let down = daemon.cli(&["down"])?;
            ensure!(down.status == 0, "anywan down: {}", down.stderr);
            daemon.wait_end()?;
            cold.push(ms(time_start(&mut daemon)?));
        }
        row(page, &format!("{what}, nothing of ours in the kernel"), &cold, "ms");
        row(page, &format!("{what}, restart"), &warm, "ms");
    }
    page.end();
    Ok(())
}

fn time_start(daemon: &mut Daemon) -> Result<Duration> {
    let socket = daemon.path("anywan.sock");
    ensure!(!socket.exists(), "the socket of the daemon before is still there");
    let begin = Instant::now();
    daemon.launch_unready(&[])?;
    while !socket.exists() {
        ensure!(begin.elapsed() < Duration::from_secs(20), "it does not start");
        sleep(Duration::from_micros(200));
    }
    let took = begin.elapsed();
    daemon.wait_steering()?;
    daemon.wait_all_up()?;
    Ok(took)
}

/// From the kernel's notice of link loss to the last change of our table.
pub(crate) fn link_loss(page: &mut Page) -> Result<()> {
    let note = format!(
        "From the kernel's notice that a WAN lost its carrier to the last transaction of the \
         switch (the one that marks it lost), both seen on netlink; {ROUNDS} losses each."
    );
    page.table("Link loss", &note, &["with", "median", "worst"]);
    for (what, wans) in [("3 WANs", 3), ("60 WANs", 60)] {
        let topology = Spec::routed(wans).build()?;
        let config = Config::of(&topology).health("hold", r#""0s""#);
        let daemon = Daemon::start_up(&topology, &config)?;
        let mut spans = Vec::new();
        for _ in 0..ROUNDS {
            // The kernel delays notices that follow closely.
            sleep(Duration::from_secs(3));
            let watch = Watch::start(topology.router())?;
            topology.break_wan(1, &Fault::CarrierLost)?;
            daemon.wait_state("wan1", Family::V4, &["down"])?;
            sleep(Duration::from_millis(200));
            spans.push(ms(watch.stop()?.context("no notice was seen")?));
            topology.mend_wan(1, &Fault::CarrierLost)?;
            daemon.wait_all_up()?;
        }
        row(page, what, &spans, "ms");
    }
    page.end();
    Ok(())
}

/// What a client notices of a fault.
pub(crate) fn outages(page: &mut Page) -> Result<()> {
    let note = format!(
        "A client tries a new connection every 10 ms; the WAN of the best priority fails, another \
         takes over; default settings. The longest span without a success, {OUTAGES} runs each."
    );
    let columns = ["fault", "median", "worst", "failed attempts, median"];
    page.table("Outage for new connections", &note, &columns);
    let faults = [
        ("carrier lost", Fault::CarrierLost),
        ("interface removed", Fault::InterfaceGone),
        ("address lost", Fault::AddressGone),
        ("gateway silent, with carrier", Fault::GatewaySilent),
        ("blackhole beyond the gateway", Fault::Blackhole),
    ];
    for (what, fault) in faults {
        let (mut spans, mut failed) = (Vec::new(), Vec::new());
        for _ in 0..OUTAGES {
            let (span, failures) = outage(|topology| topology.break_wan(1, &fault), Some(2))?;
            spans.push(span);
            failed.push(failures);
        }
        outage_row(page, what, &spans, &failed);
    }
    let (mut spans, mut failed) = (Vec::new(), Vec::new());
    for _ in 0..OUTAGES {
        let flush = |topology: &Topology| topology.router().nft("flush ruleset").map(|_| ());
        let (span, failures) = outage(flush, None)?;
        spans.push(span);
        failed.push(failures);
    }
    outage_row(page, "`nft flush ruleset` (repaired)", &spans, &failed);
    page.end();
    Ok(())
}

fn outage_row(page: &mut Page, what: &str, spans: &[f64], failed: &[f64]) {
    page.row(&[
        what.to_owned(),
        format!("{:.0} ms", median(spans)),
        format!("{:.0} ms", worst(spans)),
        format!("{:.0}", median(failed)),
    ]);
}

/// One run in a new lab: the outage in ms and how many attempts failed.
fn outage(happen: impl Fn(&Topology) -> Result<()>, goes_to: Option<usize>) -> Result<(f64, f64)> {
    let topology = Spec::routed(3).build()?;
    let config = Config::of(&topology)
        .priorities(&[1, 2, 3])
        .health("interval", r#""1s""#)
        .health("hold", r#""10s""#);
    let _daemon = Daemon::start_up(&topology, &config)?;
    // Longer than any retransmission that could make a failure look like a slow success.
    let client = topology.client(1).timeout(Duration::from_millis(500));
    let dialer = client.dial(Proto::Tcp, Family::V4, Duration::from_millis(10));
    sleep(Duration::from_secs(3));
    happen(&topology)?;
    match goes_to {
        Some(wan) => dialer.wait_for(50, Duration::from_secs(30), |taken| taken == wan)?,
        None => sleep(Duration::from_secs(1)),
    }
    let report = dialer.stop()?;
    let failed = u32::try_from(report.failed())?;
    Ok((ms(report.longest_outage()), f64::from(failed)))
}

/// What it costs while nothing happens.
pub(crate) fn idle(page: &mut Page) -> Result<()> {
    let note = format!("Three WANs with both families, probed every second; {} s.", IDLE.as_secs());
    page.table("Idle", &note, &["what", "value"]);
    let topology = Spec::routed(3).wan(1, |wan| wan.families = Families::Dual).build()?;
    let config = Config::of(&topology).health("interval", r#""1s""#).health("hold", r#""10s""#);
    let daemon = Daemon::start_up(&topology, &config)?;
    sleep(Duration::from_secs(5));
    let process = Path::new("/proc").join(daemon.pid()?.to_string());
    let read = |file: &str| std::fs::read_to_string(process.join(file));
    let cpu = || -> Result<f64> {
        let text = read("schedstat")?;
        let nanoseconds = text.split_whitespace().next().context("schedstat is empty")?;
        Ok(nanoseconds.parse::<f64>()? / 1e9)
    };
    let children = || -> Result<String> {
        let text = read("stat")?;
        let rest = text.rsplit_once(')').context("stat has a name")?.1;
        Ok(rest.split_whitespace().nth(9).context("stat is short")?.to_owned())
    };
    let (cpu_before, children_before) = (cpu()?, children()?);
    sleep(IDLE);
    let percent = (cpu()? - cpu_before) / IDLE.as_secs_f64() * 100.0;
    page.row(&["CPU, of one core".to_owned(), format!("{percent:.3} %")]);
    for key in ["VmRSS", "RssAnon", "Threads"] {
        let status = read("status")?;
        let line = status.lines().find(|l| l.starts_with(key)).unwrap_or_default();
        let value = line.split_once(':').map_or("?", |(_, value)| value.trim());
        page.row(&[key.to_owned(), value.to_owned()]);
    }
    // The page faults of children that have ended: any fork would show there.
    let forked = if children()? == children_before { "none" } else { "some" };
    page.row(&["children started".to_owned(), forked.to_owned()]);
    page.end();
    Ok(())
}
