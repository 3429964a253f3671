//! Cases as data: a folder below `cases/` has a `config.toml` and a `world.txt`, and next to them
//! what anywan makes of both: `expect.txt` (who serves, and the steps in order) and, where the
//! case has one, `table.nft`. `UPDATE_EXPECT=1` rewrites what is expected. A bug report becomes a
//! folder.
//!
//! `world.txt` is a line a fact, in words of `ip`; see [`World::learn`]. After a line `then` the
//! facts that follow happen to a kernel in which everything before has been carried out.

#![expect(clippy::disallowed_methods, reason = "the core does no I/O, its tests read files")]

#[path = "sides/proven.rs"]
mod proven;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use anywan_core::choose::{Sides, choose};
use anywan_core::config::{self, Config};
use anywan_core::desired::{Basis, Program, desire};
use anywan_core::facts::{self, Numbers, assign_numbers};
use anywan_core::health::Side;
use anywan_core::names::{Family, IfIndex, Mac, PerFamily, TableId};
use anywan_core::observed::{Address, Hop, Link, Neighbour, Observed, Route};
use anywan_core::render::dnsmasq;
use anywan_core::resolvers::{Checks, Known, asked, known};
use anywan_core::steps::{Step, diff, expect};
use anywan_core::time::Moment;

/// The facts of a case: the kernel, and the WANs that do not answer.
#[derive(Default)]
struct World {
    kernel: Observed,
    lost: BTreeSet<(String, Family)>,
    numbers: Numbers,
}

fn family(word: &str) -> Family {
    match word {
        "ipv4" => Family::Ipv4,
        "ipv6" => Family::Ipv6,
        _ => panic!("{word} is no family"),
    }
}

fn device(word: &str) -> IfIndex {
    IfIndex(word.parse().expect("an interface index"))
}

impl World {
    /// Takes one fact in:
    /// `link INDEX NAME [down] [nocarrier] [p2p] [mtu N]`, `nolink INDEX`,
    /// `address INDEX ADDRESS/PREFIX`, `noaddress INDEX ADDRESS/PREFIX`,
    /// `default INDEX VIA|- METRIC`, `nodefault INDEX VIA|- METRIC`,
    /// `neighbour INDEX ADDRESS MAC`, `sysctl PATH VALUE`,
    /// `silent WAN ipv4|ipv6`, `answers WAN ipv4|ipv6`.
    fn learn(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["link", index, name, ref rest @ ..] => {
                let mtu = rest.iter().position(|w| *w == "mtu").map(|p| rest[p + 1]);
                let link = Link {
                    name: name.to_owned(),
                    up: !rest.contains(&"down"),
                    carrier: !rest.contains(&"down") && !rest.contains(&"nocarrier"),
                    point_to_point: rest.contains(&"p2p"),
                    mtu: mtu.map_or(1500, |m| m.parse().expect("an MTU")),
                    ..Link::default()
                };
                self.kernel.links.insert(device(index), link);
            }
            ["nolink", index] => self.unplug(device(index)),
            ["address", index, net] => drop(self.kernel.addresses.insert(address(index, net))),
            ["noaddress", index, net] => {
                self.kernel.addresses.remove(&address(index, net));
            }
            ["default", index, via, metric] => {
                self.kernel.routes.insert(default(index, via, metric));
            }
            ["nodefault", index, via, metric] => {
                self.kernel.routes.remove(&default(index, via, metric));
            }
            ["neighbour", index, address, mac] => {
                let address = address.parse().expect("an address");
                let bytes: Vec<u8> =
                    mac.split(':').map(|b| u8::from_str_radix(b, 16).expect("a MAC")).collect();
                let mac = Mac(bytes.try_into().expect("six bytes"));
                self.kernel.neighbours.insert(Neighbour { device: device(index), address }, mac);
            }
            ["sysctl", path, value] => {
                self.kernel.sysctls.insert(path.to_owned(), value.to_owned());
            }
            ["silent", wan, f] => drop(self.lost.insert((wan.to_owned(), family(f)))),
            ["answers", wan, f] => {
                self.lost.remove(&(wan.to_owned(), family(f)));
            }
            _ => panic!("no such fact: {line}"),
        }
    }

    /// What the kernel itself does when a device goes: multipath routes with it go whole.
    fn unplug(&mut self, index: IfIndex) {
        self.kernel.links.remove(&index);
        self.kernel.addresses.retain(|a| a.device != index);
        self.kernel.routes.retain(|r| r.hops.iter().all(|h| h.device != index));
        self.kernel.neighbours.retain(|n, _| n.device != index);
    }

    /// Shows a program that should run, unless it does as it should.
    fn describe(&self, program: &Program, report: &mut String) {
        if self.kernel.children.values().any(|is| *is == program.running()) {
            return;
        }
        let _ = writeln!(report, "  | {}", program.command.join(" "));
        for (name, text) in program.files.iter().chain(&program.reread) {
            for line in text.text.lines() {
                let _ = writeln!(report, "  | {name}: {line}");
            }
        }
    }

    /// Decides, and appends what was decided to `report`; returns the table's text.
    fn decide(&mut self, config: &Config, report: &mut String) -> String {
        self.numbers = assign_numbers(config, &self.numbers);
        let facts = facts::read(config, &self.numbers, &self.kernel);
        let now = Moment::default();
        let side = |id, name: &str, family| {
            let speaks_against = facts[&id].sides.get(family).obstacle.is_some();
            match self.lost.contains(&(name.to_owned(), family)) {
                true => Side::known_lost(now),
                false if speaks_against => Side::new(true, now),
                false => proven::side(now),
            }
        };
        let sides: Sides = facts::numbered(config, &self.numbers)
            .into_iter()
            .map(|(id, wan)| (id, PerFamily::from_fn(|family| side(id, &wan.name, family))))
            .collect();
        let choice = choose(config, &self.numbers, &facts, &sides, &BTreeSet::new());
        for family in Family::BOTH {
            let chosen = choice.get(family);
            let serving: Vec<String> =
                chosen.serving.iter().map(|(id, w)| format!("WAN {id} weight {}", w.0)).collect();
            let lost: Vec<String> = chosen.lost.iter().map(|id| format!("WAN {id}")).collect();
            let (serving, lost) = (serving.join(", "), lost.join(", "));
            let _ = writeln!(report, "{family}: {} [{serving}] lost [{lost}]", chosen.reason);
        }
        let known = known(config, &self.numbers, &facts, &self.kernel, &Known::new());
        let asked = asked(&known, &Checks::default(), &choice, &sides);
        let observed = self.kernel.clone();
        let basis = Basis {
            config,
            numbers: &self.numbers,
            facts: &facts,
            choice: &choice,
            cut: None,
            asked: &asked,
            observed: &observed,
        };
        let mut desired = desire(basis);
        if let Some(program) = dnsmasq::program(config, &self.numbers, &known) {
            self.describe(&program, report);
            desired.children.insert(dnsmasq::NAME.to_owned(), program);
        }
        let mut text = String::new();
        for step in diff(&observed, &desired) {
            let _ = writeln!(report, "  {step}");
            if let Step::ReplaceTable { text: table, .. } = &step {
                text.clone_from(table);
            }
            expect(&mut self.kernel, &step);
        }
        assert_eq!(diff(&self.kernel, &desired), vec![], "the steps do not lead there");
        text
    }
}

fn address(index: &str, net: &str) -> Address {
    let net: ipnet::IpNet = net.parse().expect("an address with a prefix");
    Address {
        device: device(index),
        address: net.addr(),
        prefix: net.prefix_len(),
        peer: None,
        global: true,
        deprecated: false,
        ours: false,
        until: None,
    }
}

fn default(index: &str, via: &str, metric: &str) -> Route {
    let via = (via != "-").then(|| via.parse().expect("a gateway"));
    Route {
        family: via.map_or(Family::Ipv4, Family::of),
        table: TableId::MAIN,
        to: None,
        metric: metric.parse().expect("a metric"),
        protocol: 16,
        hops: vec![Hop { device: device(index), via, weight: 1 }],
    }
}

fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    let text = read("config.toml");
    let config = config::parse(&text).unwrap_or_else(|faults| {
        panic!("{}", config::render("config.toml", &text, &faults, false))
    });
    let mut world = World::default();
    let (mut report, mut table) = (String::new(), String::new());
    let facts = read("world.txt");
    for line in facts.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if line == "then" {
            let text = world.decide(&config, &mut report);
            table = if table.is_empty() { text } else { table };
            report.push_str("then\n");
        } else {
            world.learn(line);
        }
    }
    let text = world.decide(&config, &mut report);
    table = if table.is_empty() { text } else { table };
    let mut results = vec![("expect.txt", report)];
    if folder.join("table.nft").exists() {
        results.push(("table.nft", table));
    }
    for (file, is) in results {
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(folder.join(file), &is).expect("the tree is writable");
        }
        let expected = read(file);
        let differ = is.lines().zip(expected.lines()).find(|(a, b)| a != b);
        assert!(
            is == expected,
            "{name}/{file} differs, first here (is, expected): {differ:#?}\n\
             UPDATE_EXPECT=1 rewrites it, if this is right"
        );
    }
}

macro_rules! cases {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_folder_is_a_case() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
            let there: BTreeSet<String> = std::fs::read_dir(folder)
                .expect("the cases are there")
                .map(|e| e.expect("readable").file_name().to_string_lossy().into_owned())
                .collect();
            assert_eq!(there, BTreeSet::from([$(stringify!($name).to_owned()),*]));
        }
    };
}

cases! {
    a_lan_is_served_with_names_and_a_switch_restarts_nothing
    all_wans_silent_are_refused_not_swallowed
    a_device_that_vanishes_takes_the_multipath_route_with_it
    a_family_that_only_one_wan_has_is_served_by_that_one
    a_manager_between_two_leases_does_not_cost_the_gateway
    carrier_loss_moves_slots_first_and_marks_lost_last
    one_armed_with_a_stick_and_a_ppp_line
    settings_of_others_are_only_loosened_where_strict
    six_wans_get_a_tree_of_mark_rules
    two_sticks_with_the_same_addresses
}
