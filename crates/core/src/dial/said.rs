//! What pppd and chat wrote, and pppd's exit code, in words for people. In: the end of a log. Out:
//! why a line was lost or never came, what became of the PIN, and who resolves names there.

use std::net::IpAddr;

use crate::observed::ChildEnd;

/// What the dial script says when it sends the PIN: from then on it counts as tried.
pub const PIN_SENT: &str = "anywan: PIN sent";
/// What it says when the SIM has taken it.
pub const PIN_ACCEPTED: &str = "anywan: PIN accepted";

/// What a log tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// The PIN was sent.
    pub pin_sent: bool,
    /// The SIM has taken it.
    pub pin_accepted: bool,
    /// The dial script ended with this answer of the modem; empty: with none.
    pub answer: Option<String>,
    /// Who resolves names, as the far end says.
    pub resolvers: Vec<IpAddr>,
    /// A line that tells more than an exit code.
    telling: Option<&'static str>,
}

/// What lines of pppd mean.
const TELLING: &[(&str, &str)] = &[
    ("authentication failed", "the provider refused user or password"),
    ("refused to authenticate", "the provider refused to log in"),
    ("Timeout waiting for PADO", "no provider answers on the interface (PPPoE discovery)"),
    ("Timeout waiting for PADS", "the provider began and then fell silent (PPPoE discovery)"),
    (
        "Unable to complete PPPoE Discovery",
        "no provider answers on the interface (PPPoE discovery)",
    ),
    ("appears to be disconnected", "the far end does not answer any more"),
    ("Modem hangup", "the modem hung up, or is gone"),
    ("LCP terminated by peer", "the far end hung up"),
    ("LCP: timeout sending", "somebody picked up, but it does not speak PPP"),
    ("timeout sending Config-Requests", "the far end gives no address"),
    ("Could not determine remote IP", "the far end gives no address"),
];

impl Said {
    /// Reads a log.
    pub fn read(log: &str) -> Said {
        let mut said = Said::default();
        for line in log.lines().map(str::trim) {
            said.pin_sent |= line == PIN_SENT;
            said.pin_accepted |= line == PIN_ACCEPTED;
            if line == "Failed" {
                said.answer = Some(String::new());
            } else if let Some(answer) = line.strip_prefix("Failed (") {
                said.answer = Some(answer.trim_end_matches(')').to_owned());
            } else if let Some((_, address)) = line.split_once("DNS address") {
                said.resolvers.extend(address.trim().parse::<IpAddr>());
            }
            let telling = TELLING.iter().find(|(part, _)| line.contains(part));
            said.telling = said.telling.or(telling.map(|(_, words)| *words));
        }
        said.resolvers.dedup();
        said
    }

    /// Whether the SIM wants a PIN, or more than that.
    pub fn asks(&self) -> Option<SimAsks> {
        match self.answer.as_deref()? {
            "SIM PIN" => Some(SimAsks::Pin),
            "SIM PUK" => Some(SimAsks::Puk),
            _ => None,
        }
    }

    /// Why the line was lost, or never came.
    pub fn why(&self, end: &ChildEnd) -> String {
        if let Some(answer) = &self.answer {
            return answered(answer);
        }
        match (self.telling, end.status, end.signal) {
            (Some(words), _, _) => words.to_owned(),
            (None, Some(status), _) => meaning(status).to_owned(),
            (None, None, Some(signal)) => format!("pppd was ended by signal {signal}"),
            (None, None, None) => "pppd ended".to_owned(),
        }
    }
}

/// What a SIM wants before it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimAsks {
    /// Its PIN.
    Pin,
    /// The PUK: too many wrong PINs.
    Puk,
}

fn answered(answer: &str) -> String {
    let words = match answer {
        "" => return "the modem does not answer, or not as a modem does".to_owned(),
        "NO CARRIER" => "no connection came about",
        "BUSY" => "the number is busy",
        "NO DIALTONE" | "NO DIAL TONE" => "there is no dial tone: is the line plugged in?",
        "NO ANSWER" => "nobody picks up",
        "ERROR" => "the modem refuses a command: wrong `apn` or `init`, or no SIM in it?",
        "PH-SIM PIN" => "the modem is locked to another SIM",
        "PH-NET PIN" => "the modem is locked to another provider",
        _ => "the modem says so",
    };
    format!("{words} ({answer})")
}

/// The exit codes of pppd(8).
fn meaning(status: i32) -> &'static str {
    match status {
        0 => "the far end hung up",
        1 => "pppd had a fatal error",
        2 => "pppd does not understand its options: is /etc/ppp/options sound?",
        3 => "pppd may not do this: it must run as root",
        4 => "the kernel has no PPP: is the module ppp_generic there?",
        5 => "pppd was told to end",
        6 => "the serial port is locked: another program uses the modem",
        7 => "the serial port could not be opened",
        8 => "dialling failed",
        9 => "pppd could not run a program",
        10 => "the far end does not speak PPP, or gives no address",
        11 => "the far end failed to log in with us",
        12 => "the line was idle and was hung up",
        13 => "the time for the line was over",
        14 => "the far end wants to call back",
        15 => "the far end does not answer any more",
        16 => "the modem hung up, or is gone",
        17 => "the modem only echoes what it is sent",
        18 => "a program before dialling failed",
        19 => "the provider refused user or password",
        _ => "pppd ended for a reason of its own",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(status: Option<i32>, signal: Option<i32>) -> ChildEnd {
        let (name, said) = ("ppp-a".to_owned(), String::new());
        ChildEnd { name, status, signal, said, lived: std::time::Duration::ZERO }
    }

    #[test]
    fn answers_of_the_modem_are_told_in_words() {
        for (log, words) in [
            (
                "anywan: dials\n\rFailed (BUSY)\nConnect script failed\n",
                "the number is busy (BUSY)",
            ),
            ("Failed (NO CARRIER)\n", "no connection came about (NO CARRIER)"),
            ("Failed\n", "the modem does not answer, or not as a modem does"),
            ("Failed (PH-SIM PIN)\n", "the modem is locked to another SIM (PH-SIM PIN)"),
            (
                "PAP authentication failed\nConnection terminated.\n",
                "the provider refused user or password",
            ),
        ] {
            assert_eq!(Said::read(log).why(&end(Some(8), None)), words);
        }
    }

    #[test]
    fn every_exit_code_of_the_manual_has_words_of_its_own() {
        let words: std::collections::BTreeSet<&str> = (0..=20).map(meaning).collect();
        // Two pairs of codes mean the same to a person: hanging up is nothing like that.
        assert_eq!(words.len(), 21);
        assert_eq!(Said::default().why(&end(None, Some(9))), "pppd was ended by signal 9");
    }

    #[test]
    fn resolvers_are_read_and_nonsense_is_not() {
        let log = "local  IP address 10.64.0.2\nprimary   DNS address 10.64.0.53\n\
                   secondary DNS address 10.64.0.54\nprimary   DNS address x\n";
        let resolvers = Said::read(log).resolvers;
        assert_eq!(
            resolvers,
            ["10.64.0.53", "10.64.0.54"].map(|a| a.parse::<IpAddr>().expect("an address"))
        );
    }

    #[test]
    fn what_became_of_the_pin_is_known_by_what_the_script_said() {
        let said = Said::read("anywan: PIN sent\n\rFailed (ERROR)\n");
        assert!(said.pin_sent && !said.pin_accepted && said.asks().is_none());
        let said = Said::read("anywan: PIN sent\n\ranywan: PIN accepted\n\rFailed (BUSY)\n");
        assert!(said.pin_sent && said.pin_accepted);
        assert_eq!(Said::read("Failed (SIM PIN)\n").asks(), Some(SimAsks::Pin));
        assert_eq!(Said::read("Failed (SIM PUK)\n").asks(), Some(SimAsks::Puk));
        assert_eq!(Said::read("Failed (PH-SIM PIN)\n").asks(), None, "it is not the SIM's");
    }
}
