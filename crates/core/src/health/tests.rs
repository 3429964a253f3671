//! Every (state, event) pair, and the times at which things happen.

use super::*;
use crate::observed::Traffic;

const INTERVAL: Duration = Duration::from_secs(1);
const ECHOES: [Kind; 3] = [Kind::Icmp; 3];
const MIXED: [Kind; 6] = [Kind::Icmp, Kind::Icmp, Kind::Tcp, Kind::Tcp, Kind::Dns, Kind::Dns];

fn settings() -> Health {
    Health {
        targets: Vec::new(),
        interval: INTERVAL,
        timeout: Some(Duration::from_millis(500)),
        hold: Duration::from_secs(10),
        max_loss_percent: Some(20),
        max_latency: None,
        max_jitter: None,
    }
}

fn at(ms: u64) -> Moment {
    Moment::from_start(Duration::from_millis(ms))
}

fn ok() -> Fate {
    Fate::Answered(Duration::from_millis(20))
}

/// A side driven by hand: what it sends is answered or not, at once.
struct Driven {
    side: Side,
    settings: Health,
    now: Moment,
    alive: bool,
    /// Targets that never answer.
    deaf: Vec<usize>,
    /// Every so many probes are lost.
    loses_every: Option<usize>,
    /// Targets in whose place a portal answers.
    captive: Vec<usize>,
    kinds: Vec<Kind>,
    metered: bool,
    serving: bool,
    all_suspect: bool,
    /// Packets a second of user traffic, out and back.
    traffic: (u64, u64),
    total: Traffic,
    sent: usize,
    /// How late it is woken each time.
    late: Duration,
    states: Vec<State>,
}

impl Driven {
    fn new(side: Side, alive: bool) -> Driven {
        Driven {
            now: side.since(),
            states: vec![side.state()],
            side,
            settings: settings(),
            alive,
            deaf: Vec::new(),
            loses_every: None,
            captive: Vec::new(),
            kinds: ECHOES.to_vec(),
            metered: false,
            serving: true,
            all_suspect: false,
            traffic: (0, 0),
            total: Traffic::default(),
            sent: 0,
            late: Duration::ZERO,
        }
    }

    fn up() -> Driven {
        Driven::up_with(&ECHOES)
    }

    fn up_with(kinds: &[Kind]) -> Driven {
        let mut driven = Driven::new(Side::new(true, at(0)), true);
        driven.kinds = kinds.to_vec();
        driven.run(100);
        assert_eq!(driven.side.state(), State::Up);
        driven
    }

    fn role<'a>(&self, kinds: &'a [Kind]) -> Role<'a> {
        let (metered, serving, all_suspect) = (self.metered, self.serving, self.all_suspect);
        Role { kinds, metered, serving, rest_until: Moment::default(), doubtful: 0, all_suspect }
    }

    fn deadline(&self) -> Option<Moment> {
        let kinds = self.kinds.clone();
        self.side.deadline(&self.role(&kinds), &self.settings)
    }

    fn wake(&mut self) -> Vec<Order> {
        let kinds = self.kinds.clone();
        let role = self.role(&kinds);
        self.side.wake(&role, &self.settings, self.now)
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        let mut count_at = self.now;
        let mut turns = 0;
        loop {
            self.step();
            let counted = (self.traffic != (0, 0)).then_some(count_at);
            let next = self.deadline().into_iter().chain(counted).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            if counted == Some(next) {
                self.now = next;
                self.count();
                count_at = count_at + Duration::from_millis(100);
                continue;
            }
            // What an answer has made due at once is done in the next turn.
            turns = if next > self.now { 0 } else { turns + 1 };
            assert!(turns < 3, "a deadline in the past would spin");
            self.now = self.now.max(next + self.late);
        }
        self.now = end;
        self.step();
    }

    /// What a tenth of a second of traffic counts.
    fn count(&mut self) {
        self.total.out += self.traffic.0 / 10;
        self.total.back += self.traffic.1 / 10;
        self.side.count_traffic(self.total, &self.settings, self.now);
        self.note();
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
            let orders = self.wake();
            if !orders.is_empty() {
                return orders;
            }
        }
    }

    fn step(&mut self) {
        for order in self.wake() {
            self.sent += 1;
            self.note();
            let lost = self.loses_every.is_some_and(|n| self.sent % n == 0);
            let silent = !self.alive || lost || self.deaf.contains(&order.target);
            if self.captive.contains(&order.target) {
                let fate = Fate::Portal("redirected to http://login.example/".to_owned());
                self.side.answer(order.sequence, &fate, &self.settings, self.now);
            } else if !silent {
                self.side.answer(order.sequence, &ok(), &self.settings, self.now);
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
        self.side.learn(obstacle, &self.settings, self.now);
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
fn when_most_are_suspect_it_is_asked_some_times_more() {
    let mut times = Vec::new();
    for all_suspect in [false, true] {
        let mut driven = Driven::up();
        driven.run(5_000);
        (driven.deaf, driven.all_suspect) = (vec![0, 1, 2], all_suspect);
        let begin = driven.now;
        while driven.side.state() != State::Down {
            driven.run(10);
        }
        times.push(driven.now.since(begin).as_millis());
    }
    assert!(times[1] > times[0] + 500 && times[1] < times[0] + 2_000, "{times:?}");
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
    let mut driven = Driven::up();
    driven.alive = false;
    let orders = driven.next_orders();
    driven.now = driven.now + Duration::from_millis(550);
    let _ = driven.wake();
    assert_eq!(driven.side.state(), State::Suspect);
    driven.side.answer(orders[0].sequence, &ok(), &settings(), driven.now);
    assert_eq!(driven.side.state(), State::Up);
}

#[test]
fn an_error_counts_as_a_miss_at_once() {
    let mut driven = Driven::up();
    driven.alive = false;
    let orders = driven.next_orders();
    driven.side.answer(orders[0].sequence, &Fate::Silent, &settings(), driven.now);
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
    while suspect.side.state() == State::Up {
        suspect.run(50);
    }
    let expected = [State::Up, State::Suspect, State::Recovering];
    for (mut driven, state) in [Driven::up(), suspect, recovering].into_iter().zip(expected) {
        assert_eq!(driven.side.state(), state);
        driven.learn(Some(Obstacle::NoCarrier));
        assert_eq!(driven.side.state(), State::Down);
        assert_eq!(driven.side.reason(), "no carrier");
        assert_eq!(driven.deadline(), None);
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
    driven.kinds = Vec::new();
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
fn a_metered_standby_is_asked_every_minute_and_at_once_when_it_serves() {
    let mut driven = Driven::up();
    (driven.metered, driven.serving) = (true, false);
    driven.sent = 0;
    driven.run(1_205_000);
    assert!((19..=22).contains(&driven.sent), "{}", driven.sent);
    driven.serving = true;
    driven.sent = 0;
    driven.step();
    assert_eq!(driven.sent, 1);
}

#[test]
fn each_kind_is_asked_twice_in_an_interval_while_traffic_comes_back_and_else_one_target_at_a_time()
{
    for (kinds, busy, calm) in [(&ECHOES[..], 2, 60), (&MIXED[..4], 4, 90), (&MIXED[..], 6, 90)] {
        for (traffic, serving, expected) in
            [((0, 0), true, calm), ((100, 100), true, 60 * busy), ((100, 100), false, calm)]
        {
            let mut driven = Driven::up_with(kinds);
            (driven.traffic, driven.serving) = (traffic, serving);
            driven.run(5_000);
            driven.sent = 0;
            driven.run(60_000);
            let near = expected - busy..=expected + busy;
            assert!(near.contains(&driven.sent), "{kinds:?}, {traffic:?}: {}", driven.sent);
        }
    }
}

#[test]
fn it_is_asked_at_once_when_traffic_begins_or_it_serves_and_not_because_a_burst_is_over() {
    let mut driven = Driven::up_with(&MIXED);
    driven.run(10_100);
    driven.sent = 0;
    driven.step();
    assert_eq!(driven.sent, 0, "not before its turn");
    driven.traffic = (10, 10);
    (0..2).for_each(|_| driven.count());
    driven.step();
    assert!(driven.sent > 0, "traffic has begun");
    driven.next_orders();
    driven.run(600);
    // The burst is over, and more are asked: but no heartbeat comes out of turn.
    assert_eq!(driven.side.state(), State::Up);
    assert!(!driven.side.hurries(&driven.role(&MIXED), &driven.settings, driven.now));
}

#[test]
fn a_late_answer_is_reason_enough_for_more_questions() {
    let mut driven = Driven::up_with(&MIXED);
    driven.settings.timeout = Some(Duration::from_millis(200));
    driven.run(10_000);
    driven.next_orders();
    driven.sent = 0;
    // It is late after 200 ms, and lost only after 700.
    driven.run(600);
    let burst_and_heartbeats = 6 + 4;
    assert!(driven.sent >= burst_and_heartbeats + 3 * 6, "{}", driven.sent);
    driven.settings.max_loss_percent = None;
    driven.run(10_000);
    driven.next_orders();
    driven.sent = 0;
    driven.run(600);
    assert!(driven.sent <= burst_and_heartbeats, "{}", driven.sent);
}

#[test]
fn losses_are_counted_but_not_those_of_a_target_that_never_answers() {
    let mut driven = Driven::up();
    assert_eq!(driven.side.loss_percent(), Some(0.0));
    driven.deaf = vec![0];
    driven.run(300_000);
    let loss = driven.side.loss_percent().expect("counted");
    assert!(loss < 5.0, "{loss}");
    assert_eq!(driven.side.state(), State::Up);
}

#[test]
fn a_service_that_is_dead_alone_makes_it_impaired_and_its_return_takes_the_hold_time() {
    for (dead, name) in [(vec![2, 3], "tcp"), (vec![4, 5], "dns")] {
        let mut driven = Driven::up_with(&MIXED);
        driven.run(5_000);
        driven.deaf = dead;
        driven.run(2_500);
        assert_eq!(driven.side.state(), State::Impaired, "{name}");
        assert_eq!(driven.side.reason(), format!("none of 2 {name} targets answers, others do"));
        driven.run(60_000);
        assert_eq!(driven.side.state(), State::Impaired, "{name}");
        driven.deaf.clear();
        driven.run(9_000);
        assert_eq!(driven.side.state(), State::Impaired, "{name}");
        driven.run(5_000);
        assert_eq!(driven.side.state(), State::Up, "{name}");
        assert!(!driven.states.contains(&State::Down), "{:?}", driven.states);
    }
}

#[test]
fn a_service_that_is_dead_is_found_by_a_machine_that_is_always_late_too() {
    let mut driven = Driven::up_with(&MIXED);
    driven.deaf = vec![4, 5];
    driven.late = Duration::from_millis(80);
    driven.run(60_000);
    assert_eq!(driven.side.state(), State::Impaired, "{:?}", driven.states);
}

#[test]
fn dead_echoes_one_deaf_target_and_a_service_that_never_worked_change_nothing() {
    for deaf in [vec![0, 1], vec![2], vec![4], vec![0, 1, 2, 4]] {
        let mut driven = Driven::up_with(&MIXED);
        driven.run(5_000);
        driven.deaf = deaf.clone();
        driven.run(120_000);
        assert_eq!(driven.side.state(), State::Up, "{deaf:?}");
        assert!(!driven.states.contains(&State::Impaired), "{deaf:?} {:?}", driven.states);
    }
    let mut driven = Driven::new(Side::new(true, at(0)), true);
    (driven.kinds, driven.deaf) = (MIXED.to_vec(), vec![4, 5]);
    driven.run(60_000);
    assert_eq!(driven.side.state(), State::Up);
}

#[test]
fn traffic_without_answer_is_suspected_within_a_few_tenths_of_a_second() {
    let mut driven = Driven::up();
    driven.settings.timeout = None;
    driven.settings.interval = Duration::from_secs(3600);
    driven.traffic = (100, 100);
    driven.run(5_000);
    (driven.alive, driven.traffic) = (false, (100, 0));
    let begin = driven.now;
    driven.run(600);
    assert_eq!(driven.side.state(), State::Down, "{:?}", driven.states);
    assert!(driven.side.since().since(begin) <= Duration::from_millis(500));
}

#[test]
fn traffic_one_way_is_refuted_by_probes_and_then_distrusted_for_a_while() {
    let mut driven = Driven::up();
    driven.traffic = (100, 0);
    driven.run(60_000);
    assert_eq!(driven.side.state(), State::Up);
    let suspicions = driven.states.iter().filter(|s| **s == State::Suspect).count();
    assert!((2..=5).contains(&suspicions), "{suspicions}");
}

#[test]
fn a_line_that_carries_traffic_is_not_dead_but_impaired_until_that_ends_too() {
    let mut driven = Driven::up();
    driven.traffic = (100, 100);
    driven.run(1_000);
    driven.alive = false;
    driven.run(6_000);
    assert_eq!(driven.side.state(), State::Impaired, "{:?}", driven.states);
    driven.run(60_000);
    assert_eq!(driven.side.state(), State::Impaired);
    driven.traffic = (100, 0);
    driven.run(7_000);
    assert_eq!(driven.side.state(), State::Down);
    assert!(!driven.states[..driven.states.len() - 1].contains(&State::Down));
}

#[test]
fn heavy_loss_makes_it_impaired_soon_and_light_loss_never() {
    for (every, state) in [(3, State::Impaired), (20, State::Up), (50, State::Up)] {
        let mut driven = Driven::up_with(&MIXED);
        driven.loses_every = Some(every);
        let begin = driven.now;
        driven.run(if state == State::Up { 3_600_000 } else { 10_000 });
        let reached = driven.states.contains(&State::Impaired);
        assert_eq!(reached, state == State::Impaired, "every {every}: {:?}", driven.states);
        assert!(!driven.states.contains(&State::Down), "{:?}", driven.states);
        if reached {
            let took = driven.side.since().since(begin);
            assert!(took <= Duration::from_secs(5), "{took:?}");
        }
    }
}

#[test]
fn losses_that_no_longer_matter_are_no_fault() {
    let mut driven = Driven::up();
    driven.loses_every = Some(3);
    driven.run(20_000);
    assert_eq!(driven.side.state(), State::Impaired);
    driven.settings.max_loss_percent = None;
    driven.run(12_000);
    assert_eq!(driven.side.state(), State::Up, "{}", driven.side.reason());
}

#[test]
fn a_portal_is_told_from_the_internet_and_over_when_somebody_has_signed_in() {
    let mut driven = Driven::new(Side::new(true, at(0)), true);
    driven.kinds = vec![Kind::Icmp, Kind::Http];
    driven.captive = vec![1];
    driven.run(2_000);
    assert_eq!(driven.side.state(), State::Portal);
    assert!(driven.side.reason().contains("login.example"), "{}", driven.side.reason());
    driven.captive.clear();
    driven.run(13_000);
    assert_eq!(driven.side.state(), State::Up);
}

#[test]
fn limits_on_latency_and_jitter_are_off_until_set() {
    let mut driven = Driven::up();
    driven.settings.max_latency = Some(Duration::from_millis(10));
    driven.run(4_000);
    assert_eq!(driven.side.state(), State::Up);
    driven.run(3_000);
    assert_eq!(driven.side.state(), State::Impaired);
    driven.settings.max_latency = None;
    driven.run(12_000);
    assert_eq!(driven.side.state(), State::Up);
}

#[test]
fn a_metered_line_that_carries_traffic_is_asked_rarely() {
    let mut driven = Driven::up();
    driven.metered = true;
    driven.traffic = (50, 50);
    driven.run(1_000);
    driven.sent = 0;
    driven.run(110_000);
    assert!((8..=12).contains(&driven.sent), "{}", driven.sent);
}

#[test]
fn a_newcomer_is_proved_at_once() {
    let mut driven = Driven::up();
    (driven.metered, driven.serving) = (true, false);
    driven.run(65_000);
    driven.alive = false;
    driven.serving = true;
    let begin = driven.now;
    driven.side.prove(&settings(), driven.now);
    driven.run(1_000);
    assert_eq!(driven.side.state(), State::Down);
    assert!(driven.side.since().since(begin) <= Duration::from_millis(600));
}
