//! What the keys of a `[wan.ppp]` mean together, and with the rest of the file. In: a [`Draft`]; adds
//! to the faults.

use super::super::fault::{Fault, Faults, Wrong, quoted};
use super::super::model::Selector;
use super::super::value::Value;
use super::super::walk::{Draft, Fields};

/// What only a modem has, and what only PPPoE.
const MODEMS: [&str; 7] = ["apn", "pin", "number", "speed", "init", "reset", "reset_usb"];
const ETHERNETS: [&str; 1] = ["service"];
/// What serial ports can be set to (termios(3)).
const SPEEDS: [u32; 21] = [
    1_200, 1_800, 2_400, 4_800, 9_600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 500_000,
    576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000, 4_000_000,
];
/// Names that are tried for a line: one more than there are WANs, each with two.
const MAX_NAMES: usize = 128;
/// The smallest packet that IPv4 wants to pass anywhere (RFC 791).
const MTU_MIN: u32 = 576;

/// Checks all sections `[wan.ppp]`.
pub(super) fn check(draft: &Draft, faults: &mut Faults) {
    for (n, (wan, ppp)) in draft.wans.iter().zip(&draft.wan_ppp).enumerate() {
        if !ppp.is_there() {
            continue;
        }
        line(ppp, faults);
        password(ppp, faults);
        numbers(ppp, faults);
        own_interface(draft, n, wan, ppp, faults);
        own_address(wan, faults);
        same_device(ppp, &draft.wan_ppp[..n], faults);
    }
}

/// A text that was written, and is not empty.
fn given<'a>(ppp: &'a Fields, key: &str) -> Option<&'a str> {
    ppp.text(key).filter(|text| !text.is_empty())
}

fn wrong(ppp: &Fields, key: &str, what: String, hint: &str) -> Fault {
    let at = format!("{}.{key}", ppp.at);
    Wrong::new("config.ppp", what, hint).at(at, ppp.span_of(key))
}

/// Either a modem or PPPoE, and no key that belongs to the other.
fn line(ppp: &Fields, faults: &mut Faults) {
    let is_wrong = |key| ppp.given(key).is_some_and(|value| value.is_none());
    let (modem, ethernet) = (given(ppp, "device").is_some(), given(ppp, "pppoe").is_some());
    if is_wrong("device") || is_wrong("pppoe") {
        return;
    }
    if modem == ethernet {
        let what = if modem { "both a modem and PPPoE are given" } else { "nothing to dial with" };
        let hint = "write either device = \"/dev/ttyUSB0\" for a modem, or pppoe = \"eth1\"";
        let mut fault = wrong(ppp, "device", what.to_owned(), hint);
        if modem {
            fault.also = Some((ppp.span_of("pppoe"), "and here".to_owned()));
        }
        faults.push(fault);
        return;
    }
    let (others, of) = if modem { (&ETHERNETS[..], "PPPoE") } else { (&MODEMS[..], "a modem") };
    for key in others.iter().filter(|key| ppp.given(key).is_some()) {
        let what = format!("`{key}` is for {of}, which this WAN does not use");
        faults.push(wrong(ppp, key, what, "remove it"));
    }
}

fn password(ppp: &Fields, faults: &mut Faults) {
    let inline = matches!(ppp.given("secret"), Some(Some(Value::Secret(s))) if !s.is_empty());
    let file = given(ppp, "secret_file").is_some();
    if inline && file {
        let what = "the password is given twice".to_owned();
        faults.push(wrong(ppp, "secret_file", what, "keep either `secret` or `secret_file`"));
    }
    let no_user =
        ppp.given("user").is_none_or(|user| user.is_some()) && given(ppp, "user").is_none();
    if no_user && (inline || file) {
        let key = if inline { "secret" } else { "secret_file" };
        let what = "a password, but no user".to_owned();
        faults.push(wrong(ppp, key, what, "add user = \"…\""));
    }
}

fn numbers(ppp: &Fields, faults: &mut Faults) {
    if let Some(Some(Value::Number(speed))) = ppp.given("speed") {
        if !SPEEDS.contains(speed) {
            let near = SPEEDS.iter().min_by_key(|other| other.abs_diff(*speed));
            let near = near.copied().unwrap_or(115_200);
            let what = format!("serial ports have no speed {speed}");
            let hint = format!("write e.g. {near}");
            faults.push(wrong(ppp, "speed", what, &hint));
        }
    }
    if let Some(Some(Value::Number(mtu @ 1..MTU_MIN))) = ppp.given("mtu") {
        let what = format!("{mtu} is less than {MTU_MIN}");
        faults.push(wrong(ppp, "mtu", what, "write 576 to 1500, or 0"));
    }
}

/// The far end gives the line its address.
fn own_address(wan: &Fields, faults: &mut Faults) {
    let Some(Some(address)) = wan.given("address") else { return };
    if *address != Value::Word("observe") {
        let what = "a line that is dialled is given its address by the far end";
        let wrong = Wrong::new("config.ppp", what, "remove `address`");
        faults.push(wrong.at(format!("{}.address", wan.at), wan.span_of("address")));
    }
}

/// A name that no section has yet.
fn free_name(draft: &Draft) -> String {
    let taken = |name: &String| {
        let sections = draft.lans.iter().chain(&draft.wans);
        let lines = draft.wan_ppp.iter().filter_map(|ppp| ppp.text("pppoe"));
        sections.filter_map(|fields| fields.text("interface")).chain(lines).any(|n| n == name)
    };
    let mut names = (0..MAX_NAMES).map(|n| format!("ppp{n}"));
    names.find(|name| !taken(name)).unwrap_or_else(|| "ppp0".to_owned())
}

/// The line's interface comes and goes with it, and is nobody else's.
fn own_interface(draft: &Draft, n: usize, wan: &Fields, ppp: &Fields, faults: &mut Faults) {
    let Some(interface) = wan.text("interface") else { return };
    let mut tell = |what: String, also: Option<&Fields>, key: &str| {
        // A line is called like that: then it is the other one that is wrong.
        let hint = match key {
            "pppoe" if interface.starts_with("ppp") => {
                "write the Ethernet interface that leads to the provider: pppoe = \"eth1\""
                    .to_owned()
            }
            _ => {
                format!("give the line a name of its own: interface = \"{}\"", free_name(draft))
            }
        };
        let wrong = Wrong::new("config.ppp", what, hint);
        let fault = wrong.at(format!("{}.interface", wan.at), wan.span_of("interface"));
        let also = also.map(|fields| (fields.span_of(key), "here".to_owned()));
        faults.push(Fault { also, ..fault });
    };
    if !matches!(Selector::of(interface), Selector::Name(_)) {
        let what = format!("{} means hardware, not the line that is dialled", quoted(interface));
        tell(what, None, "interface");
        return;
    }
    if given(ppp, "pppoe") == Some(interface) {
        let what = format!("{} is what PPPoE runs over, not the line itself", quoted(interface));
        tell(what, Some(ppp), "pppoe");
    }
    let others = draft.wans.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, other)| other);
    for other in draft.lans.iter().chain(others) {
        if other.text("interface") == Some(interface) {
            let what = format!("a line that is dialled cannot share {}", quoted(interface));
            tell(what, Some(other), "interface");
            return;
        }
    }
}

/// Two WANs cannot have one modem.
fn same_device(ppp: &Fields, before: &[Fields], faults: &mut Faults) {
    let Some(device) = given(ppp, "device") else { return };
    if let Some(other) = before.iter().find(|other| given(other, "device") == Some(device)) {
        let what = format!("{} also has the modem {}", other.at, quoted(device));
        let fault = wrong(ppp, "device", what, "give each WAN its own modem");
        let also = Some((other.span_of("device"), "first here".to_owned()));
        faults.push(Fault { also, ..fault });
    }
}
