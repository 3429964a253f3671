//! Whom this machine's own programs ask for names, whatever happens to dnsmasq and to the file.

use super::*;
use crate::config::Dns;
use crate::desired::Desired;
use crate::observed::{ChildEnd, ResolvFile, Writer};
use crate::render::dnsmasq;
use crate::steps::diff;

pub(super) fn serving_names() -> Config {
    let dns = Dns {
        upstreams: Vec::new(),
        cache: 100,
        domain: "lan".to_owned(),
        hosts: Vec::new(),
        resolv_conf: true,
    };
    Config { dns: Some(dns), ..config(vec![wan(1, 1, 1)]) }
}

/// A router whose file was a person's until a moment ago.
fn house() -> World {
    let mut world = World::new(serving_names(), 1);
    world.kernel.resolv_conf.file = ResolvFile::Others(Writer::Unknown);
    world.seconds(5);
    assert!(is_ours(&world));
    world
}

fn is_ours(world: &World) -> bool {
    matches!(world.kernel.resolv_conf.file, ResolvFile::Ours(_))
}

fn codes(world: &World) -> Vec<String> {
    let problems = world.engine.status(&|_| String::new()).problems;
    problems.into_iter().map(|p| p.code).filter(|code| code.contains("resolv")).collect()
}

fn place(world: &World, fits: impl Fn(&Step) -> bool) -> usize {
    world.carried_out.iter().rposition(fits).expect("the step was taken")
}

#[test]
fn ours_is_taken_after_dnsmasq_runs_and_given_back_before_it_ends() {
    let mut world = house();
    let start = place(&world, |step| matches!(step, Step::StartChild { .. }));
    let take = place(&world, |step| matches!(step, Step::TakeResolvConf { .. }));
    assert!(start < take);
    let without = Config { dns: None, ..serving_names() };
    world.engine.handle(Event::Config(Box::new(without)), world.now);
    world.seconds(1);
    let back = place(&world, |step| matches!(step, Step::GiveBackResolvConf));
    let stop = place(&world, |step| matches!(step, Step::StopChild { .. }));
    assert!(back < stop);
    assert_eq!(world.kernel.resolv_conf.file, ResolvFile::Others(Writer::Unknown));
}

#[test]
fn leaving_gives_it_back_and_a_restart_changes_nothing() {
    let mut world = house().restarted();
    world.carried_out.clear();
    world.seconds(5);
    assert!(is_ours(&world) && world.carried_out.is_empty(), "{:?}", world.carried_out);
    world.engine.handle(Event::Leave, world.now);
    world.seconds(1);
    assert!(world.engine.left() && !is_ours(&world));
}

#[test]
fn it_is_left_alone_where_the_file_says_so_or_belongs_to_another_namespace() {
    let mut config = serving_names();
    if let Some(dns) = &mut config.dns {
        dns.resolv_conf = false;
    }
    for (config, file) in
        [(config, ResolvFile::Others(Writer::Nobody)), (serving_names(), ResolvFile::Untouchable)]
    {
        let mut world = World::new(config, 1);
        world.kernel.resolv_conf.file = file;
        world.seconds(5);
        assert_eq!(world.kernel.resolv_conf.file, file);
        assert!(world.engine.settled());
    }
}

#[test]
fn while_dnsmasq_has_just_ended_others_are_asked() {
    let mut world = house();
    world.kernel.children.remove(dnsmasq::NAME);
    let end = ChildEnd {
        name: dnsmasq::NAME.to_owned(),
        status: Some(2),
        signal: None,
        said: String::new(),
        lived: Duration::from_secs(5),
    };
    world.engine.handle(Event::ChildEnded(end), world.now);
    world.turn();
    assert!(!is_ours(&world), "at once");
    world.seconds(3);
    assert!(world.kernel.children.contains_key(dnsmasq::NAME), "it runs again");
    assert!(!is_ours(&world), "and may end again");
    world.seconds(20);
    assert!(is_ours(&world));
}

#[test]
fn who_replaces_it_is_put_right_and_told_and_left_alone_in_the_end() {
    let mut world = house();
    for n in 1..=5 {
        world.kernel.resolv_conf.file = ResolvFile::Others(Writer::NetworkManager);
        world.seconds(60);
        assert_eq!(is_ours(&world), n < 5, "time {n}");
    }
    let repairs = world.happenings.iter().filter(|h| h.kind == "repair").count();
    assert_eq!(repairs, 4);
    assert_eq!(codes(&world), ["dns.resolv-conf-contested"]);
    assert!(world.engine.settled());
    world.seconds(3600);
    assert!(is_ours(&world) && codes(&world).is_empty());
    // What they wrote last is what comes back.
    world.engine.handle(Event::Leave, world.now);
    world.seconds(1);
    assert_eq!(world.kernel.resolv_conf.file, ResolvFile::Others(Writer::NetworkManager));
}

#[test]
fn who_replaces_it_faster_than_it_is_read_back_is_left_alone_all_the_same() {
    let mut world = house();
    world.kernel.resolv_conf.file = ResolvFile::Others(Writer::NetworkManager);
    let mut puts = 0;
    // Ours is written, and replaced at once: nobody ever reads it.
    for _ in 0..120 {
        world.now = world.now + Duration::from_secs(1);
        world.tell_facts();
        world.engine.advance(world.now);
        let steps = std::iter::from_fn(|| world.engine.poll_step());
        puts += steps.filter(|step| matches!(step, Step::TakeResolvConf { .. })).count();
    }
    assert_eq!(puts, 4);
    assert_eq!(codes(&world), ["dns.resolv-conf-contested"]);
}

#[test]
fn a_file_that_cannot_be_written_is_told_and_holds_nothing_up() {
    let mut world = house();
    world.kernel.resolv_conf.file = ResolvFile::Others(Writer::Unknown);
    world.tell_facts();
    let step = Step::TakeResolvConf { text: String::new() };
    world.engine.handle(Event::StepFailed { step, error: "read-only".to_owned() }, world.now);
    world.seconds(10);
    assert_eq!(codes(&world), ["dns.resolv-conf-failed"]);
    assert!(!is_ours(&world) && world.engine.settled());
    world.seconds(300);
    assert!(is_ours(&world) && codes(&world).is_empty());
}

#[test]
fn whosever_it_is_the_steps_lead_to_what_is_wanted_and_then_there_are_none() {
    let ours = ResolvFile::Ours(1);
    let others = ResolvFile::Others(Writer::Resolved);
    for file in [ours, others, ResolvFile::Untouchable] {
        for resolv_conf in [None, Some("# Written by anywan\n".to_owned())] {
            let mut observed = Observed::default();
            observed.resolv_conf.file = file;
            let desired = Desired { resolv_conf, ..Desired::default() };
            let steps = diff(&observed, &desired);
            let nothing_to_do = file == ResolvFile::Untouchable
                || (file == others && desired.resolv_conf.is_none());
            assert_eq!(steps.is_empty(), nothing_to_do, "{file:?}");
            steps.iter().for_each(|step| expect(&mut observed, step));
            assert_eq!(diff(&observed, &desired), [], "{file:?}");
        }
    }
}
