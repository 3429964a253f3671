//! The one table of keys: what sections there are, what keys are in them, of what kind, with what
//! default, and what each means. The parser, the JSON schema and the reference are all driven by
//! it; a key that is not here does not exist.

mod ppp;
mod served;

use crate::names::Family;

/// A section of the file.
#[derive(Debug)]
pub(super) struct Section {
    /// The path, e.g. `wan.health`.
    pub(super) path: &'static str,
    /// Written with two brackets, once for each.
    pub(super) many: bool,
    /// What it is for, in sentences.
    pub(super) doc: &'static str,
    /// Its keys, in the order of the reference.
    pub(super) keys: &'static [Key],
}

/// A key of a section.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The default as it would be written; `None`: the key must be given.
    pub(super) default: Option<&'static str>,
    /// What it means, in sentences.
    pub(super) doc: &'static str,
    /// What people type instead.
    pub(super) aliases: &'static [&'static str],
}

/// What a key takes.
#[derive(Debug)]
pub(super) enum Kind {
    /// A network interface, by its name or its hardware.
    Interface,
    /// The name of a network interface; empty: nothing is given.
    InterfaceName,
    /// The name of a WAN.
    Name,
    /// One of these words.
    Words(&'static [Word]),
    /// A whole number, bounds included.
    Number { min: u32, max: u32 },
    /// `true` or `false`.
    Flag,
    /// A duration, bounds in milliseconds and included, or one of the words.
    Time { min_ms: u64, max_ms: u64, words: &'static [Word] },
    /// An amount of data, bounds in bytes and included, or one of the words.
    Bytes { min: u64, max: u64, words: &'static [Word] },
    /// An address, or one of the words.
    Address { family: Family, words: &'static [Word] },
    /// One of these words, an address with its prefix length, or a list of such.
    Addresses { words: &'static [Word] },
    /// A list of probe targets.
    Targets,
    /// A mask for packet marks.
    Mask,
    /// A list of addresses of both families.
    Servers { max: usize },
    /// A list of hardware addresses with addresses and names.
    Leases,
    /// A list of addresses with names.
    Hosts,
    /// Two IPv4 addresses.
    Range,
    /// A domain.
    Domain,
    /// A text on one line, bound in bytes; empty: nothing is given.
    Text { max: usize },
    /// Several such texts.
    Texts { max: usize, each: usize },
    /// A text that is never shown, perhaps of digits alone; empty: nothing is given.
    Secret { digits: bool },
    /// A path below a folder; empty: nothing is given.
    Path { below: &'static str },
    /// A place on USB; empty: nothing is given.
    Port,
}

/// A word with its meaning.
#[derive(Debug)]
pub(super) struct Word(pub(super) &'static str, pub(super) &'static str);

/// Something that a later version will have.
#[derive(Debug)]
pub(super) struct Later {
    /// The path of its section, empty for the top of the file.
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    /// What to do without it.
    pub(super) hint: &'static str,
}

/// The most addresses of one WAN: a provider's small subnet.
pub(super) const MAX_ADDRESSES: usize = 64;

/// The most targets in one list: each is asked in every burst, so more would only be noise.
pub(super) const MAX_TARGETS: usize = 16;

impl Section {
    /// The section as it is written, e.g. `[[wan]]`.
    pub(super) fn header(&self) -> String {
        if self.many { format!("[[{}]]", self.path) } else { format!("[{}]", self.path) }
    }

    /// The last part of the path.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// The section of this path, empty for the top of the file; only for paths that the parser itself
/// names.
pub(super) fn section(path: &str) -> Option<&'static Section> {
    SECTIONS.iter().chain([&TOP]).find(|section| section.path == path)
}

/// The sections directly inside the one of this path; an empty path is the top of the file.
pub(super) fn children(path: &str) -> impl Iterator<Item = &'static Section> + use<'_> {
    SECTIONS.iter().filter(move |section| match section.path.rsplit_once('.') {
        Some((parent, _)) => parent == path,
        None => path.is_empty(),
    })
}

/// The words as a person would list them.
pub(super) fn either(words: &[Word]) -> String {
    let list: Vec<String> = words.iter().map(|word| format!("\"{}\"", word.0)).collect();
    list.join(" or ")
}

/// What a later version will have.
pub(super) const LATER: &[Later] = &[
    Later {
        section: "",
        name: "rule",
        hint: "remove it: all traffic follows the priorities and weights of the WANs",
    },
    Later {
        section: "",
        name: "web",
        hint: "remove it; `anywan status` shows the state, `anywan status --json` to programs",
    },
    Later {
        section: "",
        name: "notify",
        hint: "remove it; `anywan events --json` prints a line for each change",
    },
];

/// What stands above the first section.
pub(super) const TOP: Section = Section {
    path: "",
    many: false,
    doc: "These keys stand above the first section.",
    keys: &[Key {
        name: "cpu",
        kind: Kind::Words(&[
            Word("auto", "over all CPUs"),
            Word("off", "as it is: nothing is touched, and what was changed is put back"),
        ]),
        default: Some("\"auto\""),
        doc: "How the work of the interfaces (interrupts, received and sent packets) is spread.",
        aliases: &["cpus", "rps", "irq", "irqbalance", "affinity"],
    }],
};

/// Every section, a section before those inside it.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        path: "lan",
        many: true,
        doc: "A network that is served: what comes from it is sent out through the WANs. At \
              least one.",
        keys: LAN,
    },
    Section {
        path: "lan.dhcp",
        many: false,
        doc: "Addresses for the hosts of this LAN. Belongs below its `[[lan]]`; without it anywan \
              lends none there. Clients are told this router as router and DNS server.",
        keys: served::DHCP,
    },
    Section {
        path: "wan",
        many: true,
        doc: "One internet connection: an interface and a next hop. At least one, at most 62.",
        keys: WAN,
    },
    Section {
        path: "wan.health",
        many: false,
        doc: "How the health of this WAN is judged, where it differs from `[health]`: each key \
              given here replaces that key of `[health]`. Belongs below its `[[wan]]`.",
        keys: HEALTH,
    },
    Section { path: "wan.ppp", many: false, doc: ppp::DOC, keys: ppp::KEYS },
    Section {
        path: "health",
        many: false,
        doc: "How the health of all WANs is judged.",
        keys: HEALTH,
    },
    Section {
        path: "dns",
        many: false,
        doc: "DNS for LANs: this router answers on their interfaces, remembers, and asks the \
              resolvers of the WANs that work, each through its own WAN. Also when empty; without \
              it anywan answers no questions.",
        keys: served::DNS,
    },
    Section { path: "router", many: false, doc: "The router as a whole.", keys: ROUTER },
];

const LAN: &[Key] = &[
    Key {
        name: "interface",
        kind: Kind::Interface,
        default: None,
        doc: "The interface of this network, e.g. `\"eth0\"` or `\"br-lan\"`; each only once. It may \
              also be meant by its hardware, like that of a WAN.",
        aliases: &["device", "dev", "iface", "ifname", "nic", "port"],
    },
    Key {
        name: "inbound",
        kind: Kind::Words(&[
            Word("drop", "they are dropped, also with IPv6 (RFC 6092)"),
            Word("allow", "they pass, and a firewall of yours decides"),
        ]),
        default: Some("\"drop\""),
        doc: "What happens to new connections that come from a WAN to this network, unless a port \
              forwarding (DNAT) of yours brought them.",
        aliases: &["incoming", "forward"],
    },
];

const NEXT_HOP: &[Word] = &[
    Word(
        "auto",
        "learnt: from the lease, the default routes of other programs, the PPP peer, router \
         advertisements",
    ),
    Word("off", "this WAN does not carry the family"),
];

const ADDRESSING: &[Word] = &[
    Word("observe", "whatever other programs give the interface"),
    Word("dhcp", "anywan asks a DHCP server for an IPv4 address itself; `gateway` may be \"auto\""),
];

const ALIAS: &[Word] = &[Word("off", "none")];

const SOURCE: &[Word] = &[
    Word("masquerade", "translated to whatever address the interface has"),
    Word("none", "not translated: the LAN's own addresses go out"),
];

const WAN: &[Key] = &[
    Key {
        name: "name",
        kind: Kind::Name,
        default: None,
        doc: "The name of this WAN, shown everywhere; each only once.",
        aliases: &["id", "label", "title"],
    },
    Key {
        name: "interface",
        kind: Kind::Interface,
        default: None,
        doc: "The interface that leads to it, e.g. `\"usb0\"` or `\"ppp0\"`. It may be that of a \
              LAN (one-armed) or of another WAN; then `gateway` must be written. \
              `\"mac:0c:5b:8f:27:9a:64\"` is the one with this hardware address, \
              `\"usb:1-1.3\"` the one in this USB port (as `ls /sys/bus/usb/devices` names it), \
              `\"driver:cdc_ether\"` the one with this driver (`ethtool -i`), whatever the \
              system calls it; of several, the first that no other section names. The same text in \
              two sections means one interface: two of one make are told apart by `usb:` or \
              `mac:`. With `[wan.ppp]` it is the name that the line gets.",
        aliases: &["device", "dev", "iface", "ifname", "nic", "port"],
    },
    Key {
        name: "address",
        kind: Kind::Addresses { words: ADDRESSING },
        default: Some("\"observe\""),
        doc: "Its own addresses, e.g. `\"192.0.2.10/24\"` or \
              `[\"192.0.2.10/24\", \"192.0.2.11/24\", \"2001:db8::10/64\"]`, the preferred one \
              first. With addresses or `\"dhcp\"` anywan also sets the interface up; what other \
              programs have put there is left alone.",
        aliases: &["addresses", "ip", "ipaddr", "proto", "cidr", "dhcp"],
    },
    Key {
        name: "gateway",
        kind: Kind::Address { family: Family::Ipv4, words: NEXT_HOP },
        default: Some("\"auto\""),
        doc: "The IPv4 address of the next router.",
        aliases: &["gw", "gateway4", "router", "via", "nexthop"],
    },
    Key {
        name: "gateway6",
        kind: Kind::Address { family: Family::Ipv6, words: NEXT_HOP },
        default: Some("\"auto\""),
        doc: "The IPv6 address of the next router, often a link-local one (`fe80::…`).",
        aliases: &["gw6", "ipv6_gateway", "gateway_v6"],
    },
    Key {
        name: "gateway_alias",
        kind: Kind::Address { family: Family::Ipv4, words: ALIAS },
        default: Some("\"off\""),
        doc: "Another address for the IPv4 gateway, e.g. `\"192.168.108.1\"`: LANs and the router \
              reach it there through this WAN, whoever else has the same address. For the own \
              pages of sticks that are all 192.168.8.1. Any address that is not in use.",
        aliases: &["alias", "modem", "modem_address", "page"],
    },
    Key {
        name: "priority",
        kind: Kind::Number { min: 1, max: 255 },
        default: Some("1"),
        doc: "Lower is preferred: a WAN is used only while no usable WAN has a lower number.",
        aliases: &["metric", "preference", "order"],
    },
    Key {
        name: "weight",
        kind: Kind::Number { min: 1, max: 256 },
        default: Some("1"),
        doc: "The share of new connections among usable WANs of the same priority: 8 gets twice \
              as many as 4.",
        aliases: &["ratio", "share"],
    },
    Key {
        name: "metered",
        kind: Kind::Flag,
        default: Some("false"),
        doc: "Data costs money here. The WAN is asked every minute or less often on standby, and now \
              and then while traffic comes back; while it serves without traffic, once in each \
              `interval`.",
        aliases: &["limited", "expensive"],
    },
    Key {
        name: "nat",
        kind: Kind::Address { family: Family::Ipv4, words: SOURCE },
        default: Some("\"masquerade\""),
        doc: "The source address of IPv4 packets that leave here.",
        aliases: &["masquerade", "masq", "snat", "nat4"],
    },
    Key {
        name: "nat6",
        kind: Kind::Address { family: Family::Ipv6, words: SOURCE },
        default: Some("\"masquerade\""),
        doc: "The source address of IPv6 packets that leave here.",
        aliases: &["masquerade6", "masq6", "snat6"],
    },
    Key {
        name: "dns",
        kind: Kind::Servers { max: served::SERVERS_MAX },
        default: Some("[]"),
        doc: "Its resolvers, for LANs that `[dns]` serves; empty: those that the system was given \
              with the address, and those that its router announces.",
        aliases: &["resolvers", "nameservers"],
    },
    Key {
        name: "budget",
        kind: Kind::Bytes {
            min: 100_000,
            max: 1_000_000_000_000,
            words: &[
                Word("auto", "30 MB when metered, else unlimited"),
                Word("unlimited", "heartbeats are never stretched"),
            ],
        },
        default: Some("\"auto\""),
        doc: "How much data a month heartbeats may cost while the WAN is on standby; they stretch \
              to fit. It bounds standby only: what is asked while the WAN serves, or because \
              something seems wrong, is always allowed.",
        aliases: &["probe_budget", "quota", "limit"],
    },
    Key {
        name: "linger",
        kind: Kind::Time {
            min_ms: 1_000,
            max_ms: 86_400_000,
            words: &[
                Word("auto", "5 minutes when metered, else never"),
                Word("never", "established connections stay until they end"),
            ],
        },
        default: Some("\"auto\""),
        doc: "How long established connections may stay here once a better WAN serves again.",
        aliases: &["failback", "drain_after"],
    },
];

const UNLIMITED: &[Word] = &[Word("off", "no limit")];

const HEALTH: &[Key] = &[
    Key {
        name: "targets",
        kind: Kind::Targets,
        default: Some(
            "[\"1.1.1.1\", \"tcp://9.9.9.9:443\", \"dns://8.8.4.4/dns.google\", \
             \"8.8.8.8\", \"tcp://1.0.0.1:443\", \"dns://149.112.112.112/dns.quad9.net\", \
             \"2606:4700:4700::1111\", \"tcp://[2620:fe::9]:443\", \
             \"dns://[2001:4860:4860::8844]/dns.google\", \"2001:4860:4860::8888\", \
             \"tcp://[2606:4700:4700::1001]:443\", \"dns://[2620:fe::fe]/dns.quad9.net\"]",
        ),
        doc: "Who is asked whether the WAN works. `\"1.1.1.1\"` or `\"icmp://1.1.1.1\"` is an \
              echo (ping), `\"tcp://9.9.9.9:443\"` or `\"tcp://[2620:fe::9]:443\"` a TCP \
              handshake, `\"dns://8.8.8.8/example.com\"` a DNS question (that there is no such \
              name is an answer too), `\"http://connectivity.example/204\"` a page that must come \
              with status 204. `{ url = \"http://…\", status = 200, body = \"Success\" }` asks \
              for another status (200 where there is a `body`), and for a text in the first \
              4 KiB. A host's name is resolved \
              through the WAN, by the servers of its `dns://` targets, or else those of \
              `/etc/resolv.conf`; it serves both families. Probes rotate over the targets, so no \
              single one decides. A service (TCP, DNS) that is dead while others work is noticed \
              only where at least two targets of its kind are listed for the family: the silence \
              of a single one is its own affair. A captive portal is seen only by `http://` targets, \
              and the default has none. A family of which no target is listed is judged by \
              link, address and gateway alone.",
        aliases: &["target", "hosts", "ping", "track_ip", "probes"],
    },
    Key {
        name: "interval",
        kind: Kind::Time { min_ms: 100, max_ms: 3_600_000, words: &[] },
        default: Some("\"1s\""),
        doc: "In this time each kind of target (icmp, tcp, ...) is asked twice while traffic comes \
              back over a WAN that serves, and once while it is in doubt. Otherwise one target is \
              asked in each two thirds of it (in all of it where there is one kind), the kinds in \
              turn. A metered WAN is asked once in this time, and only while it serves: on standby \
              every minute.",
        aliases: &["every", "period"],
    },
    Key {
        name: "timeout",
        kind: Kind::Time {
            min_ms: 50,
            max_ms: 60_000,
            words: &[Word(
                "auto",
                "follows the round-trip times that were measured; a burst waits 0.7 s",
            )],
        },
        default: Some("\"auto\""),
        doc: "How long a probe's answer may take. It is also how long traffic may go out without any \
              coming back before the WAN is asked, and how long a burst of probes waits for its \
              verdict: a long one makes finding a dead WAN slow.",
        aliases: &["deadline"],
    },
    Key {
        name: "hold",
        kind: Kind::Time { min_ms: 0, max_ms: 3_600_000, words: &[] },
        default: Some("\"8s\""),
        doc: "How long probes must succeed before a WAN that was down is used again. It doubles \
              each time the WAN fails again soon.",
        aliases: &["hold_time", "recovery", "holddown"],
    },
    Key {
        name: "max_loss_percent",
        kind: Kind::Number { min: 0, max: 90 },
        default: Some("20"),
        doc: "A WAN that loses so many of its probes is impaired: new connections avoid it while \
              a better one works, established ones stay. Steady losses of a third of this or less \
              are ignored. 0: losses never matter.",
        aliases: &["loss", "max_loss", "loss_percent", "packet_loss"],
    },
    Key {
        name: "max_latency",
        kind: Kind::Time { min_ms: 1, max_ms: 60_000, words: UNLIMITED },
        default: Some("\"off\""),
        doc: "A WAN whose round trips take longer for 5 s is impaired.",
        aliases: &["latency", "max_rtt", "rtt"],
    },
    Key {
        name: "max_jitter",
        kind: Kind::Time { min_ms: 1, max_ms: 60_000, words: UNLIMITED },
        default: Some("\"off\""),
        doc: "A WAN whose round trips differ by more for 5 s is impaired.",
        aliases: &["jitter"],
    },
];

const ROUTER: &[Key] = &[
    Key {
        name: "all_down",
        kind: Kind::Words(&[
            Word("refuse", "they are refused at once, so that programs need not wait"),
            Word("try", "they try the WAN that was best last"),
        ]),
        default: Some("\"refuse\""),
        doc: "What happens to new connections while no WAN is usable.",
        aliases: &["last_resort", "fallback"],
    },
    Key {
        name: "sticky",
        kind: Kind::Words(&[
            Word("flow", "each connection is placed by itself"),
            Word("source", "all new connections of one LAN address take the same WAN"),
            Word("source-destination", "those between the same two addresses take the same WAN"),
        ]),
        default: Some("\"flow\""),
        doc: "What keeps its WAN. An established connection always does.",
        aliases: &["stickiness", "hash", "persistence"],
    },
    Key {
        name: "mark_mask",
        kind: Kind::Mask,
        default: Some("\"0x7f000000\""),
        doc: "The bits of packet and connection marks that are anywan's: 3 to 7 adjacent ones. \
              N bits are enough for 2^(N-1) - 2 WANs: 7 bits for 62. Other bits are left alone.",
        aliases: &["mark", "fwmark", "mask", "mmx_mask"],
    },
    Key {
        name: "table_base",
        kind: Kind::Number { min: 1, max: 4_294_900_000 },
        default: Some("17000"),
        doc: "The first of 63 numbers of routing tables that are anywan's; 253, 254 and 255 \
              (the system's own) must not be among them.",
        aliases: &["table", "tables"],
    },
    Key {
        name: "rule_priority_base",
        kind: Kind::Number { min: 1, max: 2_000 },
        default: Some("1000"),
        doc: "Where anywan's ip rules begin: one block of 1,000 from here; the last two stand right before main, at 32765.",
        aliases: &["rule_base", "rule_priority"],
    },
];
