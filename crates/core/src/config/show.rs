//! Faults as a person reads them: the line, a caret, the reason and a hint.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::fault::Fault;

/// The longest piece that is marked, in bytes: the reason stands right of it.
const MAX_MARKED: usize = 60;

/// The most lines between two places of one fault that are shown as one piece.
const MAX_LINES: usize = 1_000;

/// Shows `faults` of `text` under the name of its file. `colour` is for terminals. For a file that
/// is not UTF-8 give its lossy text.
pub fn render(file_name: &str, text: &str, faults: &[Fault], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    // Windows line ends would show up in the lines; the places stay the same.
    let text = &masked(&text.replace('\r', " "));
    for fault in faults {
        if !out.is_empty() {
            out.push('\n');
        }
        if fault.at.is_empty() {
            out.push_str(&format!("{}\nhint: {}\n", fault.what, fault.hint));
            continue;
        }
        let title = Level::ERROR.primary_title(fault.at.as_str()).id(fault.code);
        let main = Group::with_title(title).elements(pieces(file_name, text, fault));
        let hint =
            Group::with_title(Level::HELP.with_name("hint").secondary_title(fault.hint.as_str()));
        out.push_str(&renderer.render(&[main, hint]));
        out.push('\n');
    }
    out
}

/// The text with all that may be a password or a PIN made unreadable; every place stays the same,
/// because each byte of it becomes one. What is shown of a file ends up in logs.
fn masked(text: &str) -> String {
    text.split_inclusive('\n').map(masked_line).collect()
}

fn masked_line(line: &str) -> String {
    // Misspelt ones too.
    let hides = |word: &str| {
        let secret = word.starts_with("secret") || word.starts_with("pass");
        (secret && !word.ends_with("_file")) || matches!(word, "pin" | "sim_pin" | "pincode")
    };
    let starts = line.match_indices('=').filter(|(at, _)| {
        let before = line[..*at].trim_end().trim_end_matches(['"', '\'']);
        let word = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
        word.is_some_and(hides)
    });
    let Some((start, _)) = starts.min() else { return line.to_owned() };
    let (shown, hidden) = line.split_at(start + 1);
    let hide = |c: char| if c.is_whitespace() { c.to_string() } else { "*".repeat(c.len_utf8()) };
    shown.chars().map(String::from).chain(hidden.chars().map(hide)).collect()
}

type Piece<'a> = Snippet<'a, annotate_snippets::Annotation<'a>>;

/// The lines of a fault, with a mark on each place.
fn pieces<'a>(file_name: &'a str, text: &'a str, fault: &'a Fault) -> Vec<Piece<'a>> {
    let main = one_line(text, &fault.span);
    let primary = |base: usize| {
        AnnotationKind::Primary.span(main.start - base..main.end - base).label(fault.what.as_str())
    };
    let Some((span, label)) = &fault.also else {
        let (base, line, lines) = lines(text, &main);
        let snippet = Snippet::source(lines).line_start(line).path(file_name);
        return vec![snippet.annotation(primary(base))];
    };
    let also = one_line(text, span);
    let context = |base: usize| {
        AnnotationKind::Context.span(also.start - base..also.end - base).label(label.as_str())
    };
    let both = main.start.min(also.start)..main.end.max(also.end);
    let (base, line, together) = lines(text, &both);
    if together.lines().nth(MAX_LINES).is_none() {
        let snippet = Snippet::source(together).line_start(line).path(file_name);
        return vec![snippet.annotation(primary(base)).annotation(context(base))];
    }
    let (base, line, first) = lines(text, &main);
    let (other_base, other_line, other) = lines(text, &also);
    vec![
        Snippet::source(first).line_start(line).path(file_name).annotation(primary(base)),
        Snippet::source(other)
            .line_start(other_line)
            .path(file_name)
            .annotation(context(other_base)),
    ]
}

/// The part of a span in its first line, on character boundaries of `text`.
fn one_line(text: &str, span: &Range<usize>) -> Range<usize> {
    let bom = text.len() - text.trim_start_matches('\u{feff}').len();
    let start = floor(text, span.start.max(bom));
    let end = floor(text, span.end.min(start + MAX_MARKED)).max(start);
    let within = text.get(start..end).unwrap_or_default();
    start..start + within.find('\n').unwrap_or(within.len())
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The whole lines around a span: where they begin, the number of the first, their text.
fn lines<'a>(text: &'a str, span: &Range<usize>) -> (usize, usize, &'a str) {
    let bom = text.len() - text.trim_start_matches('\u{feff}').len();
    let before = text.get(..span.start).unwrap_or_default();
    let start = before.rfind('\n').map_or(bom, |newline| newline + 1);
    let after = text.get(span.end..).unwrap_or_default();
    let end = after.find('\n').map_or(text.len(), |newline| span.end + newline);
    let number = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
    (start, number, text.get(start..end).unwrap_or_default())
}
