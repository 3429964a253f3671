//! What a person should know of the addresses that LANs' hosts are lent: a range that does not fit
//! its LAN, or that is used up. In: configuration and facts. Out: problems.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::Engine;
use super::report::problem;
use crate::api::Problem;
use crate::config::Lan;
use crate::observed::Observed;

impl Engine {
    /// Whether addresses are lent on any LAN.
    pub fn lends(&self) -> bool {
        self.config.lans.iter().any(|lan| lan.dhcp.is_some())
    }
}

/// What is wrong with the addresses of a LAN.
pub(super) fn lending_problems(lan: &Lan, observed: &Observed) -> Vec<Problem> {
    [misplaced(lan, observed), used_up(lan, observed)].into_iter().flatten().collect()
}

/// A range whose addresses are all lent, or kept for somebody. One that is nothing but kept
/// addresses was meant so.
fn used_up(lan: &Lan, observed: &Observed) -> Option<Problem> {
    let dhcp = lan.dhcp.as_ref()?;
    let (first, last) = dhcp.range;
    let inside = |address: &Ipv4Addr| (first..=last).contains(address);
    let size = u32::from(last).checked_sub(first.into())?.checked_add(1)?;
    let kept = dhcp.leases.iter().map(|lease| lease.address).filter(inside);
    let ours = observed.addresses.iter().filter_map(|address| match address.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    // Nobody is lent an address of this router's own either.
    let never: BTreeSet<Ipv4Addr> = kept.chain(ours.filter(inside)).collect();
    let lent = observed.lent.iter().copied().filter(inside);
    let taken: BTreeSet<Ipv4Addr> = lent.chain(never.iter().copied()).collect();
    let count = |set: &BTreeSet<Ipv4Addr>| u32::try_from(set.len()).unwrap_or(u32::MAX);
    if count(&taken) < size || count(&never) >= size {
        return None;
    }
    let what = match size {
        1 => format!("the only address of the range, {first}, is lent; nobody else gets one"),
        _ => {
            format!("all {size} addresses of {first}-{last} are lent; whoever comes next gets none")
        }
    };
    let hint = "widen `range`, or make `lease` shorter, so that what nobody uses is free sooner";
    Some(problem("lan.range-full", &format!("lan {}", lan.interface), &what, hint))
}

/// What keeps addresses from being lent on a LAN.
fn misplaced(lan: &Lan, observed: &Observed) -> Option<Problem> {
    let (dhcp, (device, _)) = (lan.dhcp.as_ref()?, observed.link_named(&lan.interface)?);
    let of_lan = observed.addresses.iter().filter(|a| a.device == device);
    let nets: Vec<ipnet::IpNet> = of_lan
        .filter(|a| a.address.is_ipv4())
        .filter_map(|a| ipnet::IpNet::new(a.address, a.prefix).ok())
        .collect();
    let inside = |address: Ipv4Addr| nets.iter().any(|net| net.contains(&IpAddr::V4(address)));
    let (first, last) = dhcp.range;
    let outside = dhcp.leases.iter().map(|lease| lease.address).find(|a| !inside(*a));
    let shown: Vec<String> = nets.iter().map(|net| net.trunc().to_string()).collect();
    let at = format!("lan {}", lan.interface);
    let (what, hint) = if nets.is_empty() {
        let what = format!("{} has no IPv4 address, so no address is lent there", lan.interface);
        (what, "give the interface an address in the network of `range`".to_owned())
    } else if !(inside(first) && inside(last)) {
        let what = format!("{first}-{last} is not in the network of {}", lan.interface);
        (what, format!("it is {}: correct `range`, or the interface's address", shown.join(", ")))
    } else {
        let what = format!("the lease {} is not in the network of {}", outside?, lan.interface);
        (what, format!("it is {}: correct `leases`", shown.join(", ")))
    };
    Some(problem("lan.dhcp-range", &at, &what, &hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// What is told of a LAN with this `[lan.dhcp]` while these hosts' addresses are lent.
    fn told(dhcp: &str, lent: &[u8]) -> Vec<String> {
        let text = format!(
            "[[lan]]\ninterface = \"lan0\"\n[lan.dhcp]\n{dhcp}\n[[wan]]\nname = \"a\"\n\
             interface = \"w1\"\n"
        );
        let config = config::parse(&text).expect("a sound file");
        let lent = lent.iter().map(|host| Ipv4Addr::new(10, 1, 0, *host)).collect();
        let observed = Observed { lent, ..Observed::default() };
        config.lans.iter().flat_map(|l| lending_problems(l, &observed)).map(|p| p.what).collect()
    }

    #[test]
    fn a_range_is_full_when_every_address_is_lent_or_kept_and_not_before() {
        let two = "range = \"10.1.0.5-10.1.0.6\"";
        assert!(told(two, &[]).is_empty() && told(two, &[5]).is_empty());
        assert!(told(two, &[5, 7, 8]).is_empty(), "others are elsewhere");
        let full = "all 2 addresses of 10.1.0.5-10.1.0.6 are lent; whoever comes next gets none";
        assert_eq!(told(two, &[5, 6]), [full]);
        let kept = format!("{two}\nleases = [\"02:00:00:00:00:01 10.1.0.6\"]");
        assert_eq!(told(&kept, &[5]), [full]);
        assert!(told(&kept, &[6]).is_empty());
    }

    #[test]
    fn a_range_that_is_kept_for_somebody_altogether_is_meant_so() {
        let one = "range = \"10.1.0.5-10.1.0.5\"";
        assert_eq!(told(one, &[5]).len(), 1);
        let kept = format!("{one}\nleases = [\"02:00:00:00:00:01 10.1.0.5\"]");
        assert!(told(&kept, &[5]).is_empty());
    }
}
