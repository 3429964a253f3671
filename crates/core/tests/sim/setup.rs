//! A configuration as data, so that it can be changed while the world runs. Becomes a file's text
//! and goes through the parser: so every key that nobody mentions has its default.

use std::fmt::Write as _;

use anywan_core::config::{Config, parse};

/// What is in the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setup {
    pub(crate) wans: Vec<SetupWan>,
    /// `None`: the defaults.
    pub(crate) targets: Option<Vec<String>>,
    pub(crate) interval_ms: u64,
    /// `None`: the default.
    pub(crate) hold_ms: Option<u64>,
    pub(crate) timeout_ms: Option<u64>,
}

/// One WAN of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SetupWan {
    pub(crate) number: u8,
    pub(crate) priority: u64,
    pub(crate) weight: u64,
    pub(crate) metered: bool,
    /// Addresses and gateways, as lines of the file.
    pub(crate) fixed: String,
}

impl Setup {
    /// WANs of these priorities, everything else by default.
    pub(crate) fn of(priorities: &[u64]) -> Setup {
        let wan = |(number, priority): (u8, &u64)| SetupWan {
            number,
            priority: *priority,
            weight: 1,
            metered: false,
            fixed: String::new(),
        };
        Setup {
            wans: (1..).zip(priorities).map(wan).collect(),
            targets: None,
            interval_ms: 1_000,
            hold_ms: None,
            timeout_ms: None,
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::from("[[lan]]\ninterface = \"eth0\"\n");
        for SetupWan { number, priority, weight, metered, fixed } in &self.wans {
            let name = format!("wan{number}");
            let _ = write!(
                text,
                "[[wan]]\nname = \"{name}\"\ninterface = \"{name}\"\npriority = {priority}\n\
                 weight = {weight}\nmetered = {metered}\n{fixed}"
            );
        }
        let _ = write!(text, "[health]\ninterval = \"{}ms\"\n", self.interval_ms);
        if let Some(ms) = self.hold_ms {
            let _ = writeln!(text, "hold = \"{ms}ms\"");
        }
        if let Some(ms) = self.timeout_ms {
            let _ = writeln!(text, "timeout = \"{ms}ms\"");
        }
        if let Some(targets) = &self.targets {
            let _ = writeln!(text, "targets = {targets:?}");
        }
        text
    }

    pub(crate) fn config(&self) -> Config {
        parse(&self.text()).expect("the simulation writes valid files")
    }
}
