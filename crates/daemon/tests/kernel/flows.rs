//! Clients of lost and of gone flows know at once, also those that only listen.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anywan_core::names::Family;
use anywan_core::observed::{Structure, TcpFlow};
use anywan_daemon::kernel::{Destroyed, Gone, Kernel};

use crate::hosts::{
    DEADLINE, NUMBERS, PINNED, connections, give_wan_its_addresses, lose, own_connection, routed,
    server, wake_all,
};
use crate::net::run;

/// What a client that only listens hears in the end.
fn hears(mut client: &TcpStream) -> Result<usize, ErrorKind> {
    client.read(&mut [0]).map_err(|error| error.kind())
}

/// A word there and one back.
fn talk((near, far): &mut (TcpStream, TcpStream)) {
    near.write_all(b"?").expect("open");
    far.read_exact(&mut [0]).expect("it arrives");
    far.write_all(b"!").expect("open");
    near.read_exact(&mut [0]).expect("it arrives");
}

fn ends(pairs: &[(TcpStream, TcpStream)]) -> BTreeSet<SocketAddr> {
    pairs.iter().map(|(near, _)| near.local_addr().expect("bound")).collect()
}

fn clients(flows: &[TcpFlow]) -> BTreeSet<SocketAddr> {
    flows.iter().map(|flow| flow.client).collect()
}

fn established(kernel: &mut Kernel, family: Family) -> Vec<TcpFlow> {
    kernel.established(family, PINNED, NUMBERS).expect("readable")
}

/// Waits until no client can be waiting any more: packets and deletions take their time.
fn await_none(kernel: &mut Kernel, family: Family) {
    let end = Instant::now() + DEADLINE;
    while !established(kernel, family).is_empty() {
        assert!(Instant::now() < end, "{:?}", established(kernel, family));
    }
}

#[test]
fn only_flows_that_a_client_may_wait_on_are_read_with_both_ends_as_it_sees_them() {
    routed(|kernel, hosts, _| {
        for family in Family::BOTH {
            let pairs = connections(hosts, family, 3);
            let flows = established(kernel, family);
            assert_eq!(clients(&flows), ends(&pairs));
            assert!(flows.iter().all(|f| f.server == server(family) && f.mark == PINNED));
            assert!(flows.iter().all(|f| f.family == family));
            assert_eq!(kernel.established(family, 0x200_0000, NUMBERS).expect("readable"), []);
            pairs[0].0.shutdown(std::net::Shutdown::Write).expect("open");
            assert_eq!(hears(&pairs[0].1), Ok(0));
            assert_eq!(established(kernel, family).len(), 3, "one waits for the answer");
            drop(pairs);
            await_none(kernel, family);
        }
    });
}

#[test]
fn an_idle_client_of_a_lost_wan_is_reset() {
    routed(|kernel, hosts, _| {
        for family in Family::BOTH {
            let pairs = connections(hosts, family, 1);
            lose(kernel, family);
            let flows = established(kernel, family);
            wake_all(kernel, &flows);
            assert_eq!(hears(&pairs[0].0), Err(ErrorKind::ConnectionReset));
            // The kernel has closed the entry with its reset.
            await_none(kernel, family);
        }
    });
}

#[test]
fn the_router_itself_is_told_like_any_client() {
    routed(|kernel, hosts, _| {
        for family in Family::BOTH {
            let (near, _far) = own_connection(hosts, family);
            lose(kernel, family);
            let flows = established(kernel, family);
            assert_eq!(clients(&flows), BTreeSet::from([near.local_addr().expect("bound")]));
            wake_all(kernel, &flows);
            assert_eq!(hears(&near), Err(ErrorKind::ConnectionReset));
        }
    });
}

#[test]
fn a_segment_that_wakes_does_no_harm_to_a_flow_that_is_not_lost() {
    routed(|kernel, hosts, _| {
        for family in Family::BOTH {
            let mut pairs = connections(hosts, family, 1);
            let flows = established(kernel, family);
            wake_all(kernel, &flows);
            for _ in 0..3 {
                talk(&mut pairs[0]);
            }
            assert_eq!(established(kernel, family), flows);
        }
    });
}

/// Wakes those that a call was lost on the way to, as the daemon does; a slow machine drops some of
/// thousands of segments.
fn call_again(kernel: &mut Kernel, family: Family) {
    let end = Instant::now() + DEADLINE;
    loop {
        // Linux answers such segments once in half a second (`tcp_invalid_ratelimit`).
        let soon = Instant::now() + Duration::from_millis(700);
        let mut rest = established(kernel, family);
        while !rest.is_empty() && Instant::now() < soon {
            std::thread::sleep(Duration::from_millis(20));
            rest = established(kernel, family);
        }
        if rest.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{} have not heard", rest.len());
        wake_all(kernel, &rest);
    }
}

#[test]
fn a_thousand_idle_flows_of_one_client_behind_a_strict_firewall_are_reset() {
    routed(|kernel, hosts, _| {
        hosts.client.run(
            "nft add table inet fw
            nft add chain inet fw in { type filter hook input priority 0 ; }
            nft add rule inet fw in ct state invalid drop
            nft add rule inet fw in ct state new tcp flags & syn == 0 drop",
        );
        for family in Family::BOTH {
            let pairs = connections(hosts, family, 1000);
            lose(kernel, family);
            let begun = Instant::now();
            let flows = established(kernel, family);
            assert_eq!(flows.len(), 1000);
            wake_all(kernel, &flows);
            let sent = begun.elapsed();
            call_again(kernel, family);
            for (near, _) in &pairs {
                assert_eq!(hears(near), Err(ErrorKind::ConnectionReset));
            }
            shown(format_args!("{family}: read and sent {sent:?}, all know {:?}", begun.elapsed()));
        }
    });
}

#[test]
fn clients_that_cannot_be_reached_do_not_stop_the_others() {
    routed(|kernel, hosts, _| {
        let pairs = connections(hosts, Family::Ipv4, 2);
        lose(kernel, Family::Ipv4);
        let mut flows = established(kernel, Family::Ipv4);
        let elsewhere = TcpFlow { client: "192.0.2.77:1".parse().expect("one"), ..flows[0] };
        let broken = TcpFlow { client: "[2001:db8::1]:1".parse().expect("one"), ..flows[0] };
        flows.splice(0..0, [elsewhere, broken]);
        wake_all(kernel, &flows);
        for (near, _) in &pairs {
            assert_eq!(hears(near), Err(ErrorKind::ConnectionReset));
        }
    });
}

/// Runs `body` where a listener can live.
fn with_runtime(body: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(body());
}

/// All flows that go, until there are `count`.
async fn gone(listener: &mut Destroyed, count: usize) -> Gone {
    let mut all = Gone::default();
    while all.flows.len() < count {
        let next = tokio::time::timeout(DEADLINE, listener.next()).await;
        let next = next.unwrap_or_else(|_| panic!("only {} of {count}", all.flows.len()));
        all.flows.extend(next.flows);
        all.overruns += next.overruns;
    }
    all
}

fn take_wan_addresses() {
    run("ip address del 198.51.100.2/24 dev wan0");
    run("ip address del 2001:db8:2::2/64 dev wan0");
}

#[test]
fn flows_that_go_with_an_address_are_told_and_those_that_end_by_themselves_are_not() {
    routed(|kernel, hosts, _| {
        with_runtime(async || {
            let mut listener = Destroyed::open(NUMBERS).expect("root");
            // Flows that have ended, one that is not ours, and one that is not TCP.
            for family in Family::BOTH {
                drop(connections(hosts, family, 20));
                await_none(kernel, family);
            }
            let own = TcpListener::bind("192.168.1.1:4000").expect("free");
            let _near = hosts.client.inside(|| TcpStream::connect("192.168.1.1:4000"));
            let _far = own.accept().expect("one is there");
            hosts.client.inside(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("free");
                socket.send_to(b"x", server(Family::Ipv4)).expect("a way");
            });
            run("conntrack -D -p tcp -d 192.168.1.1");
            let mut pairs = connections(hosts, Family::Ipv4, 500);
            pairs.extend(connections(hosts, Family::Ipv6, 500));
            run("conntrack -D -p udp -d 203.0.113.9");
            take_wan_addresses();
            let all = gone(&mut listener, 1000).await;
            assert_eq!((clients(&all.flows), all.overruns), (ends(&pairs), 0));
            assert!(all.flows.iter().all(|f| f.mark == PINNED && f.server == server(f.family)));
            // The kernel has deleted all it will: the last address went before the last flow.
            let quiet = tokio::time::timeout(Duration::from_millis(50), listener.next()).await;
            assert!(quiet.is_err(), "nothing else: {quiet:?}");
        });
    });
}

#[test]
fn a_full_queue_is_told_and_the_listener_goes_on() {
    routed(|kernel, hosts, _| {
        with_runtime(async || {
            let mut listener = Destroyed::with_queue(NUMBERS, 2048).expect("root");
            let _pairs = connections(hosts, Family::Ipv4, 200);
            take_wan_addresses();
            await_none(kernel, Family::Ipv4);
            let mut heard = Gone::default();
            while heard.overruns == 0 {
                let next = tokio::time::timeout(DEADLINE, listener.next()).await;
                heard = next.expect("an overrun");
            }
            give_wan_its_addresses();
            while tokio::time::timeout(Duration::from_millis(50), listener.next()).await.is_ok() {}
            let pairs = connections(hosts, Family::Ipv4, 1);
            run("conntrack -D -p tcp");
            let flows = gone(&mut listener, 1).await.flows;
            assert!(clients(&flows).is_superset(&ends(&pairs)), "{flows:?}");
        });
    });
}

#[test]
fn clients_of_gone_flows_are_reset_whether_they_speak_or_listen() {
    for loose in ["1", "0"] {
        routed(|kernel, hosts, _| {
            run(&format!("sysctl -qw net.netfilter.nf_conntrack_tcp_loose={loose}"));
            with_runtime(async || {
                let mut listener = Destroyed::open(NUMBERS).expect("root");
                let mut pairs = connections(hosts, Family::Ipv4, 20);
                pairs.extend(connections(hosts, Family::Ipv6, 20));
                take_wan_addresses();
                let flows = gone(&mut listener, 40).await.flows;
                let before = kernel.nft().expect("readable");
                kernel.mark_gone(&flows, 600).expect("allowed");
                kernel.mark_gone(&flows, 600).expect("once more is fine");
                assert_eq!(kernel.nft().expect("readable"), before);
                for (near, _) in pairs.iter_mut().step_by(2) {
                    near.write_all(b"?").expect("it is still open");
                }
                wake_all(kernel, &flows);
                for (near, _) in &pairs {
                    assert_eq!(hears(near), Err(ErrorKind::ConnectionReset), "loose={loose}");
                }
                // The same ends may begin anew.
                give_wan_its_addresses();
                assert_eq!(connections(hosts, Family::Ipv4, 40).len(), 40);
            });
        });
    }
}

/// Their first words are picked up as a flow before we know that the one they belong to is gone.
#[test]
fn clients_that_speak_before_they_are_refused_are_reset_too() {
    routed(|kernel, hosts, _| {
        with_runtime(async || {
            let mut listener = Destroyed::open(NUMBERS).expect("root");
            let mut pairs = connections(hosts, Family::Ipv4, 20);
            pairs.extend(connections(hosts, Family::Ipv6, 20));
            take_wan_addresses();
            let flows = gone(&mut listener, 40).await.flows;
            for (near, _) in &mut pairs {
                near.write_all(b"?").expect("it is still open");
            }
            kernel.refuse(&flows, 600).expect("allowed");
            // Its own retransmission may have told it already; then it hears of it now.
            let speak = |near: &mut TcpStream| near.write_all(b"?").map_err(|e| e.kind());
            let said: Vec<_> = pairs.iter_mut().map(|(near, _)| speak(near)).collect();
            wake_all(kernel, &flows);
            for ((near, _), said) in pairs.iter().zip(said) {
                let heard = said.and_then(|()| hears(near).map(drop));
                assert_eq!(heard, Err(ErrorKind::ConnectionReset));
            }
        });
    });
}

#[test]
fn flows_of_a_wan_that_is_left_begin_anew_and_those_of_the_router_itself_go_on() {
    routed(|kernel, hosts, _| {
        for family in Family::BOTH {
            let mut pairs = connections(hosts, family, 2);
            let to = server(family);
            hosts.client.inside(move || {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let sent = UdpSocket::bind(any).and_then(|socket| socket.send_to(b"?", to));
                sent.expect("a way out");
            });
            let mut own = own_connection(hosts, family);
            let mark = (PINNED, NUMBERS);
            // What leads to an address of the router came from outside.
            let (count, flows) = kernel.release(family, mark, &[to.ip()], 600).expect("allowed");
            assert_eq!((count, flows), (0, Vec::new()));
            pairs.iter_mut().for_each(talk);
            let (count, flows) = kernel.release(family, mark, &[], 600).expect("allowed");
            assert_eq!(count, 3, "two of TCP and one of UDP");
            assert_eq!(clients(&flows), ends(&pairs));
            pairs[0].0.write_all(b"?").expect("it is still open");
            wake_all(kernel, &flows);
            for (near, _) in &pairs {
                assert_eq!(hears(near), Err(ErrorKind::ConnectionReset));
            }
            talk(&mut own);
            connections(hosts, family, 2).iter_mut().for_each(talk);
        }
    });
}

#[test]
fn gone_flows_are_forgotten_in_time_and_never_count_as_drift() {
    routed(|kernel, _, _| {
        let flow = |port: u16, family| TcpFlow {
            family,
            client: SocketAddr::new(server(family).ip(), port),
            server: server(family),
            outside: server(family).ip(),
            mark: PINNED,
        };
        let before = kernel.nft().expect("readable");
        assert!(matches!(before.structure, Structure::Intact(_)));
        let both = Family::BOTH.into_iter();
        let many: Vec<TcpFlow> =
            both.flat_map(|f| (1..=20_000).map(move |port| flow(port, f))).collect();
        kernel.mark_gone(&many, 1).expect("allowed");
        kernel.mark_gone(&[], 1).expect("nothing to do");
        let listed = |set: &str| run(&format!("nft list set inet anywan {set}"));
        let end = Instant::now() + DEADLINE;
        while ["gone4", "gone6"].iter().any(|set| listed(set).contains("elements")) {
            assert!(Instant::now() < end, "they stay");
        }
        assert_eq!(kernel.nft().expect("readable"), before);
        kernel.mark_gone(&many[..1], 600).expect("allowed");
        assert!(listed("gone4").contains("203.0.113.9 . 1 . 203.0.113.9 . 4000"));
        // Everything read anew.
        assert_eq!(kernel.observe(["net/ipv4/ip_forward"]).expect("readable").nft, before);
        // Once more: some kernels make no transaction of it.
        kernel.mark_gone(&many[..1], 600).expect("allowed");
        run("nft flush ruleset");
        assert_eq!(kernel.nft().expect("readable").structure, Structure::Absent);
    });
}

/// Shown with --nocapture, or when the test fails.
#[expect(clippy::print_stdout, reason = "a measurement is to be seen")]
fn shown(what: std::fmt::Arguments<'_>) {
    println!("{what}");
}
