//! The operations of a switch take microseconds. The bounds are a hundred times what was measured,
//! so that they only catch a fork or a closed socket coming back.

use std::time::{Duration, Instant};

use anywan_core::names::{Family, PROTOCOL, TableId};
use anywan_core::observed::{Hop, Key, Route, empty_maps};
use anywan_core::steps::{ElementChange, Step};

use crate::net::{fresh_network, open, pair};
use crate::nft::load;

/// The median time of an operation.
fn median(mut operation: impl FnMut(usize)) -> Duration {
    let mut times: Vec<Duration> = (0..501)
        .map(|n| {
            let start = Instant::now();
            operation(n);
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn elements_and_routes_change_and_an_unchanged_table_is_read_in_microseconds() {
    fresh_network(|state| {
        let device = pair("a0");
        let mut kernel = open(state);
        kernel.apply(&load(7, empty_maps())).expect("loads");
        let mut old = None;
        let element = median(|n| {
            let new = Some(format!("place{}", n % 2 + 1));
            let (map, key) = ("restore4".to_owned(), Key::Number(1));
            let change = ElementChange { map, key, old: old.clone(), new: new.clone() };
            kernel.apply(&Step::ChangeElements(vec![change])).expect("changes");
            old = new;
        });
        let mut times = vec![("change an element", element)];
        for family in Family::BOTH {
            let via = ["192.0.2.1", "192.0.2.2", "fe80::1", "fe80::2"];
            let put = median(|n| {
                let via = via[n % 2 + if family == Family::Ipv6 { 2 } else { 0 }];
                let hop = Hop { device, via: via.parse().ok(), weight: 1 };
                let (table, metric, protocol) = (TableId(101), 10, PROTOCOL);
                let route = Route { family, table, to: None, metric, protocol, hops: vec![hop] };
                kernel.apply(&Step::PutRoute(route)).expect("replaces");
            });
            times.push(("put a route", put));
        }
        kernel.nft().expect("readable");
        times.push(("read an unchanged table", median(|_| drop(kernel.nft()))));
        times.push(("read the routes", median(|_| drop(kernel.routes()))));
        times.push(("read the rules", median(|_| drop(kernel.rules()))));
        times.push(("read the links", median(|_| drop(kernel.links()))));
        let whole = median(|_| drop(kernel.observe(["net/ipv4/ip_forward"])));
        for (what, time) in &times {
            assert!(*time < Duration::from_millis(5), "{what}: {time:?}");
        }
        assert!(whole < Duration::from_millis(100), "observe: {whole:?}");
        let shown: Vec<String> =
            times.iter().map(|(what, time)| format!("{what} {time:?}")).collect();
        // Shown with --nocapture, or when the test fails.
        #[expect(clippy::print_stdout, reason = "a measurement is to be seen")]
        {
            println!("{}, observe {whole:?}", shown.join(", "));
        }
    });
}
