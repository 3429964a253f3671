//! Texts that are handed on to other programs: names, passwords, paths, AT commands. In: one value;
//! out: the text, if it cannot mean more than itself there: on one line, without quotes and
//! backslashes. A secret is never repeated in a message.

use toml::Spanned;
use toml::de::DeValue;

use super::fault::{Fault, Wrong, quoted};
use super::types::wrong_type;
use crate::names::Secret;

/// The longest password in bytes: pppd's own limit (`MAXSECRETLEN`) is 256.
const SECRET_MAX: usize = 200;
/// The longest path in bytes.
const PATH_MAX: usize = 200;

/// A text of `max` bytes at most.
pub(super) fn plain(text: &str, max: usize) -> Result<String, Wrong> {
    let what = format!("{} cannot be used here", quoted(text));
    if let Some(hint) = hindrance(text, max) {
        return Err(Wrong::new("config.bad-text", what, hint));
    }
    Ok(text.to_owned())
}

/// A password, or a PIN.
pub(super) fn secret(text: &str, digits: bool) -> Result<Secret, Wrong> {
    if digits && !text.is_empty() {
        let fits = (4..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if !fits {
            let hint = "write the 4 to 8 digits of the SIM's PIN, in quotes";
            return Err(Wrong::new("config.bad-text", "this is not a PIN", hint));
        }
    }
    match hindrance(text, SECRET_MAX) {
        Some(hint) => Err(Wrong::new("config.bad-text", "this password cannot be used", hint)),
        None => Ok(Secret::new(text)),
    }
}

/// A path below a folder.
pub(super) fn path(text: &str, below: &str) -> Result<String, Wrong> {
    let what = format!("{} cannot be used as a path here", quoted(text));
    let wrong = |hint: String| Err(Wrong::new("config.bad-path", what.clone(), hint));
    if text.is_empty() {
        return Ok(String::new());
    }
    if !text.starts_with(below) || text.len() == below.len() {
        return wrong(format!("write the whole path: it begins with {below}"));
    }
    if text.contains(' ') || text.split('/').any(|part| part == "..") {
        return wrong("write it without spaces and without `..`".to_owned());
    }
    match hindrance(text, PATH_MAX) {
        Some(hint) => wrong(hint),
        None => Ok(text.to_owned()),
    }
}

/// A place on USB, as the kernel names it: bus, dash, ports with dots.
pub(super) fn port(text: &str) -> Result<String, Wrong> {
    let number = |part: &str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let fits = |(bus, ports): (&str, &str)| number(bus) && ports.split('.').all(number);
    if text.is_empty() || text.split_once('-').is_some_and(fits) {
        return Ok(text.to_owned());
    }
    let what = format!("{} is not a place on USB", quoted(text));
    let hint = "write a name from /sys/bus/usb/devices/ without a colon, e.g. \"1-1.2\"";
    Err(Wrong::new("config.bad-path", what, hint))
}

/// A list of texts.
pub(super) fn list(
    at: &str,
    value: &Spanned<DeValue<'_>>,
    max: usize,
    each: usize,
    faults: &mut impl FnMut(Fault),
) -> Option<Vec<String>> {
    let hint = "write a list, e.g. [\"ATZ\"]";
    let Some(entries) = value.get_ref().as_array() else {
        faults(wrong_type("a list", value.get_ref(), hint.to_owned()).at(at, value.span()));
        return None;
    };
    if entries.len() > max {
        let what = format!("{} texts are more than {max}", entries.len());
        let wrong = Wrong::new("config.out-of-range", what, "leave some out");
        faults(wrong.at(at, value.span()));
        return None;
    }
    let mut texts = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        let text = match entry.get_ref() {
            DeValue::String(text) if text.is_empty() => {
                Err(Wrong::new("config.bad-text", "this is empty", "remove it"))
            }
            DeValue::String(text) => plain(text, each),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => Err(wrong_type("a string", entry.get_ref(), hint.to_owned())),
        };
        match text {
            Ok(text) => texts.push(text),
            Err(wrong) => faults(wrong.at(format!("{at}[{n}]"), entry.span())),
        }
    }
    (texts.len() == entries.len()).then_some(texts)
}

/// What keeps a text from being used.
fn hindrance(text: &str, max: usize) -> Option<String> {
    if text.len() > max {
        Some(format!("write {max} bytes at most"))
    } else if text.chars().any(char::is_control) {
        Some("write it on one line, of visible characters".to_owned())
    } else {
        None
    }
}
