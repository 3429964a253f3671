//! Reads, puts and deletes routes: ours, and of others the default routes of main. In: a socket and core's [`Route`]. Out: the same.
//!
//! The kernel can filter a dump by table and by protocol, but not by destination. So ours are
//! read by protocol (in any table, no matter how many routes others have), and main is read whole
//! in IPv6. In IPv4 the default routes come first in a table, and reading stops behind them: a
//! router with a full BGP table in main costs one datagram. IPv6 has them last.
//!
//! IPv6 refuses a multipath route with hops that have only a device (PPP). There the kernel gets a
//! link-local stand-in for the missing gateway: on a point-to-point interface nobody is asked for
//! its hardware address, so packets simply leave. Reading turns it back into no gateway.
//!
//! Left out are routes that no [`Route`] can say: those for one type of service or one source
//! prefix, `throw`, and routes of a nexthop object that the kernel does not spell out. Ours of the
//! wrong kind (a `blackhole` with our protocol) are left out too: then they get replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::ControlFlow;

use anywan_core::names::{Family, IfIndex, PROTOCOL, TableId};
use anywan_core::observed::{Hop, Route};
use anywan_core::steps::same_place;
use ipnet::IpNet;

use super::error::{KernelError, Refused};
use super::socket::Conn;
use super::wire::{Attribute, Attributes, Writer, ip, u16_at, u32_at};

/// The length of `struct rtmsg`.
const RTMSG: usize = 12;
/// The length of `struct rtnexthop`.
const NEXTHOP: usize = 8;
/// `RTNH_F_ONLINK`: take the gateway as reachable though no route says so.
const ONLINK: u8 = 4;
/// Stands in for no gateway in an IPv6 multipath route; the letters "anywan".
const NO_GATEWAY: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x616e, 0x7977, 0x616e));
/// The index of the loopback interface, the first of every network namespace.
const LOOPBACK: u32 = 1;
/// How often a replacement in IPv6 is swept: the second round is for the sweep's own mistakes.
const ROUNDS: u32 = 4;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;

fn family_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => libc::AF_INET as u8,
        Family::Ipv6 => libc::AF_INET6 as u8,
    }
}

/// Ours in any table, everybody's default routes in main. `conn` is ours to close.
pub(crate) fn read(conn: &mut Conn) -> Result<BTreeSet<Route>, KernelError> {
    let mut found = Vec::new();
    for family in Family::BOTH {
        let ours = dump(conn, family, None, PROTOCOL);
        found.extend(ours.map_err(|e| e.doing(format!("read our {family} routes")))?);
        let main = dump(conn, family, Some(TableId::MAIN), 0);
        found.extend(main.map_err(|e| e.doing(format!("read the {family} routes of main")))?);
    }
    Ok(merge(found))
}

/// By which interface a packet of ours to an address would leave under a mark; `None` when no
/// route leads there.
pub(crate) fn way(conn: &mut Conn, to: IpAddr, mark: u32) -> Result<Option<IfIndex>, KernelError> {
    let (family, bits) = match to {
        IpAddr::V4(_) => (Family::Ipv4, 32),
        IpAddr::V6(_) => (Family::Ipv6, 128),
    };
    let header = [family_number(family), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut request = Writer::message(libc::RTM_GETROUTE, REQUEST, &header);
    request.put_ip(libc::RTA_DST, to);
    request.put_u32(libc::RTA_MARK, mark);
    match conn.ask(request) {
        Ok(route) => {
            let device = Attributes::after(&route, RTMSG).find(libc::RTA_OIF);
            Ok(device.and_then(Attribute::u32).map(IfIndex))
        }
        Err(e) if matches!(e.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => Ok(None),
        Err(e) => Err(e.doing(format!("look up the route to {to}"))),
    }
}

/// Dumps our and the default routes of one family, filtered by table and protocol (0: any).
fn dump(
    conn: &mut Conn,
    family: Family,
    table: Option<TableId>,
    protocol: u8,
) -> Result<Vec<Route>, Refused> {
    let header = [family_number(family), 0, 0, 0, 0, protocol, 0, 0, 0, 0, 0, 0];
    let mut request = Writer::message(libc::RTM_GETROUTE, REQUEST, &header);
    if let Some(table) = table {
        request.put_u32(libc::RTA_TABLE, table.0);
    }
    let first_only = family == Family::Ipv4 && table.is_some();
    let found = conn.dump_until(&mut request, |payload| {
        if first_only && beyond_defaults(payload) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(route(payload))
    });
    match found {
        // The table was never used.
        Err(refused) if refused.errno() == Some(libc::ENOENT) || refused.lacks_family() => {
            Ok(Vec::new())
        }
        other => other,
    }
}

/// Whether an IPv4 route sorts behind 0.0.0.0/0 in its table.
pub(crate) fn beyond_defaults(payload: &[u8]) -> bool {
    let destination = Attributes::after(payload, RTMSG).find(libc::RTA_DST);
    destination.is_some_and(|destination| destination.value.iter().any(|byte| *byte != 0))
}

/// The route in a message, when it is ours or a default route, and a [`Route`] can say it.
pub(crate) fn route(payload: &[u8]) -> Option<Route> {
    let [family, bits, 0, 0, table, protocol, _, kind] = *payload.first_chunk()? else {
        return None;
    };
    if bits != 0 && protocol != PROTOCOL {
        return None;
    }
    if u32_at(payload, 8)? & libc::RTM_F_CLONED != 0 {
        return None;
    }
    let family = match i32::from(family) {
        libc::AF_INET => Family::Ipv4,
        libc::AF_INET6 => Family::Ipv6,
        _ => return None,
    };
    let attributes = Attributes::after(payload, RTMSG);
    let number = |kind| attributes.clone().find(kind).and_then(Attribute::u32);
    let to = match attributes.clone().find(libc::RTA_DST).and_then(Attribute::ip) {
        Some(destination) if bits != 0 => Some(IpNet::new(destination, bits).ok()?),
        None if bits != 0 => return None,
        Some(_) | None => None,
    };
    let hops = match kind {
        libc::RTN_UNICAST => hops(&attributes)?,
        libc::RTN_UNREACHABLE => Vec::new(),
        libc::RTN_BLACKHOLE | libc::RTN_PROHIBIT if protocol != PROTOCOL => Vec::new(),
        _ => return None,
    };
    Some(Route {
        family,
        table: TableId(number(libc::RTA_TABLE).unwrap_or(u32::from(table))),
        to,
        metric: number(libc::RTA_PRIORITY).unwrap_or(0),
        protocol,
        hops,
    })
}

/// The hops of a unicast route; `None` when it names no interface.
fn hops(attributes: &Attributes<'_>) -> Option<Vec<Hop>> {
    if let Some(multipath) = attributes.clone().find(libc::RTA_MULTIPATH) {
        let mut rest = multipath.value;
        let mut hops = Vec::new();
        while let Some(length) = u16_at(rest, 0).map(usize::from) {
            let one = rest.get(..length).filter(|one| one.len() >= NEXTHOP)?;
            let device = IfIndex(u32_at(one, 4)?);
            let via = gateway(&Attributes::after(one, NEXTHOP));
            hops.push(Hop { device, via, weight: u16::from(one[3]) + 1 });
            rest = rest.get((length + 3) & !3..).unwrap_or(&[]);
        }
        hops.sort();
        return (!hops.is_empty()).then_some(hops);
    }
    let device = IfIndex(attributes.clone().find(libc::RTA_OIF)?.u32()?);
    Some(vec![Hop { device, via: gateway(attributes), weight: 1 }])
}

fn gateway(attributes: &Attributes<'_>) -> Option<IpAddr> {
    let plain = attributes.clone().find(libc::RTA_GATEWAY).and_then(Attribute::ip);
    // `struct rtvia`: the family, then the address.
    let via = plain.or_else(|| ip(attributes.clone().find(libc::RTA_VIA)?.value.get(2..)?));
    via.filter(|via| *via != NO_GATEWAY)
}

/// Makes one route of the IPv6 routes that differ only in their hops: the kernel has them as
/// siblings of one another. In IPv4 such twins are routes of their own, of which only the first
/// is ever used; of ours only that one is told.
fn merge(found: Vec<Route>) -> BTreeSet<Route> {
    let mut merged = BTreeSet::new();
    let mut places = BTreeSet::new();
    let mut siblings: BTreeMap<_, BTreeSet<Hop>> = BTreeMap::new();
    for route in found {
        if route.family == Family::Ipv4 || route.hops.is_empty() {
            let place = (route.family, route.table, route.to, route.metric);
            if route.protocol != PROTOCOL || places.insert(place) {
                merged.insert(route);
            }
        } else {
            let key = (route.table, route.to, route.metric, route.protocol);
            siblings.entry(key).or_default().extend(route.hops);
        }
    }
    for ((table, to, metric, protocol), hops) in siblings {
        let hops = hops.into_iter().collect();
        merged.insert(Route { family: Family::Ipv6, table, to, metric, protocol, hops });
    }
    merged
}

/// Adds a route, or replaces the one with the same table and metric.
pub(crate) fn put(conn: &mut Conn, route: &Route) -> Result<(), KernelError> {
    let done = match route.family {
        Family::Ipv4 => put_ipv4(conn, route),
        Family::Ipv6 => put_ipv6(conn, route),
    };
    done.map_err(|e| e.doing(format!("put {route}")))
}

fn change(conn: &mut Conn, route: &Route, onlink: bool) -> Result<(), Refused> {
    let flags = REQUEST | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
    conn.change(message(libc::RTM_NEWROUTE, flags, route, onlink))
}

/// Another of our routes in the same place, in front of the wanted one, makes the kernel refuse to
/// replace it; it is deleted.
fn put_ipv4(conn: &mut Conn, route: &Route) -> Result<(), Refused> {
    for _ in 0..ROUNDS {
        match change(conn, route, true) {
            Err(e) if e.errno() == Some(libc::EEXIST) => {
                for twin in dump(conn, Family::Ipv4, Some(route.table), PROTOCOL)? {
                    if same_place(&twin, route) && twin != *route {
                        gone(conn.change(message(libc::RTM_DELROUTE, REQUEST, &twin, true)))?;
                    }
                }
            }
            done => return done,
        }
    }
    Err(Refused::Interrupted(ROUNDS))
}

/// IPv6 replaces siblings only among routes of one kind (with or without a gateway, unreachable),
/// and takes routes of the same metric as twins, so what is left over is deleted here.
fn put_ipv6(conn: &mut Conn, route: &Route) -> Result<(), Refused> {
    // Without a route to the gateway the kernel says one of these, by version and hop.
    let unreachable = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EINVAL];
    for _ in 0..ROUNDS {
        match change(conn, route, false) {
            Err(e) if unreachable.contains(&e.errno().unwrap_or(0)) && global_gateway(route) => {
                change(conn, route, true)?;
            }
            other => other?,
        }
        let strays = strays(conn, route)?;
        if strays.is_empty() {
            return Ok(());
        }
        strays.iter().try_for_each(|stray| delete_apart(conn, stray))?;
    }
    Err(Refused::Interrupted(ROUNDS))
}

/// The routes, or parts of them, beside the wanted one in its table with its metric.
fn strays(conn: &mut Conn, wanted: &Route) -> Result<Vec<Route>, Refused> {
    let mut strays = Vec::new();
    for found in dump(conn, Family::Ipv6, Some(wanted.table), wanted.protocol)? {
        if !same_place(&found, wanted) {
            continue;
        }
        let stray = |hop: &&Hop| !wanted.hops.iter().any(|w| same_way(w, hop));
        let hops: Vec<Hop> = found.hops.iter().filter(stray).cloned().collect();
        let unreachable = found.hops.is_empty() && !wanted.hops.is_empty();
        if unreachable || !hops.is_empty() {
            strays.push(Route { hops, ..found });
        }
    }
    Ok(strays)
}

/// Whether some gateway is neither missing nor link-local.
fn global_gateway(route: &Route) -> bool {
    route.hops.iter().any(|hop| match hop.via {
        Some(IpAddr::V6(v6)) => !v6.is_unicast_link_local(),
        Some(IpAddr::V4(_)) | None => false,
    })
}

/// Deletes a route; it is fine when there is none.
pub(crate) fn delete(conn: &mut Conn, route: &Route) -> Result<(), KernelError> {
    let onlink = route.family == Family::Ipv4;
    let mut done = gone(conn.change(message(libc::RTM_DELROUTE, REQUEST, route, onlink)));
    if route.family == Family::Ipv6 {
        done = done.and_then(|()| delete_rest(conn, route));
    }
    done.map_err(|e| e.doing(format!("delete {route}")))
}

/// Deletes what is left of an IPv6 route when it was not one multipath route but several.
fn delete_rest(conn: &mut Conn, route: &Route) -> Result<(), Refused> {
    for mut found in dump(conn, Family::Ipv6, Some(route.table), route.protocol)? {
        found.hops.retain(|hop| route.hops.iter().any(|r| same_way(r, hop)));
        if same_place(&found, route) && !found.hops.is_empty() {
            delete_apart(conn, &found)?;
        }
    }
    Ok(())
}

/// Deletes a route hop by hop, or an unreachable one.
fn delete_apart(conn: &mut Conn, route: &Route) -> Result<(), Refused> {
    let mut parts: Vec<_> = route.hops.iter().map(|hop| vec![hop.clone()]).collect();
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    parts.into_iter().try_for_each(|hops| {
        let part = Route { hops, ..route.clone() };
        gone(conn.change(message(libc::RTM_DELROUTE, REQUEST, &part, false)))
    })
}

/// Whether two hops are one way out; weights aside.
fn same_way(a: &Hop, b: &Hop) -> bool {
    (a.device, a.via) == (b.device, b.via)
}

/// Nothing there, no such table, no such device: all mean that the route is gone.
fn gone(result: Result<(), Refused>) -> Result<(), Refused> {
    match result {
        Err(e) if [libc::ESRCH, libc::ENOENT, libc::ENODEV].contains(&e.errno().unwrap_or(0)) => {
            Ok(())
        }
        other => other,
    }
}

fn message(kind: u16, flags: u16, route: &Route, onlink: bool) -> Writer {
    let kind_of_route =
        if route.hops.is_empty() { libc::RTN_UNREACHABLE } else { libc::RTN_UNICAST };
    let no_gateway = !route.hops.is_empty() && route.hops.iter().all(|hop| hop.via.is_none());
    let scope = if kind == libc::RTM_DELROUTE {
        libc::RT_SCOPE_NOWHERE
    } else if no_gateway && route.family == Family::Ipv4 {
        libc::RT_SCOPE_LINK
    } else {
        libc::RT_SCOPE_UNIVERSE
    };
    let bits = route.to.map_or(0, |to| to.prefix_len());
    // The table's number need not fit the header: RT_TABLE_UNSPEC there, all of it in RTA_TABLE.
    let mut header = [
        family_number(route.family),
        bits,
        0,
        0,
        0,
        route.protocol,
        scope,
        kind_of_route,
        0,
        0,
        0,
        0,
    ];
    let single_onlink = onlink && route.hops.len() == 1 && route.hops[0].via.is_some();
    header[8..].copy_from_slice(&u32::from(if single_onlink { ONLINK } else { 0 }).to_ne_bytes());
    let mut message = Writer::message(kind, flags, &header);
    message.put_u32(libc::RTA_TABLE, route.table.0);
    if let Some(to) = route.to {
        message.put_ip(libc::RTA_DST, to.network());
    }
    message.put_u32(libc::RTA_PRIORITY, route.metric);
    match route.hops.as_slice() {
        // IPv6 compares no kinds; its unreachable routes are known by the loopback interface.
        [] if kind == libc::RTM_DELROUTE && route.family == Family::Ipv6 => {
            message.put_u32(libc::RTA_OIF, LOOPBACK);
        }
        [] => {}
        [hop] => {
            put_gateway(&mut message, route.family, hop);
            message.put_u32(libc::RTA_OIF, hop.device.0);
        }
        many => message.nest_plain(libc::RTA_MULTIPATH, |w| {
            for hop in many {
                put_hop(w, route.family, hop, onlink);
            }
        }),
    }
    message
}

/// Writes a `struct rtnexthop` and its gateway.
fn put_hop(writer: &mut Writer, family: Family, hop: &Hop, onlink: bool) {
    let flags = if onlink && hop.via.is_some() { ONLINK } else { 0 };
    let weight = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    let index = hop.device.0.to_ne_bytes();
    let start = writer.raw(&[0, 0, flags, weight, index[0], index[1], index[2], index[3]]);
    let via = hop.via.or((family == Family::Ipv6).then_some(NO_GATEWAY));
    put_gateway(writer, family, &Hop { via, ..hop.clone() });
    let length = u16::try_from(writer.len() - start).expect("a hop has at most 28 bytes");
    writer.overwrite(start, &length.to_ne_bytes());
}

fn put_gateway(writer: &mut Writer, family: Family, hop: &Hop) {
    match hop.via {
        Some(via) if Family::of(via) == family => writer.put_ip(libc::RTA_GATEWAY, via),
        Some(IpAddr::V4(via)) => put_via(writer, libc::AF_INET, &via.octets()),
        Some(IpAddr::V6(via)) => put_via(writer, libc::AF_INET6, &via.octets()),
        None => {}
    }
}

/// A gateway of the other family (RFC 5549).
fn put_via(writer: &mut Writer, family: i32, address: &[u8]) {
    let family = (family as u16).to_ne_bytes();
    writer.put(libc::RTA_VIA, &[&family[..], address].concat());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn random_bytes_never_panic_the_parser(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let _ = route(&bytes);
            if bytes.len() >= RTMSG {
                bytes[..RTMSG].copy_from_slice(&[2, 0, 0, 0, 100, 87, 0, 1, 0, 0, 0, 0]);
            }
            let _ = route(&bytes);
        }
    }
}
