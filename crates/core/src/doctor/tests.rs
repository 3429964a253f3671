//! What is found on machines that differ in one thing from a sound one.

use std::net::Ipv4Addr;

use super::*;
use crate::names::TableId;
use crate::observed::{Hop, Link, Route};

const FILE: &str = r#"
[[lan]]
interface = "eth0"
[[wan]]
name = "dsl"
interface = "eth1"
"#;

fn config() -> Config {
    crate::config::parse_bytes(FILE.as_bytes()).expect("a good file")
}

fn give(machine: &mut Machine, index: u32, name: &str, address: [u8; 4], prefix: u8) {
    let link = Link {
        name: name.to_owned(),
        up: true,
        carrier: true,
        point_to_point: false,
        mtu: 1500,
        ..Link::default()
    };
    machine.observed.links.insert(IfIndex(index), link);
    let own = |address: &Address| address.device == IfIndex(index);
    machine.observed.addresses.retain(|address| !own(address));
    machine.observed.addresses.insert(Address {
        device: IfIndex(index),
        address: Ipv4Addr::from(address).into(),
        prefix,
        peer: None,
        global: true,
        deprecated: false,
        ours: false,
        until: None,
    });
}

/// A Debian 12 with a LAN on eth0 and a WAN on eth1.
fn sound() -> Machine {
    let mut machine = Machine {
        release: "6.1.0-26-amd64".to_owned(),
        programs: BTreeSet::from(["systemd".to_owned(), "sshd".to_owned()]),
        flows: Some((100, 65536)),
        clock: CLOCK_MIN + 1,
        ..Machine::default()
    };
    give(&mut machine, 2, "eth0", [192, 168, 1, 1], 24);
    give(&mut machine, 3, "eth1", [203, 0, 113, 2], 24);
    machine.observed.routes.insert(Route {
        family: Family::Ipv4,
        table: TableId::MAIN,
        to: None,
        metric: 100,
        protocol: 16,
        hops: vec![Hop {
            device: IfIndex(3),
            via: Some(Ipv4Addr::new(203, 0, 113, 1).into()),
            weight: 1,
        }],
    });
    machine
}

/// What is found once `change` has happened to a sound machine, as "grade code".
fn after(change: impl FnOnce(&mut Machine)) -> Vec<String> {
    let mut machine = sound();
    change(&mut machine);
    let found = examine(&machine, Some(&config()));
    found.iter().map(|f| format!("{:?} {}", f.grade, f.problem.code)).collect()
}

#[test]
fn a_sound_machine_has_nothing() {
    assert_eq!(examine(&sound(), Some(&config())), []);
    let found = examine(&sound(), None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].problem.code, "config.missing");
}

#[test]
fn the_kernel_must_be_new_enough_and_take_our_rules() {
    let old = |release: &str| after(|m| m.release = release.to_owned());
    for release in ["5.10.0-33-amd64", "6.0.7", "6.0"] {
        assert_eq!(old(release), ["Wrong kernel.too-old"], "{release}");
    }
    for release in ["6.1", "6.12.48+deb13-arm64", "7.0-rc1", "10.0.0", "what?"] {
        assert_eq!(old(release), [""; 0], "{release}");
    }
    let refused = after(|m| m.rules_refused = Some("Error: no such expression".to_owned()));
    assert_eq!(refused, ["Wrong kernel.refuses-rules"]);
}

#[test]
fn nearly_as_many_flows_as_there_may_be_are_too_many() {
    assert_eq!(after(|m| m.flows = Some((58_981, 65_536))), ["Wrong flows.full"]);
    assert_eq!(after(|m| m.flows = Some((58_976, 65_536))), [""; 0]);
    assert_eq!(after(|m| m.flows = None), [""; 0]);
}

#[test]
fn a_clock_that_was_never_set_is_seen() {
    assert_eq!(after(|m| m.clock = 1_700), ["Wrong clock.not-set"]);
    assert_eq!(after(|m| m.clock_kept = Some(false)), ["Note clock.not-kept"]);
    assert_eq!(after(|m| m.clock_kept = Some(true)), [""; 0]);
}

#[test]
fn rivals_are_named_once() {
    let both = ["mwan3track", "mwan3rtmon"].map(str::to_owned);
    assert_eq!(after(|m| m.programs.extend(both)), ["Wrong rival.program"]);
}

#[test]
fn networkd_must_be_told_to_leave_our_rules_alone() {
    let told = |texts: &[&str]| {
        after(|m| {
            m.programs.insert(NETWORKD.to_owned());
            m.networkd = texts.iter().map(|text| (*text).to_owned()).collect();
        })
    };
    let wrong = ["Wrong rival.networkd"];
    assert_eq!(told(&[]), wrong);
    assert_eq!(told(&["[Network]\n#ManageForeignRoutingPolicyRules=no\n"]), wrong);
    assert_eq!(told(&["[DHCPv4]\nManageForeignRoutingPolicyRules=no\n"]), wrong);
    assert_eq!(told(&["[Network]\nManageForeignRoutingPolicyRules = no\n"]), [""; 0]);
    let (no, yes) = (
        "[Network]\nManageForeignRoutingPolicyRules=False",
        "[Network]\nManageForeignRoutingPolicyRules=yes",
    );
    assert_eq!(told(&[no, yes]), wrong, "the last one holds");
    assert_eq!(told(&[yes, no]), [""; 0]);
}

#[test]
fn other_firewalls_are_noted() {
    let chain = "ip filter FORWARD".to_owned();
    let found = after(|m| {
        m.dropping.insert(chain);
        m.legacy_iptables = true;
    });
    assert_eq!(found, ["Note firewall.drops-forwarded", "Note firewall.legacy"]);
}

#[test]
fn a_missing_interface_is_told_with_those_there_are() {
    let mut machine = sound();
    machine.observed.links.remove(&IfIndex(3));
    let found = examine(&machine, Some(&config()));
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(finding.problem.code, "interface.missing");
    assert_eq!(finding.problem.at, "wan dsl");
    assert!(finding.problem.hint.contains("eth0"), "{finding:?}");
}

#[test]
fn a_wan_without_address_or_gateway_is_not_ready() {
    assert_eq!(after(|m| m.observed.routes.clear()), ["Wrong wan.not-ready"]);
    let without = after(|m| m.observed.addresses.retain(|a| a.device != IfIndex(3)));
    assert_eq!(without, ["Wrong wan.not-ready"]);
}

#[test]
fn a_translated_address_is_noted() {
    for address in [[10, 0, 0, 2], [192, 168, 8, 100], [172, 16, 0, 2], [100, 64, 0, 2]] {
        assert_eq!(after(|m| give(m, 3, "eth1", address, 24)), ["Note wan.double-nat"]);
    }
    for address in [[100, 128, 0, 2], [172, 32, 0, 2], [8, 8, 8, 8]] {
        assert_eq!(after(|m| give(m, 3, "eth1", address, 24)), [""; 0], "{address:?}");
    }
}

#[test]
fn a_wan_with_the_lans_network_is_wrong() {
    let same = ["Wrong wan.same-network", "Note wan.double-nat"];
    assert_eq!(after(|m| give(m, 3, "eth1", [192, 168, 1, 7], 24)), same);
    assert_eq!(after(|m| give(m, 3, "eth1", [192, 168, 7, 7], 16)), same, "a wider one");
    let other = after(|m| give(m, 3, "eth1", [192, 168, 2, 7], 24));
    assert_eq!(other, ["Note wan.double-nat"]);
}

#[test]
fn a_strict_path_filter_is_wrong_once_we_steer() {
    let strict = |m: &mut Machine, of: &str, value: &str| {
        let path = format!("net/ipv4/conf/{of}/rp_filter");
        m.observed.sysctls.insert(path, value.to_owned());
    };
    for of in ["all", "eth1"] {
        assert_eq!(after(|m| strict(m, of, "1")), ["Note wan.strict-path-filter"]);
        let steering = after(|m| {
            strict(m, of, "1");
            m.observed.nft.structure = Structure::Intact(1);
        });
        assert_eq!(steering, ["Wrong wan.strict-path-filter"]);
    }
    let loose = after(|m| {
        strict(m, "all", "1");
        strict(m, "eth1", "2");
    });
    assert_eq!(loose, [""; 0], "the larger of the two holds");
}

#[test]
fn whoever_answers_dns_where_dnsmasq_is_to_answer_is_seen() {
    let mut machine = sound();
    let holders =
        [("0.0.0.0", "named"), ("127.0.0.53", "systemd-resolve"), ("192.168.1.1", "unbound")];
    machine.dns_holders = holders
        .map(|(address, name)| (address.parse().expect("an address"), name.to_owned()))
        .into();
    assert_eq!(examine(&machine, Some(&config())), [], "it is none of our business");
    let mut config = config();
    config.dns = Some(crate::config::Dns {
        upstreams: Vec::new(),
        cache: 0,
        domain: "lan".to_owned(),
        hosts: Vec::new(),
        resolv_conf: true,
    });
    let found = examine(&machine, Some(&config));
    let named: Vec<&str> = found.iter().map(|f| f.problem.at.as_str()).collect();
    assert_eq!(named, ["named", "unbound"], "{found:?}");
}

/// As on a Raspberry Pi 4: eth1 is behind USB, whose interrupt cannot leave the first CPU.
#[test]
fn the_doctor_tells_who_does_the_work_and_who_should() {
    use crate::observed::{Core, CpuFile, CpuSet, Irq, Nic};
    let mut machine = sound();
    let cpus = &mut machine.observed.cpus;
    cpus.usable = (0..4).map(|cpu| (cpu, Core::default())).collect();
    let fixed = Irq { queue: None, fixed: Some(CpuSet([0].into())) };
    let usb = Nic {
        hardware: true,
        receive: 1,
        transmit: 1,
        irqs: [(41, fixed)].into(),
        ..Nic::default()
    };
    cpus.nics.insert("eth1".to_owned(), usb);
    let receive = CpuFile::Receive { device: "eth1".to_owned(), queue: 0 };
    cpus.files.insert(receive.clone(), "0".to_owned());
    let told = |machine: &Machine, config: &Config| -> Vec<String> {
        let lines = placement(machine, config).lines.into_iter();
        lines
            .map(|line| {
                let wanted = line.wanted.unwrap_or_else(|| "-".to_owned());
                format!("{} {}: {}, {wanted}, {}", line.interface, line.what, line.now, line.fixed)
            })
            .collect()
    };
    let interrupt = "eth1 interrupt 41: CPU 0, -, true";
    let handed = "eth1 receive queue 0, handed on (RPS)";
    let idle = [interrupt.to_owned(), format!("{handed}: no CPU, CPU 1-3, false")];
    assert_eq!(told(&machine, &config()), idle);
    let left = Config { cpu: crate::config::Cpu::Off, ..config() };
    assert_eq!(told(&machine, &left)[1], format!("{handed}: no CPU, -, false"));
    machine.observed.cpus.files.insert(receive, "e".to_owned());
    assert_eq!(told(&machine, &config())[1], format!("{handed}: CPU 1-3, -, false"));
    assert_eq!(placement(&machine, &config()).cpus, "0-3");
}
