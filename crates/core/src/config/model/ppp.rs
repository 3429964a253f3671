//! How a WAN is dialled: `[wan.ppp]`. Plain values, valid by construction.

use serde::{Deserialize, Serialize};

use crate::names::Secret;

/// A line that we dial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ppp {
    /// Over what.
    pub line: Line,
    /// The user's name at the provider; empty: none is sent.
    pub user: String,
    /// Where the password is.
    pub password: Password,
    /// The largest packet in bytes; `None`: what both ends agree on.
    pub mtu: Option<u16>,
    /// Dialled only while no better WAN works.
    pub on_demand: bool,
    /// A command of the user's that gives the other device a new start; empty: none.
    pub reset_command: String,
}

/// Over what a line is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Line {
    /// A modem on a serial port.
    Modem(Modem),
    /// PPPoE.
    Ethernet {
        /// The interface that leads to the provider.
        interface: String,
        /// The service's name; empty: any.
        service: String,
    },
}

/// A modem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modem {
    /// Its serial port, below `/dev/`.
    pub device: String,
    /// The access point; empty: as the modem has stored it.
    pub apn: String,
    /// The SIM's PIN, 4 to 8 digits; empty: none.
    pub pin: Secret,
    /// What it dials.
    pub number: String,
    /// Bits per second of the port.
    pub speed: u32,
    /// AT commands before dialling.
    pub init: Vec<String>,
    /// The AT command that restarts it; empty: none.
    pub reset: String,
    /// Its place on USB, to take it off the bus and put it back; empty: that is not done.
    pub reset_usb: String,
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Password {
    /// There is none.
    None,
    /// In the configuration.
    Given(Secret),
    /// In the first line of this file.
    File(String),
}

impl Ppp {
    /// The modem, where there is one.
    pub fn modem(&self) -> Option<&Modem> {
        match &self.line {
            Line::Modem(modem) => Some(modem),
            Line::Ethernet { .. } => None,
        }
    }

    /// The file that has the password.
    pub fn secret_file(&self) -> Option<&str> {
        match &self.password {
            Password::File(path) => Some(path),
            Password::None | Password::Given(_) => None,
        }
    }
}
