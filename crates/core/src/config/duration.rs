//! Durations as they are written: `"500ms"`, `"15s"`, `"2m"`, `"1h"`.

use std::time::Duration;

use super::fault::{Wrong, quoted};
use super::keys::{Word, either};

/// The units, with their length in milliseconds; longest first.
const UNITS: &[(&str, u64)] = &[("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration between two bounds, both included; `words` are what could be written instead.
pub(super) fn read(
    text: &str,
    min_ms: u64,
    max_ms: u64,
    words: &[Word],
) -> Result<Duration, Wrong> {
    let or = if words.is_empty() { String::new() } else { format!(", or {}", either(words)) };
    let bounds = min_ms..=max_ms;
    let range = format!("write a duration from {} to {}{or}", show(min_ms), show(max_ms));
    let Some(amount) = amount(text) else {
        let what = format!("{} is not a duration", quoted(text));
        let meant = meant(text);
        let hint = match meant.iter().find(|(ms, _)| bounds.contains(ms)) {
            Some((_, better)) => format!("write \"{better}\"{or}"),
            None if !meant.is_empty() => range,
            None => {
                let example = show(if bounds.contains(&15_000) { 15_000 } else { min_ms });
                format!("write a whole number and ms, s, m or h, e.g. \"{example}\"{or}")
            }
        };
        return Err(Wrong::new("config.bad-duration", what, hint));
    };
    match amount {
        Some(ms) if ms < min_ms => {
            let what = format!("{} is less than {}", quoted(text), show(min_ms));
            Err(Wrong::new("config.out-of-range", what, range))
        }
        Some(ms) if ms <= max_ms => Ok(Duration::from_millis(ms)),
        Some(_) | None => {
            let what = format!("{} is more than {}", quoted(text), show(max_ms));
            Err(Wrong::new("config.out-of-range", what, range))
        }
    }
}

/// A number of milliseconds in the largest unit that fits.
pub(super) fn show(ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let unit = UNITS.iter().find(|(_, length)| ms >= *length && ms % length == 0);
    unit.map_or_else(|| format!("{ms}ms"), |(name, length)| format!("{}{name}", ms / length))
}

/// The milliseconds; `None`: not a duration; `Some(None)`: one beyond all bounds.
fn amount(text: &str) -> Option<Option<u64>> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
    if number.is_empty() {
        return None;
    }
    Some(number.parse::<u64>().ok().and_then(|number| number.checked_mul(*length)))
}

/// What to do about a number without a unit: a duration within the bounds is suggested.
pub(super) fn unit_hint(number: &str, min_ms: u64, max_ms: u64) -> String {
    let meant = meant(number);
    let fits = meant.iter().filter(|(ms, _)| (min_ms..=max_ms).contains(ms));
    let fits: Vec<String> = fits.map(|(_, text)| format!("\"{text}\"")).collect();
    if fits.is_empty() {
        return format!("write a duration from \"{}\" to \"{}\"", show(min_ms), show(max_ms));
    }
    format!("write the unit, e.g. {}", fits.join(" or "))
}

/// What was probably meant, the likeliest first, in milliseconds and as it is written.
fn meant(text: &str) -> Vec<(u64, String)> {
    let plain: String =
        text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    if plain.is_empty() || plain.len() > 20 {
        return Vec::new();
    }
    if plain.bytes().all(|c| c.is_ascii_digit()) {
        let Ok(number) = plain.parse::<u64>() else { return Vec::new() };
        let with = |(unit, length)| Some((number.checked_mul(length)?, format!("{number}{unit}")));
        return [("s", 1_000), ("ms", 1)].into_iter().filter_map(with).collect();
    }
    spelt_out(&plain).map(|ms| (ms, show(ms))).into_iter().collect()
}

/// Other names of units, fractions, several units, in milliseconds.
fn spelt_out(plain: &str) -> Option<u64> {
    let mut rest = plain;
    let mut total = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest.get(..number)?.parse().ok()?;
        rest = rest.get(number..)?;
        let name = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        total += amount * unit_of(rest.get(..name)?)?;
        rest = rest.get(name..)?;
    }
    let whole = (1.0..1e12).contains(&total).then(|| total.round().to_string())?;
    whole.parse().ok()
}

fn unit_of(name: &str) -> Option<f64> {
    match name {
        "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => Some(1.0),
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1e3),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(6e4),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some(3.6e6),
        "d" | "day" | "days" => Some(8.64e7),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_any(text: &str) -> Result<u128, String> {
        read(text, 100, 3_600_000, &[]).map(|time| time.as_millis()).map_err(|wrong| wrong.hint)
    }

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        assert_eq!(read_any("500ms"), Ok(500));
        assert_eq!(read_any("15s"), Ok(15_000));
        assert_eq!(read_any("2m"), Ok(120_000));
        assert_eq!(read_any("1h"), Ok(3_600_000));
    }

    #[test]
    fn what_was_meant_is_in_the_hint() {
        let pairs = [
            ("15", "write \"15s\""),
            ("1.5s", "write \"1500ms\""),
            ("1m30s", "write \"90s\""),
            ("15 s", "write \"15s\""),
            ("2min", "write \"2m\""),
            ("1 Hour", "write \"1h\""),
            ("2h", "write a duration from 100ms to 1h"),
            ("99999999999999999999h", "write a duration from 100ms to 1h"),
            ("", "write a whole number and ms, s, m or h, e.g. \"15s\""),
            ("soon", "write a whole number and ms, s, m or h, e.g. \"15s\""),
            ("99999999", "write a duration from 100ms to 1h"),
            ("7200", "write \"7200ms\""),
            ("3h0m", "write a duration from 100ms to 1h"),
            ("-1s", "write a whole number and ms, s, m or h, e.g. \"15s\""),
            ("1..2s", "write a whole number and ms, s, m or h, e.g. \"15s\""),
        ];
        for (text, hint) in pairs {
            assert_eq!(read_any(text), Err(hint.to_owned()), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_in_their_largest_unit() {
        let pairs = [(0, "0s"), (50, "50ms"), (1_000, "1s"), (90_000, "90s"), (3_600_000, "1h")];
        for (ms, text) in pairs {
            assert_eq!(show(ms), text);
        }
    }
}
