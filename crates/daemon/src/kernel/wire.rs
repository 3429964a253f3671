//! Netlink as bytes: writes messages, walks messages and attributes. In: numbers and slices. Out:
//! the same. Reading never panics and never reads out of bounds, whatever the bytes; a malformed
//! rest ends the walk. Knows no particular protocol and does no I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The bits of an attribute's type that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const NESTED: u16 = 1 << 15;
const KIND: u16 = 0x3fff;

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Writes one or more netlink messages one after the other.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    message: usize,
}

impl Writer {
    /// An empty writer.
    pub(crate) fn new() -> Writer {
        Writer::default()
    }

    /// Starts with one message; its sequence number is filled in when it is sent.
    pub(crate) fn message(kind: u16, flags: u16, header: &[u8]) -> Writer {
        let mut writer = Writer { bytes: Vec::with_capacity(256), message: 0 };
        writer.begin(kind, flags, header);
        writer
    }

    /// Begins a message with the fixed header of its protocol.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, header: &[u8]) {
        self.message = self.bytes.len();
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.append(header);
    }

    /// Adds an attribute. Callers bound `value` well below 64 KiB.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("callers bound the value of attributes");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.append(value);
    }

    /// Adds a 32-bit attribute in host byte order.
    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Adds a 32-bit attribute in network byte order.
    pub(crate) fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Adds a string attribute with its closing zero.
    pub(crate) fn put_str(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// Adds an address.
    pub(crate) fn put_ip(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.put(kind, &v4.octets()),
            IpAddr::V6(v6) => self.put(kind, &v6.octets()),
        }
    }

    /// Adds an attribute made of attributes, with the flag that says so.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) {
        self.nest_plain(kind | NESTED, fill);
    }

    /// Adds an attribute made of attributes as it is, for protocols that know no nesting flag.
    pub(crate) fn nest_plain(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) {
        let start = self.bytes.len();
        self.put(kind, &[]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("callers split long lists");
        self.overwrite(start, &length.to_ne_bytes());
        self.close();
    }

    /// Adds bytes that are no attribute (a `struct rtnexthop`), and returns where they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> usize {
        let start = self.bytes.len();
        self.append(bytes);
        start
    }

    /// Writes over earlier bytes.
    pub(crate) fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where the present message begins.
    pub(crate) fn message_start(&self) -> usize {
        self.message
    }

    /// Adds flags to the message that begins at `start`.
    pub(crate) fn add_flags(&mut self, start: usize, flags: u16) {
        let old = u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]);
        self.overwrite(start + 6, &(old | flags).to_ne_bytes());
    }

    /// Sets the sequence number of the present message.
    pub(crate) fn set_sequence(&mut self, sequence: u32) {
        self.overwrite(self.message + 8, &sequence.to_ne_bytes());
    }

    /// The bytes to send.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(align(self.bytes.len()), 0);
        self.close();
    }

    fn close(&mut self) {
        let length =
            u32::try_from(self.bytes.len() - self.message).expect("callers bound messages");
        self.overwrite(self.message, &length.to_ne_bytes());
    }
}

/// A message as received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// `nlmsg_seq`.
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// Walks the messages of one datagram.
#[derive(Debug, Clone)]
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Received<'a>> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        if length < HEADER || length > self.0.len() {
            return None;
        }
        let (whole, rest) = (self.0.get(..length)?, self.0.get(align(length)..).unwrap_or(&[]));
        self.0 = rest;
        Some(Received {
            kind: u16_at(whole, 4)?,
            flags: u16_at(whole, 6)?,
            sequence: u32_at(whole, 8)?,
            payload: whole.get(HEADER..)?,
        })
    }
}

/// An attribute as received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attribute<'a> {
    /// Its type without flags.
    pub(crate) kind: u16,
    /// Its value.
    pub(crate) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The value as 32 bits in host byte order.
    pub(crate) fn u32(self) -> Option<u32> {
        u32_at(self.value, 0)
    }

    /// The value as 32 bits in network byte order.
    pub(crate) fn be32(self) -> Option<u32> {
        self.value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// The value as text, up to its zero.
    pub(crate) fn text(self) -> String {
        let end = self.value.iter().position(|byte| *byte == 0).unwrap_or(self.value.len());
        String::from_utf8_lossy(&self.value[..end]).into_owned()
    }

    /// The value as an address, by its length.
    pub(crate) fn ip(self) -> Option<IpAddr> {
        ip(self.value)
    }

    /// The value as attributes.
    pub(crate) fn nested(self) -> Attributes<'a> {
        Attributes(self.value)
    }
}

/// Walks attributes.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The attributes behind a fixed header; none when the payload is shorter.
    pub(crate) fn after(payload: &'a [u8], header: usize) -> Attributes<'a> {
        Attributes(payload.get(header..).unwrap_or(&[]))
    }

    /// The first attribute of a kind.
    pub(crate) fn find(mut self, kind: u16) -> Option<Attribute<'a>> {
        Iterator::find(&mut self, |attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & KIND;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or(&[]);
        Some(Attribute { kind, value })
    }
}

/// An address of 4 or 16 bytes.
pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::V6(Ipv6Addr::from(v6)))
}

/// 16 bits in host byte order at an offset.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_ne_bytes(*two))
}

/// 32 bits in host byte order at an offset.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_ne_bytes(*four))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::message(26, 5, &[7; 12]);
        writer.put_str(3, "eth0");
        writer.nest(9, |w| w.put_be32(1, 0x0102_0304));
        writer.set_sequence(77);
        let second = Writer::message(27, 1, &[]);
        let bytes = [writer.bytes(), second.bytes()].concat();
        let read: Vec<_> = Messages(&bytes).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].flags, read[0].sequence), (26, 5, 77));
        let attributes = Attributes::after(read[0].payload, 12);
        assert_eq!(attributes.clone().find(3).map(Attribute::text).as_deref(), Some("eth0"));
        let nested = attributes.find(9).and_then(|a| a.nested().find(1));
        assert_eq!(nested.and_then(Attribute::be32), Some(0x0102_0304));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_the_walkers(
            bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            for message in Messages(&bytes) {
                for attribute in Attributes(message.payload) {
                    let _ = (attribute.text(), attribute.ip(), attribute.u32(), attribute.be32());
                }
            }
            prop_assert!(Attributes(&bytes).count() <= bytes.len() / 4 + 1);
        }
    }
}
