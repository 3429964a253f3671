//! What the parser says when a file is wrong: [`Fault`], the list that collects them all, and the
//! stable codes with their meaning. Knows nothing of TOML and prints nothing.

use std::ops::Range;

use crate::api::Problem;

/// The most faults that are reported; the rest is counted. A person mends a few and asks again.
pub const MAX_FAULTS: usize = 100;

/// The most faults that are kept before they are sorted: enough to pick the first ones from, and
/// bounded for a file that is wrong on each of its half a million lines.
const MAX_KEPT: usize = 1_000;

/// The longest piece of a file that is repeated in a message, in characters.
const MAX_QUOTED: usize = 40;

/// One thing that is wrong in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Stable and documented, one of [`CODES`].
    pub code: &'static str,
    /// What it is about: a path like `wan[1].gateway`, or `line 3` where there is no key yet.
    pub at: String,
    /// What is wrong, one sentence without a full stop.
    pub what: String,
    /// What to do.
    pub hint: String,
    /// The place in the text, in bytes; empty when it is about the whole file.
    pub span: Range<usize>,
    /// A second place that belongs to it, with what is to be seen there.
    pub also: Option<(Range<usize>, String)>,
}

impl Fault {
    /// The fault as it is shown where there is no text.
    pub fn problem(&self) -> Problem {
        Problem {
            code: self.code.to_owned(),
            at: self.at.clone(),
            what: self.what.clone(),
            hint: self.hint.clone(),
        }
    }
}

/// What is wrong with one value, before its place is known.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) code: &'static str,
    pub(super) what: String,
    pub(super) hint: String,
}

impl Wrong {
    pub(super) fn new(
        code: &'static str,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Wrong {
        Wrong { code, what: what.into(), hint: hint.into() }
    }

    pub(super) fn at(self, at: impl Into<String>, span: Range<usize>) -> Fault {
        let Wrong { code, what, hint } = self;
        Fault { code, at: at.into(), what, hint, span, also: None }
    }
}

/// All faults of one file.
#[derive(Debug, Default)]
pub(super) struct Faults {
    kept: Vec<Fault>,
    unshown: usize,
}

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        if self.is_full() {
            self.unshown += 1;
        } else {
            self.kept.push(fault);
        }
    }

    /// Counts faults that nobody looked at.
    pub(super) fn count(&mut self, more: usize) {
        self.unshown += more;
    }

    /// Whether further faults are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.kept.len() >= MAX_KEPT
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The faults in the order of the text, at most [`MAX_FAULTS`] and a closing one that counts
    /// the others.
    pub(super) fn into_sorted(self) -> Vec<Fault> {
        let mut list = self.kept;
        list.sort_by_key(|fault| fault.span.start);
        let more = list.len().saturating_sub(MAX_FAULTS) + self.unshown;
        list.truncate(MAX_FAULTS);
        if more > 0 {
            let what = format!("and {more} more");
            let hint = "mend these first, then check again";
            list.push(Wrong::new("config.more", what, hint).at("", 0..0));
        }
        list
    }
}

/// A piece of the file as it is repeated in a message: short, and harmless on a terminal.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("`");
    for (count, c) in text.chars().enumerate() {
        if count == MAX_QUOTED {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('`');
    out
}

/// Every code, with its meaning.
pub const CODES: &[(&str, &str)] = &[
    ("config.syntax", "The text is not TOML."),
    ("config.not-utf8", "The file is not UTF-8 text."),
    ("config.too-large", "The file is larger than 1 MiB."),
    ("config.unknown-key", "A key or section that does not exist."),
    ("config.not-yet", "A key, section or value that this version does not have yet."),
    ("config.missing-section", "There is no `[[lan]]` or no `[[wan]]`."),
    ("config.missing-key", "A section lacks a key that it must have."),
    ("config.wrong-type", "A value of the wrong type, e.g. a number in quotes."),
    ("config.out-of-range", "A number, duration or list that is too small or too large."),
    ("config.bad-word", "A word that is not one of those the key takes."),
    ("config.bad-name", "A WAN's name that is not 1 to 15 of a-z, 0-9 and `-`."),
    ("config.bad-interface", "Something that cannot be the name of a network interface."),
    ("config.bad-amount", "Something that is not an amount of data like \"30MB\"."),
    ("config.bad-duration", "Something that is not a duration like \"500ms\" or \"15s\"."),
    ("config.bad-address", "Something that is not an address of the family wanted."),
    ("config.bad-target", "Something that is not a probe target."),
    ("config.bad-text", "A text that cannot be used there: too long, or with control characters."),
    ("config.bad-path", "Something that is not a path, or a place on USB, of the kind wanted."),
    ("config.ppp", "The keys of `[wan.ppp]` contradict each other, or the rest of the file."),
    ("config.bad-mask", "A mark mask that is not 3 to 7 adjacent bits."),
    ("config.unusable-address", "An address that can never serve here, e.g. a loopback one."),
    ("config.duplicate-name", "Two WANs have the same name."),
    ("config.duplicate-interface", "Two LANs have the same interface."),
    ("config.duplicate-target", "A list has the same probe target twice."),
    ("config.duplicate-entry", "A list has the same address, hardware address or name twice."),
    ("config.bad-range", "Something that is not a range of IPv4 addresses."),
    ("config.bad-lease", "Something that is not a hardware address and an address."),
    ("config.bad-host", "Something that cannot be the name of a host or a domain."),
    ("config.overlapping-range", "The ranges of two LANs have addresses in common."),
    ("config.gateway-needed", "A WAN shares its interface, and so needs a written gateway."),
    ("config.same-gateway", "Two WANs share both interface and gateway, and so are the same."),
    ("config.no-family", "A WAN uses neither IPv4 nor IPv6."),
    ("config.dhcp-shared", "A WAN with `address = \"dhcp\"` shares its interface."),
    ("config.duplicate-address", "A list has the same address twice."),
    (
        "config.duplicate-alias",
        "A `gateway_alias` is also that of another WAN, its gateway or address.",
    ),
    ("config.too-many-wans", "More WANs than the mark mask has numbers for."),
    ("config.reserved-table", "Our routing tables would include 253, 254 or 255 of the system."),
    ("config.more", "More faults than are shown."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_faults_of_the_text_are_shown_and_the_rest_is_counted() {
        let mut faults = Faults::default();
        for n in (0..MAX_KEPT + 5).rev() {
            faults.push(Wrong::new("config.syntax", "x", "y").at("z", n..n));
        }
        let sorted = faults.into_sorted();
        assert_eq!(sorted.len(), MAX_FAULTS + 1);
        assert_eq!(sorted[0].span.start, 5);
        assert_eq!(sorted[MAX_FAULTS].what, format!("and {} more", MAX_KEPT + 5 - MAX_FAULTS));
    }

    #[test]
    fn a_quoted_piece_is_short_and_harmless() {
        assert_eq!(quoted("a\u{1b}[31mb"), "`a\\u{1b}[31mb`");
        assert_eq!(quoted(&"x".repeat(1000)), format!("`{}…`", "x".repeat(MAX_QUOTED)));
    }
}
