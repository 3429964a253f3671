//! `anywand`: flags, logging, exit status. Everything else is in the library beside it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anywan_daemon::examine::examine;
use anywan_daemon::kernel::KernelError;
use anywan_daemon::run::{BadConfig, CONFIG, Options, run, take_down};
use clap::Parser;

/// Keeps a network online over any number of internet connections.
#[derive(Debug, Parser)]
#[command(name = "anywand", version, about)]
struct Flags {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// The socket that `anywan` talks to.
    #[arg(long, value_name = "PATH", default_value = "/run/anywan/anywan.sock")]
    socket: PathBuf,
    /// Where WAN numbers and former kernel parameters are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/anywan")]
    state_dir: PathBuf,
    /// The file that tells this machine's programs whom to ask for names. Default: /etc/resolv.conf,
    /// in the machine's own network namespace only.
    #[arg(long, value_name = "FILE")]
    resolv_conf: Option<PathBuf>,
    /// Take everything of anywan out of the kernel and exit; no daemon may be running.
    #[arg(long)]
    take_down: bool,
    /// Print as JSON what works against anywan on this machine, and exit; changes nothing.
    #[arg(long, conflicts_with = "take_down")]
    examine: bool,
    /// What is logged: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", env = "ANYWAN_LOG", default_value = "info")]
    log: tracing::Level,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    tracing_subscriber::fmt()
        .with_max_level(flags.log)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    let options = Options {
        config: flags.config,
        socket: flags.socket,
        state_dir: flags.state_dir,
        resolv_conf: flags.resolv_conf,
    };
    let ended = match (flags.take_down, flags.examine) {
        (true, _) => take_down(&options),
        (_, true) => tell_findings(&options),
        _ => serve(options),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// The loop is a task like those that it starts: whatever wakes the future that the runtime was
/// entered with is written to a descriptor and found there again.
fn serve(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::spawn(run(options)).await? })
}

fn tell_findings(options: &Options) -> anyhow::Result<()> {
    let text = serde_json::to_string(&examine(options)?)?;
    std::io::stdout().lock().write_all(format!("{text}\n").as_bytes())?;
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the last word of a daemon that could not start")]
fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(BadConfig(text)) = error.downcast_ref() {
        eprintln!("{text}");
        return ExitCode::from(2);
    }
    eprintln!("error: {error:#}");
    let hint = error.chain().find_map(|cause| cause.downcast_ref::<KernelError>()?.hint());
    if let Some(hint) = hint {
        eprintln!("\nhint: {hint}");
    }
    ExitCode::from(1)
}
