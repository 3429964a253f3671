//! What people see: pure functions from what the daemon says to text. Never lets a control
//! character through: names and reasons may come from anywhere.

pub mod drill;
mod placement;
mod table;

use anywan_core::api::{
    FamilyStatus, Finding, Findings, Grade, Notice, Plan, Problem, State, Status, WanStatus,
};
use jiff::Timestamp;
use table::{Align, Column};

/// How the status is to look.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Now, for ages.
    pub now: Timestamp,
    /// Columns of the terminal; `None`: as wide as it gets.
    pub width: Option<usize>,
    /// Whether states are coloured.
    pub colour: bool,
}

/// The status as a table with a line for each WAN and family, and the problems below.
pub fn status_table(status: &Status, look: Look) -> String {
    let seen = Seen::of(status);
    let mut rows = Vec::new();
    for wan in &status.wans {
        let mut first = true;
        for (family, side) in seen.sides(wan) {
            rows.push(row(wan, family, side, first, look.now));
            first = false;
        }
    }
    let mut text = table::draw(&COLUMNS, &rows, look.width, look.colour.then_some(paint));
    if !status.problems.is_empty() {
        text.push_str("\nProblems:\n");
    }
    for problem in &status.problems {
        text.push_str(&format!("  {}", lines_of(problem)));
    }
    text
}

/// What `anywan doctor` has found, a paragraph each, and who does the work of the interfaces.
pub fn findings_list(found: &Findings, colour: bool) -> String {
    let mut text = String::new();
    for Finding { grade, problem } in &found.findings {
        let (word, sgr) = match grade {
            Grade::Wrong => ("wrong", "31"),
            Grade::Note => ("note", "33"),
        };
        let word = if colour { coloured(sgr, word) } else { word.to_owned() };
        text.push_str(&format!("{word}  {}", lines_of(problem)));
    }
    if !found.findings.iter().any(|finding| finding.grade == Grade::Wrong) {
        text.push_str("Nothing is wrong.\n");
    }
    if let Some(placement) = &found.placement {
        text.push_str(&placement::placement_table(placement));
    }
    text
}

/// A problem and its hint, each on a line.
fn lines_of(problem: &Problem) -> String {
    let (at, what) = (printable(&problem.at), printable(&problem.what));
    let mut text = format!("{at}: {what} ({})\n", printable(&problem.code));
    if !problem.hint.is_empty() {
        text.push_str(&format!("    hint: {}\n", printable(&problem.hint)));
    }
    text
}

/// In the order in which they are shown; where there is no room, `spare` ones go first.
const COLUMNS: [Column; 12] = [
    Column { title: "WAN", align: Align::Left, spare: 0 },
    Column { title: "INTERFACE", align: Align::Left, spare: 4 },
    Column { title: "PRIO", align: Align::Right, spare: 6 },
    Column { title: "WEIGHT", align: Align::Right, spare: 7 },
    Column { title: "SHARE", align: Align::Right, spare: 1 },
    Column { title: "FAMILY", align: Align::Left, spare: 0 },
    Column { title: "ADDRESS", align: Align::Left, spare: 8 },
    Column { title: STATE, align: Align::Left, spare: 0 },
    Column { title: "RTT", align: Align::Right, spare: 3 },
    Column { title: "LOSS", align: Align::Right, spare: 5 },
    Column { title: "SINCE", align: Align::Right, spare: 2 },
    Column { title: "REASON", align: Align::Left, spare: 0 },
];

const STATE: &str = "STATE";

fn row(
    wan: &WanStatus,
    family: &str,
    side: &FamilyStatus,
    first: bool,
    now: Timestamp,
) -> [String; COLUMNS.len()] {
    let once = |text: String| if first { text } else { String::new() };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let drained = if wan.drained { "drained; " } else { "" };
    [
        once(printable(&wan.name)),
        once(printable(&wan.interface)),
        once(wan.priority.to_string()),
        once(wan.weight.to_string()),
        percent(side.share_percent),
        family.to_owned(),
        or_dash(address(side, now)),
        side.state.to_string(),
        or_dash(side.rtt_ms.map(milliseconds)),
        or_dash(side.loss_percent.map(percent)),
        or_dash(age(&side.since, now)),
        format!("{drained}{}", printable(&side.reason)),
    ]
}

/// A side's address, where it comes from, and how long its lease lasts.
fn address(side: &FamilyStatus, now: Timestamp) -> Option<String> {
    let address = printable(side.address.as_deref()?);
    let left = side.address_until.as_deref().and_then(|until| left(until, now));
    let words = [side.address_from.map(|from| from.to_string()), left];
    let words: Vec<String> = words.into_iter().flatten().collect();
    let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) };
    Some(format!("{address}{words}"))
}

/// The families that are worth a line.
struct Seen {
    ipv4: bool,
    ipv6: bool,
}

impl Seen {
    /// A family that no WAN has an address or a next hop in is not there.
    fn of(status: &Status) -> Seen {
        let there = |side: &FamilyStatus| side.address.is_some() || side.gateway.is_some();
        let ipv6 = status.wans.iter().any(|wan| there(&wan.ipv6));
        let ipv4 = !ipv6 || status.wans.iter().any(|wan| there(&wan.ipv4));
        Seen { ipv4, ipv6 }
    }

    fn sides<'a>(&self, wan: &'a WanStatus) -> Vec<(&'static str, &'a FamilyStatus)> {
        let all = [("IPv4", &wan.ipv4, self.ipv4), ("IPv6", &wan.ipv6, self.ipv6)];
        let seen = all.into_iter().filter(|(_, _, seen)| *seen);
        let used = |side: &FamilyStatus| side.state != State::Unknown || side.address.is_some();
        let any_used = seen.clone().any(|(_, side, _)| used(side));
        let worth = seen.filter(|(_, side, _)| used(side) || !any_used);
        worth.map(|(family, side, _)| (family, side)).collect()
    }
}

/// A cell as it is shown on a terminal with colours.
fn paint(title: &str, cell: &str) -> String {
    let code = match (title, cell.trim_end()) {
        (STATE, "up") => "32",
        (STATE, "down") => "31",
        (STATE, _) => "33",
        _ => return cell.to_owned(),
    };
    coloured(code, cell)
}

/// Text in a colour (ECMA-48, SGR).
fn coloured(code: &str, text: &str) -> String {
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// One event on one line.
pub fn notice_line(notice: &Notice) -> String {
    let family = match notice.family.as_str() {
        "ipv4" => "IPv4",
        "ipv6" => "IPv6",
        other => other,
    };
    let change = match (notice.old.as_str(), notice.new.as_str()) {
        ("", "") => String::new(),
        ("", new) => new.to_owned(),
        (old, "") => format!("{old} is over"),
        (old, new) => format!("{old} -> {new}"),
    };
    let reason = match notice.reason.as_str() {
        "" => String::new(),
        reason if change.is_empty() => reason.to_owned(),
        reason => format!("({reason})"),
    };
    let words = [&notice.time, &notice.kind, &notice.wan, family, &change, &reason];
    let words: Vec<String> =
        words.iter().filter(|word| !word.is_empty()).map(|word| printable(word)).collect();
    words.join(" ")
}

/// A plan, with a number for each step.
pub fn plan_text(plan: &Plan, of_a_file: bool) -> String {
    if plan.steps.is_empty() {
        let what = if of_a_file { "would stay" } else { "is" };
        return format!("Nothing to do: the kernel {what} as it should be.\n");
    }
    let digits = plan.steps.len().to_string().len();
    let line =
        |(index, step): (usize, &String)| format!("{:>digits$}. {}\n", index + 1, printable(step));
    plan.steps.iter().enumerate().map(line).collect()
}

/// Text without control characters, which could do anything to a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn percent(value: f64) -> String {
    if value > 0.0 && value < 0.5 { "<1 %".to_owned() } else { format!("{value:.0} %") }
}

fn milliseconds(value: f64) -> String {
    if value < 9.95 { format!("{value:.1} ms") } else { format!("{value:.0} ms") }
}

/// The time since then in its two largest units, `None` when that is not a time.
fn age(since: &str, now: Timestamp) -> Option<String> {
    let since: Timestamp = since.parse().ok()?;
    Some(span(now.duration_since(since).as_secs()))
}

/// The time until then, likewise.
fn left(until: &str, now: Timestamp) -> Option<String> {
    let until: Timestamp = until.parse().ok()?;
    Some(format!("{} left", span(until.duration_since(now).as_secs())))
}

fn span(seconds: i64) -> String {
    // Clocks are set; an age is never negative.
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().expect("a time");
        let said = |since: &str| age(since, now).unwrap_or_default();
        assert_eq!(said("2026-11-22T11:59:15.5Z"), "44s");
        assert_eq!(said("2026-11-22T11:56:48Z"), "3m12s");
        assert_eq!(said("2026-11-22T06:58:00Z"), "5h02m");
        assert_eq!(said("2026-11-19T08:00:00Z"), "3d04h");
        assert_eq!(said("2026-11-22T12:00:01Z"), "0s");
        assert_eq!(said(""), "");
    }

    #[test]
    fn small_numbers_are_not_rounded_away() {
        assert_eq!([0.0, 0.2, 33.3, 100.0].map(percent), ["0 %", "<1 %", "33 %", "100 %"]);
        assert_eq!(
            [0.04, 9.94, 9.96, 1234.5].map(milliseconds),
            ["0.0 ms", "9.9 ms", "10 ms", "1234 ms"]
        );
    }
}
