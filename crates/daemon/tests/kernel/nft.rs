//! Our nftables table: loading, elements, and noticing what others do to it.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use anywan_core::names::Mac;
use anywan_core::observed::{Elements, Key, KeyKind, Leads, MAPS, MapSpec, Structure, empty_maps};
use anywan_core::steps::{ElementChange, Step};
use anywan_daemon::kernel::Kernel;

use crate::net::{contract, fresh_network, observe, open, pair, run};

/// A table with all maps and three chains, two of them to go to.
pub(crate) fn load(fingerprint: u64, maps: BTreeMap<String, Elements>) -> Step {
    let mut text = String::from(
        "table inet anywan {}\ndelete table inet anywan\ntable inet anywan {
         chain place1 { meta mark set meta mark & 0x80ffffff | 0x41000000\n }
         chain place2 { counter\n }\n",
    );
    for spec in MAPS {
        let key = match (spec.name, spec.key) {
            ("slots4" | "slots6", _) => "typeof numgen inc mod 256",
            ("restore4" | "restore6", _) => "typeof ct mark",
            (_, KeyKind::Number) => "type iface_index",
            (_, KeyKind::DeviceIpv4) => "type iface_index . ipv4_addr",
            (_, KeyKind::DeviceIpv6) => "type iface_index . ipv6_addr",
            (_, KeyKind::DeviceMac) => "type iface_index . ether_addr",
            (_, KeyKind::Ipv4) => "type ipv4_addr",
        };
        let (kind, value) = match spec.leads {
            Leads::Chain => ("map", ": verdict"),
            Leads::Ipv4 => ("map", ": ipv4_addr"),
            Leads::Nowhere => ("set", ""),
        };
        // Sized, as ours are: a hash that grows by itself does not show everything while it grows.
        let size = if spec.name.starts_with("slots") { 256 } else { 8192 };
        text += &format!("{kind} {} {{ {key} {value}; size {size};\n }}\n", spec.name);
    }
    text += "chain prerouting { type filter hook prerouting priority -90; policy accept;
             ct mark & 0x3f000000 vmap @restore4
             numgen inc mod 256 vmap @slots4
             iif { 1, 2 } counter accept
             }
             }\n";
    for (map, elements) in &maps {
        for (key, chain) in elements {
            let value = match (map.as_str(), chain.as_str()) {
                (_, "") => String::new(),
                ("behind", address) => format!(": {address}"),
                (_, chain) => format!(": goto {chain}"),
            };
            text += &format!("add element inet anywan {map} {{ {} {value} }}\n", shown(key));
        }
    }
    Step::ReplaceTable { fingerprint, text, interim: Vec::new(), maps }
}

/// A key as nft reads it.
fn shown(key: &Key) -> String {
    match key {
        Key::Number(number) => number.to_string(),
        Key::DeviceIpv4(device, ip) => format!("{device} . {ip}"),
        Key::DeviceIpv6(device, ip) => format!("{device} . {ip}"),
        Key::DeviceMac(device, mac) => format!("{device} . {mac}"),
        Key::Ipv4(ip) => ip.to_string(),
    }
}

/// A key of each kind.
fn key(spec: &MapSpec, device: u32, number: u8) -> Key {
    match spec.key {
        KeyKind::Number => Key::Number(u32::from(number) << 24 | 7),
        KeyKind::DeviceIpv4 => Key::DeviceIpv4(device, [192, 0, 2, number].into()),
        KeyKind::DeviceIpv6 => {
            Key::DeviceIpv6(device, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number.into()))
        }
        KeyKind::Ipv4 => Key::Ipv4([192, 0, 2, number].into()),
        KeyKind::DeviceMac => Key::DeviceMac(device, Mac([2, 0, 0, 0, 0, number])),
    }
}

/// Where an element leads, when it could be to this chain.
fn value(spec: &MapSpec, chain: &str) -> String {
    match spec.leads {
        Leads::Chain => chain.to_owned(),
        Leads::Ipv4 => format!("10.0.0.{}", chain.len()),
        Leads::Nowhere => String::new(),
    }
}

fn change(spec: &MapSpec, key: Key, old: Option<&str>, new: Option<&str>) -> ElementChange {
    let chain = |chain: &str| value(spec, chain);
    ElementChange { map: spec.name.into(), key, old: old.map(chain), new: new.map(chain) }
}

fn structure(kernel: &mut Kernel) -> Structure {
    kernel.nft().expect("readable").structure
}

#[test]
fn elements_of_every_map_come_change_and_go_in_one_transaction() {
    fresh_network(|state| {
        let a = pair("a0").0;
        let mut kernel = open(state);
        contract(&mut kernel, load(7, empty_maps()));
        let all = |old: Option<&str>, new: Option<&str>| {
            let each = MAPS.iter().flat_map(|spec| {
                (1..=5).map(move |number| change(spec, key(spec, a, number), old, new))
            });
            Step::ChangeElements(each.collect())
        };
        contract(&mut kernel, all(None, Some("place1")));
        contract(&mut kernel, all(Some("place1"), Some("place2")));
        let list = run("nft list table inet anywan");
        for shown in [
            "\"a0\" . 192.0.2.3 : goto place2",
            "\"a0\" . fe80::3 : goto place2",
            "\"a0\" . 02:00:00:00:00:03 : goto place2",
            "0x03000007 : goto place2",
        ] {
            assert!(list.contains(shown), "{shown} in {list}");
        }
        contract(&mut kernel, all(Some("place2"), None));
        contract(&mut kernel, Step::ChangeElements(Vec::new()));
    });
}

#[test]
fn what_nft_writes_is_what_we_read() {
    fresh_network(|state| {
        let a = pair("a0").0;
        let mut kernel = open(state);
        let mut maps = empty_maps();
        for spec in &MAPS {
            let elements = maps.entry(spec.name.into()).or_default();
            for number in 1..=3 {
                elements.insert(key(spec, a, number), value(spec, "place2"));
            }
        }
        contract(&mut kernel, load(7, maps));
        run("nft add element inet anywan out_via4 { a0 . 192.0.2.9 : goto place1 }");
        run("nft add element inet anywan out_via6 { a0 . fe80::9 : goto place1 }");
        run("nft add element inet anywan from_shared { a0 . 02:00:00:00:00:09 : goto place1 }");
        run("nft add element inet anywan restore4 { 0x1000000 : drop }");
        run("nft add element inet anywan restore6 { 0x1000000 : jump place1 }");
        run("nft add element inet anywan lans { a0 }");
        let found = kernel.nft().expect("readable").maps;
        let has = |map: &str, key, chain: &str| assert_eq!(found[map][&key], chain, "{map}");
        has("out_via4", Key::DeviceIpv4(a, [192, 0, 2, 9].into()), "place1");
        has("out_via6", Key::DeviceIpv6(a, "fe80::9".parse().expect("one")), "place1");
        has("from_shared", Key::DeviceMac(a, Mac([2, 0, 0, 0, 0, 9])), "place1");
        has("lans", Key::Number(a), "");
        assert_ne!(found["restore4"][&Key::Number(0x100_0000)], "");
        assert_ne!(found["restore6"][&Key::Number(0x100_0000)], "place1");
    });
}

#[test]
fn changes_of_others_show_between_and_after_our_own() {
    fresh_network(|state| {
        let mut kernel = open(state);
        contract(&mut kernel, load(7, empty_maps()));
        let spec = MAPS.iter().find(|spec| spec.name == "restore4").expect("it is ours");
        let add = |kernel: &mut Kernel, number| {
            let change = change(spec, Key::Number(number), None, Some("place1"));
            kernel.apply(&Step::ChangeElements(vec![change])).expect("new");
        };
        let keys = |kernel: &mut Kernel| -> Vec<Key> {
            kernel.nft().expect("readable").maps["restore4"].keys().copied().collect()
        };
        add(&mut kernel, 1);
        run("nft add element inet anywan restore4 { 2 : goto place2 }");
        assert_eq!(keys(&mut kernel), [1, 2].map(Key::Number));
        run("nft add element inet anywan restore4 { 3 : goto place2 }");
        add(&mut kernel, 4);
        assert_eq!(keys(&mut kernel), [1, 2, 3, 4].map(Key::Number));
        add(&mut kernel, 5);
        run("nft delete element inet anywan restore4 { 5 }");
        add(&mut kernel, 6);
        assert_eq!(keys(&mut kernel), [1, 2, 3, 4, 6].map(Key::Number));
        add(&mut kernel, 7);
        add(&mut kernel, 8);
        assert_eq!(keys(&mut kernel), [1, 2, 3, 4, 6, 7, 8].map(Key::Number));
        // The kernel makes no transaction of what is there already.
        add(&mut kernel, 8);
        run("nft delete element inet anywan restore4 { 1 }");
        assert_eq!(keys(&mut kernel), [2, 3, 4, 6, 7, 8].map(Key::Number));
    });
}

#[test]
fn all_slots_of_a_full_map_change_hands_at_once() {
    fresh_network(|state| {
        let mut kernel = open(state);
        contract(&mut kernel, load(7, empty_maps()));
        let spec = MAPS.iter().find(|spec| spec.name == "slots4").expect("it is ours");
        let all = |old, new| {
            let each = (0..256).map(|slot| change(spec, Key::Number(slot), old, new));
            Step::ChangeElements(each.collect())
        };
        contract(&mut kernel, all(None, Some("place1")));
        contract(&mut kernel, all(Some("place1"), Some("place2")));
        contract(&mut kernel, all(Some("place2"), Some("place1")));
    });
}

#[test]
fn a_transaction_of_thousands_of_elements_is_whole_or_nothing() {
    fresh_network(|state| {
        let mut kernel = open(state);
        contract(&mut kernel, load(7, empty_maps()));
        let spec = MAPS.iter().find(|spec| spec.name == "out_via6").expect("it is ours");
        let ip = |n: u32| Key::DeviceIpv6(n, Ipv6Addr::LOCALHOST);
        let many: Vec<_> = (1..=5000).map(|n| change(spec, ip(n), None, Some("place1"))).collect();
        contract(&mut kernel, Step::ChangeElements(many));
        let many: Vec<_> =
            (1..=5000).map(|n| change(spec, ip(n), Some("place1"), Some("place2"))).collect();
        let mut wrong = many.clone();
        wrong.push(change(spec, ip(6000), None, Some("nowhere")));
        let before = observe(&mut kernel);
        let error = kernel.apply(&Step::ChangeElements(wrong)).expect_err("no such chain");
        assert!(error.to_string().contains("out_via6"), "{error}");
        assert_eq!(observe(&mut kernel), before);
        contract(&mut kernel, Step::ChangeElements(many));
    });
}

#[test]
fn whatever_others_do_to_the_table_shows() {
    fresh_network(|state| {
        let mut kernel = open(state);
        assert_eq!(structure(&mut kernel), Structure::Absent);
        for harm in [
            "nft add rule inet anywan prerouting counter",
            "nft insert rule inet anywan prerouting drop",
            "nft flush chain inet anywan prerouting",
            "nft delete map inet anywan clamp",
            "nft add set inet anywan more { type ipv4_addr; }",
            "nft add chain inet anywan more",
            "nft chain inet anywan prerouting { policy drop ; }",
            "nft add table inet anywan { flags dormant ; }",
        ] {
            contract(&mut kernel, load(7, empty_maps()));
            run(harm);
            assert_eq!(structure(&mut kernel), Structure::Altered, "{harm}");
        }
        contract(&mut kernel, load(8, empty_maps()));
        for harmless in [
            "nft add table inet other",
            "nft add chain inet other anywan",
            "nft add rule inet other anywan drop",
            "nft add element inet anywan lans { 1 }",
            "ping -c 1 -W 1 127.0.0.1",
        ] {
            run(harmless);
            assert_eq!(structure(&mut kernel), Structure::Intact(8), "{harmless}");
        }
        run("nft flush ruleset");
        assert_eq!(structure(&mut kernel), Structure::Absent);
    });
}

#[test]
fn a_restarted_daemon_knows_its_table() {
    fresh_network(|state| {
        contract(&mut open(state), load(u64::MAX, empty_maps()));
        assert_eq!(structure(&mut open(state)), Structure::Intact(u64::MAX));
        let mut kernel = open(state);
        contract(&mut kernel, Step::DeleteTable);
        contract(&mut kernel, Step::DeleteTable);
        assert_eq!(structure(&mut open(state)), Structure::Absent);
    });
}

#[test]
fn a_table_that_nobody_remembers_is_altered() {
    fresh_network(|state| {
        std::fs::remove_dir_all(&state.0).expect("removable");
        let mut kernel = open(state);
        contract(&mut kernel, load(7, empty_maps()));
        assert_eq!(structure(&mut open(state)), Structure::Altered);
    });
}

#[test]
fn what_nft_says_is_in_the_error_and_the_old_table_stays() {
    fresh_network(|state| {
        let mut kernel = open(state);
        contract(&mut kernel, load(7, empty_maps()));
        let text = "table inet anywan { chain c { goto nowhere\n }\n }\n".to_owned();
        let (interim, maps) = (Vec::new(), BTreeMap::new());
        let bad = Step::ReplaceTable { fingerprint: 8, text, interim, maps };
        let error = kernel.apply(&bad).expect_err("no such chain");
        assert!(error.to_string().contains("goto nowhere"), "{error}");
        assert_eq!(structure(&mut kernel), Structure::Intact(7));
    });
}
