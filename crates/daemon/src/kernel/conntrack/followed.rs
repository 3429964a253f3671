//! Whether somebody follows how flows begin and change (conntrackd, `conntrack -E`, flow exporters).
//! In: the kernel's list of netlink sockets, `/proc/net/netlink`. Out: yes or no. That we listen
//! for the ends of flows is not counted, nor that somebody else does: ends are always told.

use std::fs::read_to_string;

use netlink_sys::protocols::NETLINK_NETFILTER;

/// The sockets of the network namespace of the thread that asks.
const SOCKETS: &str = "/proc/thread-self/net/netlink";
/// The groups of new and of changed flows, as bits of the mask of a socket's groups.
const FOLLOWING: u32 =
    1 << (libc::NFNLGRP_CONNTRACK_NEW - 1) | 1 << (libc::NFNLGRP_CONNTRACK_UPDATE - 1);

/// Whether some socket is subscribed to new or to changed flows; where the kernel does not say, one
/// may be.
pub(crate) fn followed() -> bool {
    read_to_string(SOCKETS).map_or(true, |text| text.lines().any(follows))
}

/// One line: an address, the protocol, the socket's number, its first 32 groups in hexadecimal, and
/// more that is not asked for.
fn follows(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace().skip(1);
    let protocol = words.next().and_then(|word| word.parse().ok());
    let groups = words.nth(1).and_then(|word| u32::from_str_radix(word, 16).ok());
    protocol == Some(NETLINK_NETFILTER) && groups.is_some_and(|groups| groups & FOLLOWING != 0)
}

#[cfg(test)]
mod tests {
    use super::follows;

    #[test]
    fn sockets_that_hear_of_new_or_changed_flows_follow() {
        let line = |protocol, groups| {
            format!(
                "00000000e1f2 {protocol}  4242       {groups} 0        0        0     2     0        8131"
            )
        };
        for groups in ["00000001", "00000002", "00000007"] {
            assert!(follows(&line(12, groups)), "{groups}");
            // rtnetlink's groups mean something else.
            assert!(!follows(&line(0, groups)), "{groups}");
        }
        // Ends alone; expectations; nothing.
        for groups in ["00000004", "00000038", "00000000"] {
            assert!(!follows(&line(12, groups)), "{groups}");
        }
        let head = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode";
        assert!(![head, "", "12"].into_iter().any(follows));
    }
}
