//! Running programs, with everything a failure needs to be understood in the error.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};

/// What a finished program left behind.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Exit status; -1 when killed by a signal.
    pub status: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

/// Runs `args` to its end, feeding it `input`; whatever its exit status.
///
/// The child lives in the network namespace of the calling thread.
pub fn run(args: &[&str], input: &str) -> Result<Outcome> {
    let (program, rest) = args.split_first().context("an empty command")?;
    let mut child = Command::new(program)
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program} (is it installed and in PATH?)"))?;
    let mut stdin = child.stdin.take().context("the child's stdin")?;
    let input = input.to_owned();
    // Beside the reading of its output, so that neither pipe can fill up and stop the other.
    let feeder = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    // A child that ends without reading its input says so by its status, if at all.
    let _ = feeder.join();
    Ok(Outcome {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// [`run`] that must succeed; returns standard output.
pub fn run_ok(args: &[&str], input: &str) -> Result<String> {
    let outcome = run(args, input)?;
    if outcome.status != 0 {
        let numbered: String =
            input.lines().enumerate().map(|(i, l)| format!("{:4} {l}\n", i + 1)).collect();
        let Outcome { status, stdout, stderr } = outcome;
        bail!("`{}` gave {status}: {stderr}{stdout}{numbered}", args.join(" "));
    }
    Ok(outcome.stdout)
}

/// A program running in the background; killed and reaped on drop.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts `args` with both outputs appended to `log`, or thrown away.
    pub fn start(args: &[&str], log: Option<&Path>) -> Result<Running> {
        let (program, rest) = args.split_first().context("an empty command")?;
        let (out, err) = match log {
            Some(path) => {
                let file = File::options()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("open {}", path.display()))?;
                (Stdio::from(file.try_clone()?), Stdio::from(file))
            }
            None => (Stdio::null(), Stdio::null()),
        };
        let child = Command::new(program)
            .args(rest)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("start {program} (is it installed and in PATH?)"))?;
        Ok(Running { child })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal (a `libc::SIG…` number).
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).context("signal a child")
    }

    /// Exit status if it has ended; -1 when killed by a signal.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self.child.try_wait()?.map(|status| status.code().unwrap_or(-1)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended and been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
