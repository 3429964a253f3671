//! The chains that the kernel calls, one for each hook, and those that take their place for the
//! moment in which a table is replaced.

use super::chain;
use crate::desired::Shape;

/// The chain that all packets meet which come in by an interface.
const PREROUTING: &str = "prerouting";

/// A chain that the kernel calls.
pub(super) struct Base {
    name: &'static str,
    /// Its type, and where it is called.
    hook: &'static str,
    /// A word of nft's, or none, and what is added to it.
    priority: (&'static str, i32),
    rules: Vec<String>,
}

impl Base {
    /// Writes the chain, or the one that takes its place in the meantime.
    pub(super) fn write(mut self, text: &mut String, interim: bool) {
        let priority = match (self.priority.0, self.priority.1 + i32::from(interim)) {
            ("", number) => number.to_string(),
            (word, 0) => word.to_owned(),
            (word, more @ 1..) => format!("{word} + {more}"),
            (word, less) => format!("{word} - {}", -less),
        };
        self.rules.insert(0, format!("type {} priority {priority}; policy accept;", self.hook));
        let name = if interim { interim_name(self.name) } else { self.name.to_owned() };
        chain(text, &name, &self.rules);
    }
}

fn interim_name(base: &str) -> String {
    format!("interim_{base}")
}

/// The chains that the kernel calls, but for those that translate.
pub(super) fn steering(shape: &Shape) -> Vec<Base> {
    let mut prerouting = vec!["iif vmap @from_wan".to_owned()];
    if shape.shared {
        prerouting.push("iif . ether saddr vmap @from_shared".to_owned());
    }
    prerouting.push("meta nfproto ipv6 goto from_lan6".to_owned());
    if shape.aliased {
        // What was meant for a gateway's alias, which it no longer says itself.
        prerouting.push("iif @lans ct original ip daddr vmap @aliases".to_owned());
    }
    prerouting.extend(from_lan(shape, "4"));
    let (mask, ask) = (shape.field.mask(), shape.field.ask().0);
    // What wakes a client must not be taken for a part of the flow that it speaks of.
    let untracked = vec![format!("meta mark & {mask:#x} == {ask:#x} notrack")];
    let base = |name, hook, priority, rules| Base { name, hook, priority, rules };
    let mut all = vec![base(PREROUTING, "filter hook prerouting", ("dstnat", 10), prerouting)];
    if shape.clamps {
        let syn = "tcp flags & (fin | syn | rst) == syn goto clamping".to_owned();
        all.push(base("forward", "filter hook forward", ("filter", 0), vec![syn]));
    }
    all.push(base("untracked", "filter hook output", ("raw", 0), untracked));
    all.push(base("output", "route hook output", ("mangle", 0), output_rules(shape)));
    all
}

/// The chains that translate.
pub(super) fn translating(shape: &Shape) -> Vec<Base> {
    let mut all = Vec::new();
    if shape.aliased {
        // What is sent to a gateway's alias goes to the gateway.
        let behind = "dnat ip to ip daddr map @behind";
        for (name, hook, from) in [
            ("alias_from_lan", "nat hook prerouting", "iif @lans "),
            ("alias_from_here", "nat hook output", ""),
        ] {
            // Right before others' dstnat, a word that nft does not know for both hooks.
            let rules = vec![format!("{from}{behind}")];
            all.push(Base { name, hook, priority: ("", -110), rules });
        }
    }
    // Before other programs' source translation: a flow that has been translated is not shown to
    // these chains again. A flow's first packet passes here, and no other.
    let (name, hook) = ("source_nat", "nat hook postrouting");
    all.push(Base { name, hook, priority: ("srcnat", -10), rules: leaving_rules() });
    all
}

/// All chains that the kernel calls once more, each right behind the one that it is like.
///
/// While a table is replaced the kernel has the hooks of both, of equal priorities the new one
/// first. A packet that has passed the new chain before the transaction is done, and meets the old
/// one after it, has met neither's rules: an established flow would leave unmarked, a new one
/// untranslated. Behind the old chain it meets the new rules. Gone when the table is there.
pub(super) fn interim(shape: &Shape) -> String {
    let mut text = String::new();
    for mut base in steering(shape).into_iter().chain(translating(shape)) {
        if base.name == PREROUTING {
            let seen = format!("meta mark & {:#x} != 0 return", shape.field.mask());
            base.rules.insert(0, seen);
        }
        base.write(&mut text, true);
    }
    text
}

/// The chains of a [`replacement`](super::replacement) that are to be deleted once it is loaded.
pub fn interim_chains(shape: &Shape) -> Vec<String> {
    let all = steering(shape).into_iter().chain(translating(shape));
    all.map(|base| interim_name(base.name)).collect()
}

/// What a LAN sends.
pub(super) fn from_lan(shape: &Shape, digit: &str) -> Vec<String> {
    vec![
        format!("ct mark & {:#x} vmap @restore{digit}", shape.field.number_mask()),
        // No verdict for a number that is not in the map: while a table is replaced the kernel
        // still runs the old chains after the elements of their maps are gone
        // (nf_tables_commit takes hooks off last), and every flow would be lost.
        format!("iif @lans ct state new goto pick{digit}"),
        format!("iif @lans ct state invalid goto strays{digit}"),
    ]
}

fn output_rules(shape: &Shape) -> Vec<String> {
    let field = shape.field;
    let (mask, number, probe) = (field.mask(), field.number_mask(), field.ask().0);
    let aliased = shape.aliased.then(|| "ip daddr vmap @aliases".to_owned());
    let mut rules = vec![
        "meta l4proto tcp ct state invalid oif @outside goto last_words".to_owned(),
        // Probes carry our mark; whoever marks all bits (WireGuard) means it. Tailscale's own
        // packets are steered like any other.
        format!("meta mark & {mask:#x} != 0 return"),
        "meta mark != { 0x0, 0x80000 } return".to_owned(),
    ];
    rules.extend(aliased);
    if shape.dns {
        let question = "meta l4proto { tcp, udp } th dport 53";
        rules.push(format!("{question} oif . ip daddr vmap @resolvers4"));
        rules.push(format!("{question} oif . ip6 daddr vmap @resolvers6"));
    }
    rules.extend([
        // The reset that answers what comes for a probe whose socket is closed: it knows no WAN.
        format!("ct mark & {mask:#x} == {probe:#x} oif @outside goto last_words"),
        format!("ct mark & {number:#x} == 0 return"),
        // What we say ourselves about a flow. To a LAN it goes as the routing says; so does our
        // reset, whose source is the server's, on an interface that LAN and WAN share. The rest
        // leaves by the flow's own WAN.
        "ct state related oif != @outside return".to_owned(),
        "ct state related fib saddr type != local return".to_owned(),
        "ct state related goto keep".to_owned(),
        "ct direction reply goto keep".to_owned(),
        format!("meta nfproto ipv4 ct mark & {number:#x} vmap @restore4"),
        format!("meta nfproto ipv6 ct mark & {number:#x} vmap @restore6"),
    ]);
    rules
}

fn leaving_rules() -> Vec<String> {
    [
        // Conntrack asks at each change of a flow who wants to hear of it, which a short connection
        // pays five times; we hear of its end alone. Flows that begin while others follow them tell
        // everything.
        "oif @unfollowed ct event set destroy",
        // First what most flows are. A multicast address is its own next hop, no gateway's.
        "oif . rt ip nexthop vmap @out_via4",
        // Multicast, and what speaks for the link alone (DHCPv6), keeps its source.
        "ip daddr 224.0.0.0/4 return",
        "ip6 daddr ff00::/8 return",
        "ip6 saddr fe80::/10 return",
        "oif . rt ip6 nexthop vmap @out_via6",
        "meta nfproto ipv4 oif vmap @out_by4",
        "meta nfproto ipv6 oif vmap @out_by6",
    ]
    .map(str::to_owned)
    .to_vec()
}
