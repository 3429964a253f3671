//! The keys of what LANs are served with: `[lan.dhcp]` and `[dns]`.

use super::{Key, Kind, Word};
use crate::names::Family;

pub(super) const DHCP: &[Key] = &[
    Key {
        name: "range",
        kind: Kind::Range,
        default: None,
        doc: "The addresses to lend, the first and the last, e.g. \
              `\"192.168.1.100-192.168.1.199\"`; of the network that the router's own address on \
              this LAN is in.",
        aliases: &["pool", "addresses", "dhcp_range"],
    },
    Key {
        name: "lease",
        kind: Kind::Time { min_ms: 120_000, max_ms: 2_592_000_000, words: &[] },
        default: Some("\"12h\""),
        doc: "For how long an address is lent.",
        aliases: &["lease_time", "ttl"],
    },
    Key {
        name: "leases",
        kind: Kind::Leases,
        default: Some("[]"),
        doc: "Who always gets the same address, and its name if it is to have one: \
              `[\"b8:27:eb:00:00:01 192.168.1.10 printer\"]`. The address need not be in the \
              range.",
        aliases: &["static", "reservations", "static_leases"],
    },
    Key {
        name: "router",
        kind: Kind::Address {
            family: Family::Ipv4,
            words: &[Word("auto", "this router, by its address on the LAN")],
        },
        default: Some("\"auto\""),
        doc: "The router that clients are told.",
        aliases: &["gateway"],
    },
    Key {
        name: "dns",
        kind: Kind::Servers { max: SERVERS_MAX },
        default: Some("[]"),
        doc: "The DNS servers that clients are told; empty: this router.",
        aliases: &["dns_servers", "nameservers"],
    },
    Key {
        name: "ra",
        kind: Kind::Flag,
        default: Some("false"),
        doc: "Announce this router and the LAN's IPv6 prefixes (router advertisements), so that \
              hosts give themselves addresses; needs a prefix on the interface.",
        aliases: &["ipv6", "slaac"],
    },
];

/// More resolvers than anybody is given.
pub(super) const SERVERS_MAX: usize = 8;

pub(super) const DNS: &[Key] = &[
    Key {
        name: "upstreams",
        kind: Kind::Servers { max: SERVERS_MAX },
        default: Some("[]"),
        doc: "Resolvers that are asked, through each WAN, where the WAN gives none of its own or \
              only such that do not answer or lie. While there are none anywhere, a WAN's gateway \
              is asked.",
        aliases: &["servers", "forwarders", "nameservers"],
    },
    Key {
        name: "cache",
        kind: Kind::Number { min: 0, max: 10_000 },
        default: Some("1000"),
        doc: "How many names are remembered.",
        aliases: &["cache_size"],
    },
    Key {
        name: "domain",
        kind: Kind::Domain,
        default: Some("\"lan\""),
        doc: "The domain of the hosts on LANs; questions for names in it never leave.",
        aliases: &["local", "search"],
    },
    Key {
        name: "hosts",
        kind: Kind::Hosts,
        default: Some("[]"),
        doc: "Names that are always known: `[\"192.168.1.5 nas\"]`.",
        aliases: &["names", "records", "address"],
    },
    Key {
        name: "resolv_conf",
        kind: Kind::Flag,
        default: Some("true"),
        doc: "Programs on this router ask it too: `/etc/resolv.conf` names it while it can answer. \
              What was there before comes back otherwise, with `false`, and with `anywan down`.",
        aliases: &["router", "resolvconf", "localhost"],
    },
];
