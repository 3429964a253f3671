//! How a drill looks: the question before it, its course, and what it showed.

use std::fmt::Write as _;
use std::time::Duration;

use anywan_core::api::{API_VERSION, DrillLine, DrillPlan};
use serde::Serialize;

use super::printable;

/// What connections of our own have seen.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// New ones, by family.
    pub new_connections: Vec<NewConnections>,
    /// One that was held open, by family.
    pub established: Vec<Established>,
}

/// What new connections of one family have seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewConnections {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// How many were tried.
    pub tried: usize,
    /// How many were not there within 900 ms.
    pub failed: usize,
    /// The longest time in which some failed, in milliseconds; 50 ms is the resolution.
    pub outage_ms: u64,
    /// The last one worked.
    pub recovered: bool,
}

/// What became of a connection that was open, and silent, when the WAN was cut off.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Established {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Milliseconds from the cut until it heard that it is over; `null`: it never did.
    pub told_ms: Option<u64>,
}

/// When the WAN was found dead.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Detection {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Milliseconds since the cut.
    pub ms: u64,
}

/// A drill from beginning to end; `anywan drill --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Course {
    /// [`API_VERSION`].
    pub version: u32,
    /// Who was cut off.
    pub wan: String,
    /// How long, in milliseconds.
    pub cut_ms: Option<u64>,
    /// When it was found dead.
    pub found_dead: Vec<Detection>,
    /// How many flows were told to start anew, or go on by another WAN.
    pub flows_told: u64,
    /// What connections saw.
    #[serde(flatten)]
    pub measured: Measured,
    /// Milliseconds from its mending until it was used as before; `null`: not seen.
    pub back_ms: Option<u64>,
    /// Everything that happened.
    pub events: Vec<DrillLine>,
    /// The WAN was found dead, and connections worked without it.
    pub passed: bool,
}

impl Course {
    /// Puts together what the daemon told and what was measured.
    pub fn of(plan: &DrillPlan, events: Vec<DrillLine>, measured: Measured) -> Course {
        let at = |kind: &str| events.iter().find(|line| line.kind == kind).map(|line| line.ms);
        let mended = at("mended");
        let during = |line: &&DrillLine| mended.is_none_or(|mended| line.ms <= mended);
        let dead = |line: &&DrillLine| line.kind == "state" && line.new == "down";
        let found_dead: Vec<Detection> = events
            .iter()
            .filter(during)
            .filter(dead)
            .map(|line| Detection { family: line.family.clone(), ms: line.ms })
            .collect();
        let told = events.iter().filter(during).filter(|line| line.kind == "told");
        let can_move = |new: &&NewConnections| !plan.alone.contains(&new.family);
        let recovered = measured.new_connections.iter().filter(can_move).all(|new| {
            let span = Duration::from_millis(mended.unwrap_or(u64::MAX));
            new.recovered && Duration::from_millis(new.outage_ms) < span
        });
        Course {
            version: API_VERSION,
            wan: plan.wan.clone(),
            cut_ms: mended,
            flows_told: told.filter_map(|line| line.new.parse::<u64>().ok()).sum(),
            passed: mended.is_some() && !found_dead.is_empty() && recovered,
            found_dead,
            measured,
            back_ms: at("back").zip(mended).map(|(back, mended)| back.saturating_sub(mended)),
            events,
        }
    }
}

/// What is asked before.
pub fn question(plan: &DrillPlan, span: Duration) -> String {
    let wan = printable(&plan.wan);
    let others: Vec<String> = plan.others.iter().map(|other| printable(other)).collect();
    let mut text = format!(
        "This cuts {wan} ({:.0} % of new connections) off for {} s, as if the internet behind it \
         had died.\nIts connections are told to start anew; {} can take over. Ctrl-C ends it.\n",
        plan.share_percent,
        span.as_secs(),
        others.join(", "),
    );
    for family in &plan.alone {
        let _ = writeln!(text, "No other WAN has {}: it will be out for as long.", name(family));
    }
    text
}

fn name(family: &str) -> String {
    match family {
        "ipv4" => "IPv4".to_owned(),
        "ipv6" => "IPv6".to_owned(),
        other => printable(other),
    }
}

/// One line of the course.
pub fn line_text(line: &DrillLine) -> String {
    let what = match line.kind.as_str() {
        "cut" | "mended" | "back" | "gone" => line.kind.clone(),
        "told" => format!("told {} flows", line.new),
        kind => match line.old.as_str() {
            "" => format!("{kind} {}", line.new),
            old => format!("{kind} {old} -> {}", line.new),
        },
    };
    let family = match line.family.as_str() {
        "" => String::new(),
        family => format!("{} ", name(family)),
    };
    let seconds = Duration::from_millis(line.ms).as_secs_f64();
    format!("{seconds:>8.3} s  {family}{} ({})", printable(&what), printable(&line.reason))
}

/// What the drill showed.
pub fn summary_text(course: &Course) -> String {
    let mut text = String::from("\n");
    let mut row = |title: &str, what: String| {
        let _ = writeln!(text, "{title:<24}{what}");
    };
    if course.found_dead.is_empty() {
        row("Found dead", "never: its probes did not notice the cut".to_owned());
    }
    for found in &course.found_dead {
        row(&format!("Found dead, {}", name(&found.family)), format!("after {} ms", found.ms));
    }
    if course.measured.new_connections.is_empty() {
        row("New connections", "not measured: none of its targets takes TCP".to_owned());
    }
    for new in &course.measured.new_connections {
        let what = match (new.failed, new.recovered) {
            (0, _) => format!("none of {} failed", new.tried),
            (failed, true) => {
                format!("failed for {} ms ({failed} of {})", new.outage_ms, new.tried)
            }
            (failed, false) => format!("fail still ({failed} of {})", new.tried),
        };
        row(&format!("New connections, {}", name(&new.family)), what);
    }
    for one in &course.measured.established {
        let what = match one.told_ms {
            Some(ms) => format!("knew after {ms} ms that it is over"),
            None => "was not told".to_owned(),
        };
        row(&format!("Open connection, {}", name(&one.family)), what);
    }
    row("Flows told", course.flows_told.to_string());
    let back = match course.back_ms {
        Some(ms) => format!("{:.1} s after it was mended", Duration::from_millis(ms).as_secs_f64()),
        None => "not seen; `anywan status` tells".to_owned(),
    };
    row(&format!("Back on {}", printable(&course.wan)), back);
    text
}
