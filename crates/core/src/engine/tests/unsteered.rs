//! What becomes of flows that end while somebody has taken away what steers them.

use super::*;

/// Three hosts behind the first WAN: one flow is translated to the WAN's address, one to an address
/// that is not ours, one not at all.
fn flows(world: &World) -> [TcpFlow; 3] {
    let client: IpAddr = Ipv4Addr::new(192, 168, 9, 7).into();
    let own = world.kernel.addresses.iter().map(|a| a.address);
    let own = own.filter(|a| Family::of(*a) == Family::Ipv4 && !a.is_loopback());
    let own = own.max().expect("a WAN has an address");
    let mark = MarkField::default().flows(WanId(1)).0;
    [own, Ipv4Addr::new(203, 0, 113, 9).into(), client].map(|outside| TcpFlow {
        family: Family::Ipv4,
        client: (client, 40000).into(),
        server: (Ipv4Addr::new(198, 51, 100, 1), 443).into(),
        outside,
        mark,
    })
}

impl World {
    fn gone(&mut self, flow: TcpFlow) {
        self.engine.handle(Event::Gone(vec![flow]), self.now);
        self.run(Duration::from_millis(100));
    }
}

fn settled() -> World {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(10);
    world
}

/// What somebody takes away, in words.
type Taking = (&'static str, fn(&mut Observed));

#[test]
fn those_that_are_translated_are_refused() {
    let takings: [Taking; 4] = [
        ("all rules", |k| k.rules.clear()),
        ("a route", |k| k.routes.retain(|r| r.table != TableId(17001))),
        ("the table", |k| k.nft = Nft::default()),
        ("an element", |k| drop(k.nft.maps.get_mut("restore4").unwrap().pop_first())),
    ];
    for (what, take) in takings {
        for before in [false, true] {
            let mut world = settled();
            let [translated, _, plain] = flows(&world);
            if before {
                // News of the end may come seconds before the news of the reason.
                world.gone(translated);
                world.gone(plain);
                world.seconds(14);
                assert_eq!(world.refused, [], "{what}");
            }
            take(&mut world.kernel);
            world.run(Duration::from_millis(100));
            if !before {
                world.gone(translated);
                world.gone(plain);
            }
            assert_eq!(world.refused, [translated], "{what}, told before: {before}");
        }
    }
}

#[test]
fn those_that_end_at_other_times_are_left_alone() {
    let mut world = settled();
    let [translated, abroad, _] = flows(&world);
    world.gone(translated);
    world.seconds(31);
    world.kernel.rules.clear();
    world.seconds(31);
    world.gone(translated);
    world.seconds(31);
    assert_eq!(world.refused, []);
    world.gone(abroad);
    assert_eq!(world.refused, [abroad], "its address is not ours");
}

#[test]
fn what_is_repaired_and_steers_nothing_ends_no_flow() {
    let mut world = settled();
    let [translated, ..] = flows(&world);
    *world.kernel.sysctls.get_mut("net/ipv4/ip_forward").unwrap() = "0".to_owned();
    world.happenings.clear();
    world.run(Duration::from_millis(100));
    assert!(world.happenings.iter().any(|h| h.kind == "repair"), "{:?}", world.happenings);
    world.gone(translated);
    assert_eq!(world.refused, []);
}

#[test]
fn those_that_end_while_a_repair_does_not_succeed_are_refused_once_it_has() {
    let mut world = settled();
    let [translated, ..] = flows(&world);
    world.kernel.nft = Nft::default();
    let end = world.now + Duration::from_secs(20);
    let mut told = false;
    while world.now < end {
        world.tell_facts();
        world.engine.advance(world.now);
        while let Some(step) = world.engine.poll_step() {
            let error = "no memory".to_owned();
            world.engine.handle(Event::StepFailed { step, error }, world.now);
            world.engine.advance(world.now);
        }
        if world.now + Duration::from_secs(10) >= end && !told {
            told = true;
            world.engine.handle(Event::Gone(vec![translated]), world.now);
        }
        while let Some(ask) = world.engine.poll_ask() {
            world.take_ask(ask);
        }
        let next = world.engine.poll_deadline().expect("it is tried again");
        assert!(next > world.now, "it does not spin");
        world.now = world.now + Duration::from_millis(100);
    }
    assert_eq!(world.refused, [], "nobody can be refused without a table");
    world.seconds(20);
    assert_eq!(world.refused, [translated]);
}

#[test]
fn what_could_not_be_refused_is_refused_again_and_given_up_in_the_end() {
    let mut world = settled();
    let [_, abroad, _] = flows(&world);
    world.gone(abroad);
    assert_eq!(world.refused, [abroad]);
    world.engine.handle(Event::NotRefused(vec![abroad]), world.now);
    world.run(Duration::from_millis(50));
    assert_eq!(world.refused.len(), 1, "not at once: the table may have gone");
    world.kernel.nft = Nft::default();
    world.seconds(1);
    assert_eq!(world.refused, [abroad, abroad]);
    for _ in 0..20 {
        world.engine.handle(Event::NotRefused(vec![abroad]), world.now);
        world.seconds(20);
    }
    world.seconds(60);
    assert_eq!(world.refused.len(), 2 + 20 - 2, "one in eight failures is the last");
}

#[test]
fn a_table_that_is_loaded_anew_refuses_them_too() {
    let mut world = settled();
    let [_, abroad, _] = flows(&world);
    world.gone(abroad);
    world.seconds(25);
    assert_eq!(world.refused, [abroad]);
    world.kernel.nft.structure = Structure::Altered;
    world.seconds(1);
    assert_eq!(world.refused, [abroad, abroad]);
    world.seconds(31);
    world.kernel.nft = Nft::default();
    world.seconds(1);
    assert_eq!(world.refused.len(), 2, "whoever was to hear of it has heard");
}

#[test]
fn when_the_table_is_back_all_clients_are_called_and_those_of_a_lost_wan_as_ever() {
    let mut world = settled();
    assert_eq!(world.woken, [], "a first start calls nobody");
    world.kernel.nft = Nft::default();
    world.seconds(10);
    let all = [1, 2].map(|wan| Family::BOTH.map(|family| (WanId(wan), family)));
    let all: BTreeSet<_> = all.into_iter().flatten().collect();
    assert_eq!(world.woken.len(), 2 * all.len(), "twice: a call may be lost");
    assert_eq!(world.woken.drain(..).collect::<BTreeSet<_>>(), all);
    world.alive.remove(&WanId(1));
    world.seconds(20);
    world.woken.clear();
    world.kernel.nft = Nft::default();
    world.seconds(5);
    assert!(world.woken.iter().all(|(wan, _)| *wan == WanId(2)), "{:?}", world.woken);
}

#[test]
fn clients_of_a_wan_that_is_back_are_called_no_more() {
    let asleep = |world: &World| -> BTreeSet<Family> {
        let calls = world.calls.iter().filter(|(what, _)| *what == "let sleep");
        calls.map(|(_, family)| *family).collect()
    };
    let mut world = settled();
    world.alive.remove(&WanId(1));
    world.seconds(20);
    assert!(!world.woken.is_empty());
    assert_eq!(asleep(&world), BTreeSet::new());
    world.alive.insert(WanId(1));
    world.seconds(60);
    assert_eq!(asleep(&world), BTreeSet::from(Family::BOTH));
}
