//! The lines that we dial: what each looks like, which programs dial them, and what is asked of the
//! world for them. When to dial is decided by [`Dial`], how by `render`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::Engine;
use super::report::problem;
use crate::api::{Problem, State as Health};
use crate::config::{Line as Over, Modem, Password, Ppp, Wan};
use crate::desired::Program;
use crate::dial::{Dial, Line, Rung, Said, Sight, State};
use crate::names::{Family, Secret, WanId, fingerprint};
use crate::observed::{ChildEnd, Dialling};
use crate::render::ppp;
use crate::steps::{Ask, Reset, Step};
use crate::time::Moment;

/// How often what is missing is looked for: a person who plugs a modem in watches.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether passwords have changed.
const LOOK_CALM: Duration = Duration::from_secs(30);

/// All lines that we dial.
#[derive(Debug, Clone, Default)]
pub(super) struct Dials {
    by_wan: BTreeMap<String, Dial>,
    /// What their programs wrote last.
    logs: BTreeMap<String, String>,
    /// The passwords that were read last: a file that goes away ends no line.
    passwords: BTreeMap<String, Secret>,
    next_look: Moment,
    /// It has been looked once.
    looked: bool,
    /// How each line stood when people were told last.
    told: BTreeMap<String, String>,
}

impl Dials {
    /// Lines of an earlier run; all that is kept of them is which PINs were tried.
    pub(super) fn new(tried: &BTreeMap<String, u64>) -> Dials {
        let dial = |(name, tried): (&String, &u64)| (name.clone(), Dial::new(name, Some(*tried)));
        Dials { by_wan: tried.iter().map(dial).collect(), ..Dials::default() }
    }

    /// The PINs that were tried, by WAN.
    pub(super) fn tried(&self) -> BTreeMap<String, u64> {
        let tried = self.by_wan.iter().filter_map(|(name, dial)| Some((name, dial.tried()?)));
        tried.map(|(name, pin)| (name.clone(), pin)).collect()
    }

    /// How a line stood before, if it stands differently now.
    fn news(&mut self, name: &str, words: &str) -> Option<String> {
        let before = self.told.insert(name.to_owned(), words.to_owned()).unwrap_or_default();
        (before != words).then_some(before)
    }

    pub(super) fn look_soon(&mut self) {
        self.next_look = Moment::default();
    }
}

/// Our name for the program that dials a WAN.
fn program_of(wan: &str) -> String {
    format!("ppp-{wan}")
}

impl Engine {
    /// The programs whose logs the daemon should read.
    pub fn watched_logs(&self) -> BTreeSet<String> {
        self.dialled().map(|(wan, _)| program_of(&wan.name)).collect()
    }

    fn dialled(&self) -> impl Iterator<Item = (&Wan, &Ppp)> {
        self.config.wans.iter().filter_map(|wan| Some((wan, wan.ppp.as_ref()?)))
    }

    /// Lets every line see what there is to be seen.
    pub(super) fn mind_dials(&mut self, now: Moment) {
        if self.leaving || (self.dials.by_wan.is_empty() && self.dialled().next().is_none()) {
            return;
        }
        let lines: Vec<(String, Sight)> =
            self.dialled().map(|(wan, ppp)| (wan.name.clone(), self.sight(wan, ppp))).collect();
        self.dials.by_wan.retain(|name, _| lines.iter().any(|(other, _)| other == name));
        let mut missing = false;
        for (name, sight) in lines {
            let dial =
                self.dials.by_wan.entry(name.clone()).or_insert_with(|| Dial::new(&name, None));
            let before = dial.wants();
            dial.see(sight, now);
            self.stale |= before != dial.wants();
            let words = dial.words();
            missing |= matches!(dial.state(), State::Waiting { .. } | State::Pause { .. });
            let rung = dial.poll_reset();
            if let Some(before) = self.dials.news(&name, &words) {
                self.undecided = true;
                let id = self.numbers.get(&name).copied();
                self.tell(now, "dial", id, None, (&before, &words, ""));
            }
            if let Some(how) = rung.and_then(|rung| self.reset_of(&name, rung)) {
                self.asks.push_back(Ask::Reset { wan: name, how });
            }
        }
        let running = &self.observed.children;
        self.observed.resolvers.by_wan.retain(|wan, _| running.contains_key(&program_of(wan)));
        self.look(missing, now);
    }

    /// Asks for what the kernel's notices do not tell: modems, and files with passwords.
    fn look(&mut self, missing: bool, now: Moment) {
        if missing {
            self.dials.next_look = self.dials.next_look.min(now + LOOK);
        }
        if now < self.dials.next_look {
            return;
        }
        self.dials.next_look = now + LOOK_CALM;
        let modems = self.dialled().filter_map(|(_, ppp)| ppp.modem());
        let devices: BTreeSet<String> = modems.map(|modem| modem.device.clone()).collect();
        let files = self.dialled().filter_map(|(_, ppp)| ppp.secret_file());
        let secrets: BTreeSet<String> = files.map(str::to_owned).collect();
        let ports = self.dialled().filter_map(|(_, ppp)| Some(ppp.modem()?.reset_usb.clone()));
        let ports = ports.filter(|port| !port.is_empty() && !self.dials.looked).collect();
        self.dials.looked = true;
        self.asks.push_back(Ask::Look { devices, secrets, ports });
    }

    pub(super) fn dial_deadline(&self) -> Option<Moment> {
        let look = self.dialled().next().map(|_| self.dials.next_look);
        self.dials.by_wan.values().filter_map(Dial::deadline).chain(look).min()
    }

    fn sight(&self, wan: &Wan, ppp: &Ppp) -> Sight {
        let others = || self.config.wans.iter().filter(|other| other.name != wan.name);
        let better = others().filter(|o| o.priority < wan.priority).any(|o| self.serves_well(o));
        let ready = match &ppp.line {
            Over::Modem(modem) => self.observed.dialling.devices.contains(&modem.device),
            Over::Ethernet { interface, .. } => {
                self.observed.link_named(interface).is_some_and(|(_, l)| l.up && l.carrier)
            }
        };
        let id = self.numbers.get(&wan.name).copied();
        Sight {
            wanted: !ppp.on_demand || !better,
            urgent: !others().any(|other| self.serves_well(other)),
            ready: ready && self.fresh_password(ppp).is_some(),
            running: self.observed.children.contains_key(&program_of(&wan.name)),
            line: id.map_or(Line::Absent, |id| self.line(id)),
            linger: wan.linger,
            ladder: ladder(ppp),
            pin: self.pin(wan, ppp),
        }
    }

    /// A WAN that works, or is trusted to, and was not taken out of service.
    fn serves_well(&self, wan: &Wan) -> bool {
        let Some(id) = self.numbers.get(&wan.name) else { return false };
        let Some(sides) = self.sides.get(id) else { return false };
        let well = |family: &Family| {
            let side = sides.get(*family);
            let passable = self.facts.get(id).is_some_and(|f| {
                let facts = f.sides.get(*family);
                facts.obstacle.is_none() && facts.hop.is_some()
            });
            passable && (side.state().works() || side.trusted())
        };
        !self.drained.contains(&wan.name) && Family::BOTH.iter().any(well)
    }

    fn line(&self, id: WanId) -> Line {
        let Some(facts) = self.facts.get(&id) else { return Line::Absent };
        let there = || Family::BOTH.into_iter().filter(|f| facts.sides.get(*f).obstacle.is_none());
        let works = |family| self.state_of(id, family) != Health::Down;
        if there().next().is_none() {
            Line::Absent
        } else if self.cut() == Some(id) || there().any(works) {
            Line::Alive
        } else {
            Line::Dead
        }
    }

    /// One that cannot be noted as tried is not tried.
    fn pin(&self, wan: &Wan, ppp: &Ppp) -> Option<u64> {
        let pin = &ppp.modem()?.pin;
        let noted = !self.reported.keys().any(|(code, _)| code == "state.not-kept");
        (noted && !pin.is_empty()).then(|| fingerprint([wan.name.as_str(), pin.reveal()]))
    }

    /// Whether a step starts a program that tells a SIM its PIN.
    pub fn sends_a_pin(&self, step: &Step) -> bool {
        let Step::StartChild { name, .. } = step else { return false };
        let dial = name.strip_prefix("ppp-").and_then(|wan| self.dials.by_wan.get(wan));
        dial.and_then(Dial::wants) == Some(true)
    }

    fn fresh_password(&self, ppp: &Ppp) -> Option<Secret> {
        match &ppp.password {
            Password::None => Some(Secret::default()),
            Password::Given(secret) => Some(secret.clone()),
            Password::File(path) => {
                self.observed.dialling.secrets.get(path)?.as_ref().ok().cloned()
            }
        }
    }

    fn password(&self, ppp: &Ppp) -> Option<Secret> {
        let last = || self.dials.passwords.get(ppp.secret_file()?).cloned();
        self.fresh_password(ppp).or_else(last)
    }

    /// The programs that dial now. One that runs is left as it is, whether it was started with the
    /// script that sends the PIN or without.
    pub(super) fn dial_programs(&self) -> BTreeMap<String, Program> {
        let program = |(wan, ppp): (&Wan, &Ppp)| {
            let with_pin = self.dials.by_wan.get(&wan.name)?.wants()?;
            let password = self.password(ppp)?;
            let name = program_of(&wan.name);
            let one = |with_pin| ppp::program(wan, ppp, &password, with_pin);
            let other = one(!with_pin);
            let runs = self.observed.children.get(&name).map(|running| running.program);
            let program = if runs == Some(other.running().program) { other } else { one(with_pin) };
            Some((name, program))
        };
        self.dialled().filter_map(program).collect()
    }

    /// The programs that should dial, but with a password that has not been read.
    pub(super) fn unknown_dial_programs(&self) -> BTreeSet<String> {
        let unknown = |(wan, ppp): &(&Wan, &Ppp)| {
            let wants = self.dials.by_wan.get(&wan.name).and_then(Dial::wants);
            wants.is_some() && self.password(ppp).is_none()
        };
        self.dialled().filter(unknown).map(|(wan, _)| program_of(&wan.name)).collect()
    }

    /// Takes in what programs wrote.
    pub(super) fn take_logs(&mut self, logs: BTreeMap<String, String>) {
        for (name, log) in &logs {
            let said = Said::read(log);
            // What an earlier one wrote stays until the next one begins.
            if !self.observed.children.contains_key(name) {
                continue;
            }
            if let Some(dial) = self.dial_of(name) {
                dial.heard(&said);
            }
            let resolvers: Vec<IpAddr> = said.resolvers;
            let some = !resolvers.is_empty();
            let Some(wan) = name.strip_prefix("ppp-").filter(|_| some) else { continue };
            if self.observed.resolvers.by_wan.get(wan) != Some(&resolvers) {
                self.observed.resolvers.by_wan.insert(wan.to_owned(), resolvers);
                self.stale = true;
            }
        }
        self.dials.logs = logs;
    }

    pub(super) fn take_dialling(&mut self, dialling: Dialling) {
        let known = dialling.secrets.iter().filter_map(|(path, s)| Some((path, s.as_ref().ok()?)));
        let known: Vec<_> = known.map(|(path, secret)| (path.clone(), secret.clone())).collect();
        self.dials.passwords.extend(known);
        self.stale |= super::replace(&mut self.observed.dialling, dialling);
    }

    /// Takes in that pppd ended; says whether it was one of ours.
    pub(super) fn dial_ended(&mut self, end: &ChildEnd, now: Moment) -> bool {
        let log = self.dials.logs.remove(&end.name);
        let log = log.unwrap_or_else(|| end.said.replace("; ", "\n"));
        let Some(dial) = self.dial_of(&end.name) else { return false };
        dial.ended(end, &log, now);
        true
    }

    /// Takes in that pppd could not be started; says whether it was one of ours.
    pub(super) fn dial_not_started(&mut self, name: &str, error: &str, now: Moment) -> bool {
        let Some(dial) = self.dial_of(name) else { return false };
        dial.not_started(error, now);
        true
    }

    pub(super) fn was_reset(&mut self, wan: &str, error: Option<&str>, now: Moment) {
        if let Some(dial) = self.dials.by_wan.get_mut(wan) {
            dial.was_reset(error, now);
        }
        self.stale = true;
    }

    fn dial_of(&mut self, program: &str) -> Option<&mut Dial> {
        self.dials.by_wan.get_mut(program.strip_prefix("ppp-")?)
    }

    fn reset_of(&self, name: &str, rung: Rung) -> Option<Reset> {
        let (_, ppp) = self.dialled().find(|(wan, _)| wan.name == name)?;
        Some(match rung {
            Rung::Command => {
                let Modem { device, reset, .. } = ppp.modem()?.clone();
                Reset::Command { device, command: reset }
            }
            Rung::Usb => Reset::Usb { port: ppp.modem()?.reset_usb.clone() },
            Rung::Own => Reset::Own { command: ppp.reset_command.clone() },
        })
    }

    /// How a line stands that has no interface, for the status.
    pub(super) fn dial_words(&self, wan: &Wan) -> Option<String> {
        wan.ppp.as_ref()?;
        self.dials.by_wan.get(&wan.name).map(Dial::words)
    }

    pub(super) fn dial_problems(&self, wan: &Wan, ppp: &Ppp) -> Vec<Problem> {
        let at = format!("wan {}", wan.name);
        let Some(dial) = self.dials.by_wan.get(&wan.name) else { return Vec::new() };
        let mut problems: Vec<Problem> = self.unused_password(&at, ppp).into_iter().collect();
        if let State::Waiting { .. } = dial.state() {
            problems.extend(self.missing(&at, ppp));
        }
        if let Some(trouble) = dial.trouble() {
            problems.push(problem(trouble.code, &at, &trouble.what, hint(trouble.code)));
        }
        problems
    }

    /// Also of a line that is up: it would not be dialled again.
    fn unused_password(&self, at: &str, ppp: &Ppp) -> Option<Problem> {
        let path = ppp.secret_file()?;
        let why = self.observed.dialling.secrets.get(path)?.as_ref().err()?;
        let what = format!("the password in {path} is not used: {why}");
        let hint = format!("`chown root {path}; chmod 600 {path}`; its first line is the password");
        Some(problem("dial.secret-file", at, &what, &hint))
    }

    /// What a line waits for, beside its password.
    fn missing(&self, at: &str, ppp: &Ppp) -> Vec<Problem> {
        let mut problems = Vec::new();
        match &ppp.line {
            Over::Modem(modem) if !self.observed.dialling.devices.contains(&modem.device) => {
                let what = format!("the modem {} is not there; it is waited for", modem.device);
                let hint = "`ls -l /dev/serial/by-id/` lists those there are";
                problems.push(problem("dial.device-missing", at, &what, hint));
            }
            Over::Ethernet { interface, .. } => {
                let link =
                    self.observed.link_named(interface).map(|(_, link)| (link.up, link.carrier));
                let why = match link {
                    None => "does not exist",
                    Some((false, _)) => "is set down",
                    Some((true, false)) => "has no carrier",
                    Some((true, true)) => return problems,
                };
                let what = format!("{interface}, over which PPPoE runs, {why}; it is waited for");
                let hint = format!("`ip link set {interface} up` sets it up; is the cable in?");
                problems.push(problem("dial.interface-down", at, &what, &hint));
            }
            Over::Modem(_) => {}
        }
        problems
    }
}

fn hint(code: &str) -> &'static str {
    match code {
        "dial.puk" => "put the SIM into a telephone and enter the PUK there",
        "dial.pin-needed" => "write the SIM's `pin` into [wan.ppp]",
        "dial.pin-refused" => {
            "correct `pin` in [wan.ppp]; a SIM locks itself after three wrong ones"
        }
        "dial.not-started" => "it is tried again; everything else goes on",
        _ => "it is dialled again and again; everything else goes on",
    }
}

fn ladder(ppp: &Ppp) -> Vec<Rung> {
    let modem = ppp.modem();
    let command = modem.is_some_and(|modem| !modem.reset.is_empty());
    let usb = modem.is_some_and(|modem| !modem.reset_usb.is_empty());
    let rungs =
        [(Rung::Command, command), (Rung::Usb, usb), (Rung::Own, !ppp.reset_command.is_empty())];
    rungs.into_iter().filter(|(_, has)| *has).map(|(rung, _)| rung).collect()
}
