//! `anywan doctor`: an `anywand` that is started for that only looks at the machine; a daemon may be
//! running or not.

use std::path::Path;
use std::process::Stdio;

use anywan_core::api::{Findings, Grade};

use super::{anywand, colour, put};
use crate::failure::Failure;
use crate::print::findings_list;

pub(super) fn run(
    file: Option<&Path>,
    state_dir: Option<&Path>,
    json: bool,
) -> Result<bool, Failure> {
    let mut command = anywand();
    command.arg("--examine").stdout(Stdio::piped());
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    if let Some(directory) = state_dir {
        command.arg("--state-dir").arg(directory);
    }
    let program = Path::new(command.get_program()).display().to_string();
    let output =
        command.spawn().and_then(std::process::Child::wait_with_output).map_err(|error| {
            Failure::failed(
                format!("{program} cannot be started: {error}"),
                "install anywand beside anywan or in PATH",
            )
        })?;
    if output.status.code() == Some(2) {
        // It has shown the bad file already.
        return Err(Failure::Bad { text: String::new() });
    }
    if !output.status.success() {
        let what = format!("{program} --examine has failed: {}", output.status);
        return Err(Failure::failed(what, "it says why above; it needs root"));
    }
    let found: Findings = serde_json::from_slice(&output.stdout).map_err(|error| {
        let what = format!("what {program} says makes no sense: {error}");
        Failure::failed(what, "are anywan and anywand of the same version?")
    })?;
    if json {
        put(&String::from_utf8_lossy(&output.stdout))?;
    } else {
        put(&findings_list(&found, colour(&std::io::stdout())))?;
    }
    Ok(found.findings.iter().all(|finding| finding.grade == Grade::Note))
}
