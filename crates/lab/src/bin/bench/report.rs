//! The page: tables of medians, with the machine they were measured on.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;

/// A page of Markdown under construction; every line is shown when it is added.
pub(crate) struct Page(String);

impl Page {
    /// A page with its head.
    pub(crate) fn new() -> Page {
        Page::headed(
            "Benchmarks",
            "Made by `make bench`",
            "Machines differ and are noisy: compare within a run, not between runs.",
        )
    }

    /// The page of what is measured in the VM, to be put below the other.
    pub(crate) fn emulated() -> Page {
        Page::headed(
            "Benchmarks in an emulated machine",
            "What needs PPP, in the VM",
            "It computes several times as slowly as the machine that emulates it, so these are upper bounds.",
        )
    }

    fn headed(title: &str, made: &str, note: &str) -> Page {
        let mut page = Page(String::new());
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
        page.line(&format!("# {title}\n"));
        page.line(&format!(
            "{made} on Linux {}, {cores} shared by clients, router, ISPs and servers, all in network \
             namespaces. {note}\n",
            read("/proc/sys/kernel/osrelease").trim()
        ));
        page
    }

    /// Adds a line.
    #[expect(clippy::print_stdout, reason = "what a benchmark is for")]
    pub(crate) fn line(&mut self, text: &str) {
        println!("{text}");
        let _ = writeln!(self.0, "{text}");
    }

    /// Begins a table.
    pub(crate) fn table(&mut self, title: &str, note: &str, columns: &[&str]) {
        self.line(&format!("## {title}\n\n{note}\n"));
        self.line(&format!("| {} |", columns.join(" | ")));
        self.line(&format!("|{}", "---|".repeat(columns.len())));
    }

    /// Adds a row to the table.
    pub(crate) fn row(&mut self, cells: &[String]) {
        self.line(&format!("| {} |", cells.join(" | ")));
    }

    /// Ends a table.
    pub(crate) fn end(&mut self) {
        self.line("");
    }

    /// Writes the page, where it is to be written.
    pub(crate) fn finish(self, file: Option<&str>) -> Result<()> {
        if let Some(file) = file {
            std::fs::write(file, self.0.trim_end().to_owned() + "\n")?;
        }
        Ok(())
    }
}

/// The middle one; the mean of the two middle ones.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The largest.
pub(crate) fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// In milliseconds.
pub(crate) fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
