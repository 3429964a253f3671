//! What the show prints: plain lines, in colour where there is a terminal.

use std::io::{IsTerminal as _, Write as _, stdout};

/// The topology, for people.
pub(crate) const PICTURE: &str = "
           +--------+          +-- adsl  (priority 1, weight 3) -- ISP --+
  LAN -----| router |----------+-- fibre (priority 1, weight 5) -- ISP --+-- servers
           +--------+          +-- lte   (priority 2, metered)  -- ISP --+";

/// Prints, and remembers which checks came true.
pub(crate) struct Screen {
    colour: bool,
    checks: Vec<(bool, String)>,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        Screen { colour: stdout().is_terminal(), checks: Vec::new() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line; a closed pipe is no reason to stop.
    pub(crate) fn text(&self, text: &str) {
        let _ = writeln!(stdout(), "{text}");
    }

    pub(crate) fn title(&self, text: &str) {
        self.text(&format!("\n{}", self.paint("1", &format!("== {text}"))));
    }

    pub(crate) fn bad(&self, text: &str) {
        self.text(&self.paint("31", text));
    }

    /// A WAN's state, padded and in its colour.
    pub(crate) fn state(&self, state: &str) -> String {
        let code = match state {
            "up" => "32",
            "down" | "absent" => "31",
            _ => "33",
        };
        self.paint(code, &format!("{state:10}"))
    }

    /// A checked claim.
    pub(crate) fn check(&mut self, good: bool, what: &str) {
        let mark = if good { self.paint("32", "ok ") } else { self.paint("31", "BAD") };
        self.text(&format!("  {mark} {what}"));
        self.checks.push((good, what.to_owned()));
    }

    /// Prints the outcome; whether all checks came true.
    pub(crate) fn summary(&self) -> bool {
        self.title("Summary");
        for (good, what) in &self.checks {
            let mark = if *good { self.paint("32", "ok ") } else { self.paint("31", "BAD") };
            self.text(&format!("  {mark} {what}"));
        }
        let bad = self.checks.iter().filter(|(good, _)| !good).count();
        if bad == 0 {
            self.text(&self.paint("1;32", "all of it worked"));
        } else {
            self.bad(&format!("{bad} of {} did not come true", self.checks.len()));
        }
        bad == 0
    }
}
