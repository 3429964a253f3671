//! The live show of `make demo`: three WANs, the real daemon, faults, failover and failback.
//!
//! A LAN client tries a new connection every 20 ms, IPv4 and IPv6, all the time. What the daemon
//! says and where the connections really went is printed side by side, and every claim is checked:
//! the exit status is 0 only if all of it came true.

mod screen;
mod show;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use anywan_lab::{Config, Daemon, Family, Fault, Flows, Proto, Spec, Topology};

use screen::Screen;
use show::{FIBRE, LTE, NAMES, Show};

fn main() -> ExitCode {
    let mut screen = Screen::new();
    match play(&mut screen) {
        Ok(()) => ExitCode::from(u8::from(!screen.summary())),
        Err(error) => {
            screen.bad(&format!("the demo could not go on: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn play(screen: &mut Screen) -> Result<()> {
    let begun = Instant::now();
    let topology = Spec::routed(3).build()?;
    screen.title("anywan: three WANs in network namespaces");
    screen.text(&format!("built in {} ms:{}", begun.elapsed().as_millis(), screen::PICTURE));
    let begun = Instant::now();
    let daemon = Daemon::start(&topology, &config(&topology))?;
    let steering = begun.elapsed();
    screen.text(&format!("anywand: from start to steering {} ms", steering.as_millis()));
    daemon.wait_all_up()?;
    let mut show = Show::new(&topology, &daemon, screen);
    share(&mut show)?;
    blackhole(&mut show, &topology)?;
    backup(&mut show, &topology)
}

/// ADSL and fibre share the load 3 : 5; LTE is metered and waits.
fn config(topology: &Topology) -> Config {
    let mut config = Config::of(topology).priorities(&[1, 1, 2]).weights(&[3, 5, 1]);
    for (wan, name) in config.wans.iter_mut().zip(NAMES) {
        wan.name = name.to_owned();
    }
    let metered = ("metered".to_owned(), "true".to_owned());
    config.wan(LTE, |wan| wan.more.push(metered)).health("hold", r#""3s""#)
}

fn share(show: &mut Show<'_>) -> Result<()> {
    show.act("New connections are shared 3 : 5; the metered backup is left alone");
    let begun = Instant::now();
    show.watch(Duration::from_secs(4))?;
    let seen = show.connections_since(begun);
    let by_wan = seen.by_wan();
    show.check(
        seen.failed() == 0 && by_wan.len() == 2 && !by_wan.contains_key(&LTE),
        &format!("{} new connections, none failed, none on lte", seen.attempts.len()),
    );
    Ok(())
}

/// The fibre's far end swallows everything, while its gateway goes on answering pings.
fn blackhole(show: &mut Show<'_>, topology: &Topology) -> Result<()> {
    show.act("Fibre: nothing gets beyond its gateway any more (the gateway still answers pings)");
    let (adsl_flows, fibre_flows) = long_flows(topology)?;
    show.note(&format!(
        "{} long connections are open on adsl, {} on fibre",
        adsl_flows.len(),
        fibre_flows.len()
    ));
    let talking = adsl_flows.keep_talking(Duration::from_millis(100), Duration::from_secs(2));
    let begun = Instant::now();
    topology.break_wan(FIBRE, &Fault::Blackhole)?;
    show.watch_until("fibre to be down", |state| state.is(FIBRE, "down"))?;
    show.watch(Duration::from_secs(3))?;
    let seen = show.connections_since(begun);
    let outage = seen.last_failure().map_or(Duration::ZERO, |last| last - begun);
    show.check(
        outage < Duration::from_secs(5) && show.only_used(Duration::from_secs(1), &[1]),
        &format!(
            "new connections: the last that failed began {} ms after the fault ({} of {} failed)",
            outage.as_millis(),
            seen.failed(),
            seen.attempts.len()
        ),
    );
    show.act("Fibre is mended: it has to prove itself for 3 s, then it gets new connections again");
    let mended = Instant::now();
    topology.mend_wan(FIBRE, &Fault::Blackhole)?;
    show.watch_until("fibre to be up", |state| state.is(FIBRE, "up"))?;
    let back = mended.elapsed();
    show.watch(Duration::from_secs(2))?;
    let seen = show.connections_since(mended);
    show.check(
        seen.failed() == 0 && show.only_used(Duration::from_secs(1), &[1, FIBRE]),
        &format!("failback after {:.1} s, no new connection failed", back.as_secs_f64()),
    );
    let (_, rounds) = talking.stop();
    let kept = rounds.iter().all(|round| round.all_kept());
    let rounds = rounds.len();
    show.check(
        kept,
        &format!("adsl's long connections: {rounds} rounds of talk, none lost a word"),
    );
    Ok(())
}

/// Both good WANs go, one by losing its carrier; the metered one carries on.
fn backup(show: &mut Show<'_>, topology: &Topology) -> Result<()> {
    show.act("Adsl loses its carrier, fibre's gateway falls silent: only lte is left");
    let begun = Instant::now();
    topology.break_wan(1, &Fault::CarrierLost)?;
    topology.break_wan(FIBRE, &Fault::GatewaySilent)?;
    show.watch_until("only lte to be up", |state| {
        state.is(1, "down") && state.is(FIBRE, "down") && state.is(LTE, "up")
    })?;
    show.watch(Duration::from_secs(2))?;
    let seen = show.connections_since(begun);
    show.check(
        seen.longest_outage() < Duration::from_secs(5)
            && show.only_used(Duration::from_secs(1), &[LTE]),
        &format!("over to lte: longest outage {} ms", seen.longest_outage().as_millis()),
    );
    show.act("Both are mended");
    topology.mend_wan(1, &Fault::CarrierLost)?;
    topology.mend_wan(FIBRE, &Fault::GatewaySilent)?;
    show.watch_until("all to be up", |state| {
        [1, FIBRE, LTE].iter().all(|wan| state.is(*wan, "up"))
    })?;
    show.watch(Duration::from_secs(2))?;
    let back = show.only_used(Duration::from_secs(1), &[1, FIBRE]);
    show.check(back, "new connections are back on adsl and fibre");
    let wrong: u64 = topology.all_counts()?.iter().map(|counts| counts.foreign()).sum();
    show.check(wrong == 0, "no ISP ever saw a packet with a wrong source address");
    Ok(())
}

/// Open connections of both families on adsl and on fibre.
fn long_flows(topology: &Topology) -> Result<(Flows, Flows)> {
    let client = topology.client(1);
    let mut flows = client.flows(40, Proto::Tcp, Family::V4)?;
    flows = flows.and(client.flows(40, Proto::Tcp, Family::V6)?);
    let (adsl, fibre) = (flows.take_from(1), flows.take_from(FIBRE));
    ensure!(!adsl.is_empty() && !fibre.is_empty(), "long connections on both");
    Ok((adsl, fibre))
}
