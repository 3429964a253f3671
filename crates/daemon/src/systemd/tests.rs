//! What is said, when, and what becomes of it when nobody takes it.

use std::os::unix::net::UnixDatagram;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Moment {
    Moment::from_start(SECOND * u32::try_from(seconds).expect("a few"))
}

/// A listener of an abstract name of its own, and us told of it.
fn talk(name: &str, given: Given) -> (UnixDatagram, Systemd) {
    let name = format!("anywan-test-{}-{name}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("short");
    let listener = UnixDatagram::bind_addr(&address).expect("a name of its own");
    listener.set_nonblocking(true).expect("a socket");
    let socket = Some(format!("@{name}").into());
    (listener, Systemd::new(Given { socket, ..given }))
}

fn watched(usec: &str, pid: Option<u32>) -> Given {
    let watchdog_pid = pid.map(|pid| pid.to_string());
    Given { socket: None, watchdog_usec: Some(usec.to_owned()), watchdog_pid }
}

fn heard(listener: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    let mut all = Vec::new();
    while let Ok(length) = listener.recv(&mut buffer) {
        all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    all
}

#[test]
fn signs_of_life_come_more_often_than_twice_in_the_time_given() {
    let (listener, mut systemd) = talk("beats", watched("30000000", Some(std::process::id())));
    let mut now = at(100);
    for _ in 0..20 {
        systemd.mind(now);
        assert_eq!(heard(&listener), ["WATCHDOG=1"]);
        systemd.mind(now + SECOND);
        assert!(heard(&listener).is_empty(), "not more often than needed");
        let next = systemd.next().expect("the next one");
        assert!(next.since(now) < 15 * SECOND, "{next:?} after {now:?}");
        now = next;
    }
}

#[test]
fn a_watchdog_of_another_process_or_none_is_not_answered() {
    let other = watched("30000000", Some(1));
    for given in [other, watched("0", None), watched("soon", None), Given::default()] {
        let what = format!("{given:?}");
        let (listener, mut systemd) = talk("none", given);
        systemd.mind(at(1));
        assert_eq!((systemd.next(), heard(&listener)), (None, vec![]), "{what}");
    }
    let mut alone = Systemd::new(watched("30000000", None));
    alone.mind(at(1));
    assert_eq!(alone.next(), None, "nobody to tell it to");
}

#[test]
fn a_status_is_told_when_it_changes() {
    let (listener, mut systemd) = talk("status", Given::default());
    for up in [1, 1, 2, 2, 1] {
        systemd.status(format!("{up} of 2 WANs up"), at(1));
    }
    let told = [1, 2, 1].map(|up| format!("STATUS={up} of 2 WANs up"));
    assert_eq!(heard(&listener), told);
}

#[test]
fn a_reload_carries_its_time_and_ends_with_ready() {
    let (listener, mut systemd) = talk("reload", Given::default());
    systemd.reloading(at(1));
    systemd.ready(at(1));
    systemd.stopping(at(2));
    let told = heard(&listener);
    let (first, usec) = told[0].split_once("\nMONOTONIC_USEC=").expect("two lines");
    assert_eq!(first, "RELOADING=1");
    assert!(usec.parse::<u64>().is_ok_and(|usec| usec > 0), "{usec}");
    assert_eq!(told[1..], ["READY=1", "STOPPING=1"]);
}

#[test]
fn what_a_full_socket_does_not_take_is_offered_again_the_newest_word_on_each_matter() {
    let (listener, mut systemd) = talk("full", watched("3000000", None));
    let mut said = 0;
    while systemd.unsent.is_empty() {
        said += 1;
        assert!(said < 100_000, "its queue is endless");
        systemd.status(format!("{said}"), at(1));
    }
    systemd.mind(at(2));
    systemd.ready(at(2));
    systemd.status("the newest".to_owned(), at(2));
    assert_eq!(systemd.next(), Some(at(2) + AGAIN));
    assert_eq!(heard(&listener).len(), said - 1);
    systemd.mind(at(2) + AGAIN / 2);
    assert!(heard(&listener).is_empty(), "not before its time");
    systemd.mind(at(2) + AGAIN);
    assert_eq!(heard(&listener), ["WATCHDOG=1\nREADY=1\nSTATUS=the newest"]);
    assert_eq!(systemd.next(), Some(at(3)), "the next sign of life");
}

#[test]
fn whoever_does_not_listen_is_no_error() {
    let gone = Given { socket: Some("/nonexistent/notify".into()), ..watched("3000000", None) };
    let absurd = Given { socket: Some("x".repeat(500).into()), ..Given::default() };
    for given in [gone, absurd, Given { socket: Some("".into()), ..Given::default() }] {
        let mut systemd = Systemd::new(given);
        systemd.ready(at(1));
        systemd.mind(at(1));
        systemd.stopping(at(1));
        assert!(systemd.unsent.is_empty());
    }
}
