//! The keys of `[wan.ppp]`: a WAN that is dialled. Like the table beside it, they drive parser,
//! schema and reference.

use super::{Key, Kind};

pub(super) const DOC: &str = "\
    This WAN is dialled: by pppd over a modem, or by PPPoE over an Ethernet interface. Belongs \
    below its `[[wan]]`, whose `interface` is then the name that the line gets, e.g. `\"ppp0\"`. \
    The line is dialled again whenever it is lost; a WAN that leaves the file is hung up. pppd \
    is needed (Debian's package ppp). pppd's own hooks in `/etc/ppp/ip-up.d` are not run.";

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "device",
        kind: Kind::Path { below: "/dev/" },
        default: Some("\"\""),
        doc: "The modem's serial port, e.g. `\"/dev/ttyUSB0\"`, or better, because it stays the \
              same, its name in `/dev/serial/by-id/`. While it is missing it is waited for.",
        aliases: &["modem", "port", "tty", "serial"],
    },
    Key {
        name: "pppoe",
        kind: Kind::InterfaceName,
        default: Some("\"\""),
        doc: "The interface that leads to a provider who speaks PPPoE, by its name, e.g. `\"eth1\"`; \
              it must be up. Either this or `device` is given.",
        aliases: &["ethernet", "nic", "carrier"],
    },
    Key {
        name: "apn",
        kind: Kind::Text { max: 100 },
        default: Some("\"\""),
        doc: "The access point of a mobile network; empty: the one that the modem has stored.",
        aliases: &["access_point"],
    },
    Key {
        name: "pin",
        kind: Kind::Secret { digits: true },
        default: Some("\"\""),
        doc: "The SIM's PIN, in quotes. It is sent only when the SIM asks for it, and one that the \
              SIM refuses is never sent again, not even after a restart: a SIM locks itself after \
              three wrong ones.",
        aliases: &["sim_pin", "pincode"],
    },
    Key {
        name: "number",
        kind: Kind::Text { max: 40 },
        default: Some("\"*99#\""),
        doc: "What the modem dials.",
        aliases: &["phone", "dial"],
    },
    Key {
        name: "speed",
        kind: Kind::Number { min: 1_200, max: 4_000_000 },
        default: Some("115200"),
        doc: "Bits per second of the serial port; a USB stick does not care.",
        aliases: &["baud", "baudrate", "rate"],
    },
    Key {
        name: "init",
        kind: Kind::Texts { max: 16, each: 100 },
        default: Some("[]"),
        doc: "AT commands that are sent before dialling, each answered by OK.",
        aliases: &["at", "commands", "init_string"],
    },
    Key {
        name: "service",
        kind: Kind::Text { max: 100 },
        default: Some("\"\""),
        doc: "The name of the PPPoE service; empty: any.",
        aliases: &["service_name"],
    },
    Key {
        name: "user",
        kind: Kind::Text { max: 200 },
        default: Some("\"\""),
        doc: "The user's name at the provider; many mobile networks want none.",
        aliases: &["username", "login"],
    },
    Key {
        name: "secret",
        kind: Kind::Secret { digits: false },
        default: Some("\"\""),
        doc: "The password. The file is then for root alone (`chmod 600`).",
        aliases: &["password", "pass", "passwd"],
    },
    Key {
        name: "secret_file",
        kind: Kind::Path { below: "/" },
        default: Some("\"\""),
        doc: "A file whose first line is the password, instead of `secret`. One that others may \
              read is not used.",
        aliases: &["password_file"],
    },
    Key {
        name: "mtu",
        kind: Kind::Number { min: 0, max: 1_500 },
        default: Some("0"),
        doc: "The largest packet in bytes, 576 or more. 0: what both ends agree on; 1492 with \
              PPPoE.",
        aliases: &["mru"],
    },
    Key {
        name: "on_demand",
        kind: Kind::Flag,
        default: Some("false"),
        doc: "The line is dialled only while no WAN with a lower `priority` number works, and hung \
              up `linger` after one works again (`\"auto\"` is 5 minutes then).",
        aliases: &["ondemand", "demand", "dial_on_demand"],
    },
    Key {
        name: "reset",
        kind: Kind::Text { max: 100 },
        default: Some("\"AT+CFUN=1,1\""),
        doc: "The AT command that restarts the modem, sent when it could not be dialled three \
              times in a row; then, three failures later each, what the next two keys say, then \
              from the beginning; each at most every 10 minutes. Empty: none.",
        aliases: &["reset_command_at", "at_reset"],
    },
    Key {
        name: "reset_usb",
        kind: Kind::Port,
        default: Some("\"\""),
        doc: "The modem's place on USB, as in `/sys/bus/usb/devices/`, e.g. `\"1-1.2\"`: it is \
              taken off the bus and put back.",
        aliases: &["usb", "usb_path"],
    },
    Key {
        name: "reset_command",
        kind: Kind::Text { max: 500 },
        default: Some("\"\""),
        doc: "A command of your own, run by `sh`, that gives the modem a new start, e.g. by a \
              relay in its power supply. It is killed after 60 s. Also run when a modem has been \
              missing for 2 minutes.",
        aliases: &["command", "reset_script", "power_cycle"],
    },
];
