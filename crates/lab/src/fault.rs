//! What can go wrong with a WAN, and its undoing.
//!
//! A fault lasts until it is mended or the topology is gone. On a WAN that shares its interface
//! with the LAN, carrier loss is the ISP's box unplugged from the switch; its interface or
//! address cannot go without the LAN, so those two are refused there.

use anyhow::{Result, ensure};

use crate::topology::{Family, Topology, Wan, isp_lan, router_addresses};

/// One way in which a WAN fails.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The ISP's end goes down: the router sees NO-CARRIER.
    CarrierLost,
    /// The interface vanishes from the router, like an unplugged stick.
    InterfaceGone,
    /// The router's addresses on it are removed.
    AddressGone,
    /// Carrier stays, but the gateway answers nothing, not even ARP or ND.
    GatewaySilent,
    /// The gateway answers, but nothing gets beyond it.
    Blackhole,
    /// The same for one family.
    BlackholeOf(Family),
    /// Nothing that matches this nft expression gets beyond the gateway: `ip daddr 198.51.100.11`.
    Swallow(String),
    /// So many percent of the packets are lost beyond the gateway, each way.
    Loss(u16),
    /// A thin line with long queues each way: 4 Mbit/s, up to 0.9 s there and 0.5 s back, which
    /// whoever sends fills; and of echo requests two in a second pass, as mobile carriers do it.
    Thin,
}

impl Topology {
    /// Injects a fault into WAN `number`.
    pub fn break_wan(&self, number: usize, fault: &Fault) -> Result<()> {
        let (wan, isp) = (self.wan(number), self.isp(number));
        match fault {
            Fault::CarrierLost => isp.ip_batch("link set lan down"),
            Fault::InterfaceGone => {
                self.not_shared(wan)?;
                self.router().ip_batch(&format!("link del {}", wan.interface))
            }
            Fault::AddressGone => {
                self.not_shared(wan)?;
                let dev = &wan.interface;
                self.router().ip_batch(&format!("addr flush dev {dev} scope global"))
            }
            Fault::GatewaySilent => isp
                .nft(
                    "table netdev silent {
                      chain in { type filter hook ingress device lan priority 0; policy drop; }
                      chain out { type filter hook egress device lan priority 0; policy drop; }
                    }",
                )
                .map(drop),
            Fault::Blackhole => self.swallow(number, "drop"),
            Fault::BlackholeOf(Family::V4) => self.swallow(number, "meta nfproto ipv4 drop"),
            Fault::BlackholeOf(Family::V6) => self.swallow(number, "meta nfproto ipv6 drop"),
            Fault::Swallow(what) => self.swallow(number, &format!("{what} drop")),
            Fault::Thin => {
                let rate = "rate 4mbit burst 16kb";
                isp.run(&format!("tc qdisc replace dev net0 root tbf {rate} latency 900ms"))?;
                isp.run(&format!("tc qdisc replace dev lan root tbf {rate} latency 500ms"))?;
                self.swallow(number, "icmp type echo-request limit rate over 2/second drop")?;
                self.swallow(number, "icmpv6 type echo-request limit rate over 2/second drop")
            }
            Fault::Loss(percent) => {
                self.swallow(number, &format!("numgen random mod 100 < {percent} drop"))
            }
        }
    }

    /// Plugs in again what is gone ([`Fault::InterfaceGone`]), with this name and hardware address,
    /// and with nothing set up in the router.
    pub fn plug_wan(&self, number: usize, name: &str, mac: &str) -> Result<()> {
        let (wan, isp) = (self.wan(number), self.isp(number));
        let peer = format!("peer name lan netns {}", isp.name());
        self.router().ip_batch(&format!("link add {name} address {mac} type veth {peer}"))?;
        isp.ip_batch(&isp_lan(wan))
    }

    /// Undoes a fault. Whatever is swallowed beyond a gateway is mended together.
    pub fn mend_wan(&self, number: usize, fault: &Fault) -> Result<()> {
        let (wan, isp) = (self.wan(number), self.isp(number));
        match fault {
            Fault::CarrierLost => isp.ip_batch(&isp_lan(wan)),
            Fault::InterfaceGone => {
                self.router().ip_batch(&format!(
                    "link add {dev} type veth peer name lan netns {isp}\nlink set {dev} up",
                    dev = wan.interface,
                    isp = isp.name(),
                ))?;
                isp.ip_batch(&isp_lan(wan))?;
                self.router().ip_batch(&router_addresses(wan))
            }
            Fault::AddressGone => self.router().ip_batch(&router_addresses(wan)),
            Fault::GatewaySilent => isp.nft("delete table netdev silent").map(drop),
            Fault::Thin => {
                isp.run("tc qdisc del dev net0 root")?;
                isp.run("tc qdisc del dev lan root")?;
                isp.nft("flush chain inet isp faults").map(drop)
            }
            Fault::Blackhole | Fault::BlackholeOf(_) | Fault::Swallow(_) | Fault::Loss(_) => {
                isp.nft("flush chain inet isp faults").map(drop)
            }
        }
    }

    fn swallow(&self, number: usize, rule: &str) -> Result<()> {
        self.isp(number).nft(&format!("add rule inet isp faults {rule}")).map(drop)
    }

    fn not_shared(&self, wan: &Wan) -> Result<()> {
        ensure!(!wan.shared, "{} shares its interface with the LAN", wan.name);
        Ok(())
    }
}
