//! Our nftables table as text for `nft -f -`. The chains depend on the configuration alone (and
//! on MTUs); everything that changes in operation is an element of a map, so a failover never
//! loads text. Written for nft 1.0.6 and kernels from 6.1.
//!
//! What a packet pays is counted: an established one from a LAN two hash look-ups (is it from a
//! WAN? whose flow is it?), one from a WAN one, and each one counter.

mod bases;

use std::fmt::Write;

use crate::config::{Nat, Sticky};
use crate::desired::{SLOTS, Shape, Table, WanShape};
use crate::names::{Family, Mark, MarkField, NFT_TABLE, WanId};
use crate::observed::{Elements, Key, KeyKind, Leads, MAPS, MapSpec};

pub use bases::interim_chains;

/// Elements that one `add element` command carries: keeps lines readable.
const PER_COMMAND: usize = 64;
/// A box on a shared interface that forwards a port straight to a LAN host: the host's answers
/// pass here without a flow or in the middle of one, and go to that box as they are.
const MIDSTREAM: &str = "tcp flags & (fin | syn | rst | ack) != syn";
/// Without it IPv6 does not even find the gateway (RFC 4861).
const NEIGHBOUR_DISCOVERY: &str = "icmpv6 type { nd-router-solicit, nd-router-advert, \
                                   nd-neighbor-solicit, nd-neighbor-advert } accept";
/// Room in each map: the fixed hash of the kernel is sized by it.
const MAP_SIZE: u32 = 128;
/// Room for resolvers: eight and as many fallbacks of each WAN.
const RESOLVERS_SIZE: u32 = 1024;
/// Room in each set of gone flows, some 8 MiB of the kernel's memory when full: as many as one
/// reading of established flows gives.
const GONE_SIZE: u32 = 65_536;

/// The maps (without elements) and chains, but for those that translate.
fn structure(shape: &Shape) -> String {
    let mut text = String::new();
    for spec in &MAPS {
        declare(&mut text, *spec);
    }
    for (digit, address) in [("4", "ipv4_addr"), ("6", "ipv6_addr")] {
        let end = format!("{address} . inet_service");
        line(
            &mut text,
            format_args!(
                "\tset gone{digit} {{ type {end} . {end}; flags timeout; size {GONE_SIZE}; }}"
            ),
        );
    }
    for id in shape.wans.keys() {
        for name in ["out4", "back4", "out6", "back6"] {
            line(&mut text, format_args!("\tcounter {name}_{id} {{ }}"));
        }
    }
    uninvited_chain(&mut text, shape.field);
    for (id, wan) in &shape.wans {
        wan_chains(&mut text, shape.field, *id, wan);
    }
    common_chains(&mut text, shape);
    picking_chains(&mut text, shape);
    for base in bases::steering(shape) {
        base.write(&mut text, false);
    }
    text
}

/// The chains that translate.
fn translation(shape: &Shape) -> String {
    let mut text = String::new();
    for base in bases::translating(shape) {
        base.write(&mut text, false);
    }
    text
}

/// The fingerprint by which a loaded table of this shape is known again.
pub fn fingerprint(shape: &Shape) -> u64 {
    crate::names::fingerprint([structure(shape).as_str(), translation(shape).as_str()])
}

/// A whole transaction: what there was is gone, the table is there with all its elements. What
/// translates comes last: the kernel takes a chain's hook on when it reads of the chain, and rules
/// only with the whole. Flows that are translated, and not steered yet, would be ended
/// (`nf_nat_oif_changed`).
pub fn replacement(table: &Table) -> String {
    let mut text = format!("table inet {NFT_TABLE} {{}}\ndelete table inet {NFT_TABLE}\n");
    block(&mut text, &structure(&table.shape));
    for spec in &MAPS {
        if let Some(elements) = table.maps.get(spec.name) {
            add_elements(&mut text, *spec, elements);
        }
    }
    block(&mut text, &translation(&table.shape));
    block(&mut text, &bases::interim(&table.shape));
    text
}

fn block(text: &mut String, chains: &str) {
    line(text, format_args!("table inet {NFT_TABLE} {{\n{chains}}}"));
}

fn add_elements(text: &mut String, spec: MapSpec, elements: &Elements) {
    let all: Vec<(&Key, &String)> = elements.iter().collect();
    for some in all.chunks(PER_COMMAND) {
        let list: Vec<String> = some
            .iter()
            .map(|(key, value)| match spec.leads {
                Leads::Chain => format!("{} : goto {value}", key_text(**key)),
                Leads::Ipv4 => format!("{} : {value}", key_text(**key)),
                Leads::Nowhere => key_text(**key),
            })
            .collect();
        line(
            text,
            format_args!("add element inet {NFT_TABLE} {} {{ {} }}", spec.name, list.join(", ")),
        );
    }
}

fn key_text(key: Key) -> String {
    match key {
        Key::Number(number) => format!("{number}"),
        Key::DeviceIpv4(device, address) => format!("{device} . {address}"),
        Key::DeviceIpv6(device, address) => format!("{device} . {address}"),
        Key::DeviceMac(device, mac) => format!("{device} . {mac}"),
        Key::Ipv4(address) => format!("{address}"),
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{arguments}");
}

fn declare(text: &mut String, spec: MapSpec) {
    // `typeof jhash` would load, and crash `nft list` later; both kinds of slots are numbers.
    let (kind, size) = match (spec.name, spec.key) {
        ("slots4" | "slots6", _) => (format!("typeof numgen inc mod {SLOTS}"), SLOTS),
        ("restore4" | "restore6", _) => ("typeof ct mark".to_owned(), MAP_SIZE),
        ("resolvers4", _) => ("type iface_index . ipv4_addr".to_owned(), RESOLVERS_SIZE),
        ("resolvers6", _) => ("type iface_index . ipv6_addr".to_owned(), RESOLVERS_SIZE),
        (_, KeyKind::Number) => ("type iface_index".to_owned(), MAP_SIZE),
        (_, KeyKind::DeviceIpv4) => ("type iface_index . ipv4_addr".to_owned(), MAP_SIZE),
        (_, KeyKind::DeviceIpv6) => ("type iface_index . ipv6_addr".to_owned(), MAP_SIZE),
        (_, KeyKind::DeviceMac) => ("type iface_index . ether_addr".to_owned(), MAP_SIZE),
        (_, KeyKind::Ipv4) => ("type ipv4_addr".to_owned(), MAP_SIZE),
    };
    let (word, value) = match spec.leads {
        Leads::Chain => ("map", " : verdict"),
        Leads::Ipv4 => ("map", " : ipv4_addr"),
        Leads::Nowhere => ("set", ""),
    };
    line(text, format_args!("\t{word} {} {{ {kind}{value}; size {size}; }}", spec.name));
}

fn chain(text: &mut String, name: &str, rules: &[String]) {
    line(text, format_args!("\tchain {name} {{"));
    for rule in rules {
        line(text, format_args!("\t\t{rule}"));
    }
    line(text, format_args!("\t}}"));
}

/// Sets our bits of the packet's mark, all others preserved.
fn set_mark(field: MarkField, mark: Mark) -> String {
    format!("meta mark set meta mark & {:#x} | {:#x}", field.keep_mask(), mark.0)
}

/// Clears our bits of the packet's mark.
fn clear_mark(field: MarkField) -> String {
    format!("meta mark set meta mark & {:#x}", field.keep_mask())
}

fn wan_chains(text: &mut String, field: MarkField, id: WanId, wan: &WanShape) {
    for family in Family::BOTH {
        keeping_chain(text, field, id, family);
        leaving_chains(text, field, id, wan, family);
    }
    // Packets that speak for no flow that waits for an answer - our own refusals of scans, and
    // strays, whose other half does not pass here - would look like a WAN that does not answer.
    chain(text, &format!("uncounted{id}"), &[set_mark(field, field.keep(id))]);
    placing_chains(text, field, id);
    // What is not IPv4 is IPv6: not asked.
    let back = [
        format!("meta nfproto ipv4 counter name back4_{id} accept"),
        format!("counter name back6_{id}"),
    ];
    chain(text, &format!("back{id}"), &back);
    cut_chains(text, field, id);
    chain(
        text,
        &format!("from{id}"),
        &[
            format!("ct mark & {:#x} != 0 goto back{id}", field.number_mask()),
            // An answer to a probe.
            format!("ct mark & {:#x} != 0 accept", field.mask()),
            // Somebody on the WAN's own subnet is answered as main says.
            set_mark(field, field.ask()),
            "fib saddr . mark oif exists goto neighbour".to_owned(),
            pin(field, id),
            // What has no flow cannot be pinned, but is looked at all the same.
            "goto neighbour".to_owned(),
        ],
    );
    let mtu = wan.mtu.clamp(576, 65535);
    chain(
        text,
        &format!("clamp{id}"),
        &[
            format!("meta nfproto ipv4 tcp option maxseg size set {}", mtu - 40),
            format!("meta nfproto ipv6 tcp option maxseg size set {}", mtu - 60),
        ],
    );
}

/// Says in conntrack by which WAN the flow leaves.
fn pin(field: MarkField, id: WanId) -> String {
    format!("ct mark set ct mark & {:#x} | {:#x}", field.keep_mask(), field.keep(id).0)
}

/// The packet of a known flow.
fn keeping_chain(text: &mut String, field: MarkField, id: WanId, family: Family) {
    let digit = family.digit();
    let counter = format!("counter name out{digit}_{id}");
    chain(text, &format!("keep{digit}_{id}"), &[set_mark(field, field.keep(id)), counter]);
}

/// The first packet of a flow, as it leaves.
fn leaving_chains(text: &mut String, field: MarkField, id: WanId, wan: &WanShape, family: Family) {
    let (digit, mask, keep) = (family.digit(), field.mask(), field.keep(id).0);
    let free = format!("ct mark & {mask:#x} == 0");
    let mut leave = vec![
        // Probes carry W without NEW. Their flows get NEW without W: an answer does not pin them,
        // they are not counted, and not among the flows to evacuate.
        format!(
            "meta mark & {mask:#x} == {keep:#x} {free} ct mark set ct mark & {:#x} | {:#x}",
            field.keep_mask(),
            field.ask().0
        ),
        format!("{free} {} counter name out{digit}_{id}", pin(field, id)),
    ];
    if wan.shared {
        leave.push(format!("{MIDSTREAM} accept"));
    }
    leave.push(format!("goto near{digit}_{id}"));
    let (masquerades, translation) = match family {
        Family::Ipv4 => (wan.nat == Nat::Masquerade, nat_rule("ip", wan.nat)),
        Family::Ipv6 => (wan.nat6 == Nat::Masquerade, nat_rule("ip6", wan.nat6)),
    };
    let mut near = Vec::new();
    // Where the interface leads to another WAN too, an address there may be that one's.
    if masquerades && !(wan.twin && family == Family::Ipv4) {
        // A second address of the WAN that somebody has bound to is right as it is. What is
        // forwarded came in by some interface, and has no address of ours.
        near.push("iif 0 fib saddr . oif type local return".to_owned());
    }
    near.push(translation);
    chain(text, &format!("near{digit}_{id}"), &near);
    chain(text, &format!("leave{digit}_{id}"), &leave);
}

fn placing_chains(text: &mut String, field: MarkField, id: WanId) {
    chain(text, &format!("place{id}"), &[set_mark(field, field.place(id))]);
    // The mark of probes: the flow is the WAN's only as long as each of its packets says so, is
    // not counted and not told to move.
    chain(text, &format!("only{id}"), &[set_mark(field, field.keep(id))]);
}

/// A drill: what comes from beyond the WAN's own subnet is dropped, and what flows of LANs would
/// send is counted as sent. The first packet of a new flow, and the router's own, still leave:
/// dropped here their senders would be told at once, which no dead line does.
fn cut_chains(text: &mut String, field: MarkField, id: WanId) {
    chain(
        text,
        &format!("cut_from{id}"),
        &[
            NEIGHBOUR_DISCOVERY.to_owned(),
            set_mark(field, field.ask()),
            "fib saddr . mark oif exists goto neighbour".to_owned(),
            "drop".to_owned(),
        ],
    );
    for digit in Family::BOTH.map(Family::digit) {
        chain(
            text,
            &format!("cut_keep{digit}_{id}"),
            &[
                format!("iif @lans counter name out{digit}_{id} drop"),
                format!("goto keep{digit}_{id}"),
            ],
        );
    }
}

fn nat_rule<A: std::fmt::Display>(family: &str, nat: Nat<A>) -> String {
    match nat {
        Nat::Masquerade => "masquerade".to_owned(),
        Nat::None => "return".to_owned(),
        Nat::Address(address) => format!("snat {family} to {address}"),
    }
}

fn common_chains(text: &mut String, shape: &Shape) {
    let field = shape.field;
    let number = field.number_mask();
    let own = |rules: &[&str]| rules.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>();
    chain(
        text,
        "lost",
        &own(&[
            // Our own reset on its way to a program on the router.
            "iif lo accept",
            // One that begins may try again by another WAN. What was picked up in the middle is as
            // new as that until something comes back.
            "ct state new tcp flags & (fin | syn | rst | ack) == syn drop",
            "ct state related drop",
            "meta l4proto tcp reject with tcp reset",
            "drop",
        ]),
    );
    chain(text, "unmark", &[clear_mark(field)]);
    let mut refuse = vec![clear_mark(field)];
    refuse.extend(own(&["meta l4proto tcp reject with tcp reset", "reject with icmpx no-route"]));
    chain(text, "refuse", &refuse);
    let keeps: Vec<String> = shape
        .wans
        .keys()
        .map(|id| format!("{:#x} : goto uncounted{id}", field.keep(*id).0))
        .collect();
    chain(text, "keep", &[format!("ct mark & {number:#x} vmap {{ {} }}", keeps.join(", "))]);
    chain(
        text,
        "clamping",
        &own(&["oif @outside tcp option maxseg size set rt mtu", "iif vmap @clamp"]),
    );
    chain(text, "from_lan6", &bases::from_lan(shape, "6"));
    chain(
        text,
        "last_words",
        &own(&[
            // Our own reset for a flow that is gone.
            "ip daddr . tcp dport . ip saddr . tcp sport @gone4 return",
            "ip6 daddr . tcp dport . ip6 saddr . tcp sport @gone6 return",
            // The last word of a flow that has lost its WAN would leave by another with a wrong
            // source.
            "fib saddr . oif type != local drop",
        ]),
    );
    if shape.dns {
        resolver_chains(text, field);
    }
}

/// What a WAN brings that belongs to no flow yet. Dropped here, its flow never comes to be.
fn uninvited_chain(text: &mut String, field: MarkField) {
    let rules = [
        NEIGHBOUR_DISCOVERY,
        // A flow that is older than our table has only just been pinned.
        "ct state established,related accept",
        "ct status dnat accept",
        "fib daddr type unicast fib daddr oif @guarded drop",
        // The router's own DNS and DHCP.
        "meta l4proto { tcp, udp } th dport { 53, 67, 547 } fib daddr type != unicast drop",
    ];
    chain(text, "uninvited", &rules.map(str::to_owned));
    chain(text, "neighbour", &[clear_mark(field), "goto uninvited".to_owned()]);
}

fn picking_chains(text: &mut String, shape: &Shape) {
    let field = shape.field;
    let ask = set_mark(field, field.ask());
    for (digit, ip) in [("4", "ip"), ("6", "ip6")] {
        let next = match shape.sticky {
            Sticky::Flow => format!("numgen inc mod {SLOTS}"),
            Sticky::Source => format!("jhash {ip} saddr mod {SLOTS} seed 0x616e7977"),
            Sticky::SourceDestination => {
                format!("jhash {ip} saddr . {ip} daddr mod {SLOTS} seed 0x616e7977")
            }
        };
        let mut rules = vec![
            gone_rule(ip, digit),
            not_forwarded(digit).to_owned(),
            ask.clone(),
            // A LAN, a VPN, a static route, the WAN's own subnet: not for us to decide.
            "fib daddr . mark oif exists goto unmark".to_owned(),
        ];
        if shape.shared {
            rules.push(format!("{MIDSTREAM} iif vmap @stray"));
        }
        rules.push(format!("{next} vmap @slots{digit}"));
        rules.push("goto unmark".to_owned());
        chain(text, &format!("pick{digit}"), &rules);
    }
    let translated4 = shape.wans.values().all(|w| w.nat != Nat::None);
    let translated6 = shape.wans.values().all(|w| w.nat6 != Nat::None);
    for (digit, ip, translated) in [("4", "ip", translated4), ("6", "ip6", translated6)] {
        let mut rules = vec![
            gone_rule(ip, digit),
            not_forwarded(digit).to_owned(),
            ask.clone(),
            "fib daddr . mark oif exists goto unmark".to_owned(),
        ];
        if shape.shared {
            rules.push("iif vmap @stray".to_owned());
        }
        // What belongs to no flow is not translated; an address of the LAN is of no use outside.
        rules.push(if translated { "drop" } else { "goto unmark" }.to_owned());
        chain(text, &format!("strays{digit}"), &rules);
    }
}

/// Lets go what is meant for the router, or for many. Each kind is named for IPv6: an address to
/// which no route leads is of none of them there, nor is it unicast.
fn not_forwarded(digit: &str) -> &'static str {
    match digit {
        "4" => "fib daddr type != unicast return",
        _ => "fib daddr type { local, anycast, multicast } return",
    }
}

/// Answers what belongs to a flow that the kernel deleted with its WAN's address. Without an entry
/// it is like a new flow, or like a stray.
fn gone_rule(ip: &str, digit: &str) -> String {
    format!(
        "{MIDSTREAM} {ip} saddr . tcp sport . {ip} daddr . tcp dport @gone{digit} \
         reject with tcp reset"
    )
}

/// Where questions to resolvers lead.
fn resolver_chains(text: &mut String, field: MarkField) {
    // The sender hears of it at once (EPERM, a reset), and asks somebody else.
    let rules = ["meta l4proto udp drop", "reject with tcp reset"].map(str::to_owned);
    chain(text, "unasked", &rules);
    // An ISP's resolver may answer while nothing beyond it does: it is no sign of life. The mark of a
    // probe's flow; where it goes is left to the routing.
    let (rest, probe) = (field.keep_mask(), field.ask().0);
    let uncounted = format!("ct mark set ct mark & {rest:#x} | {probe:#x}");
    chain(text, "asked", &[uncounted]);
}
