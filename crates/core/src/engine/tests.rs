//! The engine against a world that does exactly what steps say: `expect`.

mod anew;
mod announced;
mod cpu;
mod hand;
mod resolv_conf;
mod unanswered;
mod unsteered;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::*;
use crate::config::{
    Addressing, AllDown, Cpu, Gateway, Health, Inbound, Lan, Nat, Router, Sticky, Target,
};
use crate::names::{IfIndex, Mac, MarkField, RulePriority, TableId, Weight};
use crate::observed::{Address, Dialling, Hop, Link, Neighbour, Nft, Route, Structure, TcpFlow};
use crate::steps::{Failure, ProbeResult, expect};

/// A router with a LAN on eth0 and WANs on wan1, wan2, ...; probes are answered by the WANs in
/// `alive`.
struct World {
    engine: Engine,
    kernel: Observed,
    now: Moment,
    alive: BTreeSet<WanId>,
    carried_out: Vec<Step>,
    happenings: Vec<Happening>,
    evacuated: Vec<(WanId, Family)>,
    woken: Vec<(WanId, Family)>,
    /// Both of these, in order.
    calls: Vec<(&'static str, Family)>,
    refused: Vec<TcpFlow>,
    released: Vec<(WanId, Family)>,
    /// Where flows that nobody had answered were looked for.
    unanswered: Vec<(WanId, Family)>,
    /// What DHCP clients had to say.
    said: Vec<crate::dhcp::Order>,
    answers: VecDeque<(Moment, ProbeResult)>,
    /// How many flows a retiring WAN still has.
    flows: u64,
    /// How often untranslated flows were looked for.
    searches: usize,
    /// How often routers were asked to announce themselves.
    solicited: u32,
    /// What dialling finds.
    dialling: Dialling,
}

fn wan(number: u8, priority: u8, weight: u16) -> Wan {
    Wan {
        name: format!("wan{number}"),
        interface: format!("wan{number}"),
        gateway: Gateway::Auto,
        gateway6: Gateway::Auto,
        gateway_alias: None,
        address: Addressing::Observe,
        priority,
        weight: Weight(weight),
        metered: false,
        budget: None,
        linger: None,
        nat: Nat::Masquerade,
        nat6: Nat::Masquerade,
        dns: Vec::new(),
        health: Health {
            targets: vec![
                Target::Icmp(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))),
                Target::Icmp(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2))),
                Target::Icmp(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
            ],
            interval: Duration::from_secs(1),
            timeout: None,
            hold: Duration::from_secs(10),
            max_loss_percent: Some(20),
            max_latency: None,
            max_jitter: None,
        },
        ppp: None,
    }
}

fn config(wans: Vec<Wan>) -> Config {
    Config {
        lans: vec![Lan { interface: "eth0".to_owned(), inbound: Inbound::Drop, dhcp: None }],
        wans,
        retiring: Vec::new(),
        cpu: Cpu::Auto,
        router: Router {
            all_down: AllDown::Refuse,
            sticky: Sticky::Flow,
            mark_field: MarkField::default(),
            table_base: TableId(17000),
            rule_priority_base: RulePriority(1000),
        },
        dns: None,
    }
}

fn link(name: &str) -> Link {
    Link {
        name: name.to_owned(),
        up: true,
        carrier: true,
        point_to_point: false,
        mtu: 1500,
        ..Link::default()
    }
}

/// The kernel as other programs have set it up: interfaces with addresses, default routes in main.
fn kernel(wans: u8) -> Observed {
    let mut kernel = Observed::default();
    kernel.links.insert(IfIndex(2), link("eth0"));
    for n in 1..=wans {
        let device = IfIndex(10 + u32::from(n));
        kernel.links.insert(device, link(&format!("wan{n}")));
        for (address, prefix, via) in [
            (IpAddr::V4(Ipv4Addr::new(192, 168, n, 2)), 24, Ipv4Addr::new(192, 168, n, 1).into()),
            (
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, n.into(), 0, 0, 0, 0, 2)),
                64,
                IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
            ),
        ] {
            kernel.addresses.insert(Address {
                device,
                address,
                prefix,
                peer: None,
                global: true,
                deprecated: false,
                ours: false,
                until: None,
            });
            kernel.routes.insert(Route {
                family: Family::of(address),
                table: TableId::MAIN,
                to: None,
                metric: 100 * u32::from(n),
                protocol: 16,
                hops: vec![Hop { device, via: Some(via), weight: 1 }],
            });
        }
    }
    kernel
}

impl World {
    fn new(config: Config, wans: u8) -> World {
        let kernel = kernel(wans);
        World {
            engine: Engine::new(config, &Kept::default()),
            kernel,
            now: Moment::default(),
            alive: (1..=wans).map(WanId).collect(),
            carried_out: Vec::new(),
            happenings: Vec::new(),
            evacuated: Vec::new(),
            woken: Vec::new(),
            calls: Vec::new(),
            refused: Vec::new(),
            released: Vec::new(),
            unanswered: Vec::new(),
            said: Vec::new(),
            answers: VecDeque::new(),
            flows: 0,
            searches: 0,
            solicited: 0,
            dialling: Dialling::default(),
        }
    }

    fn restarted(self) -> World {
        let config = self.engine.config.clone();
        self.restarted_with(config)
    }

    fn restarted_with(self, config: Config) -> World {
        let kept = self.engine.kept();
        World { engine: Engine::new(config, &kept), ..self }
    }

    fn tell_facts(&mut self) {
        let watched = self.engine.watched_sysctls();
        for path in watched {
            self.kernel.sysctls.entry(path).or_insert_with(|| "0".to_owned());
        }
        let k = self.kernel.clone();
        for event in [
            Event::Links(k.links),
            Event::Addresses(k.addresses),
            Event::Routes(k.routes),
            Event::Rules { ours: k.rules, foreign: k.foreign_rules },
            Event::Neighbours(k.neighbours),
            Event::Sysctls { now: k.sysctls, before: k.sysctls_before },
            Event::Nft(k.nft),
            Event::Cpus(k.cpus),
            Event::Children(k.children),
            Event::ResolvConf(k.resolv_conf),
        ] {
            self.engine.handle(event, self.now);
        }
    }

    /// One turn of the daemon's loop.
    fn turn(&mut self) {
        for _ in 0..10 {
            self.tell_facts();
            self.engine.advance(self.now);
            let mut any = false;
            while let Some(step) = self.engine.poll_step() {
                expect(&mut self.kernel, &step);
                self.carried_out.push(step);
                any = true;
            }
            while let Some(ask) = self.engine.poll_ask() {
                self.take_ask(ask);
            }
            while let Some(happening) = self.engine.poll_happening() {
                self.happenings.push(happening);
            }
            if !any {
                return;
            }
        }
        panic!("the plan does not settle");
    }

    fn take_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Probe(probe) => {
                let (after, outcome) = if self.alive.contains(&probe.wan) {
                    (Duration::from_millis(20), Ok(Duration::from_millis(20)))
                } else {
                    (probe.timeout, Err(Failure::Silent("no answer".to_owned())))
                };
                let result = ProbeResult {
                    wan: probe.wan,
                    family: probe.family,
                    target: probe.target,
                    sequence: probe.sequence,
                    outcome,
                };
                self.answers.push_back((self.now + after, result));
            }
            Ask::CountTraffic => {
                self.engine.handle(Event::Traffic(std::collections::BTreeMap::new()), self.now);
            }
            Ask::Wake { wan, family, .. } => {
                self.woken.push((wan, family));
                self.calls.push(("wake", family));
                self.engine.handle(Event::Woken { wan, family, flows: 0 }, self.now);
            }
            Ask::LetSleep { family, .. } => self.calls.push(("let sleep", family)),
            // Nobody serves names here.
            Ask::Consult(_) => {}
            Ask::Solicit { .. } => self.solicited += 1,
            Ask::Dhcp { order, .. } => self.said.push(order),
            Ask::Refuse { flows } => self.refused.extend(flows),
            Ask::Release { wan, family, .. } => {
                self.released.push((wan, family));
                self.engine.handle(Event::Released { wan, family, flows: 0 }, self.now);
            }
            Ask::Unanswered { wan, family, .. } => {
                self.unanswered.push((wan, family));
                self.engine.handle(Event::Unanswered { wan, family, deleted: 0 }, self.now);
            }
            Ask::CountFlows { wan, .. } => {
                let event = Event::Flows { wan, count: self.flows };
                self.engine.handle(event, self.now);
            }
            Ask::Untranslated { family, .. } => {
                self.searches += 1;
                self.engine.handle(Event::Untranslated { family, deleted: 0 }, self.now);
            }
            Ask::Look { .. } => {
                self.engine.handle(Event::Dialling(self.dialling.clone()), self.now);
            }
            Ask::Reset { .. } => panic!("nothing is reset here"),
            Ask::Evacuate { wan, family, .. } => {
                self.evacuated.push((wan, family));
                self.calls.push(("delete", family));
                let event = Event::Evacuated { wan, family, deleted: 0 };
                self.engine.handle(event, self.now);
            }
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.turn();
        loop {
            let answer = self.answers.iter().map(|(at, _)| *at).min();
            let next = [answer, self.engine.poll_deadline()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            let now = self.now;
            let (due, later) = self.answers.drain(..).partition(|(at, _)| *at <= now);
            self.answers = later;
            for (_, result) in due {
                let _: Moment = now;
                self.engine.handle(Event::Probe(result), now);
            }
            self.turn();
        }
        self.now = end;
    }

    fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    fn serving(&self, family: Family) -> Vec<u8> {
        self.engine.choice.get(family).serving.keys().map(|id| id.0).collect()
    }

    fn set_link(&mut self, number: u8, change: impl FnOnce(&mut Link)) {
        change(self.kernel.links.get_mut(&IfIndex(10 + u32::from(number))).unwrap());
    }

    fn slot_chains(&self, map: &str) -> BTreeSet<&str> {
        self.kernel.nft.maps[map].values().map(String::as_str).collect()
    }
}

#[test]
fn a_start_settles_and_serves_by_priority() {
    let mut world = World::new(config(vec![wan(1, 1, 8), wan(2, 1, 6), wan(3, 2, 3)]), 3);
    assert_eq!(world.engine.summary(), "0 of 3 WANs up");
    world.seconds(1);
    assert!(world.engine.settled());
    assert_eq!(world.engine.summary(), "3 of 3 WANs up");
    assert_eq!(world.serving(Family::Ipv4), [1, 2]);
    assert_eq!(world.serving(Family::Ipv6), [1, 2]);
    assert!(matches!(world.kernel.nft.structure, Structure::Intact(_)));
    assert_eq!(world.slot_chains("slots4"), BTreeSet::from(["place1", "place2"]));
    let status = world.engine.status(&|m| format!("{m:?}"));
    assert_eq!(status.wans[0].ipv4.state, State::Up);
    assert_eq!(status.wans[0].share_percent, 57.1);
}

#[test]
fn a_silent_wan_is_left_and_comes_back_after_the_hold_time() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(5);
    world.alive.remove(&WanId(1));
    world.seconds(3);
    assert_eq!(world.engine.summary(), "1 of 2 WANs up");
    assert_eq!(world.serving(Family::Ipv4), [2]);
    assert_eq!(world.kernel.nft.maps["restore4"][&Key::Number(0x100_0000)], "lost");
    assert!(world.evacuated.contains(&(WanId(1), Family::Ipv4)));
    world.alive.insert(WanId(1));
    world.seconds(8);
    assert_eq!(world.serving(Family::Ipv4), [2], "not before the hold time is over");
    assert_eq!(world.kernel.nft.maps["restore4"][&Key::Number(0x100_0000)], "keep4_1");
    world.seconds(5);
    assert_eq!(world.serving(Family::Ipv4), [1]);
}

#[test]
fn carrier_loss_is_acted_on_in_the_same_turn_and_flows_told_when_the_other_has_answered() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(5);
    world.carried_out.clear();
    world.set_link(1, |link| link.carrier = false);
    world.turn();
    assert_eq!(world.slot_chains("slots4"), BTreeSet::from(["place2"]));
    let has = |step: &Step, map: &str| {
        let Step::ChangeElements(changes) = step else { return false };
        changes.iter().any(|c| c.map == map)
    };
    let adds = |step: &&Step| matches!(step, Step::PutRoute(route) if route.metric > 1);
    let first = world.carried_out.iter().find(|step| !adds(step)).unwrap();
    assert!(has(first, "slots4") && has(first, "slots6"), "{:?}", world.carried_out);
    assert!(!world.carried_out.iter().any(|step| has(step, "restore4")), "not proved yet");
    world.run(Duration::from_millis(100));
    let last = world.carried_out.last().unwrap();
    assert!(has(last, "restore4") || has(last, "restore6"), "{last:?}");
    for map in ["restore4", "restore6"] {
        assert!(world.carried_out.iter().any(|step| has(step, map)), "{map}");
        assert!(world.kernel.nft.maps[map].values().any(|chain| chain == "lost"), "{map}");
    }
    // Whoever waits is called before anything is deleted.
    let [v4, v6] = Family::BOTH;
    let expected = [("wake", v4), ("wake", v6), ("delete", v4), ("delete", v6)];
    assert_eq!(world.calls, expected);
}

#[test]
fn all_down_refuses_new_flows_and_keeps_old_ones() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(5);
    world.alive.clear();
    world.seconds(5);
    assert_eq!(world.slot_chains("slots4"), BTreeSet::from(["refuse"]));
    assert!(!world.kernel.nft.maps["restore4"].values().any(|chain| chain == "lost"));
    world.alive.insert(WanId(2));
    world.seconds(2);
    assert_eq!(world.serving(Family::Ipv4), [2], "the first one back serves without a hold time");
}

#[test]
fn a_restart_changes_nothing_and_remembers_who_was_lost() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(5);
    world.alive.remove(&WanId(1));
    world.seconds(5);
    let before = world.kernel.clone();
    world.carried_out.clear();
    let mut world = world.restarted();
    world.seconds(3);
    assert_eq!(world.carried_out, []);
    assert_eq!(world.kernel, before);
}

#[test]
fn what_somebody_deletes_is_put_back_and_told() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(5);
    let before = world.kernel.clone();
    world.kernel.nft = Nft::default();
    world.kernel.rules.pop_first();
    world.kernel.routes.retain(|r| r.table != TableId(17001));
    world.happenings.clear();
    world.seconds(1);
    assert_eq!(world.kernel, before);
    let repairs = world.happenings.iter().filter(|h| h.kind == "repair").count();
    assert_eq!(repairs, 4, "{:?}", world.happenings);
}

#[test]
fn leaving_takes_everything_out_and_puts_parameters_back() {
    let before = kernel(2);
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(5);
    assert!(!world.kernel.sysctls_before.is_empty());
    world.engine.handle(Event::Leave, world.now);
    world.turn();
    assert!(world.engine.left());
    assert!(world.kernel.sysctls.values().all(|value| value == "0"));
    world.kernel.sysctls.clear();
    assert_eq!(world.kernel, before);
}

#[test]
fn leaving_leaves_a_default_route_where_nobody_else_has_one() {
    let mut config = config(vec![wan(1, 1, 1), wan(2, 2, 1)]);
    config.wans[0].gateway = Gateway::Address(Ipv4Addr::new(192, 168, 1, 1));
    let mut world = World::new(config, 2);
    world.kernel.routes.retain(|r| r.family == Family::Ipv6);
    world.seconds(5);
    world.engine.handle(Event::Leave, world.now);
    world.turn();
    assert!(world.engine.left());
    let left: Vec<_> = world.kernel.routes.iter().filter(|r| r.family == Family::Ipv4).collect();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].table, left[0].protocol), (TableId::MAIN, 4));
}

#[test]
fn a_step_that_fails_is_tried_again_ever_more_rarely_and_becomes_a_problem() {
    let mut world = World::new(config(vec![wan(1, 1, 1)]), 1);
    let mut tries = 0;
    for _ in 0..600 {
        world.tell_facts();
        world.engine.advance(world.now);
        while let Some(step) = world.engine.poll_step() {
            if matches!(step, Step::ReplaceTable { .. }) {
                tries += 1;
                let error = "nft is not there".to_owned();
                world.engine.handle(Event::StepFailed { step, error }, world.now);
            } else {
                expect(&mut world.kernel, &step);
            }
        }
        world.now = world.now + Duration::from_millis(100);
    }
    assert!((8..=12).contains(&tries), "{tries} tries in a minute");
    let status = world.engine.status(&|_| String::new());
    let found = status.problems.iter().find(|p| p.code == "step.failed").unwrap();
    assert_eq!(found.what, "nft is not there");
}

#[test]
fn sixty_wans_with_twenty_flapping_stay_correct_and_bounded() {
    let wans = (1..=60).map(|n| wan(n, 1 + n / 20, 1)).collect();
    let mut world = World::new(config(wans), 60);
    world.seconds(3);
    for round in 0..10_u8 {
        for n in 1..=20 {
            world.set_link(n, |link| link.carrier = round % 2 == 1);
        }
        world.carried_out.clear();
        world.seconds(1);
        assert!(world.carried_out.len() < 140, "{} steps", world.carried_out.len());
    }
    let rules = world.kernel.rules.iter().filter(|r| r.family == Family::Ipv4).count();
    assert!(rules < 200, "{rules} rules");
    world.seconds(400);
    assert_eq!(world.serving(Family::Ipv4), (1..20).collect::<Vec<u8>>());
}

#[test]
fn a_family_without_targets_is_judged_by_its_link() {
    let mut config = config(vec![wan(1, 1, 1)]);
    config.wans[0].health.targets.retain(|t| t.serves(Family::Ipv4));
    let mut world = World::new(config, 1);
    world.alive.clear();
    world.seconds(5);
    assert!(world.serving(Family::Ipv4).is_empty());
    assert_eq!(world.serving(Family::Ipv6), [1]);
    assert_eq!(world.engine.state_of(WanId(1), Family::Ipv6), State::Up);
    world.set_link(1, |link| link.carrier = false);
    world.seconds(1);
    assert!(world.serving(Family::Ipv6).is_empty());
    world.set_link(1, |link| link.carrier = true);
    world.seconds(11);
    assert_eq!(world.engine.state_of(WanId(1), Family::Ipv6), State::Up);
}

#[test]
fn a_gateway_whose_hardware_address_is_forgotten_is_still_told_from_the_lan() {
    let mut config = config(vec![wan(1, 1, 1)]);
    config.wans[0].interface = "eth0".to_owned();
    let via = Ipv4Addr::new(192, 168, 1, 1);
    config.wans[0].gateway = Gateway::Address(via);
    let mut world = World::new(config, 1);
    let own: Vec<Address> = world.kernel.addresses.iter().cloned().collect();
    world.kernel.addresses = own.into_iter().map(|a| Address { device: IfIndex(2), ..a }).collect();
    let neighbour = Neighbour { device: IfIndex(2), address: via.into() };
    world.kernel.neighbours.insert(neighbour, Mac([2, 0, 0, 0, 0, 1]));
    world.seconds(2);
    let key = Key::DeviceMac(2, Mac([2, 0, 0, 0, 0, 1]));
    assert_eq!(world.kernel.nft.maps["from_shared"][&key], "from1");
    world.kernel.neighbours.clear();
    world.seconds(2);
    assert_eq!(world.kernel.nft.maps["from_shared"][&key], "from1");
    world.kernel.neighbours.insert(neighbour, Mac([2, 0, 0, 0, 0, 9]));
    world.seconds(2);
    assert_eq!(world.kernel.nft.maps["from_shared"].len(), 1);
    assert!(!world.kernel.nft.maps["from_shared"].contains_key(&key));
}

#[test]
fn a_family_that_a_wan_lacks_is_unknown_again_when_its_carrier_is_back() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.kernel.addresses.retain(|a| a.device != IfIndex(11) || a.address.is_ipv4());
    world.seconds(5);
    world.set_link(1, |link| link.carrier = false);
    world.seconds(1);
    world.set_link(1, |link| link.carrier = true);
    world.seconds(1);
    assert_eq!(world.engine.state_of(WanId(1), Family::Ipv6), State::Unknown);
    let mut world = world.restarted();
    world.seconds(15);
    assert_eq!(world.engine.state_of(WanId(1), Family::Ipv6), State::Unknown);
    assert_eq!(world.engine.status(&|_| String::new()).problems, []);
}

#[test]
fn with_all_wans_down_answers_to_probes_still_have_a_way_back() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.alive.clear();
    world.seconds(10);
    assert!(world.serving(Family::Ipv4).is_empty());
    for family in Family::BOTH {
        let routes = world.kernel.routes.iter().filter(|r| r.family == family);
        let balance = routes.filter(|r| !r.hops.is_empty());
        assert_eq!(balance.filter(|r| r.table == TableId(17000)).count(), 2);
    }
}

#[test]
fn flows_that_began_without_the_table_are_looked_for_when_it_is_back() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(5);
    assert_eq!(world.searches, 0, "a first start leaves flows that exist alone");
    world.kernel.nft = Nft::default();
    world.seconds(5);
    assert_eq!(world.searches, 2, "once for each family");
    world.kernel.nft.structure = Structure::Altered;
    world.seconds(5);
    assert_eq!(world.searches, 4);
    world.kernel.nft = Nft::default();
    let mut world = world.restarted();
    world.seconds(5);
    assert_eq!(world.searches, 6, "the rules tell that there was a table");
}
