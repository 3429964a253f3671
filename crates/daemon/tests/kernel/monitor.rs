//! What wakes the monitor, and what does not.

use std::time::Duration;

use anywan_daemon::kernel::{Hints, Monitor};

use crate::net::{fresh_network, open, pair, run};

type Told = fn(Hints) -> bool;

/// Runs `body` where the monitor can live.
fn with_runtime(body: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(body());
}

/// All that the monitor says until it is quiet.
async fn heard(monitor: &mut Monitor) -> Hints {
    let mut hints = Hints::default();
    while let Ok(more) = tokio::time::timeout(Duration::from_millis(50), monitor.next()).await {
        hints |= more;
    }
    hints
}

#[test]
fn each_kind_of_change_gives_its_hint() {
    fresh_network(|_| {
        with_runtime(async || {
            pair("a0");
            run("ip address add 192.0.2.2/24 dev a0");
            let mut monitor = Monitor::open().expect("root");
            heard(&mut monitor).await;
            let cases: [(&str, Told); 14] = [
                ("ip link set a0 mtu 1400", |h| h.links),
                ("ip address add 198.51.100.2/24 dev a0", |h| h.addresses),
                ("ip address add 2001:db8::2/64 dev a0", |h| h.addresses),
                ("ip route add default via 192.0.2.1 table 7", |h| h.routes),
                ("ip -6 route add default via fe80::1 dev a0 table 7", |h| h.routes),
                ("ip route del default table 7", |h| h.routes),
                ("ip rule add pref 7 lookup 7", |h| h.rules),
                ("ip -6 rule add pref 7 lookup 7", |h| h.rules),
                ("ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:aa dev a0", |h| h.neighbours),
                ("sysctl -w net.ipv4.conf.a0.rp_filter=2", |h| h.sysctls),
                ("sysctl -w net.ipv4.ip_forward=1", |h| h.sysctls),
                ("nft add table inet other", |h| h.nft),
                ("nft flush ruleset", |h| h.nft),
                ("ip link del a0", |h| h.links),
            ];
            for (command, told) in cases {
                run(command);
                let hints = heard(&mut monitor).await;
                assert!(told(hints) && !hints.overrun, "{command}: {hints:?}");
            }
        });
    });
}

#[test]
fn chatter_gives_no_hint() {
    fresh_network(|state| {
        with_runtime(async || {
            pair("a0");
            run("ip address add 192.0.2.2/24 dev a0");
            run("ip neighbour add 192.0.2.1 lladdr 02:00:00:00:00:aa dev a0 nud reachable");
            let mut monitor = Monitor::open().expect("root");
            run("ip neighbour change 192.0.2.1 lladdr 02:00:00:00:00:aa dev a0 nud stale");
            heard(&mut monitor).await;
            run("ip neighbour change 192.0.2.1 lladdr 02:00:00:00:00:aa dev a0 nud reachable");
            run("ip route add 203.0.113.0/24 via 192.0.2.1");
            open(state).observe(["net/ipv4/ip_forward"]).expect("readable");
            // Links and addresses may still be settling.
            let hints = heard(&mut monitor).await;
            assert!(!hints.neighbours && !hints.routes && !hints.overrun, "{hints:?}");
            assert!(!hints.rules && !hints.nft && !hints.sysctls, "{hints:?}");
        });
    });
}

#[test]
fn a_full_queue_is_an_overrun_and_the_monitor_goes_on() {
    fresh_network(|_| {
        with_runtime(async || {
            let mut monitor = Monitor::with_queues(2048, 2048).expect("root");
            for _ in 0..30 {
                run("ip rule add pref 7 lookup 7");
                run("ip rule del pref 7 lookup 7");
            }
            assert!(heard(&mut monitor).await.overrun);
            run("ip rule add pref 7 lookup 7");
            let hints = heard(&mut monitor).await;
            assert!(hints.rules && !hints.overrun, "{hints:?}");
        });
    });
}
