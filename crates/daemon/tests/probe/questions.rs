//! DNS probes against servers that answer, fail, lie or say nothing, and against a real dnsmasq.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anywan_core::config::Target;

use crate::internet::{Internet, hosts};
use crate::servers::{Server, answer};
use crate::{MARK, PATIENCE, UNANSWERED, on_the_router};

fn question(server: IpAddr) -> Target {
    Target::Dns { server, port: 53, name: "example.com".to_owned() }
}

#[test]
fn a_name_that_exists_and_one_that_does_not_are_answers_and_every_question_carries_the_mark() {
    let internet = Internet::new(1);
    internet.router.nft(&format!(
        "table inet t {{ chain out {{ type filter hook output priority 0;
            udp dport 53 meta mark != {MARK} drop
        }}
        }}"
    ));
    for host in hosts() {
        for (code, address) in [(0, Some("192.0.2.7")), (0, None), (3, None)] {
            let address: Option<IpAddr> = address.map(|text| text.parse().expect("an address"));
            let server = Server::names(internet.isp(1), host, move |question| {
                vec![answer(question, code, address)]
            });
            on_the_router(&internet, async |mut asker| {
                asker.must_answer(1, question(host)).await;
            });
            assert_eq!(server.times(), 1);
        }
    }
}

#[test]
fn a_server_that_fails_refuses_or_is_silent_gives_no_answer() {
    let internet = Internet::new(1);
    for host in hosts() {
        on_the_router(&internet, async |mut asker| {
            // Longer than the kernel may take to believe it.
            let outcome = asker.ask(1, question(host), 5_000).await;
            let why = outcome.expect_err("there is no server").to_string();
            assert_eq!(why, "refused: nothing listens there");
        });
        for (code, why) in [
            (2, "the DNS server failed (SERVFAIL)"),
            (5, "the DNS server refused (REFUSED)"),
            (4, "the DNS server answered with error 4"),
        ] {
            let _server = Server::names(internet.isp(1), host, move |question| {
                vec![answer(question, code, None)]
            });
            on_the_router(&internet, async |mut asker| {
                let outcome = asker.ask(1, question(host), 5_000).await;
                assert_eq!(outcome.expect_err("an error").to_string(), why);
            });
        }
        let _server = Server::names(internet.isp(1), host, |_| Vec::new());
        on_the_router(&internet, async |mut asker| {
            asker.must_fail(1, question(host), UNANSWERED).await;
        });
    }
}

/// What somebody sends who does not know the question.
fn forgeries(question: &[u8]) -> Vec<Vec<u8>> {
    let good = answer(question, 0, None);
    let mut all: Vec<Vec<u8>> = [0, 1, 2, 5, 13, good.len() - 3, good.len() - 1]
        .map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 0x82;
            bytes
        })
        .into();
    all.extend([Vec::new(), question.to_vec(), good[..20].to_vec(), vec![0xff; 500]]);
    all
}

#[test]
fn answers_to_other_questions_are_ignored_and_the_right_one_behind_them_is_heard() {
    let internet = Internet::new(1);
    for host in hosts() {
        let forger = Server::names(internet.isp(1), host, forgeries);
        on_the_router(&internet, async |mut asker| {
            asker.must_fail(1, question(host), UNANSWERED).await;
        });
        drop(forger);
        let _both = Server::names(internet.isp(1), host, |question| {
            let mut answers = forgeries(question);
            answers.push(answer(question, 0, None));
            answers
        });
        on_the_router(&internet, async |mut asker| {
            asker.must_answer(1, question(host)).await;
        });
    }
}

#[test]
fn an_answer_to_a_question_counts_even_when_the_daemon_reads_it_late() {
    let internet = Internet::new(1);
    for host in hosts() {
        let server =
            Server::names(internet.isp(1), host, |question| vec![answer(question, 0, None)]);
        on_the_router(&internet, async |mut asker| {
            asker.until_the_kernel_stamps(1, Target::Icmp(host)).await;
            asker.send(1, "w1", question(host), 2_000);
            // The task runs once and sends; then the whole thread stands still.
            tokio::task::yield_now().await;
            let begun = Instant::now();
            while server.times() == 0 {
                assert!(begun.elapsed() < PATIENCE, "the question does not arrive");
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(2_200));
            let round_trip = asker.receive().await.outcome.expect("it was answered in time");
            assert!(round_trip < Duration::from_secs(2), "{round_trip:?}");
        });
    }
}

#[test]
fn a_question_through_an_interface_that_is_gone_is_said_to_be() {
    let internet = Internet::new(1);
    internet.unplug(1);
    on_the_router(&internet, async |mut asker| {
        for host in hosts() {
            asker.must_fail(1, question(host), "interface w1 is gone").await;
        }
    });
}

/// A real dnsmasq, which ends when this is dropped.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(internet: &Internet) -> Dnsmasq {
        let arguments = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--listen-address=192.0.2.1,2001:db8:2::1",
            "--address=/example.com/192.0.2.7",
            "--address=/none.example/",
        ];
        let spawn = || {
            Command::new("dnsmasq")
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start dnsmasq\n  hint: apt-get install dnsmasq-base")
        };
        let dnsmasq = Dnsmasq(internet.isp(1).inside(spawn));
        dnsmasq.wait_until_it_listens(internet);
        dnsmasq
    }

    fn wait_until_it_listens(&self, internet: &Internet) {
        let begun = Instant::now();
        // It listens over TCP too, on the last of its addresses last.
        let [_, last] = hosts();
        let server = SocketAddr::new(last, 53);
        while internet.isp(1).inside(|| std::net::TcpStream::connect(server).is_err()) {
            assert!(begun.elapsed() < PATIENCE, "dnsmasq does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn dnsmasq_answers_for_names_it_knows_and_for_names_that_do_not_exist() {
    let internet = Internet::new(1);
    let _dnsmasq = Dnsmasq::start(&internet);
    on_the_router(&internet, async |mut asker| {
        for server in hosts() {
            for name in ["example.com", "none.example"] {
                let target = Target::Dns { server, port: 53, name: name.to_owned() };
                asker.must_answer(1, target).await;
            }
            // It has nobody to ask for others.
            let name = "elsewhere.example".to_owned();
            let outcome = asker.ask(1, Target::Dns { server, port: 53, name }, 5_000).await;
            let why = outcome.expect_err("refused").to_string();
            assert_eq!(why, "the DNS server refused (REFUSED)");
        }
    });
}
