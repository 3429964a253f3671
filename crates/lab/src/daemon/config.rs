//! The daemon's config file for a topology, as values that a test changes.

use std::fmt::Write as _;
use std::time::Duration;

use crate::servers::{ECHO, PAGE};
use crate::topology::{Family, TARGETS, Topology};
use crate::wait::{is_emulated, slower};

/// Between two probes, so that tests need not wait long.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long an answer may take in an emulated machine, before it is made longer for that.
const ANSWER: Duration = Duration::from_millis(300);

fn milliseconds(span: Duration) -> String {
    format!("\"{}ms\"", span.as_millis())
}

/// A config file.
#[derive(Debug, Clone)]
pub struct Config {
    /// What stands above the first section.
    pub top: Keys,
    /// `[[lan]]`: interface, then other keys.
    pub lans: Vec<(String, Keys)>,
    /// `[[wan]]`.
    pub wans: Vec<WanConfig>,
    /// `[health]`.
    pub health: Keys,
    /// `[router]`.
    pub router: Keys,
    /// Text behind everything else.
    pub extra: String,
}

/// Keys and raw TOML values.
pub type Keys = Vec<(String, String)>;

/// One `[[wan]]`.
#[derive(Debug, Clone)]
pub struct WanConfig {
    /// `name`.
    pub name: String,
    /// `interface`.
    pub interface: String,
    /// `gateway` (an address or `auto`), left out if none.
    pub gateway: Option<String>,
    /// `gateway6`, likewise.
    pub gateway6: Option<String>,
    /// `priority`.
    pub priority: u32,
    /// `weight`.
    pub weight: u32,
    /// Any other keys.
    pub more: Keys,
}

impl Config {
    /// All WANs of a topology with explicit gateways, all of priority 1 and weight 1; quick
    /// probes at the internet's servers (icmp and tcp, both families), as quick as the machine can
    /// bear, and a hold time of 1 s.
    pub fn of(topology: &Topology) -> Config {
        let wans = topology.wans().iter().map(|wan| WanConfig {
            name: wan.name.clone(),
            interface: wan.interface.clone(),
            gateway: wan.gateway(Family::V4).map(|gateway| gateway.to_string()),
            gateway6: wan.gateway(Family::V6).map(|gateway| gateway.to_string()),
            priority: 1,
            weight: 1,
            more: Vec::new(),
        });
        let ((first4, first6), (second4, second6)) = (TARGETS[0], TARGETS[1]);
        let targets = format!(
            r#"["{first4}", "tcp://{second4}:{ECHO}", "{first6}", "tcp://[{second6}]:{ECHO}"]"#
        );
        let config = Config {
            top: vec![],
            lans: vec![(topology.lan_interface().to_owned(), Vec::new())],
            wans: wans.collect(),
            health: vec![],
            router: vec![],
            extra: String::new(),
        }
        .health("targets", &targets)
        .health("interval", &milliseconds(slower(INTERVAL)))
        .health("hold", r#""1s""#);
        // There an answer takes as long as the processor, which all boxes share, is busy with others.
        if is_emulated() { config.health("timeout", &milliseconds(slower(ANSWER))) } else { config }
    }

    /// Probes as in a file without `[health]`, at the internet's servers: two targets of each of
    /// icmp, tcp and dns in each family; and the default interval and hold time.
    #[must_use]
    pub fn as_by_default(mut self) -> Config {
        self.health.clear();
        self.every_kind()
    }

    /// Probes of the kinds that are asked by default.
    #[must_use]
    pub fn every_kind(self) -> Config {
        let quoted: Vec<String> =
            Config::kinds().iter().map(|target| format!("{target:?}")).collect();
        self.health("targets", &format!("[{}]", quoted.join(", ")))
    }

    /// The same and a page, which finds captive portals.
    #[must_use]
    pub fn every_kind_and_page(self) -> Config {
        let (v4, v6) = TARGETS[0];
        let pages = [format!("http://{v4}:{PAGE}/204"), format!("http://[{v6}]:{PAGE}/204")];
        let all = Config::kinds().into_iter().chain(pages);
        let quoted: Vec<String> = all.map(|target| format!("{target:?}")).collect();
        self.health("targets", &format!("[{}]", quoted.join(", ")))
    }

    fn kinds() -> Vec<String> {
        let both = TARGETS.iter().flat_map(|(v4, v6)| [v4.to_string(), format!("[{v6}]")]);
        both.flat_map(|host| {
            [
                format!("icmp://{host}"),
                format!("tcp://{host}:{ECHO}"),
                format!("dns://{host}/probe.example"),
            ]
        })
        .collect()
    }

    /// Changes WAN `number`, from 1.
    #[must_use]
    pub fn wan(mut self, number: usize, change: impl FnOnce(&mut WanConfig)) -> Config {
        change(&mut self.wans[number - 1]);
        self
    }

    /// Sets the priorities, WAN 1 first.
    #[must_use]
    pub fn priorities(mut self, priorities: &[u32]) -> Config {
        for (wan, priority) in self.wans.iter_mut().zip(priorities) {
            wan.priority = *priority;
        }
        self
    }

    /// Sets the weights, WAN 1 first.
    #[must_use]
    pub fn weights(mut self, weights: &[u32]) -> Config {
        for (wan, weight) in self.wans.iter_mut().zip(weights) {
            wan.weight = *weight;
        }
        self
    }

    /// Lets the daemon find all gateways itself, except on the LAN's interface, where anybody
    /// could be it.
    #[must_use]
    pub fn auto_gateways(mut self) -> Config {
        let lans: Vec<String> = self.lans.iter().map(|(interface, _)| interface.clone()).collect();
        for wan in self.wans.iter_mut().filter(|wan| !lans.contains(&wan.interface)) {
            wan.gateway = wan.gateway.take().map(|_| "auto".to_owned());
            wan.gateway6 = wan.gateway6.take().map(|_| "auto".to_owned());
        }
        self
    }

    /// Sets a key of `[health]` to a raw TOML value.
    #[must_use]
    pub fn health(mut self, key: &str, value: &str) -> Config {
        set(&mut self.health, key, value);
        self
    }

    /// Sets a key of `[router]` to a raw TOML value.
    #[must_use]
    pub fn router(mut self, key: &str, value: &str) -> Config {
        set(&mut self.router, key, value);
        self
    }

    /// Sets a key above the first section to a raw TOML value.
    #[must_use]
    pub fn top(mut self, key: &str, value: &str) -> Config {
        set(&mut self.top, key, value);
        self
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        table(&mut text, &self.top);
        for (interface, keys) in &self.lans {
            let _ = writeln!(text, "[[lan]]\ninterface = {interface:?}");
            table(&mut text, keys);
        }
        for wan in &self.wans {
            let _ = writeln!(text, "[[wan]]\nname = {:?}", wan.name);
            let _ = writeln!(text, "interface = {:?}", wan.interface);
            for (key, gateway) in [("gateway", &wan.gateway), ("gateway6", &wan.gateway6)] {
                if let Some(gateway) = gateway {
                    let _ = writeln!(text, "{key} = {gateway:?}");
                }
            }
            let _ = writeln!(text, "priority = {}\nweight = {}", wan.priority, wan.weight);
            table(&mut text, &wan.more);
        }
        for (name, keys) in [("health", &self.health), ("router", &self.router)] {
            if !keys.is_empty() {
                let _ = writeln!(text, "[{name}]");
                table(&mut text, keys);
            }
        }
        text + &self.extra
    }
}

fn set(keys: &mut Keys, key: &str, value: &str) {
    keys.retain(|(known, _)| known != key);
    keys.push((key.to_owned(), value.to_owned()));
}

fn table(text: &mut String, keys: &Keys) {
    for (key, value) in keys {
        let _ = writeln!(text, "{key} = {value}");
    }
    text.push('\n');
}
