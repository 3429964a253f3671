//! An `interface` as it is written: a name, or what means one by its hardware. Gives the one text
//! that everybody compares, however the file spells it.

use super::fault::{Wrong, quoted};
use super::model::Selector;
use crate::names::Mac;

/// The longest name of a driver: `ETHTOOL_BUSINFO_LEN` and a closing zero.
const DRIVER_MAX: usize = 31;

/// Reads an interface; a hardware address comes in small letters, with colons.
pub(super) fn interface(text: &str) -> Result<String, Wrong> {
    let hardware = match text.split_once(':') {
        Some(("mac", mac)) => Some(mac_hint(mac)),
        Some(("usb", port)) => Some(usb_hint(port)),
        Some(("driver", driver)) => Some(driver_hint(driver)),
        Some(_) | None => None,
    };
    let hint = match hardware {
        Some(hint) => hint,
        None => name_hint(text).map(str::to_owned),
    };
    match hint {
        None => Ok(match Selector::of(text) {
            Selector::Mac(mac) => format!("mac:{mac}"),
            Selector::Name(_) | Selector::Usb(_) | Selector::Driver(_) => text.to_owned(),
        }),
        Some(hint) => {
            let what = format!("{} cannot mean an interface here", quoted(text));
            Err(Wrong::new("config.bad-interface", what, hint))
        }
    }
}

/// Reads the name of an interface that nothing else may mean; empty: nothing is given.
pub(super) fn interface_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let hint = match text.split_once(':') {
        Some(("mac" | "usb" | "driver", _)) => Some(
            "write the name that `ip link` shows, e.g. \"eth1\": here none can be meant by its \
             hardware",
        ),
        Some(_) => Some("write the name that `ip link` shows, e.g. \"eth1\""),
        None => name_hint(text),
    };
    match hint {
        None => Ok(text.to_owned()),
        Some(hint) => {
            let what = format!("{} is not the name of an interface", quoted(text));
            Err(Wrong::new("config.bad-interface", what, hint))
        }
    }
}

fn mac_hint(mac: &str) -> Option<String> {
    if mac.parse::<Mac>().is_ok() {
        return None;
    }
    let digits: Vec<char> = mac.chars().filter(char::is_ascii_hexdigit).collect();
    if digits.len() == 12 {
        let pairs: Vec<String> = digits.chunks(2).map(|pair| pair.iter().collect()).collect();
        return Some(format!("write \"mac:{}\"", pairs.join(":").to_lowercase()));
    }
    Some("write the address that `ip link` shows, e.g. \"mac:0c:5b:8f:27:9a:64\"".to_owned())
}

fn usb_hint(port: &str) -> Option<String> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_port = |text: &str| {
        let parts = text.split_once('-');
        text.len() <= 31
            && parts.is_some_and(|(bus, way)| number(bus) && way.split('.').all(number))
    };
    if is_port(port) {
        return None;
    }
    if let Some((device, _)) = port.split_once(':').filter(|(device, _)| is_port(device)) {
        return Some(format!("leave the function away: \"usb:{device}\""));
    }
    let hint = "write the port as `ls /sys/bus/usb/devices` names it, e.g. \"usb:1-1.3\"";
    Some(hint.to_owned())
}

fn driver_hint(driver: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '"' | '*');
    if (1..=DRIVER_MAX).contains(&driver.len()) && driver.chars().all(plain) {
        return None;
    }
    Some("write the driver that `ethtool -i` names, e.g. \"driver:cdc_ether\"".to_owned())
}

/// The kernel's own rule (`dev_valid_name`), and no character that means something else to nft,
/// to a path or to a person who copies from `ip link`.
fn name_hint(text: &str) -> Option<&'static str> {
    Some(if text.is_empty() {
        "write the name that `ip link` shows, e.g. \"eth0\""
    } else if text == "lo" {
        "write an interface that leads out of this computer"
    } else if text.contains('@') {
        "write only the part before the `@`"
    } else if text.contains('*') {
        "write one interface: there are no wildcards here"
    } else if text.contains([',', ' ']) {
        "write one interface, and another section for each other one"
    } else if text == "." || text == ".." || text.contains(['/', ':', '"', '\\', '%']) {
        "write the name that `ip link` shows, e.g. \"eth0\", or \"mac:…\", \"usb:…\", \"driver:…\""
    } else if !text.chars().all(|c| c.is_ascii_graphic()) {
        "use visible ASCII characters, as `ip link` shows them"
    } else if text.len() > 15 {
        "a name of an interface has at most 15 characters"
    } else {
        return None;
    })
}
