//! What an `interface` in the file means: the name of an interface, or something that names it
//! whatever the kernel calls it today. Reads the text; looks at no interface.

use crate::names::Mac;

/// What an `interface` of the file names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// The interface of this name.
    Name(String),
    /// The one with this hardware address.
    Mac(Mac),
    /// The one in this USB port, as `/sys/bus/usb/devices` calls it: `1-1.3`.
    Usb(String),
    /// The one with this driver.
    Driver(String),
}

impl Selector {
    /// Reads the text of a file that was found valid. Whatever has no known prefix is a name; no
    /// interface has a colon in its name.
    pub fn of(text: &str) -> Selector {
        match text.split_once(':') {
            Some(("mac", mac)) => match mac.parse() {
                Ok(mac) => Selector::Mac(mac),
                Err(()) => Selector::Name(text.to_owned()),
            },
            Some(("usb", port)) => Selector::Usb(port.to_owned()),
            Some(("driver", driver)) => Selector::Driver(driver.to_owned()),
            Some(_) | None => Selector::Name(text.to_owned()),
        }
    }
}
