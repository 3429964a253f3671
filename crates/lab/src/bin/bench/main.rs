//! `make bench`: everything that is promised in milliseconds, percent or megabytes, measured with
//! the real daemon on real packets, as medians and ratios within one run. Judges nothing; prints
//! a page of Markdown, or writes it with `--write FILE`. Words of a bench name pick it. With
//! `--emulated` there are others, which need a kernel with PPP: they run in the VM.

mod dialled;
mod established;
mod load;
mod names;
mod noticed;
mod outage;
mod plane;
mod repair;
mod report;
mod times;
mod watch;

use anyhow::{Context as _, Result, bail};

use report::Page;

/// Adds its tables to the page.
type Bench = fn(&mut Page) -> Result<()>;

fn main() -> Result<()> {
    let (mut file, mut emulated, mut wanted) = (None, false, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--write" => file = Some(arguments.next().context("--write needs a file")?),
            "--emulated" => emulated = true,
            other => wanted.push(other.to_owned()),
        }
    }
    let native: &[(&str, Bench)] = &[
        ("connections", plane::connections),
        ("throughput", plane::throughput),
        ("start", times::start),
        ("link", times::link_loss),
        ("outage", outage::all),
        ("repair", repair::all),
        ("names", names::all),
        ("idle", times::idle),
    ];
    let in_vm: &[(&str, Bench)] = &[("redial", dialled::redial), ("house", dialled::house)];
    let benches = if emulated { in_vm } else { native };
    if let Some(unknown) = wanted.iter().find(|w| benches.iter().all(|(name, _)| name != w)) {
        let names: Vec<&str> = benches.iter().map(|(name, _)| *name).collect();
        bail!("no bench is called {unknown}; there are {}", names.join(", "));
    }
    let mut page = if emulated { Page::emulated() } else { Page::new() };
    for (name, bench) in benches {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            bench(&mut page)?;
        }
    }
    page.finish(file.as_deref())
}
