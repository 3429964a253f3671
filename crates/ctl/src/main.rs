//! The command line of `anywan`; what commands do is in the library beside it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anywan_ctl::client::Client;
use anywan_ctl::commands::{Command, run};
use anywan_ctl::failure::Failure;
use clap::Parser;

/// Shows and commands anywand, which keeps a network online over many internet connections.
#[derive(Debug, Parser)]
#[command(name = "anywan", version, about, after_help = EXITS)]
struct Flags {
    /// The daemon's socket.
    #[arg(long, value_name = "PATH", global = true, default_value = "/run/anywan/anywan.sock")]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

const EXITS: &str = "Exit status: 0 done; 1 failed, or no WAN serves; 2 usage or a bad file; \
                     3 no daemon.";

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(flags.command, &Client::new(flags.socket))),
        Err(error) => Err(Failure::failed(format!("start: {error}"), "")),
    };
    match ended {
        Ok(healthy) => ExitCode::from(u8::from(!healthy)),
        Err(failure) => {
            // If even that cannot be written, the exit status says it.
            let _ = write!(std::io::stderr(), "{failure}");
            ExitCode::from(failure.exit())
        }
    }
}
