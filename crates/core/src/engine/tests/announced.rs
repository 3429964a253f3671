//! Resolvers that routers announce.

use super::resolv_conf::serving_names;
use super::*;

const LINK: IfIndex = IfIndex(11);

fn ip(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, last)
}

fn announce(world: &mut World, last: u16, seconds: Option<u64>) {
    let lives = seconds.map(Duration::from_secs);
    let event = Event::Announced { device: LINK, resolvers: vec![ip(last)], lives };
    world.engine.handle(event, world.now);
    world.turn();
}

fn known(world: &World) -> Vec<String> {
    world.engine.resolving.known.keys().map(|(_, address)| address.to_string()).collect()
}

fn house() -> World {
    let mut world = World::new(serving_names(), 1);
    world.seconds(1);
    assert_eq!(known(&world), ["192.168.1.1"], "the gateway, where nobody else is known");
    world
}

#[test]
fn an_announced_resolver_is_known_for_as_long_as_it_says() {
    let mut world = house();
    announce(&mut world, 0x53, Some(60));
    assert_eq!(known(&world), ["2001:db8:99::53"]);
    world.seconds(50);
    announce(&mut world, 0x53, Some(60));
    world.seconds(50);
    assert_eq!(known(&world), ["2001:db8:99::53"], "it was heard again");
    world.seconds(11);
    assert_eq!(known(&world), ["192.168.1.1"]);
    announce(&mut world, 0x53, None);
    world.seconds(100_000);
    assert_eq!(known(&world), ["2001:db8:99::53"], "for ever");
    announce(&mut world, 0x53, Some(0));
    assert_eq!(known(&world), ["192.168.1.1"], "taken back");
}

#[test]
fn it_stands_beside_a_leases_and_behind_what_is_written() {
    let mut world = house();
    announce(&mut world, 0x53, Some(6000));
    let seen = std::collections::BTreeMap::from([(
        "wan1".to_owned(),
        vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 53))],
    )]);
    world.engine.handle(Event::Resolvers(seen), world.now);
    world.turn();
    assert_eq!(known(&world), ["10.0.0.53", "2001:db8:99::53"]);
    let mut written = serving_names();
    written.wans[0].dns = vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 54))];
    world.engine.handle(Event::Config(Box::new(written)), world.now);
    world.seconds(1);
    assert_eq!(known(&world), ["10.0.0.54"]);
}

#[test]
fn with_its_link_it_is_forgotten_and_a_flood_is_bounded() {
    let mut world = house();
    for last in 1..=100 {
        announce(&mut world, last, Some(60_000));
    }
    assert_eq!(known(&world).len(), 8);
    let link = world.kernel.links.remove(&LINK).expect("it was there");
    world.seconds(1);
    assert!(world.engine.observed.resolvers.announced.is_empty());
    world.kernel.links.insert(IfIndex(99), link);
    let event = Event::Announced { device: LINK, resolvers: vec![ip(1)], lives: None };
    world.engine.handle(event, world.now);
    world.seconds(1);
    assert!(world.engine.observed.resolvers.announced.is_empty(), "of a link that is no WAN's");
}

#[test]
fn a_new_daemon_asks_routers_three_times_at_most() {
    let mut world = house();
    world.seconds(100);
    assert_eq!(world.solicited, 3);
    let mut world = house();
    announce(&mut world, 0x53, Some(60_000));
    world.seconds(100);
    assert_eq!(world.solicited, 1, "one that has answered is not asked again");
    let mut other = World::new(config(vec![wan(1, 1, 1)]), 1);
    other.seconds(100);
    assert_eq!(other.solicited, 0, "no names are served");
}
