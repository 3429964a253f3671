//! Whom to ask, case by case.

use std::time::Duration;

use super::*;
use crate::choose::FamilyChoice;
use crate::health::Side;
use crate::names::{PerFamily, Weight};
use crate::time::Moment;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn at(seconds: u64) -> Moment {
    Moment::default() + Duration::from_secs(seconds)
}

/// Resolvers of two WANs: an own one each, and a fallback.
fn two() -> Known {
    let one = |id, address, rank| ((WanId(id), ip(address)), rank);
    Known::from([
        one(1, "10.1.0.53", Rank::Own),
        one(1, "9.9.9.9", Rank::Fallback),
        one(2, "10.2.0.53", Rank::Own),
        one(2, "9.9.9.9", Rank::Fallback),
    ])
}

fn choice(serving: &[u8], usable: &[u8]) -> Choice {
    let serving = serving.iter().map(|id| (WanId(*id), Weight(1))).collect();
    let usable = usable.iter().map(|id| WanId(*id)).collect();
    let ipv4 = FamilyChoice { serving, usable, ..FamilyChoice::default() };
    PerFamily { ipv4, ipv6: FamilyChoice::default() }
}

fn show(asked: &Asked) -> Vec<String> {
    let asked = asked.iter().filter(|(_, yes)| **yes);
    asked.map(|((wan, address), _)| format!("{wan} {address}")).collect()
}

/// Checks that have seen these answers to the question for a name (`None`: silence), and to the
/// one for a lie.
fn checked(resolver: Resolver, exists: Option<Said>, lie: Option<Said>) -> Checks {
    let mut checks = Checks::default();
    let (known, mut now) = (two(), 0);
    for _ in 0..6 {
        checks.keep(&known, at(now));
        for question in checks.due(|_| true, |_| false, |_| "example.com".to_owned(), at(now)) {
            let fine = Some(Said { code: 0, address: false });
            let invented = question.name.ends_with(".invalid");
            let said = match (question.resolver == resolver, invented) {
                (true, true) => lie,
                (true, false) => exists,
                (false, _) => fine,
            };
            checks.take(question.resolver, question.sequence, said, at(now));
        }
        now += 100;
    }
    checks
}

const ADDRESS: Option<Said> = Some(Said { code: 0, address: true });
const NO_NAME: Option<Said> = Some(Said { code: 3, address: false });
const SERVFAIL: Option<Said> = Some(Said { code: 2, address: false });

#[test]
fn the_resolvers_of_the_wans_that_serve_are_asked() {
    let steady = Sides::new();
    let none = Checks::default();
    for (serving, usable, expected) in [
        (&[1][..], &[1, 2][..], &["1 10.1.0.53"][..]),
        (&[2], &[2], &["2 10.2.0.53"]),
        (&[1, 2], &[1, 2], &["1 10.1.0.53", "2 10.2.0.53"]),
        (&[], &[2], &["2 10.2.0.53"]),
        (&[], &[], &["1 9.9.9.9", "1 10.1.0.53", "2 9.9.9.9", "2 10.2.0.53"]),
    ] {
        let asked = asked(&two(), &none, &choice(serving, usable), &steady);
        assert_eq!(show(&asked), expected, "serving {serving:?}, usable {usable:?}");
    }
}

#[test]
fn while_one_that_serves_is_in_doubt_the_next_are_asked_too() {
    let unjudged = PerFamily::from_fn(|_| Side::new(false, at(0)));
    let sides = Sides::from([(WanId(1), unjudged)]);
    let asked = asked(&two(), &Checks::default(), &choice(&[1], &[1, 2]), &sides);
    assert_eq!(show(&asked), ["1 10.1.0.53", "2 10.2.0.53"]);
}

#[test]
fn one_that_lies_or_says_nothing_is_left_for_the_fallback_of_its_wan() {
    let resolver = (WanId(1), ip("10.1.0.53"));
    for (exists, lie, fault) in [
        (ADDRESS, ADDRESS, Some(Fault::Lies)),
        (None, None, Some(Fault::Silent)),
        (None, NO_NAME, Some(Fault::Silent)),
        (NO_NAME, None, None),
        (SERVFAIL, None, Some(Fault::Silent)),
        (ADDRESS, NO_NAME, None),
        (NO_NAME, SERVFAIL, None),
    ] {
        let checks = checked(resolver, exists, lie);
        assert_eq!(checks.fault(&resolver), fault, "{exists:?} {lie:?}");
        let asked = asked(&two(), &checks, &choice(&[1], &[1]), &Sides::new());
        let expected = if fault.is_none() { "1 10.1.0.53" } else { "1 9.9.9.9" };
        assert_eq!(show(&asked), [expected], "{exists:?} {lie:?}");
    }
}

#[test]
fn a_liar_is_asked_while_nobody_else_answers() {
    let liar = (WanId(1), ip("10.1.0.53"));
    let mut known = two();
    known.retain(|_, rank| *rank == Rank::Own);
    let checks = checked(liar, ADDRESS, ADDRESS);
    let asked_of =
        |usable: &[u8]| show(&asked(&known, &checks, &choice(usable, usable), &Sides::new()));
    assert_eq!(asked_of(&[1, 2]), ["2 10.2.0.53"]);
    assert_eq!(asked_of(&[1]), ["1 10.1.0.53"]);
}

#[test]
fn one_that_answers_again_is_asked_again() {
    let resolver = (WanId(1), ip("10.1.0.53"));
    let mut checks = checked(resolver, None, None);
    for now in [1000, 2000] {
        for question in checks.due(|_| true, |_| false, |_| "a.example".to_owned(), at(now)) {
            checks.take(question.resolver, question.sequence, NO_NAME, at(now));
        }
    }
    assert_eq!(checks.fault(&resolver), None);
}

#[test]
fn what_is_behind_a_wan_that_does_not_work_is_not_judged() {
    let resolver = (WanId(1), ip("10.1.0.53"));
    let mut checks = checked(resolver, None, None);
    assert_eq!(checks.due(|_| false, |_| false, |_| String::new(), at(5000)), []);
    assert_eq!(checks.fault(&resolver), None);
}

#[test]
fn where_data_costs_money_questions_are_rare() {
    let mut checks = Checks::default();
    checks.keep(&two(), at(0));
    let mut count = 0;
    for now in 0..86_400 {
        for question in checks.due(|_| true, |_| true, |_| "a.example".to_owned(), at(now)) {
            checks.take(question.resolver, question.sequence, NO_NAME, at(now));
            count += usize::from(question.resolver == (WanId(1), ip("10.1.0.53")));
        }
    }
    assert!((40..=60).contains(&count), "{count} questions a day");
}
