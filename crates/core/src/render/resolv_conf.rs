//! The resolv.conf(5) of this machine while dnsmasq of ours answers: asked at an address of its own,
//! so that a resolver of somebody else on 127.0.0.1 stays what it is. Nobody else is named beside
//! it: some C libraries ask all at once, and would hear from a stranger that a LAN's name does not
//! exist.

use std::net::Ipv4Addr;

use crate::config::Dns;
use crate::observed::RESOLV_CONF_TAG;

/// Where our dnsmasq answers this machine's own programs. Every address that begins with 127 is this
/// machine's; systemd-resolved took 53 for the same reason, 87 is our routes' protocol.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 87);

/// The text.
pub fn text(dns: &Dns) -> String {
    format!(
        "{RESOLV_CONF_TAG}: this router asks its own DNS. `anywan down` puts back what was here.\n\
         # `resolv_conf = false` in [dns] of anywan.toml leaves this file alone.\n\
         nameserver {ADDRESS}\nsearch {}\n",
        dns.domain
    )
}
