//! `anywan down`: by the daemon; without one, by an `anywand` that is started for that only.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::put;
use crate::client::Client;
use crate::failure::Failure;

pub(super) async fn run(client: &Client, state_dir: Option<&Path>) -> Result<bool, Failure> {
    match client.post("/v1/down", Vec::new()).await {
        Ok(_) => put("Everything of anywan is taken out of the kernel; the daemon exits.\n")?,
        Err(Failure::NoDaemon { .. }) => {
            take_down(state_dir)?;
            put("No daemon answers. Everything of anywan is taken out of the kernel.\n")?;
        }
        Err(failure) => return Err(failure),
    }
    Ok(true)
}

fn take_down(state_dir: Option<&Path>) -> Result<(), Failure> {
    let program = anywand();
    let mut command = Command::new(&program);
    command.arg("--take-down");
    if let Some(directory) = state_dir {
        command.arg("--state-dir").arg(directory);
    }
    let program = program.display();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::failed(
            format!("{program} --take-down has failed: {status}"),
            "it says why above; it needs root, and that no daemon runs",
        )),
        Err(error) => Err(Failure::failed(
            format!("no daemon answers, and {program} cannot be started: {error}"),
            "install anywand beside anywan or in PATH",
        )),
    }
}

/// The daemon's program: beside this one or in the `sbin` next to its folder, else in PATH.
fn anywand() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.with_file_name("anywand");
    let sbin = own.parent().and_then(|bin| bin.parent()).map(|p| p.join("sbin/anywand"));
    let places = [Some(beside), sbin].into_iter().flatten();
    places.into_iter().find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("anywand"))
}
