//! Newtypes for the numbers that steer packets, so that a mark cannot be passed where a table
//! is wanted. Each says what it means, its range and its unit. No logic beyond arithmetic on marks.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The routing protocol number that tags every route and rule of ours (`rtm_protocol`,
/// `FRA_PROTOCOL`; see `rt_protos` of iproute2: 87 is unassigned there).
pub const PROTOCOL: u8 = 87;

/// The metric of routes of ours in main, so that whoever else has a route there is preferred.
pub const METRIC_IN_MAIN: u32 = 8_700;

/// The name of our one nftables table, of family `inet`.
pub const NFT_TABLE: &str = "anywan";

/// A number by which texts are known again, also by a later version of us: FNV-1a, 64 bits, as the
/// standard library's hashers promise no stable values. No text contains the byte between two.
pub fn fingerprint<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for (place, text) in texts.into_iter().enumerate() {
        let between = if place == 0 { &[][..] } else { &[0xff] };
        for byte in between.iter().chain(text.as_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// An address family; every decision is made once for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both families, in the order in which they are worked on.
    pub const BOTH: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }
}

impl Family {
    /// Its version number, which ends the names of maps and chains that exist once for each.
    pub fn digit(self) -> char {
        match self {
            Family::Ipv4 => '4',
            Family::Ipv6 => '6',
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        })
    }
}

/// One value per address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct PerFamily<T> {
    /// The value for IPv4.
    pub ipv4: T,
    /// The value for IPv6.
    pub ipv6: T,
}

impl<T> PerFamily<T> {
    /// Makes a value for each family.
    pub fn from_fn(mut make: impl FnMut(Family) -> T) -> Self {
        PerFamily { ipv4: make(Family::Ipv4), ipv6: make(Family::Ipv6) }
    }

    /// The value for `family`.
    pub fn get(&self, family: Family) -> &T {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    /// The value for `family`, to be changed.
    pub fn get_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}

/// The stable number of a WAN, 1 to 62: it is in marks, table numbers and rule priorities, and
/// stays with the WAN's name across restarts and config changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WanId(pub u8);

impl WanId {
    /// The largest WAN number under the default mark mask: six bits, 0 means none, 63 stays free.
    pub const MAX: u8 = 62;
}

impl fmt::Display for WanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The kernel's index of a network interface, never 0; not reused while the system is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfIndex(pub u32);

/// A number of a routing table, 1 to 2^32-1; 254 is main.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub u32);

impl TableId {
    /// The kernel's main table.
    pub const MAIN: TableId = TableId(254);
}

/// The priority of an ip rule; lower is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RulePriority(pub u32);

/// A share among WANs of equal priority, 1 to 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(pub u16);

/// A packet or connection mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(pub u32);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A text that is never shown: a password or a PIN. What it is printed or stored as says only
/// whether there is one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Secret(String);

impl Secret {
    /// Takes a text.
    pub fn new(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    /// The text itself, for a file that nobody else can read.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shown(&self) -> &'static str {
        if self.is_empty() { "" } else { "***" }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret)
    }
}

/// A hardware address of an Ethernet neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = ();

    /// Six pairs of hexadecimal digits between colons or hyphens.
    fn from_str(text: &str) -> Result<Mac, ()> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or(())?;
            let digits = part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or(())?;
        }
        parts.next().map_or(Ok(Mac(bytes)), |_| Err(()))
    }
}

/// The bits of the mark that are ours: a run of adjacent bits, of which the highest says NEW
/// ("placed, not yet pinned") and the others hold a WAN number. All other bits are preserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkField {
    mask: u32,
}

impl Default for MarkField {
    fn default() -> Self {
        MarkField { mask: 0x7f00_0000 }
    }
}

impl MarkField {
    /// Takes a mask of 3 to 7 adjacent bits; `None` for any other.
    pub fn new(mask: u32) -> Option<MarkField> {
        if mask == 0 {
            return None;
        }
        let run = mask >> mask.trailing_zeros();
        let adjacent = run & run.wrapping_add(1) == 0;
        let fits = (3..=7).contains(&mask.count_ones());
        (adjacent && fits).then_some(MarkField { mask })
    }

    /// The whole field: number and NEW.
    pub fn mask(self) -> u32 {
        self.mask
    }

    /// The bits that are not ours.
    pub fn keep_mask(self) -> u32 {
        !self.mask
    }

    /// The bit that says NEW.
    pub fn new_bit(self) -> u32 {
        1 << (31 - self.mask.leading_zeros())
    }

    /// The bits of the WAN number.
    pub fn number_mask(self) -> u32 {
        self.mask & !self.new_bit()
    }

    /// The largest WAN number that fits; the highest value stays free.
    pub fn max_number(self) -> u8 {
        let values = 1_u32 << (self.mask.count_ones() - 1);
        u8::try_from(values - 2).unwrap_or(WanId::MAX)
    }

    /// The mark of packets of a known flow of `wan`.
    pub fn keep(self, wan: WanId) -> Mark {
        Mark(u32::from(wan.0) << self.mask.trailing_zeros())
    }

    /// The connection mark of the flows of `wan`, and the mask under which it is compared.
    pub fn flows(self, wan: WanId) -> (u32, u32) {
        (self.keep(wan).0, self.number_mask())
    }

    /// The mark of a packet placed on `wan` whose flow is not pinned yet.
    pub fn place(self, wan: WanId) -> Mark {
        Mark(self.keep(wan).0 | self.new_bit())
    }

    /// The mark under which a destination is looked up without our own `balance` table: NEW
    /// without a WAN. It is on a packet only during that look-up.
    pub fn ask(self) -> Mark {
        Mark(self.new_bit())
    }

    /// The WAN number in a mark, `None` when there is none.
    pub fn wan_of(self, mark: Mark) -> Option<WanId> {
        let number = (mark.0 & self.number_mask()) >> self.mask.trailing_zeros();
        u8::try_from(number).ok().filter(|n| *n != 0).map(WanId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_field_has_six_bits_of_number_and_one_of_new() {
        let field = MarkField::default();
        assert_eq!(field.new_bit(), 0x4000_0000);
        assert_eq!(field.number_mask(), 0x3f00_0000);
        assert_eq!(field.max_number(), 62);
        assert_eq!(field.place(WanId(2)), Mark(0x4200_0000));
        assert_eq!(field.keep(WanId(62)), Mark(0x3e00_0000));
        assert_eq!(field.flows(WanId(2)), (0x0200_0000, 0x3f00_0000));
        assert_eq!(field.wan_of(Mark(0x4200_00ff)), Some(WanId(2)));
        assert_eq!(field.wan_of(field.ask()), None);
    }

    #[test]
    fn a_mask_with_a_hole_or_a_wrong_width_is_refused() {
        for mask in [0, 0x1, 0x3, 0x5, 0xff, 0x7f01_0000, u32::MAX] {
            assert_eq!(MarkField::new(mask), None, "{mask:#x}");
        }
        for mask in [0x7, 0xe000_0000, 0xfe00_0000, 0x7f00] {
            assert!(MarkField::new(mask).is_some(), "{mask:#x}");
        }
    }
}
