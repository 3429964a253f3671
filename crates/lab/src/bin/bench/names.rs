//! Names and new connections after a failure, with a real resolver behind each WAN.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use anywan_lab::daemon::{Config, Daemon};
use anywan_lab::fault::Fault;
use anywan_lab::names::{self, Resolver};
use anywan_lab::topology::Spec;

use crate::noticed::{self, Client};
use crate::report::Page;

/// Runs of each fault.
const RUNS: usize = 10;
/// The kernel announces a change of carrier at once when none was before for so long.
const QUIET: Duration = Duration::from_secs(3);

/// All of it.
pub(crate) fn all(page: &mut Page) -> Result<()> {
    let note = format!(
        "Three WANs, default settings, each with its ISP's resolver, which answers its customers \
         only. A client looks a new name up and connects every 20 ms; the WAN of the best priority \
         fails. The switch is the daemon's choice, as its log tells. {RUNS} runs each."
    );
    noticed::table(page, "Names after a failure", &note, "fault");
    let cases = [
        ("carrier lost", Fault::CarrierLost),
        ("blackhole beyond the gateway", Fault::Blackhole),
        ("gateway silent, with carrier", Fault::GatewaySilent),
    ];
    for (what, fault) in cases {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            let topology = Spec::routed(3).build()?;
            let resolvers = (1..=3).map(|number| Resolver::honest(&topology, number));
            let _resolvers = resolvers.collect::<Result<Vec<_>>>()?;
            let mut config = Config::of(&topology).as_by_default().priorities(&[1, 2, 3]);
            for (wan, number) in config.wans.iter_mut().zip(1..) {
                let list = format!("[{:?}]", names::address(&topology, number));
                wan.more.push(("dns".to_owned(), list));
            }
            config.extra = "[dns]\n".to_owned();
            let daemon = Daemon::start_up(&topology, &config)?;
            let client = Client::begin(&topology, 1)?;
            sleep(QUIET);
            let fault_at = Instant::now();
            topology.break_wan(1, &fault)?;
            runs.push(client.switched(&daemon, fault_at, 2)?);
        }
        noticed::row(page, what, &runs);
    }
    page.end();
    Ok(())
}
