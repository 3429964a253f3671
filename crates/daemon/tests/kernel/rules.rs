//! Rules, in both families.

use std::net::IpAddr;

use anywan_core::names::{Family, RulePriority, TableId};
use anywan_core::observed::{Rule, RuleAction};
use anywan_core::steps::Step;
use ipnet::IpNet;

use crate::net::{contract, fresh_network, observe, open, run};

fn rules(family: Family, source: &str) -> Vec<Rule> {
    let source = IpNet::from(source.parse::<IpAddr>().expect("an address"));
    let network = match family {
        Family::Ipv4 => "192.168.0.0/20",
        Family::Ipv6 => "2001:db8::/56",
    };
    let plain = |priority, action| Rule {
        family,
        priority: RulePriority(priority),
        mark: None,
        invert: false,
        source: None,
        action,
    };
    let table = TableId(4_000_000_001);
    vec![
        plain(31000, RuleAction::Lookup(table)),
        plain(1200, RuleAction::LookupNoDefault(TableId::MAIN)),
        plain(31001, RuleAction::Unreachable),
        plain(900, RuleAction::Goto(RulePriority(31000))),
        Rule { mark: Some((0x100_0000, 0x3f00_0000)), ..plain(1001, RuleAction::Lookup(table)) },
        Rule { mark: Some((0, 0x3f00_0000)), ..plain(1002, RuleAction::Unreachable) },
        Rule { mark: Some((0, 0x3f00_0000)), invert: true, ..plain(1101, RuleAction::Unreachable) },
        Rule { source: Some(source), ..plain(1302, RuleAction::Lookup(TableId(102))) },
        Rule {
            source: Some(network.parse().expect("a network")),
            ..plain(1301, RuleAction::Goto(RulePriority(31000)))
        },
        Rule {
            source: Some(source),
            mark: Some((0x4000_0000, 0x4000_0000)),
            invert: true,
            ..plain(1303, RuleAction::LookupNoDefault(TableId(102)))
        },
    ]
}

#[test]
fn rules_with_every_selector_and_action_come_and_go() {
    fresh_network(|state| {
        let mut kernel = open(state);
        for (family, source) in [(Family::Ipv4, "192.168.8.100"), (Family::Ipv6, "2001:db8::7")] {
            for rule in rules(family, source) {
                contract(&mut kernel, Step::AddRule(rule.clone()));
                contract(&mut kernel, Step::AddRule(rule));
            }
            for rule in rules(family, source) {
                contract(&mut kernel, Step::DeleteRule(rule.clone()));
                contract(&mut kernel, Step::DeleteRule(rule));
            }
        }
    });
}

#[test]
fn of_twins_with_one_priority_only_the_meant_one_goes() {
    fresh_network(|state| {
        for (family, source) in [(Family::Ipv4, "192.168.8.100"), (Family::Ipv6, "2001:db8::7")] {
            let twins: Vec<Rule> = rules(family, source)
                .into_iter()
                .map(|rule| Rule { priority: RulePriority(500), ..rule })
                .collect();
            for meant in &twins {
                let mut kernel = open(state);
                for twin in twins.iter().rev() {
                    contract(&mut kernel, Step::AddRule(twin.clone()));
                }
                contract(&mut kernel, Step::DeleteRule(meant.clone()));
                for twin in &twins {
                    contract(&mut kernel, Step::DeleteRule(twin.clone()));
                }
            }
        }
    });
}

#[test]
fn rules_of_others_are_neither_seen_nor_deleted_nor_taken_for_ours() {
    fresh_network(|state| {
        let mut kernel = open(state);
        for (family, ip) in [(Family::Ipv4, "ip -4"), (Family::Ipv6, "ip -6")] {
            run(&format!("{ip} rule add pref 1000 fwmark 0x1000000/0x3f000000 lookup 102"));
            run(&format!("{ip} rule add pref 1000 iif lo lookup 102 protocol 87"));
            assert!(observe(&mut kernel).rules.is_empty());
            let rule = Rule {
                family,
                priority: RulePriority(1000),
                mark: Some((0x100_0000, 0x3f00_0000)),
                invert: false,
                source: None,
                action: RuleAction::Lookup(TableId(102)),
            };
            contract(&mut kernel, Step::DeleteRule(rule.clone()));
            contract(&mut kernel, Step::AddRule(rule.clone()));
            contract(&mut kernel, Step::DeleteRule(rule));
            let left = run(&format!("{ip} rule show pref 1000"));
            assert_eq!(left.lines().count(), 2, "{left}");
            run(&format!("{ip} rule del pref 1000 iif lo"));
        }
    });
}
