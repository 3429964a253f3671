//! What is believed of a server's words. In: a [`Reply`]. Out: what is granted, or why not.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::{Reply, Trouble};
use crate::observed::{Lease, STATIC_ROUTES_MAX};
use crate::time::Moment;

/// Name servers taken from a lease; resolvers ask no more.
const DNS_MAX: usize = 6;
/// Below 576 no IPv4 host may be, above 9000 no Ethernet is.
const MTUS: std::ops::RangeInclusive<u16> = 576..=9000;
/// The shortest prefix of a network or a static route: nothing takes over half the internet.
const ROUTE_BITS_MIN: u8 = 8;
/// The shortest lease in seconds: there must be time to renew it.
const SECONDS_MIN: u32 = 20;
/// Seconds that mean for ever.
const FOREVER: u32 = u32::MAX;

/// What a server has granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The lease.
    pub lease: Lease,
    /// When its server is asked to renew it (T1); `None`: never.
    pub renew: Option<Moment>,
    /// When any server is (T2).
    pub rebind: Option<Moment>,
}

/// Believes a server, or says what is wrong. `server` is whom we have asked, in case it does not
/// say so itself; `lans` are the networks that a WAN must not have.
///
/// # Errors
/// When the address cannot be used.
pub fn judge(
    reply: &Reply,
    lans: &[Ipv4Net],
    server: Option<Ipv4Addr>,
    now: Moment,
) -> Result<Granted, Trouble> {
    let bad = |what: String| Err(Trouble { code: "dhcp.bad-offer", what });
    let address = reply.address;
    let Some(server) = reply.server.or(server).filter(|server| is_host(*server)) else {
        return bad("a server does not say who it is".to_owned());
    };
    if !is_host(address) {
        return bad(format!("{server} gives {address}, which is no host's address"));
    }
    let mask = reply.mask.unwrap_or_else(|| class_mask(address));
    let Some(net) =
        Ipv4Net::with_netmask(address, mask).ok().filter(|n| n.prefix_len() >= ROUTE_BITS_MIN)
    else {
        return bad(format!("{server} gives {address} with the mask {mask}, which makes no sense"));
    };
    if net.prefix_len() < 31 && (address == net.network() || address == net.broadcast()) {
        return bad(format!("{server} gives {net}, which is no host's address"));
    }
    let of_lan = |what: String, lan: Ipv4Net| {
        let what = format!("{server} gives {what}, but {} is a LAN's network", lan.trunc());
        Err(Trouble { code: "dhcp.lan-subnet", what })
    };
    if let Some(lan) = lans.iter().find(|lan| overlap(**lan, net)) {
        return of_lan(net.to_string(), *lan);
    }
    let Some(seconds) = reply.seconds.filter(|seconds| *seconds > 0) else {
        return bad(format!("{server} gives {address} for no time at all"));
    };
    if seconds < SECONDS_MIN {
        return bad(format!("{server} gives {address} for {seconds} s, too short to renew it"));
    }
    let (renew, rebind) = times(reply, seconds);
    let after = |seconds: u64| now + Duration::from_secs(seconds);
    let ends = seconds != FOREVER;
    let (default, others) = split_routes(reply, lans);
    let gateway = match (default, usable_router(&reply.routers, address)) {
        (Some(gateway), _) => Some(gateway).filter(|gateway| *gateway != address),
        (None, Ok(router)) => router,
        (None, Err(router)) => {
            return bad(format!("{server} names the router {router}, which is no other host"));
        }
    };
    if let Some((lan, gateway)) =
        gateway.and_then(|gateway| Some((lans.iter().find(|lan| lan.contains(&gateway))?, gateway)))
    {
        return of_lan(format!("the router {gateway}"), *lan);
    }
    Ok(Granted {
        lease: Lease {
            address,
            prefix: net.prefix_len(),
            gateway,
            dns: reply.dns.iter().copied().filter(|a| is_host(*a)).take(DNS_MAX).collect(),
            domain: reply.domain.clone(),
            mtu: reply.mtu.filter(|mtu| MTUS.contains(mtu)),
            routes: others,
            server,
            via: reply.via,
            until: ends.then(|| after(seconds.into())),
        },
        renew: ends.then(|| after(renew)),
        rebind: ends.then(|| after(rebind)),
    })
}

/// The first router that may be one; an error where some are named and none is. A lease without any
/// is none that leads anywhere, but may be meant so.
fn usable_router(routers: &[Ipv4Addr], own: Ipv4Addr) -> Result<Option<Ipv4Addr>, Ipv4Addr> {
    let usable = routers.iter().copied().find(|router| is_host(*router) && *router != own);
    match (usable, routers.first()) {
        (None, Some(first)) => Err(*first),
        (usable, _) => Ok(usable),
    }
}

/// T1 and T2; the RFC's half and seven eighths where the server's make no sense.
fn times(reply: &Reply, seconds: u32) -> (u64, u64) {
    let usual = (u64::from(seconds) / 2, u64::from(seconds) * 7 / 8);
    match (reply.renewal, reply.rebinding) {
        (Some(renew), Some(rebind)) if 0 < renew && renew < rebind && rebind < seconds => {
            (renew.into(), rebind.into())
        }
        (Some(renew), None) if 0 < renew && u64::from(renew) < usual.1 => (renew.into(), usual.1),
        (_, _) => usual,
    }
}

/// The default route among the static ones, which overrides the routers, and all others that are
/// taken. A server that gives static routes without a default one may still name routers: strictly
/// (RFC 3442) those are to be ignored, but then there would be no way out at all.
fn split_routes(
    reply: &Reply,
    lans: &[Ipv4Net],
) -> (Option<Ipv4Addr>, Vec<(Ipv4Net, Option<Ipv4Addr>)>) {
    let is_default = |to: &Ipv4Net| to.prefix_len() == 0;
    let default = reply.routes.iter().find(|(to, via)| is_default(to) && is_host(*via));
    let inside_lan = |to: &Ipv4Net| lans.iter().any(|lan| lan.contains(to));
    let usable = |to: &Ipv4Net| {
        to.prefix_len() >= ROUTE_BITS_MIN && is_host_or_net(to.network()) && !inside_lan(to)
    };
    let others = reply.routes.iter().filter(|(to, _)| usable(to)).map(|(to, via)| {
        let via = Some(*via).filter(|via| !via.is_unspecified());
        (to.trunc(), via)
    });
    (default.map(|(_, via)| *via), others.take(STATIC_ROUTES_MAX).collect())
}

fn is_host_or_net(address: Ipv4Addr) -> bool {
    !address.is_loopback() && !address.is_multicast() && address.octets()[0] != 0
}

fn is_host(address: Ipv4Addr) -> bool {
    is_host_or_net(address) && !address.is_broadcast()
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The mask that an address had before there were masks; what clients use where none is given.
fn class_mask(address: Ipv4Addr) -> Ipv4Addr {
    match address.octets()[0] {
        0..=127 => Ipv4Addr::new(255, 0, 0, 0),
        128..=191 => Ipv4Addr::new(255, 255, 0, 0),
        192..=255 => Ipv4Addr::new(255, 255, 255, 0),
    }
}
