//! What people do by hand, and what becomes of flows that linger.

use super::*;

fn metered(mut wan: Wan, linger: u64) -> Wan {
    wan.linger = Some(Duration::from_secs(linger));
    wan
}

fn drain(world: &mut World, number: u8, drained: bool) {
    world.engine.handle(Event::Drain { wan: WanId(number), drained }, world.now);
    world.seconds(1);
}

fn told(world: &World, kind: &str) -> Vec<String> {
    let found = world.happenings.iter().filter(|h| h.kind == kind);
    found.map(|h| format!("{} {}", h.wan, h.new)).collect()
}

#[test]
fn a_drained_wan_gets_no_new_flows_and_its_own_are_not_lost() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(5);
    drain(&mut world, 1, true);
    assert_eq!(world.serving(Family::Ipv4), [2]);
    assert_eq!(world.kernel.nft.maps["restore4"][&Key::Number(0x100_0000)], "keep4_1");
    assert_eq!(world.evacuated, []);
    assert!(world.engine.status(&|_| String::new()).wans[0].drained);
    drain(&mut world, 1, false);
    assert_eq!(world.serving(Family::Ipv4), [1]);
    assert_eq!(told(&world, "drain"), ["wan1 drained", "wan1 "]);
}

#[test]
fn a_drained_wan_serves_when_nothing_else_works_and_only_then() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 1, 1)]), 2);
    world.seconds(5);
    drain(&mut world, 1, true);
    assert_eq!(world.serving(Family::Ipv4), [2]);
    world.alive.remove(&WanId(2));
    world.seconds(3);
    assert_eq!(world.serving(Family::Ipv4), [1]);
    assert_eq!(world.kernel.nft.maps["restore4"][&Key::Number(0x200_0000)], "lost");
    world.alive.insert(WanId(2));
    // A heartbeat comes each second, and its answer a little later.
    world.seconds(2);
    assert_eq!(world.serving(Family::Ipv4), [2], "answering again is better than being drained");
}

#[test]
fn draining_outlives_a_restart_and_a_reload_but_not_the_wan() {
    let all = config(vec![wan(1, 1, 1), wan(2, 2, 1)]);
    let mut world = World::new(all.clone(), 2);
    world.seconds(5);
    drain(&mut world, 1, true);
    let mut world = world.restarted();
    world.seconds(5);
    assert_eq!(world.serving(Family::Ipv4), [2]);
    world.engine.handle(Event::Config(Box::new(all.clone())), world.now);
    world.seconds(5);
    assert_eq!(world.serving(Family::Ipv4), [2]);
    let mut less = all.clone();
    less.wans.remove(0);
    for config in [less, all] {
        world.engine.handle(Event::Config(Box::new(config)), world.now);
        world.seconds(15);
    }
    assert_eq!(world.serving(Family::Ipv4), [1]);
}

#[test]
fn a_name_that_nobody_has_is_answered_with_the_nearest() {
    let world = World::new(config(vec![wan(1, 1, 1)]), 1);
    let problem = world.engine.wan_named("wan").unwrap_err();
    assert_eq!((&*problem.code, &*problem.hint), ("wan.unknown", "did you mean wan1?"));
}

#[test]
fn flows_of_a_wan_that_is_left_linger_and_are_then_released_again_and_again() {
    let mut world = World::new(config(vec![wan(1, 1, 1), metered(wan(2, 2, 1), 60)]), 2);
    world.seconds(5);
    world.alive.remove(&WanId(1));
    world.seconds(200);
    assert_eq!(world.serving(Family::Ipv4), [2]);
    assert_eq!(world.released, [], "it serves");
    world.alive.insert(WanId(1));
    while world.serving(Family::Ipv4) != [1] || world.serving(Family::Ipv6) != [1] {
        world.seconds(1);
    }
    world.seconds(50);
    assert_eq!(world.released, [], "they linger");
    world.seconds(20);
    assert_eq!(world.released, [(WanId(2), Family::Ipv4), (WanId(2), Family::Ipv6)]);
    world.seconds(60);
    assert!((5..=6).contains(&world.released.len()), "every 30 s");
    world.alive.remove(&WanId(1));
    world.seconds(5);
    world.released.clear();
    world.seconds(100);
    assert_eq!(world.released, [], "it serves again");
}

#[test]
fn flows_of_a_wan_that_was_drained_do_not_linger_but_stay() {
    let mut world = World::new(config(vec![metered(wan(1, 1, 1), 60), wan(2, 2, 1)]), 2);
    world.seconds(5);
    drain(&mut world, 1, true);
    world.seconds(300);
    assert_eq!((world.serving(Family::Ipv4), world.released.len()), (vec![2], 0));
}

#[test]
fn flows_linger_for_ever_where_nothing_else_is_said() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(1000);
    assert_eq!(world.released, []);
}

#[test]
fn a_drill_cuts_by_elements_alone_is_noticed_by_probes_and_undone_in_time() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(5);
    let (id, plan) = world.engine.plan_drill("wan1").unwrap();
    assert_eq!((id, plan.others, plan.share_percent), (WanId(1), vec!["wan2".to_owned()], 100.0));
    world.carried_out.clear();
    let span = Duration::from_secs(20);
    world.engine.handle(Event::Drill { wan: id, span }, world.now);
    world.turn();
    assert_eq!(world.kernel.nft.maps["from_wan"][&Key::Number(11)], "cut_from1");
    assert_eq!(world.kernel.nft.maps["restore4"][&Key::Number(0x100_0000)], "cut_keep4_1");
    assert!(world.carried_out.iter().all(|step| matches!(step, Step::ChangeElements(_))));
    assert_eq!(world.engine.plan_drill("wan2").unwrap_err().code, "drill.running");
    world.alive.remove(&id);
    world.seconds(5);
    assert_eq!(world.serving(Family::Ipv4), [2]);
    assert_eq!(world.kernel.nft.maps["restore4"][&Key::Number(0x100_0000)], "lost");
    world.seconds(16);
    assert_eq!(world.kernel.nft.maps["from_wan"][&Key::Number(11)], "from1");
    assert_eq!(world.engine.drilling(), Some(id), "its return is waited for");
    world.alive.insert(id);
    world.seconds(15);
    assert_eq!(world.engine.drilling(), None);
    assert_eq!(told(&world, "drill"), ["wan1 cut", "wan1 mended", "wan1 back"]);
}

#[test]
fn a_metered_wan_is_asked_as_soon_as_its_drill_is_over() {
    let mut costly = wan(1, 1, 1);
    (costly.metered, costly.budget) = (true, Some(30_000_000));
    let mut world = World::new(config(vec![costly, wan(2, 2, 1)]), 2);
    // Until it owes more than it may.
    world.seconds(3_600);
    let drill = Event::Drill { wan: WanId(1), span: Duration::from_secs(30) };
    world.engine.handle(drill, world.now);
    world.alive.remove(&WanId(1));
    world.seconds(29);
    assert_eq!(world.serving(Family::Ipv4), [2]);
    world.alive.insert(WanId(1));
    world.seconds(15);
    assert_eq!(told(&world, "drill").last().unwrap(), "wan1 back");
}

#[test]
fn a_drill_does_not_outlive_the_daemon_or_its_word() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.seconds(5);
    let before = world.kernel.clone();
    let drill = Event::Drill { wan: WanId(1), span: Duration::from_secs(20) };
    world.engine.handle(drill.clone(), world.now);
    world.turn();
    assert_ne!(world.kernel, before);
    let mut world = world.restarted();
    world.turn();
    assert_eq!(world.kernel, before);
    world.engine.handle(drill, world.now);
    world.turn();
    world.engine.handle(Event::DrillOver("enough".to_owned()), world.now);
    world.turn();
    assert_eq!((world.kernel, world.engine.drilling()), (before, None));
}

#[test]
fn there_is_no_drill_that_would_take_the_last_wan_away() {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    world.alive.remove(&WanId(2));
    world.seconds(5);
    let code = |name| world.engine.plan_drill(name).unwrap_err().code;
    assert_eq!([code("wan1"), code("wan2")], ["drill.no-other", "drill.does-not-work"]);
}
