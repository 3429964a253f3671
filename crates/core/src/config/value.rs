//! One value of the file, checked against its kind. In: a TOML value and a [`Key`]; out: a
//! [`Value`], or what is wrong with it. Looks at nothing but that one value.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::address;
use super::addresses;
use super::bytes;
use super::duration;
use super::fault::{Fault, Wrong, quoted};
use super::interface::{interface, interface_name};
use super::keys::{Key, Kind, Word, either};
use super::model::{Lease, StaticName, Target};
use super::near::nearest;
use super::served;
use super::target;
use super::text;
use super::types::wrong_type;
use crate::names::{Family, MarkField, Secret};

/// A value that its kind allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Word(&'static str),
    Number(u32),
    Flag(bool),
    Time(Duration),
    Bytes(u64),
    Address(IpAddr),
    Addresses(Vec<IpNet>),
    Targets(Vec<Target>),
    Servers(Vec<IpAddr>),
    Range(Ipv4Addr, Ipv4Addr),
    Leases(Vec<Lease>),
    Hosts(Vec<StaticName>),
    Texts(Vec<String>),
    Secret(Secret),
}

/// Reads the value of `key`, which stands at `at`; all that is wrong with it goes to `faults`.
pub(super) fn read(
    key: &Key,
    at: &str,
    value: &Spanned<DeValue<'_>>,
    faults: &mut impl FnMut(Fault),
) -> Option<Value> {
    let kind = &key.kind;
    let result = match kind {
        Kind::Targets => return target::list(at, value, faults).map(Value::Targets),
        Kind::Addresses { words } => return addresses::read(key, words, at, value, faults),
        Kind::Servers { max } => {
            let list = served::list(at, value, (*max, "192.0.2.53"), faults, served::server)?;
            served::twice(at, &list, faults, |address| Some(*address));
            return Some(Value::Servers(values(list)));
        }
        Kind::Leases => return leases(at, value, faults),
        Kind::Hosts => {
            let limits = (served::ENTRIES_MAX, "192.168.1.5 nas");
            let list = served::list(at, value, limits, faults, served::name)?;
            return Some(Value::Hosts(values(list)));
        }
        Kind::Range => string(key, value.get_ref())
            .and_then(served::range)
            .map(|(first, last)| Value::Range(first, last)),
        Kind::Domain => string(key, value.get_ref()).and_then(served::domain).map(Value::Text),
        Kind::Texts { max, each } => {
            return text::list(at, value, *max, *each, faults).map(Value::Texts);
        }
        Kind::Mask => mask(value.get_ref()),
        Kind::Flag => flag(value.get_ref()),
        Kind::Number { min, max } => number(value.get_ref(), *min, *max).map(Value::Number),
        Kind::Interface => string(key, value.get_ref()).and_then(interface).map(Value::Text),
        Kind::InterfaceName => {
            string(key, value.get_ref()).and_then(interface_name).map(Value::Text)
        }
        Kind::Name => string(key, value.get_ref()).and_then(name),
        Kind::Text { max } => {
            string(key, value.get_ref()).and_then(|text| text::plain(text, *max)).map(Value::Text)
        }
        Kind::Secret { digits } => string(key, value.get_ref())
            .and_then(|text| text::secret(text, *digits))
            .map(Value::Secret),
        Kind::Path { below } => {
            string(key, value.get_ref()).and_then(|text| text::path(text, below)).map(Value::Text)
        }
        Kind::Port => string(key, value.get_ref()).and_then(text::port).map(Value::Text),
        Kind::Words(words) => string(key, value.get_ref()).and_then(|text| one_of(text, words)),
        Kind::Time { min_ms, max_ms, words } => {
            string(key, value.get_ref()).and_then(|text| match word(text, words) {
                Some(word) => Ok(Value::Word(word)),
                None => duration::read(text, *min_ms, *max_ms, words).map(Value::Time),
            })
        }
        Kind::Bytes { min, max, words } => {
            string(key, value.get_ref()).and_then(|text| match word(text, words) {
                Some(word) => Ok(Value::Word(word)),
                None => bytes::read(text, *min, *max, words).map(Value::Bytes),
            })
        }
        Kind::Address { family, words } => {
            string(key, value.get_ref()).and_then(|text| one_address(key, text, *family, words))
        }
    };
    result.map_err(|wrong| faults(wrong.at(at, value.span()))).ok()
}

fn leases(at: &str, value: &Spanned<DeValue<'_>>, faults: &mut impl FnMut(Fault)) -> Option<Value> {
    let limits = (served::ENTRIES_MAX, "b8:27:eb:00:00:01 192.168.1.10 printer");
    let list = served::list(at, value, limits, faults, served::lease)?;
    served::twice(at, &list, faults, |lease| Some(lease.mac));
    served::twice(at, &list, faults, |lease| Some(lease.address));
    served::twice(at, &list, faults, |lease| lease.name.clone());
    Some(Value::Leases(values(list)))
}

fn values<T>(list: Vec<(T, std::ops::Range<usize>)>) -> Vec<T> {
    list.into_iter().map(|(value, _)| value).collect()
}

fn string<'a>(key: &Key, value: &'a DeValue<'_>) -> Result<&'a str, Wrong> {
    if let DeValue::String(text) = value {
        return Ok(text);
    }
    let example = match (&key.kind, value) {
        (Kind::Time { min_ms, max_ms, .. }, DeValue::Integer(n)) if n.as_str().len() < 10 => {
            let hint = duration::unit_hint(n.as_str(), *min_ms, *max_ms);
            return Err(wrong_type("a duration in quotes", value, hint));
        }
        (Kind::Time { .. }, _) => "\"1s\" or \"500ms\"",
        (Kind::Bytes { .. }, DeValue::Integer(n)) if n.as_str().len() < 10 => {
            let hint = format!("write the unit, e.g. \"{n}MB\"");
            return Err(wrong_type("an amount of data in quotes", value, hint));
        }
        (Kind::Bytes { .. }, _) => "\"30MB\"",
        (Kind::Address { words, .. }, DeValue::Boolean(on)) => {
            let word = words.get(if *on { 0 } else { 1 }).map_or("off", |word| word.0);
            return Err(wrong_type("a string", value, format!("write {} = \"{word}\"", key.name)));
        }
        (Kind::Address { family: Family::Ipv4, .. }, _) => "\"192.168.1.1\"",
        (Kind::Address { family: Family::Ipv6, .. }, _) => "\"fe80::1\"",
        (Kind::Words(words), _) => {
            let hint = format!("write {}", either(words));
            return Err(wrong_type("a string", value, hint));
        }
        (Kind::Name, DeValue::Integer(n)) if n.as_str().len() < 16 => {
            let hint = format!("put it in quotes: {} = \"{n}\"", key.name);
            return Err(wrong_type("a string", value, hint));
        }
        (Kind::Name, _) => "\"adsl\"",
        (Kind::Range, _) => "\"192.168.1.100-192.168.1.199\"",
        (Kind::Domain, _) => "\"lan\"",
        (Kind::Secret { .. }, DeValue::Integer(_)) => {
            let hint = format!("put it in quotes: {} = \"…\"", key.name);
            return Err(wrong_type("a string", value, hint));
        }
        (Kind::Secret { .. } | Kind::Text { .. }, _) => "\"…\"",
        (Kind::Path { below }, _) => {
            let hint = format!("write it in quotes, e.g. {} = \"{below}…\"", key.name);
            return Err(wrong_type("a string", value, hint));
        }
        (Kind::Port, _) => "\"1-1.2\"",
        (Kind::Interface, DeValue::Array(_)) => {
            let hint = "write one section for each interface, e.g. two [[lan]]";
            return Err(wrong_type("a string", value, hint));
        }
        (_, _) => "\"eth0\"",
    };
    Err(wrong_type("a string", value, format!("write it in quotes, e.g. {} = {example}", key.name)))
}

pub(super) fn word(text: &str, words: &[Word]) -> Option<&'static str> {
    words.iter().find(|word| word.0 == text).map(|word| word.0)
}

fn one_of(text: &str, words: &'static [Word]) -> Result<Value, Wrong> {
    if let Some(word) = word(text, words) {
        return Ok(Value::Word(word));
    }
    let hint = match nearest(text, words.iter().map(|word| word.0)) {
        Some(word) => format!("did you mean \"{word}\"?"),
        None => format!("write {}", either(words)),
    };
    let what = format!("{} is not one of the words for this key", quoted(text));
    Err(Wrong::new("config.bad-word", what, hint))
}

fn one_address(key: &Key, text: &str, family: Family, words: &[Word]) -> Result<Value, Wrong> {
    if let Some(word) = word(text, words) {
        return Ok(Value::Word(word));
    }
    let negative = matches!(text, "off" | "none" | "no" | "false" | "disabled");
    let no = words.get(1).map(|word| word.0).filter(|_| negative);
    if let Some(word) = nearest(text, words.iter().map(|word| word.0)).or(no) {
        let what = format!("{} is not an address", quoted(text));
        return Err(Wrong::new("config.bad-word", what, format!("did you mean \"{word}\"?")));
    }
    let address = address::of_family(key.name, text, family).map_err(|mut wrong| {
        if wrong.hint.starts_with("write an ") || wrong.hint.starts_with("give ") {
            wrong.hint = format!("{}, or {}", wrong.hint, either(words));
        }
        wrong
    })?;
    if key.name.starts_with("nat") && address::is_link_local_v6(address) {
        let what = format!("{address} is link-local: no answer would come back to it");
        let hint = format!("give a global address, or {}", either(words));
        return Err(Wrong::new("config.unusable-address", what, hint));
    }
    Ok(Value::Address(address))
}

fn flag(value: &DeValue<'_>) -> Result<Value, Wrong> {
    let on = match value {
        DeValue::Boolean(on) => return Ok(Value::Flag(*on)),
        DeValue::String(text) => match text.to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
        DeValue::Integer(n) => match n.as_str() {
            "1" => Some(true),
            "0" => Some(false),
            _ => None,
        },
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    };
    let hint = match on {
        Some(on) => format!("write {on}, without quotes"),
        None => "write true or false, without quotes".to_owned(),
    };
    Err(wrong_type("true or false", value, hint))
}

fn number(value: &DeValue<'_>, min: u32, max: u32) -> Result<u32, Wrong> {
    let wanted = "a whole number";
    let n = match value {
        DeValue::Integer(n) => n,
        DeValue::String(text) if text.trim().parse::<u32>().is_ok() => {
            // As a number, because none begins with 0.
            let number = text.trim().parse::<u32>().unwrap_or_default();
            let hint = format!("leave the quotes away: {number}");
            return Err(wrong_type(wanted, value, hint));
        }
        DeValue::Float(n) if whole(n.as_str()).is_some() => {
            let n = whole(n.as_str()).unwrap_or_default();
            return Err(wrong_type(wanted, value, format!("write {n}, without a fraction")));
        }
        DeValue::String(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            let hint = format!("write a whole number from {min} to {max}");
            return Err(wrong_type(wanted, value, hint));
        }
    };
    match integer(n) {
        Some(n) if (i128::from(min)..=i128::from(max)).contains(&n) => {
            Ok(u32::try_from(n).unwrap_or(max))
        }
        Some(n) if n < i128::from(min) => Err(out_of_range(n.to_string(), "less", min, max)),
        Some(n) => Err(out_of_range(n.to_string(), "more", min, max)),
        None => Err(out_of_range("the number".to_owned(), "far more", min, max)),
    }
}

/// A number with a fraction of 0, as a small whole one.
fn whole(text: &str) -> Option<u32> {
    let number: f64 = text.parse().ok()?;
    (0..=10_000).find(|n| f64::from(*n) == number)
}

fn out_of_range(n: String, side: &str, min: u32, max: u32) -> Wrong {
    let bound = if side == "less" { min } else { max };
    let what = format!("{n} is {side} than {bound}");
    Wrong::new("config.out-of-range", what, format!("write a whole number from {min} to {max}"))
}

/// A whole number; `None` when it is larger than anything that is meant.
fn integer(n: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(n.as_str(), n.radix()).ok()
}

fn mask(value: &DeValue<'_>) -> Result<Value, Wrong> {
    let example = "write e.g. \"0x7f000000\"";
    let mask = match value {
        DeValue::Integer(n) => integer(n).and_then(|n| u32::try_from(n).ok()),
        DeValue::String(text) => {
            let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
            let Some(digits) = digits.filter(|d| d.chars().all(|c| c.is_ascii_hexdigit())) else {
                let what = format!("{} is not a hexadecimal number", quoted(text));
                return Err(Wrong::new("config.bad-mask", what, example));
            };
            u32::from_str_radix(digits, 16).ok()
        }
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => return Err(wrong_type("a mask in quotes", value, example)),
    };
    let Some(mask) = mask else {
        let what = "a mark has only 32 bits";
        return Err(Wrong::new("config.bad-mask", what, example));
    };
    match MarkField::new(mask) {
        Some(_) => Ok(Value::Number(mask)),
        None => {
            let what = format!("{mask:#x} is not a run of 3 to 7 adjacent bits");
            Err(Wrong::new("config.bad-mask", what, format!("{example}: 7 bits, for 62 WANs")))
        }
    }
}

fn name(text: &str) -> Result<Value, Wrong> {
    let fits = (1..=15).contains(&text.len());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if fits && text.chars().all(plain) && text != "-".repeat(text.len()) {
        return Ok(Value::Text(text.to_owned()));
    }
    let better: String = text
        .to_lowercase()
        .chars()
        .map(|c| if plain(c) { c } else { '-' })
        .take(15)
        .collect::<String>()
        .trim_matches('-')
        .to_owned();
    let hint = if better.is_empty() {
        "write 1 to 15 of a-z, 0-9 and `-`, e.g. \"adsl\"".to_owned()
    } else {
        format!("write 1 to 15 of a-z, 0-9 and `-`, e.g. \"{better}\"")
    };
    Err(Wrong::new("config.bad-name", format!("{} cannot be a WAN's name", quoted(text)), hint))
}
