//! Parts of the desired state as exact text for the programs that take it.

pub mod dnsmasq;
pub mod nft;
pub mod ppp;
pub mod resolv_conf;
