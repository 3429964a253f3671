//! Text to TOML tables, as far as they can be made out, and the errors of TOML in words that help.
//! Knows nothing of our keys.

use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::fault::{Fault, Wrong};
use super::mistakes;

/// The most errors of TOML that are explained: each may look at its whole line, and a line may be
/// as long as the file.
const MAX_EXPLAINED: usize = 1_000;

/// How the TOML parser begins to say that something follows a value.
const LEFT_OVER: &str = "unexpected key or value";

/// A text that was read as TOML.
#[derive(Debug)]
pub(super) struct Document<'a> {
    pub(super) root: DeTable<'a>,
    /// Where it is not TOML.
    pub(super) faults: Vec<Fault>,
    /// How many errors more there are.
    pub(super) unread: usize,
    /// Where errors begin, in order: values there cannot be trusted.
    broken: Vec<usize>,
    /// Keys may be missing or in the wrong section: an error that is not inside one value.
    pub(super) torn: bool,
    /// Keys may be missing, because of an error that stands before them on their line.
    pub(super) lost: bool,
}

impl Document<'_> {
    /// Whether an error is in the value at `span`, so that nothing more can be said about it.
    pub(super) fn is_broken(&self, span: &Range<usize>) -> bool {
        let first = self.broken.partition_point(|error| *error < span.start);
        self.broken.get(first).is_some_and(|error| *error <= span.end)
    }
}

/// Reads a text.
pub(super) fn read(text: &str) -> Document<'_> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let root = root.into_inner();
    let mut errors: Vec<(Range<usize>, Error)> =
        errors.into_iter().map(|error| (error.span().unwrap_or(0..0), error)).collect();
    errors.sort_by_key(|(span, _)| span.start);
    let broken = errors.iter().map(|(span, _)| span.start).collect();
    let unread = errors.len().saturating_sub(MAX_EXPLAINED);
    errors.truncate(MAX_EXPLAINED);
    let torn =
        unread > 0 || errors.iter().any(|(span, error)| tears(text, span.start, error.message()));
    let nothing = torn && root.keys().all(|key| key.get_ref().is_empty());
    let faults = if nothing {
        vec![no_config_at_all(text, &errors)]
    } else {
        one_a_line(text, &root, &errors)
    };
    let unread = if nothing { 0 } else { unread };
    let lost = torn || errors.iter().any(|(_, error)| error.message().starts_with(LEFT_OVER));
    Document { root, faults, unread, broken, torn, lost }
}

/// Whether the error may have cost more than the value that it is in.
fn tears(text: &str, at: usize, message: &str) -> bool {
    const INSIDE_A_VALUE: &[&str] = &[
        "string values must be quoted",
        "invalid basic string",
        "invalid literal string",
        "invalid float",
        "invalid boolean",
        "invalid integer",
        "unexpected leading zero",
        "missing escaped value",
        LEFT_OVER,
    ];
    if message.starts_with("duplicate key") {
        return line_at(text, at).trim_start().starts_with('[');
    }
    !INSIDE_A_VALUE.iter().any(|start| message.starts_with(start))
}

/// The most telling error of each line, in words that help.
fn one_a_line(text: &str, root: &DeTable<'_>, errors: &[(Range<usize>, Error)]) -> Vec<Fault> {
    let opened = errors
        .iter()
        .find(|(_, error)| error.message().starts_with("unclosed array, "))
        .and_then(|(span, _)| opening(root, span.start));
    let mut faults = Vec::new();
    if let Some(open) = &opened {
        let hint = "close the list with `]`";
        let wrong = Wrong::new("config.syntax", "this list is not closed", hint);
        faults.push(wrong.at(place(text, open.start), open.start..open.start + 1));
    }
    let mut lines: Vec<(usize, &Range<usize>, &Error)> = Vec::new();
    let (mut line, mut counted) = (1, 0);
    // Below a header that is there twice, its keys are too; that was told.
    let mut told_until = 0;
    for (span, error) in errors {
        if opened.as_ref().is_some_and(|open| open.start <= span.start) {
            break;
        }
        line += newlines(text, counted, span.start);
        counted = span.start;
        if error.message().starts_with("duplicate key") {
            if span.start < told_until {
                continue;
            }
            if line_at(text, span.start).trim_start().starts_with('[') {
                let next = text.get(span.start..).and_then(|rest| rest.find("\n["));
                told_until = next.map_or(text.len(), |next| span.start + next);
            }
        }
        let telling = error.message().starts_with(LEFT_OVER);
        match lines.last_mut() {
            Some(last) if last.0 == line && telling => *last = (line, span, error),
            Some(last) if last.0 == line => {}
            Some(_) | None => lines.push((line, span, error)),
        }
    }
    faults.extend(lines.into_iter().map(|(line, span, error)| {
        let (wrong, span) = mistakes::explain(text, span.clone(), error.message());
        wrong.at(format!("line {line}"), span)
    }));
    faults
}

/// One error for a file that has not a single key.
fn no_config_at_all(text: &str, errors: &[(Range<usize>, Error)]) -> Fault {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    let looks = if text.contains('\0') {
        "this is not a text file"
    } else if start.starts_with('{') {
        "this looks like JSON"
    } else if start.starts_with('<') {
        "this looks like a web page"
    } else {
        "this is not an anywan configuration"
    };
    let at = errors.first().map_or(0, |(span, _)| span.start);
    let from =
        text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let from =
        if from == 0 { text.len() - text.trim_start_matches('\u{feff}').len() } else { from };
    let line = line_at(text, at).trim_start_matches('\u{feff}');
    let hint = "the file is TOML: sections like [[lan]] and [[wan]], below each of them lines like \
                interface = \"eth0\"; smallest.toml is a good start, among the examples or, where anywan \
                is installed, in /usr/local/share/doc/anywan/examples";
    Wrong::new("config.syntax", looks, hint).at(place(text, at), from..from + line.len())
}

/// The outermost list that ends where the text does, so was never closed.
fn opening(table: &DeTable<'_>, end: usize) -> Option<Range<usize>> {
    let inside = |value: &DeValue<'_>| value.as_table().and_then(|table| opening(table, end));
    table.values().find_map(|value| match value.get_ref().as_array() {
        Some(_) if value.span().end >= end => Some(value.span()),
        Some(array) => array.iter().find_map(|entry| inside(entry.get_ref())),
        None => inside(value.get_ref()),
    })
}

fn place(text: &str, at: usize) -> String {
    format!("line {}", 1 + newlines(text, 0, at))
}

fn newlines(text: &str, from: usize, to: usize) -> usize {
    let bytes = text.as_bytes().get(from..to.min(text.len())).unwrap_or_default();
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// The line around a place, without its end.
pub(super) fn line_at(text: &str, at: usize) -> &str {
    let before = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |n| n + 1);
    text.get(before..).and_then(|rest| rest.lines().next()).unwrap_or_default()
}
