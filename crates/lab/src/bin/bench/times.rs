//! How long things take, and what the daemon costs while nothing happens.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use anywan_lab::daemon::{Config, Daemon};
use anywan_lab::fault::Fault;
use anywan_lab::topology::{Families, Family, Spec, Topology};
use rustix::thread::{Pid, sched_setaffinity};

use crate::load::only_the_first_cpu;
use crate::report::{Page, median, ms, worst};
use crate::watch::Watch;

/// Rounds of what takes a second or so.
const ROUNDS: usize = 10;
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

/// Gives the daemon the first CPU, and what all interfaces receive to the second.
fn set_apart(topology: &Topology, daemon: &Daemon) -> Result<()> {
    let script = "mount -t sysfs sysfs /sys
        for file in /sys/class/net/*/queues/rx-*/rps_cpus; do echo 2 >\"$file\" || exit 1; done";
    for space in topology.namespaces() {
        let outcome = space.try_run(&["unshare", "--mount", "sh", "-c", script])?;
        ensure!(outcome.status == 0, "two CPUs are needed: {outcome:?}");
    }
    let pid = Pid::from_raw(i32::try_from(daemon.pid()?)?);
    sched_setaffinity(pid, &only_the_first_cpu()).context("pin the daemon to the first CPU")
}

/// What it costs while nothing happens.
pub(crate) fn idle(page: &mut Page) -> Result<()> {
    let note = format!(
        "Three WANs, default settings, no traffic; {} s. In this lab who sends a packet also does the work of the machines \
         that it comes to, up to the answer: they are given another CPU than the daemon has.",
        IDLE.as_secs()
    );
    let columns =
        ["WANs with", "CPU, of one core", "VmRSS", "RssAnon", "threads", "children started"];
    page.table("Idle", &note, &columns);
    for (what, families) in [("IPv4", Families::V4), ("both families", Families::Dual)] {
        let mut row = vec![what.to_owned()];
        row.extend(idle_with(families)?);
        page.row(&row);
    }
    page.end();
    Ok(())
}

fn idle_with(families: Families) -> Result<Vec<String>> {
    let spec = (1..=3)
        .fold(Spec::routed(3), |spec, number| spec.wan(number, |wan| wan.families = families));
    let topology = spec.build()?;
    let daemon = Daemon::start_up(&topology, &Config::of(&topology).as_by_default())?;
    set_apart(&topology, &daemon)?;
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
        // `cminflt` of proc_pid_stat(5): the eleventh field, of which `state` is the third.
        Ok(rest.split_whitespace().nth(8).context("stat is short")?.to_owned())
    };
    let (cpu_before, children_before) = (cpu()?, children()?);
    sleep(IDLE);
    let percent = (cpu()? - cpu_before) / IDLE.as_secs_f64() * 100.0;
    let mut cells = vec![format!("{percent:.3} %")];
    for key in ["VmRSS", "RssAnon", "Threads"] {
        let status = read("status")?;
        let line = status.lines().find(|l| l.starts_with(key)).unwrap_or_default();
        cells.push(line.split_once(':').map_or("?", |(_, value)| value.trim()).to_owned());
    }
    // The page faults of children that have ended: any fork would show there.
    cells.push(if children()? == children_before { "none" } else { "some" }.to_owned());
    Ok(cells)
}
