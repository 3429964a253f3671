//! The bytes of echo requests and replies (RFC 792, RFC 4443 4.1). Bytes come from strangers:
//! whatever they are, reading them gives an [`Echo`] or nothing, and never panics.

use anywan_core::names::Family;

/// Type, code, checksum, identifier and sequence, then the payload: cookie and number.
pub const LEN: usize = 8 + 16;

/// Room for a reply with the longest IPv4 header; longer packets are not ours.
pub const ROOM: usize = 60 + LEN;

/// What an echo says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Tells the WANs (and the programs) on a host apart.
    pub id: u16,
    /// Known to this process only.
    pub cookie: u64,
    /// Counts up in a lane; its lower 16 bits are the packet's sequence number.
    pub number: u64,
}

impl Echo {
    /// The lower 16 bits of the number.
    fn sequence(self) -> [u8; 2] {
        let [.., high, low] = self.number.to_be_bytes();
        [high, low]
    }

    /// Whether both are of the same lane of the same process.
    pub fn is_of_one_lane_with(self, other: &Echo) -> bool {
        self.id == other.id && self.cookie == other.cookie
    }

    /// A request, to be sent through a raw socket.
    pub fn request(self, family: Family) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = match family {
            Family::Ipv4 => 8,
            Family::Ipv6 => 128,
        };
        bytes[4..6].copy_from_slice(&self.id.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.sequence());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_be_bytes());
        if family == Family::Ipv4 {
            // For ICMPv6 the kernel fills it in: it covers addresses that only the kernel knows.
            let sum = checksum(&bytes);
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// The echo in a received reply, `None` when it is anything else.
    ///
    /// A raw IPv4 socket receives the IP header too, and before the kernel has checked the ICMP
    /// checksum; a raw ICMPv6 socket receives neither header nor wrong checksums.
    pub fn from_reply(family: Family, bytes: &[u8]) -> Option<Echo> {
        let (kind, message) = match family {
            Family::Ipv4 => (0, without_header(bytes)?),
            Family::Ipv6 => (129, bytes),
        };
        let message: &[u8; LEN] = message.try_into().ok()?;
        if message[0] != kind || message[1] != 0 {
            return None;
        }
        if family == Family::Ipv4 && checksum(message) != 0 {
            return None;
        }
        let echo = Echo {
            id: u16::from_be_bytes(field(message, 4)?),
            cookie: u64::from_be_bytes(field(message, 8)?),
            number: u64::from_be_bytes(field(message, 16)?),
        };
        (field(message, 6) == Some(echo.sequence())).then_some(echo)
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn without_header(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let words = usize::from(first & 0x0f);
    (first >> 4 == 4 && words >= 5).then(|| packet.get(words * 4..))?
}

/// The internet checksum (RFC 1071); 0 over a message that carries its right one.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ECHO: Echo = Echo { id: 0x0bad, cookie: 0x0123_4567_89ab_cdef, number: 0x1_0007 };

    /// What an honest host sends back.
    fn reply(family: Family, echo: Echo) -> Vec<u8> {
        let mut message = echo.request(family);
        match family {
            Family::Ipv6 => message[0] = 129,
            Family::Ipv4 => {
                message[0] = 0;
                message[2..4].fill(0);
                let sum = checksum(&message);
                message[2..4].copy_from_slice(&sum.to_be_bytes());
            }
        }
        let header = if family == Family::Ipv4 { [&[0x45][..], &[0; 19]].concat() } else { vec![] };
        [header, message.to_vec()].concat()
    }

    #[test]
    fn an_echo_comes_back_as_it_was_sent() {
        for family in Family::BOTH {
            assert_eq!(Echo::from_reply(family, &reply(family, ECHO)), Some(ECHO), "{family}");
        }
    }

    #[test]
    fn a_request_is_not_a_reply() {
        for family in Family::BOTH {
            let mut bytes = reply(family, ECHO);
            let at = bytes.len() - LEN;
            bytes[at..].copy_from_slice(&ECHO.request(family));
            assert_eq!(Echo::from_reply(family, &bytes), None, "{family}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_message_is_noticed() {
        let good = reply(Family::Ipv4, ECHO);
        for bit in 20 * 8..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Echo::from_reply(Family::Ipv4, &bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            for family in Family::BOTH {
                let _ = Echo::from_reply(family, &bytes);
            }
        }

        #[test]
        fn any_change_of_length_is_refused(cut in 0_usize..44, more in 1_usize..40) {
            let good = reply(Family::Ipv4, ECHO);
            prop_assert_eq!(Echo::from_reply(Family::Ipv4, &good[..cut]), None);
            let longer = [good, vec![0; more]].concat();
            prop_assert_eq!(Echo::from_reply(Family::Ipv4, &longer), None);
        }
    }
}
