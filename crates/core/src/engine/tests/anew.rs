//! A daemon that starts again, and one that gets another configuration.

use super::*;
use crate::config::{Line, Modem, Password, Ppp};
use crate::names::Secret;
use crate::observed::{ChildEnd, Lease};

/// Two WANs that share the load and have flows, and the file without the second.
fn with_flows_by_both() -> (World, Config) {
    let mut less = config(vec![wan(1, 1, 1), wan(2, 1, 1)]);
    let mut world = World::new(less.clone(), 2);
    world.seconds(5);
    world.flows = 3;
    less.wans.remove(1);
    (world, less)
}

#[test]
fn a_wan_taken_out_of_the_file_keeps_its_flows_until_the_last_is_over() {
    let (mut world, less) = with_flows_by_both();
    world.engine.handle(Event::Config(Box::new(less)), world.now);
    world.seconds(30);
    assert_eq!(world.slot_chains("slots4"), BTreeSet::from(["place1"]));
    assert_eq!(world.kernel.nft.maps["restore4"][&Key::Number(0x200_0000)], "keep4_2");
    assert!(world.kernel.routes.iter().any(|r| r.table == TableId(17002)));
    assert_eq!(world.kernel.nft.maps["from_wan"][&Key::Number(12)], "from2");
    assert!(!world.kernel.nft.maps["out_by4"].contains_key(&Key::Number(12)));
    assert_eq!(world.engine.status(&|_| String::new()).wans.len(), 1);
    let mut world = world.restarted();
    world.seconds(5);
    assert_eq!(world.kernel.nft.maps["restore4"][&Key::Number(0x200_0000)], "keep4_2");
    world.flows = 0;
    world.seconds(30);
    assert!(!world.kernel.nft.maps["restore4"].contains_key(&Key::Number(0x200_0000)));
    assert!(!world.kernel.routes.iter().any(|r| r.table == TableId(17002)));
}

#[test]
fn a_wan_taken_out_of_the_file_before_a_start_retires_too() {
    let (world, less) = with_flows_by_both();
    let mut world = world.restarted_with(less);
    world.seconds(5);
    assert_eq!(world.slot_chains("slots4"), BTreeSet::from(["place1"]));
    assert_eq!(world.kernel.nft.maps["restore4"][&Key::Number(0x200_0000)], "keep4_2");
    world.flows = 0;
    world.seconds(30);
    assert!(!world.kernel.nft.maps["restore4"].contains_key(&Key::Number(0x200_0000)));
    let mut world = world.restarted();
    world.seconds(1);
    assert_eq!(world.engine.kept().retiring, []);
}

#[test]
fn the_last_wan_of_a_family_keeps_its_flows_when_it_retires() {
    let all = config(vec![wan(1, 1, 1), wan(2, 2, 1)]);
    let mut world = World::new(all.clone(), 2);
    // Only the first has IPv6.
    world.kernel.addresses.retain(|a| a.device != IfIndex(12) || a.address.is_ipv4());
    world.kernel.routes.retain(|r| r.family == Family::Ipv4 || r.hops[0].device != IfIndex(12));
    world.seconds(5);
    assert_eq!(world.serving(Family::Ipv6), [1]);
    world.flows = 3;
    let mut less = all;
    less.wans.remove(0);
    world.engine.handle(Event::Config(Box::new(less)), world.now);
    world.seconds(5);
    let of_the_first = |world: &World| {
        let mut ipv6 = world.kernel.rules.iter().filter(|r| r.family == Family::Ipv6);
        ipv6.any(|rule| format!("{rule:?}").contains("17001"))
    };
    assert!(of_the_first(&world), "{:?}", world.kernel.rules);
    assert_eq!(world.kernel.sysctls["net/ipv6/conf/all/forwarding"], "1");
    world.flows = 0;
    world.seconds(30);
    assert!(!of_the_first(&world));
}

#[test]
fn a_family_that_is_given_up_is_left_to_others_at_once() {
    let mut config = config(vec![wan(1, 1, 1)]);
    let mut world = World::new(config.clone(), 1);
    world.seconds(5);
    let ipv6 = |world: &World| world.kernel.rules.iter().any(|r| r.family == Family::Ipv6);
    assert!(ipv6(&world));
    config.wans[0].gateway6 = Gateway::Off;
    world.engine.handle(Event::Config(Box::new(config.clone())), world.now);
    world.seconds(5);
    assert!(!ipv6(&world), "{:?}", world.kernel.rules);
    // Also where another WAN, which had it, retires.
    let mut world = World::new(self::config(vec![wan(1, 1, 1)]), 1);
    world.seconds(5);
    world.flows = 3;
    config.wans[0].name = "other".to_owned();
    world.engine.handle(Event::Config(Box::new(config)), world.now);
    world.seconds(5);
    assert!(!ipv6(&world), "{:?}", world.kernel.rules);
}

#[test]
fn a_wan_under_another_name_has_its_interface_and_what_retires_shares_it() {
    let mut world = World::new(config(vec![wan(1, 1, 1)]), 1);
    world.set_link(1, |link| link.mac = Some(Mac([2, 0, 0, 0, 0, 7])));
    world.seconds(5);
    world.flows = 3;
    let interface = "mac:02:00:00:00:00:07".to_owned();
    let renamed = Wan { name: "fibre".to_owned(), interface, ..wan(1, 1, 1) };
    world.alive.insert(WanId(2));
    let mut world = world.restarted_with(config(vec![renamed]));
    world.seconds(5);
    assert_eq!(world.serving(Family::Ipv4), [2]);
    assert_eq!(world.engine.config.retiring[0].interface, "wan1");
    assert_eq!(world.kernel.nft.maps["restore4"][&Key::Number(0x100_0000)], "keep4_1");
    // The other way round.
    let mut world = world.restarted_with(config(vec![wan(1, 1, 1)]));
    world.seconds(5);
    assert_eq!(world.serving(Family::Ipv4), [1]);
    assert_eq!(world.engine.config.retiring[0].interface, "wan1");
}

#[test]
fn who_is_configured_gets_a_number_before_who_retires() {
    let mut few = config(vec![wan(1, 1, 1), wan(2, 1, 1)]);
    few.router.mark_field = MarkField::new(0x0700_0000).unwrap();
    let mut world = World::new(few.clone(), 2);
    world.seconds(1);
    world.flows = 3;
    few.wans[1].name = "other".to_owned();
    let mut world = world.restarted_with(few);
    world.seconds(1);
    assert_eq!(world.serving(Family::Ipv4), [1, 2]);
    assert_eq!(world.engine.kept().retiring, []);
}

#[test]
fn what_retires_is_given_no_address_and_no_link() {
    let mut all = config(vec![wan(1, 1, 1), wan(2, 1, 1)]);
    all.wans[1].address = Addressing::Static(vec!["192.0.2.10/24".parse().unwrap()]);
    all.wans[1].gateway = Gateway::Address(Ipv4Addr::new(192, 0, 2, 1));
    let mut world = World::new(all.clone(), 2);
    world.seconds(1);
    let own = |world: &World| world.kernel.addresses.iter().filter(|a| a.ours).count();
    assert_eq!(own(&world), 1);
    // As after a boot.
    world.kernel = kernel(2);
    world.set_link(2, |link| link.up = false);
    all.wans.remove(1);
    let mut world = world.restarted_with(all);
    world.seconds(1);
    assert_eq!(own(&world), 0);
    assert!(!world.kernel.links[&IfIndex(12)].up);
}

#[test]
fn an_address_of_two_wans_is_there_once_for_as_long_as_either_has_it() {
    let mut of_now = wan(1, 1, 1);
    of_now.address = Addressing::Dhcp;
    let former = Wan { name: "former".to_owned(), ..of_now.clone() };
    let mut world = World::new(config(vec![former]), 1);
    world.turn();
    world.engine.handle(Event::Config(Box::new(config(vec![of_now]))), world.now);
    world.turn();
    assert_eq!(world.engine.config.retiring.len(), 1);
    let at = |seconds| Some(Moment::from_start(Duration::from_secs(seconds)));
    world.engine.observed.addresses.insert(Address {
        device: IfIndex(11),
        address: lease().address.into(),
        prefix: 24,
        peer: None,
        global: true,
        deprecated: false,
        ours: true,
        until: at(100),
    });
    for (number, until) in [(1, at(100)), (2, at(3_700))] {
        let lease = Lease { until, ..lease() };
        world.engine.observed.leases.insert(WanId(number), lease);
    }
    let own = desired::desire(world.engine.basis()).addresses;
    assert_eq!(own.iter().map(|own| own.until).collect::<Vec<_>>(), [at(3_700)]);
    world.engine.observed.leases.insert(WanId(1), Lease { until: None, ..lease() });
    let own = desired::desire(world.engine.basis()).addresses;
    assert_eq!(own.iter().map(|own| own.until).collect::<Vec<_>>(), [None]);
}

/// PPPoE over wan1's link.
fn dsl(secret_file: &str) -> Ppp {
    Ppp {
        line: Line::Ethernet { interface: "wan1".to_owned(), service: String::new() },
        user: "me".to_owned(),
        password: Password::File(secret_file.to_owned()),
        mtu: None,
        on_demand: false,
        reset_command: String::new(),
    }
}

fn lease() -> Lease {
    Lease {
        address: Ipv4Addr::new(10, 0, 0, 5),
        prefix: 24,
        gateway: None,
        dns: Vec::new(),
        domain: None,
        mtu: None,
        routes: Vec::new(),
        server: Ipv4Addr::new(10, 0, 0, 1),
        via: Mac([2, 0, 0, 0, 0, 1]),
        until: None,
    }
}

#[test]
fn the_program_that_sends_a_pin_is_told_from_others() {
    let mut dialled = wan(1, 1, 1);
    dialled.interface = "ppp-umts".to_owned();
    let modem = Modem {
        device: "/dev/ttyUSB0".to_owned(),
        speed: 115_200,
        apn: String::new(),
        number: "*99#".to_owned(),
        pin: Secret::new("1234"),
        init: Vec::new(),
        reset: String::new(),
        reset_usb: String::new(),
    };
    dialled.ppp = Some(Ppp { line: Line::Modem(modem), password: Password::None, ..dsl("") });
    let mut world = World::new(config(vec![dialled]), 1);
    world.dialling.devices.insert("/dev/ttyUSB0".to_owned());
    let starts = |world: &World| {
        let steps = world.carried_out.iter();
        let starts = steps.filter(|step| matches!(step, Step::StartChild { .. }));
        starts.map(|step| world.engine.sends_a_pin(step)).collect::<Vec<_>>()
    };
    world.seconds(1);
    assert_eq!(starts(&world), [false]);
    world.carried_out.clear();
    world.kernel.children.clear();
    let end = ChildEnd {
        name: "ppp-wan1".to_owned(),
        status: Some(8),
        signal: None,
        said: "Failed (SIM PIN)".to_owned(),
        lived: Duration::from_secs(1),
    };
    world.engine.handle(Event::ChildEnded(end), world.now);
    world.seconds(5);
    assert_eq!(starts(&world), [true]);
}

#[test]
fn a_line_whose_password_is_in_a_file_is_not_hung_up_by_a_restart() {
    let file = "/etc/anywan/dsl";
    let mut dialled = wan(1, 1, 1);
    dialled.interface = "ppp-dsl".to_owned();
    dialled.ppp = Some(dsl(file));
    let mut world = World::new(config(vec![dialled]), 1);
    world.dialling.secrets.insert(file.to_owned(), Ok(Secret::new("hunter2")));
    world.seconds(2);
    assert!(world.kernel.children.contains_key("ppp-wan1"), "{:?}", world.carried_out);
    let children = |world: &World| {
        let of_children = world.carried_out.iter().filter(|step| step.is_of_children());
        of_children.map(ToString::to_string).collect::<Vec<_>>()
    };
    world.carried_out.clear();
    let mut world = world.restarted();
    world.seconds(2);
    assert_eq!(children(&world), [""; 0]);
    // Nor where the file has gone meanwhile.
    world.dialling.secrets.insert(file.to_owned(), Err("it is gone".to_owned()));
    let mut world = world.restarted();
    world.seconds(2);
    assert_eq!(children(&world), [""; 0]);
    let problems = world.engine.status(&|_| String::new()).problems;
    assert!(problems.iter().any(|p| p.code == "dial.secret-file"), "{problems:?}");
    // Another password is another program.
    world.dialling.secrets.insert(file.to_owned(), Ok(Secret::new("hunter3")));
    world.seconds(40);
    assert!(!children(&world).is_empty());
}
