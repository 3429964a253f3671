//! What dialling needs of this machine beyond running pppd: whether a modem is there, a password
//! that is in a file, and a new start for a modem. In: an ask of the engine. Out: its answer.
//! Decides nothing. What takes time runs on a thread of its own, which ends by its deadline.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anywan_core::engine::Event;
use anywan_core::names::Secret;
use anywan_core::observed::Dialling;
use anywan_core::steps::Reset;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

use crate::children::Children;

/// A password is shorter than this.
const SECRET_BYTES_MAX: u64 = 1024;
/// The longest password that pppd takes.
const SECRET_MAX: usize = 200;
/// A modem has so long to read the command that restarts it.
const COMMAND_TIME: Duration = Duration::from_secs(1);
/// A device stays off the USB bus for so long.
const OFF_TIME: Duration = Duration::from_secs(2);
/// A command of the user's own may take so long.
const OWN_TIME: Duration = Duration::from_secs(60);
/// How often it is looked whether it has ended.
const OWN_LOOK: Duration = Duration::from_millis(100);
/// How much of the end of a log matters: pppd writes some lines a line.
const LOG_BYTES: u64 = 8 * 1024;

/// Looks which serial ports are there, and reads the passwords.
pub fn look(devices: BTreeSet<String>, secrets: BTreeSet<String>) -> Dialling {
    let read = |path: String| {
        let secret = read_secret(Path::new(&path));
        (path, secret)
    };
    Dialling {
        devices: devices.into_iter().filter(|device| Path::new(device).exists()).collect(),
        secrets: secrets.into_iter().map(read).collect(),
    }
}

/// The first line of a file that only its owner may read, and that is ours or root's.
fn read_secret(path: &Path) -> Result<Secret, String> {
    let open = || -> io::Result<(File, fs::Metadata)> {
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        let about = file.metadata()?;
        Ok((file, about))
    };
    let (file, about) = open().map_err(|error| format!("it cannot be read: {error}"))?;
    let ours = [0, rustix::process::geteuid().as_raw()].contains(&about.uid());
    if !about.is_file() {
        return Err("it is no file".to_owned());
    } else if !ours {
        return Err("it does not belong to root".to_owned());
    } else if about.mode() & 0o077 != 0 {
        return Err(format!("others may read or change it (mode {:o})", about.mode() & 0o777));
    }
    let mut text = String::new();
    let read = file.take(SECRET_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| format!("it cannot be read: {error}"))?;
    match text.lines().next().map(str::trim_end) {
        None | Some("") => Err("its first line is empty".to_owned()),
        Some(line) if line.len() > SECRET_MAX || line.chars().any(char::is_control) => {
            Err("its first line is no password that pppd takes".to_owned())
        }
        Some(line) => Ok(Secret::new(line)),
    }
}

/// What the program that dials a line has written last.
pub fn log_of(children: &Children, name: &str) -> Option<String> {
    let bytes = children.log_end(name, LOG_BYTES).ok()?;
    // chat ends its lines with both, in the wrong order.
    Some(String::from_utf8_lossy(&bytes).replace('\r', "\n"))
}

/// Where the kernel is told whether a device may be on the bus (Documentation/usb/authorization.rst).
fn authorized(port: &str) -> String {
    format!("/sys/bus/usb/devices/{port}/authorized")
}

/// Lets devices back on the USB bus that a reset has left off it. The kernel then sets the device up,
/// which may take seconds.
pub fn put_back_on_the_bus(ports: BTreeSet<String>) {
    let off = |path: &String| fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    for path in ports.iter().map(|port| authorized(port)).filter(off) {
        std::thread::spawn(move || match fs::write(&path, "1") {
            Ok(()) => tracing::info!(path, "a device that was off the bus is let on again"),
            Err(error) => tracing::warn!(path, %error, "a device stays off the bus"),
        });
    }
}

/// Gives a modem a new start, and sends the outcome. The thread is to be waited for where a modem
/// would be left off the bus.
pub fn reset(wan: String, how: Reset, outcome: mpsc::Sender<Event>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let error = carry_out(&how).err();
        match &error {
            None => tracing::info!(%wan, "the modem was reset"),
            Some(error) => tracing::warn!(%wan, %error, "the modem could not be reset"),
        }
        // A daemon that ends does not wait for it.
        let _ = outcome.blocking_send(Event::Reset { wan, error });
    })
}

fn carry_out(how: &Reset) -> Result<(), String> {
    match how {
        Reset::Command { device, command } => {
            send(device, command).map_err(|error| format!("{device}: {error}"))
        }
        Reset::Usb { port } => {
            let path = authorized(port);
            let write = |text: &str| fs::write(&path, text).map_err(|e| format!("{path}: {e}"));
            write("0")?;
            std::thread::sleep(OFF_TIME);
            write("1")
        }
        Reset::Own { command } => run(command),
    }
}

/// Writes a command to a serial port, which is never waited for.
fn send(device: &str, command: &str) -> io::Result<()> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let mut port = File::options().read(true).write(true).custom_flags(flags).open(device)?;
    let mut settings = tcgetattr(&port)?;
    settings.make_raw();
    tcsetattr(&port, OptionalActions::Now, &settings)?;
    port.write_all(format!("\r{command}\r").as_bytes())?;
    // Closing a port hangs up, and may throw away what was not sent yet.
    std::thread::sleep(COMMAND_TIME);
    Ok(())
}

fn run(command: &str) -> Result<(), String> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("the own command cannot be run: {error}"))?;
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("the own command: {status}")),
            Ok(None) if begun.elapsed() < OWN_TIME => std::thread::sleep(OWN_LOOK),
            Ok(None) => {
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                return Err("the own command took too long and was killed".to_owned());
            }
            Err(error) => return Err(format!("the own command: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn in_a_folder(test: impl FnOnce(&Path)) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("anywan-ppp-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder of our own");
        test(&folder);
        fs::remove_dir_all(&folder).expect("it can be removed");
    }

    #[test]
    fn a_password_that_others_may_read_is_not_used() {
        in_a_folder(|folder| {
            let path = folder.join("secret");
            fs::write(&path, "hunter2\nmore\n").expect("it can be written");
            for (mode, fits) in [(0o600, true), (0o400, true), (0o640, false), (0o644, false)] {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
                let secret = read_secret(&path);
                assert_eq!(secret.is_ok(), fits, "{mode:o}: {secret:?}");
                assert!(secret.is_err() || secret == Ok(Secret::new("hunter2")));
            }
            assert!(read_secret(folder).is_err());
            assert!(read_secret(&folder.join("none")).is_err());
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
            for text in ["", "\nx", "a\u{7}b", &"x".repeat(300)] {
                fs::write(&path, text).expect("it can be written");
                assert!(read_secret(&path).is_err(), "{text:?}");
            }
        });
    }

    #[test]
    fn only_what_is_there_is_found() {
        in_a_folder(|folder| {
            let name = |name: &str| folder.join(name).display().to_string();
            fs::write(folder.join("a"), "").expect("it can be written");
            std::os::unix::fs::symlink("nowhere", folder.join("b")).expect("a link");
            let asked = ["a", "b", "c"].map(name).into_iter().collect();
            assert_eq!(look(asked, BTreeSet::new()).devices, BTreeSet::from([name("a")]));
        });
    }

    #[test]
    fn a_command_of_the_users_own_tells_how_it_ended() {
        assert_eq!(run("exit 0"), Ok(()));
        assert!(run("exit 3").is_err_and(|error| error.contains('3')));
        let no_port = Reset::Usb { port: "9-9.9".to_owned() };
        assert!(carry_out(&no_port).is_err_and(|error| error.contains("9-9.9/authorized")));
    }
}
