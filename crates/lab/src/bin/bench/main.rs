//! `make bench`: everything that is promised in milliseconds, percent or megabytes, measured with
//! the real daemon on real packets, as medians and ratios within one run. Judges nothing; prints
//! a page of Markdown, or writes it with `--write FILE`. Words of a bench name pick it.

mod established;
mod load;
mod outage;
mod plane;
mod report;
mod times;
mod watch;

use anyhow::{Result, bail};

use report::Page;

/// Adds its tables to the page.
type Bench = fn(&mut Page) -> Result<()>;

fn main() -> Result<()> {
    let mut page = Page::new();
    let (mut file, mut wanted) = (None, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--write" => file = arguments.next(),
            other => wanted.push(other.to_owned()),
        }
    }
    let benches: [(&str, Bench); 6] = [
        ("connections", plane::connections),
        ("throughput", plane::throughput),
        ("start", times::start),
        ("link", times::link_loss),
        ("outage", outage::all),
        ("idle", times::idle),
    ];
    if let Some(unknown) = wanted.iter().find(|w| benches.iter().all(|(name, _)| name != w)) {
        let names: Vec<&str> = benches.iter().map(|(name, _)| *name).collect();
        bail!("no bench is called {unknown}; there are {}", names.join(", "));
    }
    for (name, bench) in benches {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            bench(&mut page)?;
        }
    }
    page.finish(file.as_deref())
}
