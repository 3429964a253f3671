//! Probes with real packets, between a router and one or two ISPs in network namespaces of
//! their own. Needs root.

#[path = "probe/internet.rs"]
mod internet;
#[path = "probe/pages.rs"]
mod pages;
#[path = "probe/questions.rs"]
mod questions;
#[path = "probe/servers.rs"]
mod servers;
#[path = "probe/stranger.rs"]
mod stranger;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anywan_core::config::Target;
use anywan_core::names::{Family, Mark, WanId};
use anywan_core::steps::{Failure, Probe, ProbeResult};
use anywan_daemon::probe::{Prober, UNDER_WAY_MAX};
use tokio::sync::mpsc::Receiver;

use internet::{Internet, hosts};
use stranger::{Answer, Stranger};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

const MARK: u32 = 0x0100_0000;

/// A prober in the router's namespace, and all that is needed to use it.
struct Asker {
    prober: Prober,
    results: Receiver<ProbeResult>,
    sequence: u64,
    /// For targets that serve both families.
    family: Family,
    resolvers: Vec<SocketAddr>,
}

impl Asker {
    fn family_for(&self, target: &Target) -> Family {
        match self.family {
            Family::Ipv4 if !target.serves(Family::Ipv4) => Family::Ipv6,
            Family::Ipv6 if !target.serves(Family::Ipv6) => Family::Ipv4,
            family @ (Family::Ipv4 | Family::Ipv6) => family,
        }
    }

    fn send(&mut self, wan: u8, device: &str, target: Target, timeout_ms: u64) {
        self.sequence += 1;
        let probe = Probe {
            wan: WanId(wan),
            family: self.family_for(&target),
            target,
            resolvers: self.resolvers.clone(),
            sequence: self.sequence,
            device: device.to_owned(),
            mark: Mark(MARK * u32::from(wan)),
            timeout: Duration::from_millis(timeout_ms),
        };
        self.prober.send(probe).expect("not too many");
    }

    async fn receive(&mut self) -> ProbeResult {
        let result = tokio::time::timeout(PATIENCE, self.results.recv()).await;
        result.expect("every probe is answered").expect("the channel is open")
    }

    /// Asks through WAN `wan` on the interface `w<wan>`.
    async fn ask(&mut self, wan: u8, target: Target, timeout_ms: u64) -> Result<Duration, Failure> {
        self.send(wan, &format!("w{wan}"), target.clone(), timeout_ms);
        let result = self.receive().await;
        assert_eq!((result.wan, result.sequence), (WanId(wan), self.sequence));
        assert_eq!(result.family, self.family_for(&target));
        assert_eq!(result.target, target);
        result.outcome
    }

    async fn must_answer(&mut self, wan: u8, target: Target) {
        let outcome = self.ask(wan, target.clone(), 5_000).await;
        let round_trip = outcome.unwrap_or_else(|why| panic!("{target} through {wan}: {why}"));
        // More than a second is possible: that is when a lost neighbour solicitation is repeated.
        assert!(round_trip <= Duration::from_secs(5), "{target}: {round_trip:?}");
    }

    /// Waits until the kernel stamps packets as they arrive: it begins to, in its own time, some
    /// while after the first socket has asked for it.
    async fn until_the_kernel_stamps(&mut self, wan: u8, target: Target) {
        let queued = Duration::from_millis(30);
        let begun = Instant::now();
        loop {
            self.send(wan, &format!("w{wan}"), target.clone(), 5_000);
            tokio::task::yield_now().await;
            std::thread::sleep(queued);
            let round_trip = self.receive().await.outcome.expect("it was answered");
            if round_trip < queued {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "packets are not stamped: {round_trip:?}");
        }
    }

    async fn must_fail(&mut self, wan: u8, target: Target, why: &str) {
        let silent = Failure::Silent(why.to_owned());
        assert_eq!(self.ask(wan, target.clone(), 100).await, Err(silent), "{target}");
    }
}

/// Runs `work` with a prober inside the router.
fn on_the_router(internet: &Internet, work: impl AsyncFnOnce(Asker) + Send) {
    internet.router.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let (prober, results) = Prober::new();
            let (family, resolvers) = (Family::Ipv4, Vec::new());
            work(Asker { prober, results, sequence: 0, family, resolvers }).await;
        });
    });
}

const UNANSWERED: &str = "no answer in 100 ms";

#[test]
fn a_host_that_answers_is_heard_in_both_families_and_every_packet_carries_the_mark() {
    let internet = Internet::new(1);
    internet.router.nft(&format!(
        "table inet t {{ chain out {{ type filter hook output priority 0;
            meta mark {MARK} accept
            icmp type echo-request drop
            icmpv6 type echo-request drop
            tcp flags syn drop
        }}
        }}"
    ));
    on_the_router(&internet, async |mut asker| {
        for host in hosts() {
            asker.must_answer(1, Target::Icmp(host)).await;
            asker.must_answer(1, Target::Tcp(host, 9)).await;
        }
    });
}

#[test]
fn a_host_that_drops_everything_is_not_heard() {
    let internet = Internet::new(1);
    internet.isp(1).nft(
        "table inet t { chain in { type filter hook input priority 0;
            icmp type echo-request drop
            icmpv6 type echo-request drop
            tcp dport 9 drop
        }
        }",
    );
    on_the_router(&internet, async |mut asker| {
        for host in hosts() {
            asker.must_fail(1, Target::Icmp(host), UNANSWERED).await;
            asker.must_fail(1, Target::Tcp(host, 9), UNANSWERED).await;
        }
    });
}

#[test]
fn a_handshake_and_a_refusal_are_answers_and_a_host_said_to_be_unreachable_is_none() {
    let internet = Internet::new(1);
    internet.isp(1).nft(
        "table inet t { chain in { type filter hook input priority 0;
            tcp dport 81 reject with icmpx type host-unreachable
        }
        }",
    );
    for host in hosts() {
        let bind = || TcpListener::bind(SocketAddr::new(host, 80)).expect("bind");
        let listener = internet.isp(1).inside(bind);
        on_the_router(&internet, async |mut asker| {
            asker.must_answer(1, Target::Tcp(host, 80)).await;
            asker.must_answer(1, Target::Tcp(host, 79)).await;
            // The kernel may take only the second one seriously: that to the SYN's repetition.
            let unreachable = asker.ask(1, Target::Tcp(host, 81), 5_000).await;
            let why = Failure::Silent("host is unreachable".to_owned());
            assert_eq!(unreachable, Err(why));
        });
        let (connection, _) = listener.accept().expect("the handshake's connection");
        let reset = std::io::Read::read(&mut &connection, &mut [0]).map_err(|error| error.kind());
        assert_eq!(reset, Err(std::io::ErrorKind::ConnectionReset), "nothing lingers");
    }
}

#[test]
fn an_interface_that_goes_is_said_to_be_gone_and_works_when_it_is_back() {
    let internet = Internet::new(1);
    on_the_router(&internet, async |mut asker| {
        for host in hosts() {
            asker.must_answer(1, Target::Icmp(host)).await;
        }
        internet.unplug(1);
        for host in hosts() {
            asker.must_fail(1, Target::Icmp(host), "interface w1 is gone").await;
            asker.must_fail(1, Target::Tcp(host, 9), "interface w1 is gone").await;
        }
        internet.plug_in(1);
        for host in hosts() {
            asker.must_answer(1, Target::Icmp(host)).await;
            asker.must_answer(1, Target::Tcp(host, 9)).await;
        }
        internet.router.ip("link set w1 down");
        for host in hosts() {
            let why = asker.ask(1, Target::Icmp(host), 100).await.expect_err("it is down");
            assert!(!why.to_string().contains("os error"), "{why}");
        }
    });
}

#[test]
fn two_wans_with_equal_addresses_are_told_apart() {
    let internet = Internet::new(2);
    on_the_router(&internet, async |mut asker| {
        for host in hosts() {
            for target in [Target::Icmp(host), Target::Tcp(host, 9)] {
                asker.must_answer(1, target.clone()).await;
                asker.must_answer(2, target).await;
            }
        }
        for host in hosts() {
            // Both under way at once, with equal addresses on the wire.
            asker.send(1, "w1", Target::Icmp(host), 5_000);
            asker.send(2, "w2", Target::Icmp(host), 5_000);
            let mut answered = Vec::new();
            for _ in 0..2 {
                let result = asker.receive().await;
                assert!(result.outcome.is_ok(), "{result:?}");
                answered.push(result.wan.0);
            }
            answered.sort_unstable();
            assert_eq!(answered, [1, 2]);
        }
        internet.isp(2).ip("link set line down");
        for host in hosts() {
            asker.must_answer(1, Target::Icmp(host)).await;
            asker.ask(2, Target::Icmp(host), 100).await.expect_err("WAN 2 is cut off");
        }
    });
}

#[test]
fn two_wans_on_one_interface_do_not_take_each_others_answers() {
    let internet = Internet::new(1);
    on_the_router(&internet, async |mut asker| {
        for host in hosts() {
            for round in 1..=50 {
                for wan in [1, 2] {
                    asker.send(wan, "w1", Target::Icmp(host), 5_000);
                }
                for _ in 0..2 {
                    let result = asker.receive().await;
                    assert!(result.outcome.is_ok(), "round {round}: {result:?}");
                }
            }
        }
    });
}

/// What a stranger makes of a request to spoil it.
fn forgeries(request: &[u8], host: IpAddr) -> Vec<Answer> {
    let elsewhere = if host.is_ipv4() { "192.0.2.9" } else { "2001:db8:2::9" };
    let elsewhere: IpAddr = elsewhere.parse().expect("an address");
    let changed = |at: usize| {
        let mut message = request.to_vec();
        message[at] ^= 1;
        Answer { after: Duration::ZERO, from: host, message }
    };
    let resized = |length: usize| {
        let mut message = request.to_vec();
        message.resize(length, 0);
        Answer { after: Duration::ZERO, from: host, message }
    };
    let mut all: Vec<Answer> = (4..request.len()).map(changed).collect();
    all.push(changed(1));
    all.extend([8, 10, 22, 26, 60].map(resized));
    all.push(Answer { after: Duration::ZERO, from: elsewhere, message: request.to_vec() });
    all
}

fn honest(request: &[u8], from: IpAddr, after_ms: u64) -> Answer {
    Answer { after: Duration::from_millis(after_ms), from, message: request.to_vec() }
}

fn silence_the_kernel(internet: &Internet) {
    internet.isp(1).sysctl("net/ipv4/icmp_echo_ignore_all", "1");
    internet.isp(1).sysctl("net/ipv6/icmp/echo_ignore_all", "1");
}

#[test]
fn forged_answers_are_ignored() {
    let internet = Internet::new(1);
    silence_the_kernel(&internet);
    for host in hosts() {
        let forger =
            Stranger::start(internet.isp(1), host, move |request| forgeries(request, host));
        on_the_router(&internet, async |mut asker| {
            asker.must_fail(1, Target::Icmp(host), UNANSWERED).await;
        });
        drop(forger);
        let _both = Stranger::start(internet.isp(1), host, move |request| {
            let mut answers = forgeries(request, host);
            answers.push(honest(request, host, 0));
            answers
        });
        on_the_router(&internet, async |mut asker| {
            asker.must_answer(1, Target::Icmp(host)).await;
        });
    }
}

#[test]
fn late_and_repeated_answers_are_ignored() {
    let internet = Internet::new(1);
    silence_the_kernel(&internet);
    for host in hosts() {
        let _late = Stranger::start(internet.isp(1), host, move |request| {
            vec![honest(request, host, 150), honest(request, host, 0)]
        });
        on_the_router(&internet, async |mut asker| {
            asker.must_fail(1, Target::Icmp(host), UNANSWERED).await;
            asker.must_answer(1, Target::Icmp(host)).await;
            asker.must_answer(1, Target::Icmp(host)).await;
            assert!(asker.results.is_empty(), "one result each");
        });
    }
}

#[test]
fn an_answer_in_time_counts_even_when_the_daemon_reads_it_late() {
    let internet = Internet::new(1);
    on_the_router(&internet, async |mut asker| {
        asker.until_the_kernel_stamps(1, Target::Icmp(hosts()[0])).await;
        for host in hosts() {
            asker.must_answer(1, Target::Icmp(host)).await;
            asker.send(1, "w1", Target::Icmp(host), 100);
            // The lane runs once and sends; then the whole thread stands still.
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(300));
            let round_trip = asker.receive().await.outcome.expect("it was answered in time");
            assert!(round_trip < Duration::from_millis(100), "{round_trip:?}");
        }
    });
}

#[test]
fn every_probe_has_one_result_even_when_nobody_reads_them_in_time() {
    let internet = Internet::new(1);
    on_the_router(&internet, async |mut asker| {
        let [host, host6] = hosts();
        for _ in 0..UNDER_WAY_MAX / 4 {
            asker.send(1, "w1", Target::Icmp(host), 5_000);
            asker.send(1, "w1", Target::Icmp(host6), 5_000);
            asker.send(1, "nowhere0", Target::Icmp(host), 5_000);
            asker.send(1, "w1", Target::Tcp(host, 9), 5_000);
            tokio::task::yield_now().await;
        }
        let mut one_more = asker.receive().await;
        one_more.sequence = 0;
        asker.send(1, "w1", Target::Icmp(host), 5_000);
        let refused = asker.prober.send(Probe {
            wan: WanId(1),
            family: Family::Ipv4,
            target: Target::Icmp(host),
            resolvers: Vec::new(),
            sequence: 9_999,
            device: "w1".to_owned(),
            mark: Mark(MARK),
            timeout: PATIENCE,
        });
        let refused = refused.expect_err("too many");
        assert_eq!(refused.sequence, 9_999);
        assert!(
            refused.outcome.is_err_and(|why| why.to_string().contains("2048 probes are under way"))
        );
        let mut sequences = Vec::new();
        for _ in 0..UNDER_WAY_MAX {
            sequences.push(asker.receive().await.sequence);
        }
        sequences.sort_unstable();
        sequences.dedup();
        assert_eq!(sequences.len(), UNDER_WAY_MAX, "each its own");
        assert!(asker.results.is_empty());
    });
}
