//! A line that is dialled, as pppd and chat read it. In: how the file says it is dialled, and the
//! password. Out: a [`Program`]. Passwords and PINs are in files that only root may read, never in
//! an argument; chat is never told to be verbose, because it would log them.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::config::{Gateway, Line, Modem, Ppp, Wan};
use crate::desired::{Program, Text};
use crate::dial::{PIN_ACCEPTED, PIN_SENT};
use crate::names::Secret;

/// What modems answer when dialling leads nowhere. A lock of the modem's own is no SIM that wants its
/// PIN, though its name ends so: chat reports the first that fits.
const ANSWERS: [&str; 10] = [
    "NO CARRIER",
    "NO DIALTONE",
    "NO DIAL TONE",
    "NO ANSWER",
    "BUSY",
    "DELAYED",
    "VOICE",
    "SIM PUK",
    "PH-SIM PIN",
    "PH-NET PIN",
];

/// The program that dials a WAN; with or without sending the PIN.
pub fn program(wan: &Wan, ppp: &Ppp, password: &Secret, with_pin: bool) -> Program {
    let mut command: Vec<String> = ["pppd", "file", "{dir}/options"].map(str::to_owned).to_vec();
    let secret = |text: String| Text { text, secret: true };
    let mut files = BTreeMap::from([("options".to_owned(), secret(options(wan, ppp, password)))]);
    if let Line::Modem(modem) = &ppp.line {
        command.push("connect".to_owned());
        command.push("/usr/sbin/chat -s -S -f {dir}/chat".to_owned());
        files.insert("chat".to_owned(), secret(script(modem, with_pin)));
    }
    Program { command, files, reread: BTreeMap::new() }
}

/// pppd's options. `/etc/ppp/options` is read before, whatever is said here, so that what it may
/// turn on is turned off.
fn options(wan: &Wan, ppp: &Ppp, password: &Secret) -> String {
    let mut out = String::new();
    match &ppp.line {
        Line::Modem(modem) => {
            let Modem { device, speed, .. } = modem;
            let _ = writeln!(out, "{device}\n{speed}\nlock\nmodem\ncrtscts\nasyncmap 0");
            // Mobile modems answer these themselves, landline ones pay for them with time.
            out.push_str("lcp-echo-interval 15\nlcp-echo-failure 4\n");
        }
        Line::Ethernet { interface, service } => {
            let _ = writeln!(out, "plugin pppoe.so\nnic-{interface}");
            if !service.is_empty() {
                let _ = writeln!(out, "pppoe-service {}", quoted(service));
            }
            // Whether the line works is found out by probes; this only ends a dead session, and a
            // concentrator that has other things to do must not look like one.
            out.push_str("lcp-echo-interval 5\nlcp-echo-failure 4\n");
        }
    }
    out.push_str(
        "lcp-echo-adaptive\nnodetach\nnopersist\nnoauth\nhide-password\nnoipdefault\n\
         nodefaultroute\nusepeerdns\nip-up-script /bin/true\nip-down-script /bin/true\nnoccp\nnovj\n",
    );
    let Wan { name, interface, .. } = wan;
    let _ = writeln!(out, "ifname {interface}\nlinkname anywan-{name}\nipparam {name}");
    if let Some(unit) = unit(interface) {
        let _ = writeln!(out, "unit {unit}");
    }
    out.push_str(if wan.gateway6 == Gateway::Off { "noipv6\n" } else { "+ipv6\n" });
    if let Some(mtu) = ppp.mtu {
        let _ = writeln!(out, "mtu {mtu}\nmru {mtu}");
    }
    if !ppp.user.is_empty() {
        let _ = writeln!(out, "user {}\npassword {}", quoted(&ppp.user), quoted(password.reveal()));
    }
    out
}

/// The number of `ppp7`, so that the kernel gives the name at once.
fn unit(interface: &str) -> Option<u16> {
    interface.strip_prefix("ppp").filter(|n| *n == "0" || !n.starts_with('0'))?.parse().ok()
}

/// A word of pppd's options (pppd(8), options files).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// chat's script (chat(8)). The SIM is asked what it wants before it is told anything.
fn script(modem: &Modem, with_pin: bool) -> String {
    let mut out = String::new();
    for answer in ANSWERS {
        let _ = writeln!(out, "ABORT '{answer}'");
    }
    // A PIN is sent to a SIM that wants one, and to no other.
    let unwanted = if with_pin { "READY" } else { "SIM PIN" };
    let _ = writeln!(out, "ABORT '{unwanted}'\nABORT ERROR\nTIMEOUT 5");
    let _ = writeln!(out, "'' ATZ\nOK-ATZ-OK ATE0\nOK '\\c'");
    let asks = !modem.apn.is_empty() || !modem.pin.is_empty();
    if with_pin {
        let pin = octal(&format!("AT+CPIN=\"{}\"", modem.pin.reveal()));
        let _ = writeln!(out, "'' AT+CPIN?\n'SIM PIN' '\\c'\nOK '\\c'\nSAY '{PIN_SENT}\\n'");
        let _ = writeln!(out, "TIMEOUT 20\n'' '{pin}\\q'\nOK '\\c'\nSAY '{PIN_ACCEPTED}\\n'");
        // The modem looks at the SIM now.
        out.push_str("CLR_ABORT READY\nTIMEOUT 5\n'' '\\d\\d\\c'\n");
    } else if asks {
        out.push_str("'' AT+CPIN?\nREADY '\\c'\nOK '\\c'\n");
    }
    if !modem.apn.is_empty() {
        let command = octal(&format!("AT+CGDCONT=1,\"IP\",\"{}\"", modem.apn));
        let _ = writeln!(out, "'' '{command}'\nOK '\\c'");
    }
    out.push_str("TIMEOUT 20\n");
    for command in &modem.init {
        let _ = writeln!(out, "'' '{}'\nOK '\\c'", octal(command));
    }
    let number = octal(&modem.number);
    let _ = writeln!(out, "TIMEOUT 60\n'' 'ATD{number}'\nCONNECT '\\c'");
    out
}

/// Everything that chat might read as more than itself, as the number of its byte.
fn octal(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.*#? ".contains(&byte);
    let byte =
        |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("\\{byte:03o}") };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests;
