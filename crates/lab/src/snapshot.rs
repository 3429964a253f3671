//! What a namespace's kernel is set up to do, as comparable text: rules, routes, nft, sysctls.
//!
//! Only reads. Counters, ages and other things that change by themselves are left out.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::command;
use crate::netns::Netns;

/// Folders of sysctls that matter to a router, below /proc/sys/net.
const SYSCTLS: [&str; 4] = ["ipv4", "ipv6", "netfilter", "core"];

/// Sysctls that change by themselves.
const RESTLESS: [&str; 2] = ["nf_conntrack_count", "stable_secret"];

/// The state of one namespace: sections of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    sections: BTreeMap<String, Vec<String>>,
}

impl Snapshot {
    /// Reads everything.
    pub fn take(space: &Netns) -> Result<Snapshot> {
        space.inside(|| {
            let mut sections = BTreeMap::new();
            for line in [
                "ip -4 -d rule",
                "ip -6 -d rule",
                "ip -4 -d route show table all",
                "ip -6 -d route show table all",
                "ip -o addr",
                "nft -s list ruleset",
            ] {
                let args: Vec<&str> = line.split(' ').collect();
                let text = command::run_ok(&args, "")?;
                // Elements of sets that go by themselves after a while are no state.
                let lasting = text.lines().filter(|line| !line.contains(" timeout "));
                sections.insert(line.to_owned(), lasting.map(settled).collect());
            }
            let mut sysctls = Vec::new();
            for folder in SYSCTLS {
                read_sysctls(&Path::new("/proc/sys/net").join(folder), &mut sysctls)?;
            }
            sysctls.sort();
            sections.insert("sysctl".to_owned(), sysctls);
            Ok(Snapshot { sections })
        })?
    }

    /// The same without the lines for which `drop` is true (it gets section and line).
    #[must_use]
    pub fn without(mut self, drop: impl Fn(&str, &str) -> bool) -> Snapshot {
        for (section, lines) in &mut self.sections {
            lines.retain(|line| !drop(section, line));
        }
        self
    }

    /// Lines that are here and not in `later`, and the other way round.
    pub fn diff(&self, later: &Snapshot) -> Diff {
        let mut lines = Vec::new();
        for (section, before) in &self.sections {
            let after = later.sections.get(section).map_or(&[][..], Vec::as_slice);
            let mark = |sign, from: &[String], other: &[String]| {
                let text = |line: &String| format!("{section}: {sign} {line}");
                only_in(from, other).iter().map(text).collect::<Vec<_>>()
            };
            lines.extend(mark('-', before, after));
            lines.extend(mark('+', after, before));
        }
        Diff { lines }
    }

    /// Lines of this one that `later` lacks: what somebody took away.
    pub fn lost_in(&self, later: &Snapshot) -> Vec<String> {
        let gone = |line: &String| line.contains(": - ");
        self.diff(later).lines.into_iter().filter(gone).collect()
    }
}

/// Lines of `from` that are not in `other`, counting repetitions.
fn only_in(from: &[String], other: &[String]) -> Vec<String> {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for line in other {
        *left.entry(line).or_default() += 1;
    }
    let mut only = Vec::new();
    for line in from {
        match left.get_mut(line.as_str()) {
            Some(count) if *count > 0 => *count -= 1,
            Some(_) | None => only.push(line.clone()),
        }
    }
    only
}

/// A line without what changes by itself.
fn settled(line: &str) -> String {
    let mut words = line.split_whitespace().peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "expires" | "valid_lft" | "preferred_lft" => drop(words.next()),
            "linkdown" | "\\" => {}
            word => kept.push(word),
        }
    }
    let indent = line.len() - line.trim_start().len();
    format!("{}{}", " ".repeat(indent), kept.join(" "))
}

fn read_sysctls(folder: &Path, into: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_sysctls(&path, into)?;
            continue;
        }
        let name = path.strip_prefix("/proc/sys").unwrap_or(&path).display().to_string();
        let restless = RESTLESS.iter().any(|word| name.contains(word));
        // Some are write-only or gone by now.
        if let (false, Ok(value)) = (restless, fs::read_to_string(&path)) {
            into.push(format!(
                "{name} = {}",
                value.split_whitespace().collect::<Vec<_>>().join(" ")
            ));
        }
    }
    Ok(())
}

/// The difference of two snapshots, a line each: `section: - line` or `section: + line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// The lines.
    pub lines: Vec<String>,
}

impl Diff {
    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "no difference");
        }
        write!(f, "{}", self.lines.join("\n"))
    }
}
