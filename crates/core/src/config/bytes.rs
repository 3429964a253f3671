//! Amounts of data as they are written: `"30MB"`, `"500kB"`, `"2GB"`; decimal, as tariffs count.

use super::fault::{Wrong, quoted};
use super::keys::{Word, either};

/// The units, with their size in bytes; longest first.
const UNITS: &[(&str, u64)] = &[("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

/// Reads an amount between two bounds, both included; `words` are what could be written instead.
pub(super) fn read(text: &str, min: u64, max: u64, words: &[Word]) -> Result<u64, Wrong> {
    let or = if words.is_empty() { String::new() } else { format!(", or {}", either(words)) };
    let Some(amount) = amount(text) else {
        let what = format!("{} is not an amount of data", quoted(text));
        let hint = match better(text) {
            Some(better) => format!("write \"{better}\"{or}"),
            None => format!("write a whole number and kB, MB or GB, e.g. \"30MB\"{or}"),
        };
        return Err(Wrong::new("config.bad-amount", what, hint));
    };
    match amount {
        Some(bytes) if (min..=max).contains(&bytes) => Ok(bytes),
        Some(_) | None => {
            let side = if amount.is_some_and(|bytes| bytes < min) { "less" } else { "more" };
            let bound = show(if side == "less" { min } else { max });
            let what = format!("{} is {side} than {bound}", quoted(text));
            let hint = format!("write an amount from {} to {}{or}", show(min), show(max));
            Err(Wrong::new("config.out-of-range", what, hint))
        }
    }
}

/// An amount in the largest unit that fits.
pub(super) fn show(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size && bytes % size == 0);
    unit.map_or_else(|| format!("{bytes}B"), |(name, size)| format!("{}{name}", bytes / size))
}

/// The bytes; `None`: not an amount; `Some(None)`: one beyond all bounds.
fn amount(text: &str) -> Option<Option<u64>> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
    if number.is_empty() {
        return None;
    }
    Some(number.parse::<u64>().ok().and_then(|number| number.checked_mul(*size)))
}

/// What was probably meant: other cases and names of units, spaces.
fn better(text: &str) -> Option<String> {
    let plain: String =
        text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    let digits = plain.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = plain.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = match unit {
        "" | "m" | "mb" | "mib" | "mbyte" | "megabytes" => "MB",
        "k" | "kb" | "kib" | "kbyte" | "kilobytes" => "kB",
        "g" | "gb" | "gib" | "gbyte" | "gigabytes" => "GB",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_any(text: &str) -> Result<u64, String> {
        read(text, 100_000, 1_000_000_000_000, &[]).map_err(|wrong| wrong.hint)
    }

    #[test]
    fn an_amount_is_a_whole_number_and_a_unit() {
        assert_eq!(read_any("30MB"), Ok(30_000_000));
        assert_eq!(read_any("500kB"), Ok(500_000));
        assert_eq!(read_any("2GB"), Ok(2_000_000_000));
    }

    #[test]
    fn what_was_meant_is_in_the_hint() {
        for (text, hint) in [
            ("30", "write \"30MB\""),
            ("30 mb", "write \"30MB\""),
            ("1g", "write \"1GB\""),
            ("5kB", "write an amount from 100kB to 1000GB"),
            ("99999999999999999999GB", "write an amount from 100kB to 1000GB"),
            ("", "write a whole number and kB, MB or GB, e.g. \"30MB\""),
            ("much", "write a whole number and kB, MB or GB, e.g. \"30MB\""),
        ] {
            assert_eq!(read_any(text), Err(hint.to_owned()), "{text}");
        }
    }
}
