//! `anywan drill`: asks, has the daemon cut a WAN off, and measures with connections of its own
//! what that is like. The cut is the daemon's; it ends when this program does.

mod measure;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anywan_core::api::{DrillLine, DrillPlan};

use super::{encoded, put};
use crate::client::{Client, Lines};
use crate::failure::Failure;
use crate::print::drill::{Course, line_text, question, summary_text};
use crate::print::printable;
use measure::Measuring;

/// Connections are tried for so long before the cut, so that there is something to compare with.
const BEFORE: Duration = Duration::from_millis(500);
/// The shortest and the longest drill, in seconds.
const SECONDS: std::ops::RangeInclusive<u64> = 5..=300;

/// What is wanted of a drill.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) span: Duration,
    pub(super) yes: bool,
    pub(super) json: bool,
}

/// Reads `20s`, `2m` or `20`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 60),
        (None, None) => (text, 1),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match seconds.filter(|seconds| SECONDS.contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("a time from 5s to 5m, in whole seconds".to_owned()),
    }
}

pub(super) async fn run(client: &Client, wan: &str, wish: Wish) -> Result<bool, Failure> {
    let name = encoded(wan);
    let plan: DrillPlan = client.get(&format!("/v1/drill?wan={name}")).await?.read()?;
    if !wish.yes && !confirmed(&plan, wish.span)? {
        return Err(Failure::failed("nothing was done", ""));
    }
    let measuring = Measuring::begin(&plan).await;
    tokio::time::sleep(BEFORE).await;
    let path = format!("/v1/drill?wan={name}&seconds={}", wish.span.as_secs());
    let lines = client.begin(&path).await?;
    let cut = Instant::now();
    let told = follow(lines, wish.json).await?;
    let measured = measuring.end(cut).await;
    let course = Course::of(&plan, told, measured);
    if wish.json {
        let text = serde_json::to_string(&course);
        let text = text.map_err(|error| Failure::failed(format!("write JSON: {error}"), ""))?;
        put(&format!("{text}\n"))?;
    } else {
        put(&summary_text(&course))?;
    }
    Ok(course.passed)
}

fn confirmed(plan: &DrillPlan, span: Duration) -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let text = "error: a drill really cuts a WAN off, and nobody is here to be asked\n\
                    hint: --yes goes ahead\n";
        return Err(Failure::Bad { text: text.to_owned() });
    }
    let mut err = std::io::stderr().lock();
    write!(err, "{} Go on? [y/N] ", question(plan, span)).map_err(|e| Failure::output(&e))?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).map_err(|e| Failure::output(&e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Reads the drill's course to its end, and shows it as it comes.
async fn follow(mut lines: Lines, json: bool) -> Result<Vec<DrillLine>, Failure> {
    let mut told = Vec::new();
    while let Some(line) = lines.next().await {
        let text = String::from_utf8_lossy(&line);
        match serde_json::from_str::<DrillLine>(&text) {
            Ok(line) => {
                if !json {
                    put(&format!("{}\n", line_text(&line)))?;
                }
                told.push(line);
            }
            Err(_) if json => {}
            Err(_) => put(&format!("{}\n", printable(&text)))?,
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_lasts_five_seconds_to_five_minutes() {
        let seconds = |text| span(text).ok().map(|span| span.as_secs());
        assert_eq!([seconds("20s"), seconds("2m"), seconds("7")], [Some(20), Some(120), Some(7)]);
        for wrong in ["4s", "6m", "", "s", "1h", "-5s", "1.5m", "99999999999999999999m"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
