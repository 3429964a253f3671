//! Laws of the configuration parser: no text makes it panic, a refusal always says why, and what a
//! valid file says is what comes out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anywan_core::config::{
    self, Expect, Gateway, Host, HttpTarget, MAX_BYTES, MAX_FAULTS, Nat, Target,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Parses and renders; the faults are bounded and complete.
fn survives(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(faults) = config::parse_bytes(bytes) {
        assert!(!faults.is_empty(), "a refusal without a reason");
        assert!(faults.len() <= MAX_FAULTS + 1);
        for fault in &faults {
            assert!(fault.span.start <= fault.span.end, "{fault:?}");
            assert!(fault.what.len() + fault.hint.len() < 2_000, "{fault:?}");
            assert!(!fault.what.contains('\u{1b}') && !fault.hint.contains('\u{1b}'));
            assert_eq!(fault.problem().code, fault.code);
        }
        for colour in [false, true] {
            assert!(!config::render("x.toml", &text, &faults, colour).is_empty());
        }
    }
}

/// Pieces of which files are made, right and wrong ones.
const PIECES: &[&str] = &[
    "[[lan]]\n",
    "[[wan]]\n",
    "[lan]\n",
    "[wan]\n",
    "[health]\n",
    "[wan.health]\n",
    "[router]\n",
    "[[wan.health]]\n",
    "[[health]]\n",
    "[[wan.a]]\n",
    "[a.b.c]\n",
    "wan.health.interval = \"1s\"\n",
    "lan = []\n",
    "lan = [{}]\n",
    "wan = [{name = \"a\", health = {}}]\n",
    "interface = \"eth0\"\n",
    "interface = eth0\n",
    "name = \"a\"\n",
    "name = \"b\"\n",
    "gateway = \"auto\"\n",
    "gateway = 192.168.1.1\n",
    "gateway = \"off\"\n",
    "gateway6 = \"off\"\n",
    "weight = \"8\"\n",
    "weight = 8\n",
    "priority = 0\n",
    "targets = [\"1.1.1.1\"\n",
    "targets = [\"1.1.1.1\"]\n",
    "targets = \"x\"\n",
    "interval = 1s\n",
    "interval = \"1s\"\n",
    "mark_mask = 0x7f\n",
    "a.b = 1\n",
    "sticky = \"flow\n",
    "[[",
    "]]",
    "[",
    "]",
    "{",
    "}",
    "=",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    ",",
    ".",
    "#",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\u{feff}",
    "\0",
    "é",
    "\u{1b}[31m",
    "\\",
    "wan",
    "lan",
    "-1",
    "1e9",
    "1979-05-27",
    "true",
    " ",
];

const EXAMPLES: &[&str] = &[
    include_str!("../../../examples/smallest.toml"),
    include_str!("../../../examples/three-wans.toml"),
    include_str!("../../../examples/dual-stack.toml"),
    include_str!("../../../examples/fibre-and-5g.toml"),
];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..400)) {
        survives(&bytes);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        survives(text.as_bytes());
    }

    #[test]
    fn no_order_of_pieces_makes_it_panic(picks in vec(0..PIECES.len(), 0..40)) {
        let text: String = picks.into_iter().map(|n| PIECES[n]).collect();
        survives(text.as_bytes());
    }

    #[test]
    fn no_change_of_a_valid_file_makes_it_panic(
        example in 0..EXAMPLES.len(),
        changes in vec((any::<prop::sample::Index>(), 0_usize..12, 0..PIECES.len()), 1..6),
    ) {
        let mut bytes = EXAMPLES[example].as_bytes().to_vec();
        for (place, cut, piece) in changes {
            let from = place.index(bytes.len() + 1);
            let to = (from + cut).min(bytes.len());
            bytes.splice(from..to, PIECES[piece].bytes());
        }
        survives(&bytes);
    }

    #[test]
    fn a_valid_file_gives_what_it_says(said in said()) {
        let text = said.text();
        let config = match config::parse(&text) {
            Ok(config) => config,
            Err(faults) => panic!("{}", config::render("said.toml", &text, &faults, false)),
        };
        prop_assert_eq!(config.lans.len(), said.lans);
        prop_assert_eq!(config.wans.len(), said.wans.len());
        prop_assert_eq!(config.router.table_base.0, said.table_base);
        for (wan, said) in config.wans.iter().zip(&said.wans) {
            prop_assert_eq!(wan.priority, said.priority);
            prop_assert_eq!(wan.weight.0, said.weight);
            prop_assert_eq!(wan.metered, said.metered);
            prop_assert_eq!(wan.gateway, said.gateway.map_or(Gateway::Auto, Gateway::Address));
            prop_assert_eq!(wan.nat6, said.nat6.map_or(Nat::None, Nat::Address));
            prop_assert_eq!(wan.health.interval.as_millis(), u128::from(said.interval_ms));
            prop_assert_eq!(&wan.health.targets, &said.targets());
        }
    }
}

#[derive(Debug, Clone)]
struct Said {
    lans: usize,
    table_base: u32,
    wans: Vec<SaidWan>,
}

#[derive(Debug, Clone)]
struct SaidWan {
    priority: u8,
    weight: u16,
    metered: bool,
    gateway: Option<Ipv4Addr>,
    nat6: Option<Ipv6Addr>,
    interval_ms: u32,
    ports: Vec<u16>,
}

impl SaidWan {
    /// A target for each port; port 0 stands for an echo, those divisible by four for a question,
    /// odd ones for a page.
    fn targets(&self) -> Vec<Target> {
        let address = |n: usize| IpAddr::V4(Ipv4Addr::new(9, 9, 9, n as u8));
        let host = |n: usize| Host::Name(format!("n{n}.example"));
        let target = |(n, port): (usize, &u16)| match *port {
            0 => Target::Icmp(address(n)),
            port if port % 4 == 0 => {
                Target::Dns { server: address(n), port, name: format!("n{n}.example") }
            }
            port if port % 2 == 1 => Target::Http(HttpTarget {
                host: if port % 3 == 0 { Host::Address(address(n)) } else { host(n) },
                port,
                path: format!("/{n}?x={port}"),
                expect: Expect { status: 204, body: None },
            }),
            port => Target::Tcp(address(n), port),
        };
        self.ports.iter().enumerate().map(target).collect()
    }
}

impl Said {
    fn text(&self) -> String {
        let mut out = format!("[router]\ntable_base = {}\n", self.table_base);
        for n in 0..self.lans {
            out += &format!("[[lan]]\ninterface = \"lan{n}\"\n");
        }
        for (n, wan) in self.wans.iter().enumerate() {
            let SaidWan { priority, weight, metered, .. } = wan;
            out += &format!("[[wan]]\nname = \"w{n}\"\ninterface = \"wan{n}\"\n");
            out += &format!("priority = {priority}\nweight = {weight}\nmetered = {metered}\n");
            if let Some(gateway) = wan.gateway {
                out += &format!("gateway = \"{gateway}\"\n");
            }
            let nat6 = wan.nat6.map_or("none".to_owned(), |address| address.to_string());
            out += &format!("nat6 = \"{nat6}\"\n");
            let targets: Vec<String> =
                wan.targets().iter().map(|target| format!("\"{target}\"")).collect();
            out += &format!("health.targets = [{}]\n", targets.join(", "));
            out += &format!("health.interval = \"{}ms\"\n", wan.interval_ms);
        }
        out
    }
}

fn said() -> impl Strategy<Value = Said> {
    let gateway = (1_u8..127, any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(|(a, b, c, d)| Ipv4Addr::new(a, b, c, d));
    let nat6 = any::<[u16; 7]>()
        .prop_map(|[b, c, d, e, f, g, h]| Ipv6Addr::new(0x2001, b, c, d, e, f, g ^ h, h));
    let wan = (
        1_u8..=255,
        1_u16..=256,
        any::<bool>(),
        prop::option::of(gateway),
        prop::option::of(nat6),
        100_u32..=3_600_000,
        vec(prop_oneof![Just(0), 1_u16..], 0..=16),
    );
    let wan = wan.prop_map(|(priority, weight, metered, gateway, nat6, interval_ms, ports)| {
        SaidWan { priority, weight, metered, gateway, nat6, interval_ms, ports }
    });
    let table_base = prop_oneof![1_u32..=190, 256_u32..=4_294_900_000];
    (1_usize..4, table_base, vec(wan, 1..=62)).prop_map(|(lans, table_base, wans)| Said {
        lans,
        table_base,
        wans,
    })
}

/// A piece repeated until the file is as large as it may be.
fn full_of(piece: &str) -> String {
    piece.repeat(MAX_BYTES / piece.len())
}

#[test]
fn the_largest_files_are_answered() {
    let pieces = [
        "[",
        "a.",
        "{a=",
        "[[wan]]\n",
        "[[lan]]\ninterface=\"x\"\n",
        "a\n",
        "a=1\n",
        "\"",
        "=",
        "x",
        "[wan]\n",
        "[wan.health]\n",
        "a=[\n",
        "\u{1}",
        "é",
        "{b=1,b=1},",
        "1.1.1.1 ",
        "[[wan]]\nname=\"a\"\ninterface=\"x\"\n",
        "\r",
        "''' ",
    ];
    for piece in pieces {
        let text = format!("wan = \"\"\n{}", &full_of(piece)[piece.len() * 12..]);
        let faults = config::parse(&text).expect_err("no configuration is a megabyte");
        assert!((1..=MAX_FAULTS + 1).contains(&faults.len()));
        assert!(config::render("x.toml", &text, &faults, false).len() < 100_000);
    }
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let faults = config::parse(&"#".repeat(MAX_BYTES + 1)).expect_err("too large");
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].code, "config.too-large");
    let faults = config::parse_bytes(&vec![0xff; MAX_BYTES + 1]).expect_err("too large");
    assert_eq!(faults[0].code, "config.too-large");
}

#[test]
fn colour_changes_nothing_but_colour() {
    let text = "[[lan]]\ninterfaces = \"eth0\"\n";
    let faults = config::parse(text).expect_err("a misspelt key");
    let coloured = config::render("x.toml", text, &faults, true);
    let mut plain = String::new();
    let mut inside = false;
    for c in coloured.chars() {
        match c {
            '\u{1b}' => inside = true,
            'm' if inside => inside = false,
            _ if inside => {}
            c => plain.push(c),
        }
    }
    assert_eq!(plain, config::render("x.toml", text, &faults, false));
}
