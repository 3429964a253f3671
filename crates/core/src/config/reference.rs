//! The reference of the file for people, made from the table of keys.

use std::fmt::Write;

use super::fault::CODES;
use super::keys::{Key, Kind, LATER, MAX_ADDRESSES, MAX_TARGETS, SECTIONS, Section, TOP, Word};
use super::served::ENTRIES_MAX;
use super::{bytes, duration};
use crate::names::Family;

const HEAD: &str = "\
# The configuration file

<!-- Generated from crates/core/src/config/keys.rs; `UPDATE_EXPECT=1 cargo test -p anywan-core`
     rewrites it. -->

One TOML file, `/etc/anywan/anywan.toml` unless `--config` says otherwise; UTF-8, at most 1 MiB.
`anywan check FILE` tells everything that is wrong with a file, without a daemon. A key that is not
on this page is an error. Durations are strings of a whole number and a unit: `\"500ms\"`,
`\"15s\"`, `\"2m\"`, `\"1h\"`. Files to begin with are in `examples/`, and
where anywan is installed in `/usr/local/share/doc/anywan/examples`; `docs/anywan.schema.json` lets
an editor complete and check.

The smallest file that does something:

```toml
[[lan]]
interface = \"eth0\"

[[wan]]
name = \"lte\"
interface = \"usb0\"
```
";

const TOGETHER: &str = "
## What sections mean together

- There is at least one `[[lan]]` and one `[[wan]]`.
- Two WANs may share an interface. Then each family that both use needs a written gateway on each,
  and the gateways differ; `gateway6 = \"off\"` says that a WAN does not use IPv6.
- A WAN may share the interface of a LAN (one-armed). Then it needs a written `gateway`, or
  `gateway = \"off\"`; `gateway6` may stay `\"auto\"`.
- A WAN uses at least one of IPv4 and IPv6.
- `address = \"dhcp\"` needs an interface of its own: on a LAN's the LAN's own server would answer.
- A gateway is none of the WAN's own `address`es, nor the network or broadcast address of one; a
  `gateway_alias` is nobody's address.
- `[wan.health]` stands below its `[[wan]]`, and replaces `[health]` key by key. An empty list of
  targets asks nobody: the WAN is then judged by link, address and gateway alone.
- `[dns]`, even empty, turns DNS for LANs on, `[lan.dhcp]` below a `[[lan]]` DHCP on that LAN;
  without them anywan runs neither, and whatever serves them goes on. Both need dnsmasq.
- A WAN without `dns` has the resolvers that whoever manages its interface was given: anywan,
  systemd-networkd, NetworkManager where it tells systemd-resolved or uses dhclient, resolvconf,
  dhcpcd, dhclient; and those that its router announces, where the kernel accepts router
  advertisements. NetworkManager by itself keeps no list for one interface: write `dns`, or
  `upstreams`.
- With `[dns]` the router's own programs ask it too: `/etc/resolv.conf` names 127.0.0.87, where
  dnsmasq answers this machine alone. Whatever was there, a link of systemd-resolved's included, is
  kept in the state directory and comes back while dnsmasq does not run, and for good with
  `resolv_conf = false` or `anywan down`. It is the machine's file: a daemon in a network namespace
  of its own leaves it alone, unless it is started with `--resolv-conf FILE`.
- The ranges of two LANs have no address in common.
- `[wan.ppp]` stands below its `[[wan]]` too, and has either `device` or `pppoe`. The WAN's
  `interface` is the line's own name, so no hardware, no LAN's and no other WAN's; `address` is left
  out, because the far end gives it; `gateway6 = \"off\"` asks the far end for IPv4 alone.
";

/// The reference, as Markdown that ends with a newline.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    let _ = write!(out, "\n## Above the first section\n\n{}\n", TOP.doc);
    table(&mut out, &TOP);
    for section in SECTIONS {
        let _ = write!(out, "\n## `{}`\n\n{}\n", section.header(), section.doc);
        if section.path == "wan.health" {
            let _ = write!(out, "\nThe keys are those of [`[health]`](#health).\n");
            continue;
        }
        table(&mut out, section);
    }
    out.push_str(TOGETHER);
    later(&mut out);
    codes(&mut out);
    out
}

fn table(out: &mut String, section: &Section) {
    out.push_str("\n| key | takes | default | meaning |\n|---|---|---|---|\n");
    for key in section.keys {
        let default = key.default.map_or_else(|| "required".to_owned(), |text| format!("`{text}`"));
        let meaning = format!("{}{}", key.doc, meanings(key));
        let _ = writeln!(out, "| `{}` | {} | {default} | {meaning} |", key.name, takes(&key.kind));
    }
}

fn takes(kind: &Kind) -> String {
    match kind {
        Kind::Interface => {
            "an interface's name, 1 to 15 bytes, or `\"mac:…\"`, `\"usb:…\"`, `\"driver:…\"`"
                .to_owned()
        }
        Kind::InterfaceName => "an interface's name, 1 to 15 bytes".to_owned(),
        Kind::Name => "1 to 15 of a-z, 0-9 and `-`, not only `-`".to_owned(),
        Kind::Words(words) => listed(words),
        Kind::Number { min, max } => format!("a whole number, {min} to {max}"),
        Kind::Flag => "`true` or `false`".to_owned(),
        Kind::Time { min_ms, max_ms, words } => {
            let (min, max) = (duration::show(*min_ms), duration::show(*max_ms));
            or_words(format!("a duration, {min} to {max}"), words)
        }
        Kind::Bytes { min, max, words } => {
            let (min, max) = (bytes::show(*min), bytes::show(*max));
            or_words(format!("an amount of data, {min} to {max}"), words)
        }
        Kind::Address { family: Family::Ipv4, words } => {
            or_words("an IPv4 address".to_owned(), words)
        }
        Kind::Address { family: Family::Ipv6, words } => {
            or_words("an IPv6 address".to_owned(), words)
        }
        Kind::Addresses { words } => or_words(
            format!("an address with its prefix length, a list of at most {MAX_ADDRESSES}"),
            words,
        ),
        Kind::Targets => format!("a list of at most {MAX_TARGETS} targets"),
        Kind::Servers { max } => format!("a list of at most {max} addresses"),
        Kind::Leases => format!("a list of at most {ENTRIES_MAX} leases"),
        Kind::Hosts => format!("a list of at most {ENTRIES_MAX} addresses with names"),
        Kind::Range => "two IPv4 addresses with `-` between them".to_owned(),
        Kind::Domain => "a domain's name".to_owned(),
        Kind::Mask => "a mask, hexadecimal in quotes, or a whole number".to_owned(),
        Kind::Text { max } => format!("a text, {max} bytes at most"),
        Kind::Texts { max, each } => format!("a list of at most {max} texts, {each} bytes each"),
        Kind::Secret { digits: true } => "4 to 8 digits in quotes".to_owned(),
        Kind::Secret { digits: false } => "a text, 200 bytes at most; never shown".to_owned(),
        Kind::Path { below } => format!("a path that begins with `{below}`"),
        Kind::Port => "a place on USB".to_owned(),
    }
}

fn or_words(takes: String, words: &[Word]) -> String {
    if words.is_empty() { takes } else { format!("{takes}, or {}", listed(words)) }
}

fn listed(words: &[Word]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`\"{}\"`", word.0)).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

fn meanings(key: &Key) -> String {
    let words = match &key.kind {
        Kind::Words(words)
        | Kind::Time { words, .. }
        | Kind::Bytes { words, .. }
        | Kind::Address { words, .. }
        | Kind::Addresses { words } => words,
        Kind::Interface
        | Kind::InterfaceName
        | Kind::Name
        | Kind::Number { .. }
        | Kind::Flag
        | Kind::Targets
        | Kind::Servers { .. }
        | Kind::Leases
        | Kind::Hosts
        | Kind::Range
        | Kind::Domain
        | Kind::Mask
        | Kind::Text { .. }
        | Kind::Texts { .. }
        | Kind::Secret { .. }
        | Kind::Path { .. }
        | Kind::Port => return String::new(),
    };
    let meanings: Vec<String> =
        words.iter().map(|word| format!("`\"{}\"`: {}", word.0, word.1)).collect();
    if meanings.is_empty() { String::new() } else { format!(" {}.", meanings.join("; ")) }
}

fn later(out: &mut String) {
    out.push_str("\n## What this version does not have yet\n\n");
    for later in LATER.iter().filter(|later| later.section != "wan.health") {
        let path = if later.section.is_empty() {
            later.name.to_owned()
        } else {
            format!("{}.{}", later.section, later.name)
        };
        let _ = writeln!(out, "- `{path}`");
    }
}

fn codes(out: &mut String) {
    out.push_str("\n## Error codes\n\n| code | meaning |\n|---|---|\n");
    for (code, meaning) in CODES {
        let _ = writeln!(out, "| `{code}` | {meaning} |");
    }
}
