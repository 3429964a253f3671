//! The mistakes that people make in TOML, in words that help: from the place and the message of
//! the TOML parser to what is wrong and what to write. An unknown message is passed on as it is.

use std::ops::Range;

use super::fault::{Wrong, quoted};
use super::keys::{Kind, SECTIONS};
use super::syntax::line_at;

/// What is wrong at a place where the TOML parser gave up, and the place to show.
pub(super) fn explain(text: &str, span: Range<usize>, message: &str) -> (Wrong, Range<usize>) {
    let starts = |start| message.starts_with(start);
    if starts("string values must be quoted") {
        return bare_value(text, span);
    }
    if starts("invalid float") || starts("invalid integer") || starts("invalid boolean") {
        let token = token(text, &span);
        return bare_value(text, token);
    }
    if starts("duplicate key") {
        return (twice(text, &span), span);
    }
    if starts("unexpected leading zero") {
        let what = "a number does not begin with 0";
        return (Wrong::new("config.syntax", what, zero_hint(text, &span)), span);
    }
    let (what, hint) = if starts("invalid basic string, expected `\"`") {
        ("the quotes are not closed", "end the string with `\"`, on the same line")
    } else if starts("invalid literal string, expected `'`") {
        ("the quotes are not closed", "end the string with `'`, on the same line")
    } else if starts("missing escaped value") {
        ("`\\` begins a special character here", "write `\\\\`, or use single quotes: 'like this'")
    } else if starts("key with no value") {
        ("there is no `=` and no value on this line", "write key = value")
    } else if starts("invalid unquoted key") {
        let what = format!("{} cannot be in a key", quoted(text.get(span.clone()).unwrap_or("")));
        let hint = "write key = value, with an `=` between them";
        return (Wrong::new("config.syntax", what, hint), span);
    } else if starts("unexpected key or value") {
        ("there is something left after the value", "write one key = value on each line")
    } else if starts("unclosed array table") {
        ("the header of this section is not closed", "close it with two brackets, like [[wan]]")
    } else if starts("unclosed table") {
        ("the header of this section is not closed", "close it with a bracket, like [health]")
    } else if starts("unquoted keys cannot be empty") {
        ("there is no key here", "write key = value")
    } else if starts("missing comma") {
        ("there is a comma missing", "put a comma between two entries")
    } else if starts("carriage return") {
        ("the line does not end as lines do", "save the file with Unix line ends")
    } else if starts("cannot recurse") || starts("recursion limit") {
        ("this is nested too deeply", "no key of anywan needs more than two levels")
    } else if starts("cannot extend value") {
        ("this was given as a value before", "write the section once, as [section] or [[section]]")
    } else {
        let hint = "see https://toml.io for what a TOML file looks like";
        return (Wrong::new("config.syntax", message, hint), span);
    };
    (Wrong::new("config.syntax", what, hint), span)
}

/// A value that is not a TOML one, most often a string without quotes.
fn bare_value(text: &str, span: Range<usize>) -> (Wrong, Range<usize>) {
    let value = text.get(span.clone()).unwrap_or_default();
    let bare = value.trim_end_matches(';').trim();
    if value.is_empty() {
        let what = "there is no value after the `=`";
        return (Wrong::new("config.syntax", what, "write a value, or remove the line"), span);
    }
    let is_value = bare.parse::<i64>().is_ok() || matches!(bare, "true" | "false");
    let hint = if is_value && value.ends_with(';') {
        "remove the `;`: lines end without it".to_owned()
    } else if bare.contains(['“', '”', '„', '‘', '’']) {
        "use straight quotes: \"like this\"".to_owned()
    } else if bare.contains(['"', '\'']) {
        "put the whole value in one pair of quotes".to_owned()
    } else {
        match bare.to_lowercase().as_str() {
            "true" | "yes" | "on" | "enabled" => "write true, in small letters".to_owned(),
            "false" | "no" | "disabled" => "write false, in small letters".to_owned(),
            _ => format!("put it in quotes: \"{}\"", quoted(bare).trim_matches('`')),
        }
    };
    (Wrong::new("config.syntax", format!("{} is not a value", quoted(value)), hint), span)
}

/// What to do about a number that begins with 0. In a PIN or a name each digit counts, so the 0 is
/// dropped only where the key is known to take a number.
fn zero_hint(text: &str, span: &Range<usize>) -> &'static str {
    let key = line_at(text, span.start).split('=').next().unwrap_or_default().trim();
    let mut keys = SECTIONS.iter().flat_map(|section| section.keys);
    if keys.any(|known| known.name == key && matches!(known.kind, Kind::Number { .. })) {
        "write it without the 0"
    } else {
        "put it in quotes, with the 0"
    }
}

/// The whole word around a place, up to the next blank, comma or bracket.
fn token(text: &str, span: &Range<usize>) -> Range<usize> {
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '=' | '[' | ']' | '{' | '}' | '#');
    let before = text.get(..span.start).unwrap_or_default();
    let start = before.rfind(ends).map_or(0, |at| {
        at + before.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
    });
    let after = text.get(span.start..).unwrap_or_default();
    let end = after.find(ends).map_or(text.len(), |at| span.start + at);
    start..end
}

fn twice(text: &str, span: &Range<usize>) -> Wrong {
    let key = quoted(text.get(span.clone()).unwrap_or_default());
    let name = key.trim_matches('`');
    let line = line_at(text, span.start).trim_start();
    let hint = if !line.starts_with('[') {
        "remove one of the two lines, or begin a new section above the second".to_owned()
    } else if let Some(inner) = inner_above(text, span, name) {
        format!("{inner} needs a [[{name}]] above it: move it below the one that it belongs to")
    } else if matches!(name, "wan" | "lan") {
        format!(
            "write [[{name}]], with two brackets, above each {}; sections inside, like \
             [{name}.…], come below it",
            name.to_uppercase()
        )
    } else if name == "health" && line.contains("wan") {
        "write [wan.health] once, below the [[wan]] that it belongs to".to_owned()
    } else {
        "write the section once, with all its keys".to_owned()
    };
    Wrong::new("config.syntax", format!("{key} is given twice"), hint)
}

/// The header of a section inside `[[wan]]` or `[[lan]]` that stands above the first of these.
fn inner_above(text: &str, span: &Range<usize>, name: &str) -> Option<String> {
    let before = text.get(..span.start)?;
    let begin = format!("[{name}");
    let first = before.lines().map(str::trim).find(|line| line.starts_with(&begin))?;
    let header = first.get(..=first.find(']')?)?;
    let inner = header.strip_prefix(&begin).is_some_and(|rest| rest.starts_with('.'));
    inner.then(|| quoted(header).trim_matches('`').to_owned())
}
