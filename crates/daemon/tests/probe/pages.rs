//! HTTP probes against the page that is expected, against portals, and by name.

use std::net::{IpAddr, SocketAddr};

use anywan_core::config::{Expect, Host, HttpTarget, Target};
use anywan_core::names::Family;
use anywan_core::steps::Failure;

use crate::internet::{Internet, hosts};
use crate::servers::{Server, answer};
use crate::{MARK, on_the_router};

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const SUCCESS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5\r\nSucce\r\n2\r\nss\r\n0\r\n\r\n";

fn page(host: Host, status: u16, body: Option<&str>) -> Target {
    let expect = Expect { status, body: body.map(str::to_owned) };
    Target::Http(HttpTarget { host, port: 80, path: "/204?x".to_owned(), expect })
}

fn at(address: IpAddr) -> Target {
    page(Host::Address(address), 204, None)
}

fn named() -> Target {
    page(Host::Name("connectivity.example".to_owned()), 204, None)
}

#[test]
fn the_expected_page_is_an_answer_and_every_packet_of_it_carries_the_mark() {
    let internet = Internet::new(1);
    internet.router.nft(&format!(
        "table inet t {{ chain out {{ type filter hook output priority 0;
            tcp dport 80 meta mark != {MARK} drop
        }}
        }}"
    ));
    for host in hosts() {
        let server = Server::pages(internet.isp(1), host, Some(NO_CONTENT));
        on_the_router(&internet, async |mut asker| {
            asker.must_answer(1, at(host)).await;
        });
        let request = server.asked.lock().expect("nobody panicked").concat();
        let request = String::from_utf8(request).expect("ASCII");
        let authority = Host::Address(host);
        let head = format!("GET /204?x HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: anywan/");
        assert!(request.starts_with(&head), "{request}");
        assert!(request.contains("\r\nConnection: close\r\n"), "{request}");
        drop(server);
        let _server = Server::pages(internet.isp(1), host, Some(SUCCESS));
        on_the_router(&internet, async |mut asker| {
            asker.must_answer(1, page(Host::Address(host), 200, Some("Success"))).await;
        });
    }
}

#[test]
fn a_redirect_another_status_and_a_foreign_page_are_a_portals() {
    let internet = Internet::new(1);
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://login.example/?to=x\r\n\r\n";
    let login = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n<html>log in!</html>";
    let must_log_in = "HTTP/1.1 511 Network Authentication Required\r\n\r\n";
    for host in hosts() {
        for (response, body, why) in [
            (redirect, None, "redirected to http://login.example/?to=x"),
            (login, None, "answered 200 instead of 204"),
            (login, Some("Success"), "answered 200 with a page that is not the expected one"),
            (must_log_in, None, "answered 511: a login is required"),
        ] {
            let _server = Server::pages(internet.isp(1), host, Some(response));
            let status = if body.is_some() { 200 } else { 204 };
            on_the_router(&internet, async |mut asker| {
                let outcome = asker.ask(1, page(Host::Address(host), status, body), 5_000).await;
                assert_eq!(outcome, Err(Failure::Portal(why.to_owned())));
            });
        }
    }
}

#[test]
fn a_host_that_refuses_fails_or_talks_otherwise_is_silent() {
    let internet = Internet::new(1);
    let silent = |why: &str| Err(Failure::Silent(why.to_owned()));
    for host in hosts() {
        on_the_router(&internet, async |mut asker| {
            let outcome = asker.ask(1, at(host), 5_000).await;
            assert_eq!(outcome, silent("refused: nothing listens there"));
        });
        for (response, why) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "answered 404 instead of 204"),
            ("HTTP/1.1 503 Busy\r\n\r\n", "answered 503 instead of 204"),
            ("220 mail.example ESMTP\r\n", "answered with something that is not HTTP"),
            ("", "closed the connection without an answer"),
        ] {
            let _server = Server::pages(internet.isp(1), host, Some(response));
            on_the_router(&internet, async |mut asker| {
                assert_eq!(asker.ask(1, at(host), 5_000).await, silent(why));
            });
        }
        let _server = Server::pages(internet.isp(1), host, None);
        on_the_router(&internet, async |mut asker| {
            asker.must_fail(1, at(host), "no answer in 100 ms").await;
        });
    }
}

/// The resolver and the page's host of every ISP: a name server that gives `address` in both
/// families, and a page of its own.
fn world(internet: &Internet, wan: usize, response: &'static str) -> (Vec<Server>, Vec<Server>) {
    let [ipv4, ipv6] = hosts();
    let names = hosts().map(|host| {
        Server::names(internet.isp(wan), host, move |question| {
            let wants_ipv6 = question[question.len() - 3] == 28;
            vec![answer(question, 0, Some(if wants_ipv6 { ipv6 } else { ipv4 }))]
        })
    });
    let pages = hosts().map(|host| Server::pages(internet.isp(wan), host, Some(response)));
    (names.into(), pages.into())
}

#[test]
fn a_name_is_resolved_through_its_own_wan_and_kept_until_a_probe_fails() {
    let internet = Internet::new(2);
    let (names, pages) = world(&internet, 1, NO_CONTENT);
    let (portal_names, portal_pages) =
        world(&internet, 2, "HTTP/1.1 307 To\r\nLocation: /login\r\n\r\n");
    let times = |servers: &[Server]| -> Vec<usize> { servers.iter().map(Server::times).collect() };
    on_the_router(&internet, async |mut asker| {
        for (family, host) in Family::BOTH.into_iter().zip(hosts()) {
            asker.family = family;
            asker.resolvers = vec![SocketAddr::new(host, 53)];
            for _ in 0..3 {
                asker.must_answer(1, named()).await;
                let outcome = asker.ask(2, named(), 5_000).await;
                assert_eq!(outcome, Err(Failure::Portal("redirected to /login".to_owned())));
            }
        }
    });
    assert_eq!(times(&names), [1, 1], "once for each family");
    assert_eq!(times(&pages), [3, 3]);
    assert_eq!(times(&portal_names), [3, 3], "again after each failure");
    assert_eq!(times(&portal_pages), [3, 3]);
}

#[test]
fn resolvers_are_asked_in_their_order_until_one_knows_the_name() {
    let internet = Internet::new(1);
    let [host, _] = hosts();
    let elsewhere: IpAddr = "192.0.2.9".parse().expect("an address");
    let failing =
        Server::names(internet.isp(1), elsewhere, |question| vec![answer(question, 2, None)]);
    let knowing = Server::names(internet.isp(1), host, move |question| {
        let wants_ipv6 = question[question.len() - 3] == 28;
        vec![answer(question, 0, Some(host).filter(|_| !wants_ipv6))]
    });
    let _page = Server::pages(internet.isp(1), host, Some(NO_CONTENT));
    on_the_router(&internet, async |mut asker| {
        asker.resolvers = [elsewhere, host].map(|server| SocketAddr::new(server, 53)).into();
        asker.must_answer(1, named()).await;
        asker.family = Family::Ipv6;
        let why = "connectivity.example is not resolved by 192.0.2.1: it has no IPv6 address";
        let outcome = asker.ask(1, named(), 5_000).await;
        assert_eq!(outcome, Err(Failure::Silent(why.to_owned())));
        asker.family = Family::Ipv4;
        asker.resolvers.truncate(1);
        asker.must_answer(1, named()).await;
    });
    assert_eq!((failing.times(), knowing.times()), (2, 2));
}
