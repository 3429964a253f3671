//! Every (state, event) pair, and the times at which things happen.

use super::*;

const INTERVAL: Duration = Duration::from_secs(1);

fn settings() -> Health {
    Health {
        targets: Vec::new(),
        interval: INTERVAL,
        timeout: Some(Duration::from_millis(500)),
        hold: Duration::from_secs(10),
    }
}

fn at(ms: u64) -> Moment {
    Moment::from_start(Duration::from_millis(ms))
}

fn ok() -> Result<Duration, String> {
    Ok(Duration::from_millis(20))
}

fn lost() -> Result<Duration, String> {
    Err("no answer".to_owned())
}

/// A side driven by hand: what it sends is answered or not, at once.
struct Driven {
    side: Side,
    now: Moment,
    alive: bool,
    /// Targets that never answer.
    deaf: Vec<usize>,
    targets: usize,
    standby: bool,
    sent: usize,
    states: Vec<State>,
}

impl Driven {
    fn new(side: Side, alive: bool) -> Driven {
        let now = side.since();
        let states = vec![side.state()];
        Driven { side, now, alive, deaf: Vec::new(), targets: 3, standby: false, sent: 0, states }
    }

    fn up() -> Driven {
        let mut driven = Driven::new(Side::new(true, at(0)), true);
        driven.run(100);
        assert_eq!(driven.side.state(), State::Up);
        driven
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            self.step();
            let next = self.side.deadline(self.targets, &settings()).filter(|next| *next <= end);
            let Some(next) = next else { break };
            assert!(next > self.now, "a deadline in the past would spin");
            self.now = next;
        }
        self.now = end;
        self.step();
    }

    fn seconds_until_up(&mut self) -> u64 {
        let begin = self.now;
        while self.side.state() != State::Up {
            self.run(100);
        }
        self.now.since(begin).as_secs()
    }

    /// Goes on to the next probes, and leaves their fate to the caller.
    fn next_orders(&mut self) -> Vec<Order> {
        loop {
            self.now = self.now + Duration::from_millis(100);
            let orders = self.side.wake(self.targets, self.standby, &settings(), self.now);
            if !orders.is_empty() {
                return orders;
            }
        }
    }

    fn step(&mut self) {
        let settings = settings();
        for order in self.side.wake(self.targets, self.standby, &settings, self.now) {
            self.sent += 1;
            self.note();
            if self.alive && !self.deaf.contains(&order.target) {
                self.side.answer(order.sequence, &ok(), &settings, self.now);
            }
            self.note();
        }
        self.note();
    }

    fn note(&mut self) {
        if self.states.last() != Some(&self.side.state()) {
            self.states.push(self.side.state());
        }
    }

    fn learn(&mut self, obstacle: Option<Obstacle>) {
        self.side.learn(obstacle, &settings(), self.now);
        self.note();
    }
}

#[test]
fn the_first_answer_makes_an_unknown_side_up_without_a_hold_time() {
    let driven = Driven::up();
    assert_eq!(driven.states, [State::Unknown, State::Up]);
}

#[test]
fn an_unknown_side_that_never_answers_is_down_after_one_burst() {
    let mut driven = Driven::new(Side::new(true, at(0)), false);
    driven.run(800);
    assert_eq!(driven.states, [State::Unknown, State::Down]);
    assert_eq!(driven.sent, 9);
}

#[test]
fn silence_is_suspected_after_one_deadline_and_down_after_one_burst() {
    let mut driven = Driven::up();
    driven.alive = false;
    driven.run(1000);
    let suspected = driven.now;
    driven.run(1500);
    assert_eq!(driven.states[1..], [State::Up, State::Suspect, State::Down]);
    // The rest of an interval, a deadline, two gaps, the last round's deadline.
    assert!(driven.side.since().since(suspected) <= Duration::from_millis(1300));
}

#[test]
fn one_deaf_target_is_no_dead_wan() {
    let mut driven = Driven::up();
    driven.deaf = vec![1];
    driven.run(60_000);
    assert_eq!(driven.side.state(), State::Up);
    assert!(!driven.states.contains(&State::Down), "{:?}", driven.states);
}

#[test]
fn the_way_back_takes_the_hold_time() {
    let mut driven = Driven::up();
    driven.run(200_000);
    driven.alive = false;
    driven.run(3_000);
    assert_eq!(driven.side.state(), State::Down);
    driven.alive = true;
    driven.run(2_000);
    assert_eq!(driven.side.state(), State::Recovering);
    driven.run(8_000);
    assert_eq!(driven.side.state(), State::Recovering);
    driven.run(2_100);
    assert_eq!(driven.side.state(), State::Up);
}

#[test]
fn a_flapping_side_is_held_down_ever_longer_and_forgiven_after_calm() {
    let mut driven = Driven::up();
    let mut spans = Vec::new();
    for _ in 0..3 {
        driven.alive = false;
        driven.run(3_000);
        driven.alive = true;
        spans.push(driven.seconds_until_up());
        driven.run(1_000);
    }
    assert!((9..=13).contains(&spans[0]), "{spans:?}");
    assert!((19..=23).contains(&spans[1]), "{spans:?}");
    assert!((39..=43).contains(&spans[2]), "{spans:?}");
    driven.run(500_000);
    driven.alive = false;
    driven.run(3_000);
    driven.alive = true;
    assert!(driven.seconds_until_up() <= 13);
}

#[test]
fn a_late_answer_clears_a_suspicion() {
    let settings = settings();
    let mut driven = Driven::up();
    driven.alive = false;
    let orders = driven.next_orders();
    driven.now = driven.now + Duration::from_millis(550);
    let _ = driven.side.wake(3, false, &settings, driven.now);
    assert_eq!(driven.side.state(), State::Suspect);
    driven.side.answer(orders[0].sequence, &ok(), &settings, driven.now);
    assert_eq!(driven.side.state(), State::Up);
}

#[test]
fn an_error_counts_as_a_miss_at_once() {
    let settings = settings();
    let mut driven = Driven::up();
    driven.alive = false;
    let orders = driven.next_orders();
    driven.side.answer(orders[0].sequence, &lost(), &settings, driven.now);
    assert_eq!(driven.side.state(), State::Suspect);
}

#[test]
fn a_fact_against_it_means_down_from_every_state_and_its_end_is_no_proof() {
    let mut recovering = Driven::up();
    recovering.alive = false;
    recovering.run(3_000);
    recovering.alive = true;
    recovering.run(2_000);
    let mut suspect = Driven::up();
    suspect.alive = false;
    suspect.run(1_550);
    let expected = [State::Up, State::Suspect, State::Recovering];
    for (mut driven, state) in [Driven::up(), suspect, recovering].into_iter().zip(expected) {
        assert_eq!(driven.side.state(), state);
        driven.learn(Some(Obstacle::NoCarrier));
        assert_eq!(driven.side.state(), State::Down);
        assert_eq!(driven.side.reason(), "no carrier");
        assert_eq!(driven.side.deadline(3, &settings()), None);
        driven.learn(None);
        assert_eq!(driven.side.state(), State::Down);
        driven.alive = true;
        driven.run(5_000);
        assert_eq!(driven.side.state(), State::Recovering);
    }
}

#[test]
fn a_family_that_was_never_there_is_unknown_not_down() {
    for obstacle in [Obstacle::Off, Obstacle::NoAddress, Obstacle::NoGateway] {
        let mut driven = Driven::new(Side::new(true, at(0)), true);
        driven.learn(Some(obstacle));
        driven.run(5_000);
        assert_eq!((driven.side.state(), driven.sent), (State::Unknown, 0));
        assert_eq!(driven.side.reason(), obstacle.to_string());
    }
}

#[test]
fn one_that_comes_up_for_the_first_time_needs_one_answer_only() {
    let mut driven = Driven::new(Side::new(true, at(0)), true);
    driven.learn(Some(Obstacle::NoInterface));
    driven.run(5_000);
    assert_eq!(driven.side.state(), State::Down);
    driven.learn(None);
    driven.run(100);
    assert_eq!(driven.side.state(), State::Up);
}

#[test]
fn without_targets_the_facts_decide_and_a_return_still_takes_the_hold_time() {
    let mut driven = Driven::new(Side::new(true, at(0)), true);
    driven.targets = 0;
    driven.run(100);
    assert_eq!(driven.side.state(), State::Up);
    driven.learn(Some(Obstacle::NoCarrier));
    driven.learn(None);
    driven.run(9_900);
    assert_eq!(driven.side.state(), State::Recovering);
    driven.run(200);
    assert_eq!((driven.side.state(), driven.sent), (State::Up, 0));
}

#[test]
fn a_metered_standby_is_asked_every_half_minute_and_at_once_when_it_serves() {
    let mut driven = Driven::up();
    driven.standby = true;
    driven.sent = 0;
    driven.run(605_000);
    assert!((19..=22).contains(&driven.sent), "{}", driven.sent);
    driven.standby = false;
    driven.sent = 0;
    driven.step();
    assert_eq!(driven.sent, 1);
}

#[test]
fn the_deadline_follows_the_round_trips() {
    let mut rtt = Rtt::default();
    assert_eq!(rtt.deadline(), DEADLINE_FIRST);
    rtt.measure(Duration::from_millis(20));
    assert_eq!(rtt.deadline(), DEADLINE_MIN);
    for round in 0..100_u64 {
        rtt.measure(Duration::from_millis(if round % 2 == 0 { 300 } else { 1500 }));
    }
    assert!(rtt.deadline() > Duration::from_millis(1500), "{:?}", rtt.deadline());
    for _ in 0..100 {
        rtt.measure(Duration::from_secs(30));
    }
    assert_eq!(rtt.deadline(), DEADLINE_MAX);
}

#[test]
fn losses_are_counted_over_the_last_hundred_probes() {
    let mut driven = Driven::up();
    assert_eq!(driven.side.loss_percent(), Some(0.0));
    driven.deaf = vec![0];
    driven.run(300_000);
    let loss = driven.side.loss_percent().unwrap();
    assert!((20.0..=45.0).contains(&loss), "{loss}");
}
