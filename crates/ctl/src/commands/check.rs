//! `anywan check`.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anywan_core::api::Problem;
use anywan_core::config::{Config, exposed, exposed_files, parse_bytes, render};

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
            for Problem { code, at, what, hint } in exposed_secrets(file, &config) {
                let warning = format!("warning: {at}: {what} ({code})\n    hint: {hint}\n");
                // Whoever does not read it has been told that the file is fine.
                let _ = std::io::stderr().write_all(warning.as_bytes());
            }
            Ok(true)
        }
        Err(faults) => {
            let text = String::from_utf8_lossy(&bytes);
            let shown = render(&name, &text, &faults, colour(&std::io::stderr()));
            Err(Failure::Bad { text: format!("{}\n", shown.trim_end()) })
        }
    }
}

/// Secrets that others may read, in this file or in those that it names.
fn exposed_secrets(file: &Path, config: &Config) -> Vec<Problem> {
    let mode = |path: &Path| std::fs::metadata(path).ok().map(|data| data.permissions().mode());
    // Standard input is nobody's file.
    let own = mode(file).filter(|_| file != Path::new("-"));
    let own = own.and_then(|mode| exposed(config, &file.display().to_string(), mode));
    own.into_iter().chain(exposed_files(config, |path| mode(Path::new(path)))).collect()
}
