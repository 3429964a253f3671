//! `anywan down`: by the daemon; without one, by an `anywand` that is started for that only.

use std::path::Path;

use super::{anywand, put};
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
    let mut command = anywand();
    command.arg("--take-down");
    if let Some(directory) = state_dir {
        command.arg("--state-dir").arg(directory);
    }
    let program = Path::new(command.get_program()).display().to_string();
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
