//! What takes PPP in the kernel, hence the VM: the whole house, and the time to redial.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use anywan_lab::client::Dialer;
use anywan_lab::daemon::{Config, Daemon, child_in};
use anywan_lab::dial::Proto;
use anywan_lab::fault::Fault;
use anywan_lab::house::{House, ORDERS};
use anywan_lab::modem::{Modem, Sim, ensure_ppp};
use anywan_lab::topology::{Family, Spec, Topology};
use anywan_lab::until;
use rustix::process::{Signal, kill_process};

use crate::noticed::{self, BEAT, Client, DEADLINE};
use crate::report::{Page, median, worst};

/// How often each thing happens to the line.
const RUNS: usize = 3;
/// Between them: a line that has worked for a minute is dialled anew at once.
const WORKED: Duration = Duration::from_secs(65);

/// All three WANs die, and come back in every order.
pub(crate) fn house(page: &mut Page) -> Result<()> {
    let note = format!(
        "ADSL on the LAN's own network (1), a 4G stick by DHCP (2), a 3G modem that is dialled \
         (3). A client looks a new name up and connects all the time while each dies; all three \
         come back in each of the {} orders. The switch is the daemon's choice, as its log tells. \
         Default settings but for the hold time.",
        ORDERS.len()
    );
    // Lines that fail six times are held back ever longer; the next fault need not wait for that.
    let mut house = House::build(|config| config.as_by_default().health("hold", r#""2s""#))?;
    for number in 1..=3 {
        house.wait_up(number)?;
    }
    let (mut adsl, mut stick, mut back) = (Vec::new(), Vec::new(), [const { Vec::new() }; 3]);
    for order in ORDERS {
        for (number, runs) in [(1, &mut adsl), (2, &mut stick)] {
            let client = Client::begin(house.topology(), number)?;
            let fault = Instant::now();
            house.fail(number)?;
            runs.push(client.switched(house.daemon(), fault, number + 1)?);
        }
        house.fail(3)?;
        let client = house.topology().client(1).timeout(Duration::from_millis(500));
        until(DEADLINE, "connections to be refused", || {
            let by = client.connect(Proto::Tcp, Family::V4);
            ensure!(by.is_err(), "by {by:?}");
            Ok(())
        })?;
        for (place, number) in order.into_iter().enumerate() {
            let mended = Instant::now();
            house.mend(number)?;
            if place == 0 {
                house.wait_serves(number)?;
                back[number - 1].push(mended.elapsed().as_secs_f64());
            }
            house.wait_up(number)?;
        }
        house.wait_serves(1)?;
    }
    noticed::table(page, "The whole house", &note, "dies");
    noticed::row(page, "ADSL: blackhole beyond the gateway", &adsl);
    noticed::row(page, "4G: carrier lost", &stick);
    page.end();
    let note = "From the repair of the first to come back until a connection by it and a name from \
                behind it are had: dialling, DHCP and the first probes are part of that.";
    page.table("Back from nothing", note, &["first to come back", "median", "worst"]);
    for (what, spans) in ["ADSL", "4G, by DHCP", "3G, dialled"].iter().zip(&back) {
        row(page, what, &[spans]);
    }
    page.end();
    Ok(())
}

fn row(page: &mut Page, what: &str, columns: &[&[f64]]) {
    let cells = columns.iter().flat_map(|spans| [median(spans), worst(spans)]);
    let cells = cells.map(|value| format!("{value:.1} s"));
    page.row(&std::iter::once(what.to_owned()).chain(cells).collect::<Vec<_>>());
}

/// A router with a modem on its second WAN.
fn line(keys: &str, without_first: bool) -> Result<(Topology, Modem, Daemon)> {
    ensure_ppp()?;
    let topology = Spec::routed(2).wan(2, |wan| wan.main_route = false).build()?;
    topology.router().run("ip addr flush dev w2")?;
    let modem = Modem::new(topology.isp(2), Sim::Ready)?;
    let mut config = Config::of(&topology).as_by_default().priorities(&[1, 2]).wan(2, |wan| {
        wan.interface = "ppp7".to_owned();
        (wan.gateway, wan.gateway6) = (None, None);
        let ppp = format!("{{ device = {:?}, apn = \"internet\"{keys} }}", modem.port());
        wan.more.push(("linger".to_owned(), "\"1s\"".to_owned()));
        wan.more.push(("ppp".to_owned(), ppp));
    });
    if without_first {
        config.wans.remove(0);
    }
    let daemon = Daemon::start(&topology, &config)?;
    Ok((topology, modem, daemon))
}

/// What ends a line; when redialling could begin.
type Cause = fn(&mut Modem, &Daemon) -> Result<Instant>;

/// How soon a line is dialled anew, and carries connections.
pub(crate) fn redial(page: &mut Page) -> Result<()> {
    let note = format!(
        "The only WAN is a modem that connects at once; a client tries a connection all the time. \
         Dialled, connected: from what happened (from its return, where the modem was away) until \
         the modem is told to dial, and until a connection begun after that works. {RUNS} times \
         each, {} s after the line was up.",
        WORKED.as_secs()
    );
    let columns = ["what happens", "dialled, median", "worst", "connected, median", "worst"];
    page.table("Redial", &note, &columns);
    let causes: [(&str, Cause); 4] = [
        ("the far end hangs up", |modem, _| {
            modem.hang_up()?;
            Ok(Instant::now())
        }),
        ("pppd is killed", |_, daemon| {
            kill_process(pppd(daemon)?, Signal::KILL)?;
            Ok(Instant::now())
        }),
        ("the modem is unplugged for 5 s", |modem, _| {
            modem.unplug();
            sleep(Duration::from_secs(5));
            let back = Instant::now();
            modem.plug_in()?;
            Ok(back)
        }),
        ("the line falls silent, and pppd hangs", |modem, daemon| {
            kill_process(pppd(daemon)?, Signal::STOP)?;
            modem.go_silent();
            Ok(Instant::now())
        }),
    ];
    let (topology, mut modem, daemon) = line("", true)?;
    for (what, cause) in causes {
        let (mut dialled, mut connected) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            dial(&topology).wait_for(20, DEADLINE, |by| by == 2)?;
            sleep(WORKED);
            let dialer = dial(&topology);
            dialer.wait_for(20, DEADLINE, |by| by == 2)?;
            let before = modem.told("ATD");
            let from = cause(&mut modem, &daemon)?;
            let (told, works) = dialled_anew(&modem, before, dialer)?;
            dialled.push((told - from).as_secs_f64());
            connected.push((works - from).as_secs_f64());
        }
        row(page, what, &[&dialled, &connected]);
    }
    page.end();
    drop(daemon);
    on_demand(page)
}

fn dial(topology: &Topology) -> Dialer {
    let client = topology.client(1).timeout(Duration::from_millis(500));
    client.dial(Proto::Tcp, Family::V4, BEAT)
}

fn pppd(daemon: &Daemon) -> Result<rustix::process::Pid> {
    child_in(&daemon.path("anywan.sock.children/ppp-wan2"))
}

/// When the modem is told to dial once more, and when a connection begun after that works.
fn dialled_anew(modem: &Modem, before: usize, dialer: Dialer) -> Result<(Instant, Instant)> {
    let end = Instant::now() + DEADLINE;
    while modem.told("ATD") == before {
        ensure!(Instant::now() < end, "not dialled within {DEADLINE:?}");
        sleep(Duration::from_millis(5));
    }
    let told = Instant::now();
    dialer.wait_for(3, DEADLINE, |by| by == 2)?;
    let report = dialer.stop()?;
    let works = report.attempts.iter().find(|a| a.at > told && a.result == Ok(2));
    let works = works.context("a connection")?;
    Ok((told, works.at + works.took))
}

/// How soon a line that is dialled on demand carries connections.
fn on_demand(page: &mut Page) -> Result<()> {
    let note = format!(
        "The better WAN falls into a blackhole; from the daemon's choice, as its log tells. {RUNS} times."
    );
    let columns = ["", "dialled, median", "worst", "connected, median", "worst"];
    page.table("A line on demand", &note, &columns);
    let (topology, modem, daemon) = line(", on_demand = true", false)?;
    let (mut dialled, mut connected) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        daemon.wait_state("wan1", Family::V4, &["up"])?;
        let dialer = dial(&topology);
        dialer.wait_for(20, DEADLINE, |by| by == 1)?;
        until(DEADLINE, "the line to be hung up", || {
            ensure!(!modem.is_connected());
            Ok(())
        })?;
        let before = modem.told("ATD");
        let fault = Instant::now();
        topology.break_wan(1, &Fault::Blackhole)?;
        let (told, works) = dialled_anew(&modem, before, dialer)?;
        let switch = daemon.chose_after(fault, Family::V4)?;
        dialled.push(told.saturating_duration_since(switch).as_secs_f64());
        connected.push(works.saturating_duration_since(switch).as_secs_f64());
        topology.mend_wan(1, &Fault::Blackhole)?;
    }
    row(page, "after the switch", &[&dialled, &connected]);
    page.end();
    Ok(())
}
