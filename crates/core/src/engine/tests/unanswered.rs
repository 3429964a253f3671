//! What becomes of flows that nobody has answered when their WAN is left.

use super::*;

/// A WAN whose round trips, of 20 ms, take too long.
fn slow(mut wan: Wan) -> Wan {
    wan.health.max_latency = Some(Duration::from_millis(10));
    wan
}

#[test]
fn on_a_wan_that_works_badly_and_is_left_they_are_looked_for_once() {
    let mut world = World::new(config(vec![slow(wan(1, 1, 1)), wan(2, 2, 1)]), 2);
    world.seconds(5);
    assert_eq!((world.serving(Family::Ipv4), &world.unanswered[..]), (vec![1], &[][..]));
    world.seconds(60);
    assert_eq!(world.serving(Family::Ipv4), [2]);
    assert_eq!(world.unanswered, Family::BOTH.map(|family| (WanId(1), family)));
    assert_eq!(world.evacuated, [], "all others stay");
    let mut world = world.restarted();
    world.seconds(60);
    assert_eq!(world.unanswered.len(), 4, "a new daemon looks, too");
}

#[test]
fn on_a_wan_that_works_badly_and_serves_all_the_same_they_stay() {
    let mut world = World::new(config(vec![slow(wan(1, 1, 1)), slow(wan(2, 2, 1))]), 2);
    world.seconds(60);
    assert_eq!(world.serving(Family::Ipv4), [1]);
    assert!(world.unanswered.iter().all(|(wan, _)| *wan != WanId(1)), "{:?}", world.unanswered);
}
