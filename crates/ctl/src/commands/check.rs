//! `anywan check`.

use std::path::Path;

use anywan_core::config::{parse_bytes, render};

use super::{colour, put, read};
use crate::failure::Failure;

pub(super) fn run(file: &Path) -> Result<bool, Failure> {
    let (name, bytes) = read(file)?;
    match parse_bytes(&bytes) {
        Ok(config) => {
            let count = |number: usize, what: &str| match number {
                1 => format!("1 {what}"),
                _ => format!("{number} {what}s"),
            };
            let (lans, wans) = (count(config.lans.len(), "LAN"), count(config.wans.len(), "WAN"));
            put(&format!("{name} is fine: {lans}, {wans}.\n"))?;
            Ok(true)
        }
        Err(faults) => {
            let text = String::from_utf8_lossy(&bytes);
            let shown = render(&name, &text, &faults, colour(&std::io::stderr()));
            Err(Failure::Bad { text: format!("{}\n", shown.trim_end()) })
        }
    }
}
