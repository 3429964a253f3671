//! The commands. Each writes to standard output and says whether everything is well.

mod check;
mod doctor;
mod down;
mod drain;
mod drill;
mod events;
mod plan;
mod reload;
mod status;

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;

use clap::Subcommand;

use crate::client::Client;
use crate::failure::Failure;

/// What people can ask for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show every WAN and every problem; exit status 1 when no WAN serves.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Follow what happens, until interrupted.
    Events {
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
        /// How many of the last events come first.
        #[arg(long, value_name = "N", default_value_t = 10)]
        backlog: u16,
    },
    /// Show the steps that would be taken now, or if FILE were the configuration.
    Plan {
        /// A configuration file; `-` reads standard input.
        file: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Have the daemon read its configuration file again.
    Reload,
    /// Check a configuration file; needs no daemon.
    Check {
        /// The file; `-` reads standard input.
        file: PathBuf,
    },
    /// Look for what works against anywan on this machine; exit status 1 when something is wrong.
    /// Works without a daemon and without a configuration too.
    Doctor {
        /// The configuration file, if not /etc/anywan/anywan.toml.
        file: Option<PathBuf>,
        /// The daemon's state directory.
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take a WAN out of service: new connections avoid it, established ones stay. Outlives
    /// restarts; while no other WAN works it serves all the same.
    Drain {
        /// The WAN's name.
        wan: String,
    },
    /// Put a drained WAN back into service.
    Undrain {
        /// The WAN's name.
        wan: String,
    },
    /// Really cut a WAN off for a while, and measure what that does to connections.
    Drill {
        /// The WAN's name.
        wan: String,
        /// For how long: 5s to 5m. Ctrl-C ends it at once.
        #[arg(long = "for", value_name = "TIME", default_value = "20s", value_parser = drill::span)]
        span: std::time::Duration,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Print one JSON object at the end.
        #[arg(long)]
        json: bool,
    },
    /// Take everything of anywan out of the kernel; the daemon exits. Works without a daemon too.
    Down {
        /// The daemon's state directory, for when no daemon answers.
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
}

/// Carries out a command; whether everything is well.
///
/// # Errors
/// When it could not be carried out.
pub async fn run(command: Command, client: &Client) -> Result<bool, Failure> {
    match command {
        Command::Status { json } => status::run(client, json).await,
        Command::Events { json, backlog } => events::run(client, json, backlog).await,
        Command::Plan { file, json } => plan::run(client, file.as_deref(), json).await,
        Command::Reload => reload::run(client).await,
        Command::Check { file } => check::run(&file),
        Command::Doctor { file, state_dir, json } => {
            doctor::run(file.as_deref(), state_dir.as_deref(), json)
        }
        Command::Drain { wan } => drain::run(client, &wan, true).await,
        Command::Undrain { wan } => drain::run(client, &wan, false).await,
        Command::Drill { wan, span, yes, json } => {
            drill::run(client, &wan, drill::Wish { span, yes, json }).await
        }
        Command::Down { state_dir } => down::run(client, state_dir.as_deref()).await,
    }
}

/// The daemon's program: beside this one or in the `sbin` next to its folder, else in PATH.
fn anywand() -> std::process::Command {
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.with_file_name("anywand");
    let sbin = own.parent().and_then(|bin| bin.parent()).map(|p| p.join("sbin/anywand"));
    let mut places = [Some(beside), sbin].into_iter().flatten();
    let program = places.find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("anywand"));
    std::process::Command::new(program)
}

/// Writes to standard output.
fn put(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}

/// Percent-encodes all but what is safe anywhere in a URL.
fn encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Whether colour is wanted there: <https://no-color.org>.
fn colour(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    stream.is_terminal() && !refused && !dumb
}

/// Reads a configuration file, or standard input for `-`; and what to call it.
fn read(file: &std::path::Path) -> Result<(String, Vec<u8>), Failure> {
    use anywan_core::config::MAX_BYTES;
    use std::io::Read as _;

    let name = file.display().to_string();
    // One byte more than allowed, so that the parser sees that it is too much.
    let limit = MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let done = if name == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    match done {
        Ok(_) if name == "-" => Ok(("standard input".to_owned(), bytes)),
        Ok(_) => Ok((name, bytes)),
        Err(error) => {
            let hint = unread_hint(&name, error.kind());
            Err(Failure::Bad { text: format!("error: read {name}: {error}\nhint: {hint}\n") })
        }
    }
}

/// What to do about a file that cannot be read.
fn unread_hint(name: &str, kind: std::io::ErrorKind) -> String {
    use std::io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};

    if kind == PermissionDenied {
        "run it with sudo: a file with a password in it is for root alone".to_owned()
    } else if kind == IsADirectory {
        format!("this is a folder; name a file, e.g. {}/anywan.toml", name.trim_end_matches('/'))
    } else if kind == NotFound {
        "is the name right? the service reads /etc/anywan/anywan.toml".to_owned()
    } else {
        "the file is named after the command: anywan check FILE".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::{encoded, unread_hint};

    #[test]
    fn the_hint_for_a_file_that_cannot_be_read_says_what_to_do() {
        assert!(unread_hint("x", ErrorKind::PermissionDenied).starts_with("run it with sudo"));
        let folder = unread_hint("/etc/anywan/", ErrorKind::IsADirectory);
        assert_eq!(folder, "this is a folder; name a file, e.g. /etc/anywan/anywan.toml");
        assert!(unread_hint("x", ErrorKind::NotFound).starts_with("is the name right?"));
        assert!(unread_hint("x", ErrorKind::Other).ends_with("anywan check FILE"));
    }

    #[test]
    fn a_name_with_anything_in_it_survives_a_url() {
        assert_eq!(encoded("/etc/a-1.toml"), "/etc/a-1.toml");
        assert_eq!(encoded("ä b&c"), "%C3%A4%20b%26c");
    }
}
