//! Real tunnels beside anywan: `wg-quick`, and the interface, rules and marks of Tailscale. They
//! are left alone to the byte, and keep working through a failover, a restart and `anywan down`.
//!
//! Needs WireGuard in the kernel and `wg-quick` (Debian's wireguard-tools), so this program runs
//! in the VM, where Debian's kernels have them; anywhere else it fails and says so.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::command::run_ok;
use anywan_lab::{Config, Daemon, Family, Fault, Netns, Proto, Snapshot, Spec, Topology, until};

/// Safety net for whatever is waited for.
const DEADLINE: Duration = Duration::from_secs(60);
/// The far end's address on the internet, and its port.
const ENDPOINT: &str = "198.51.100.10:51820";
/// What only the tunnel leads to: the far end itself, and something behind it.
const FAR: [&str; 2] = ["10.9.0.1", "203.0.113.77"];

/// Two ends' keys: private, public.
struct Keys {
    near: (String, String),
    far: (String, String),
}

impl Keys {
    fn new() -> Result<Keys> {
        let pair = || -> Result<(String, String)> {
            let hint = "hint: apt-get install wireguard-tools";
            let private = run_ok(&["wg", "genkey"], "").context(hint)?.trim().to_owned();
            let public = run_ok(&["wg", "pubkey"], &private)?.trim().to_owned();
            Ok((private, public))
        };
        Ok(Keys { near: pair()?, far: pair()? })
    }
}

/// Writes a file that vanishes with the router's own folder of temporary files.
fn file(daemon: &Daemon, name: &str, text: &str) -> Result<PathBuf> {
    let path = daemon.path(name);
    fs::write(&path, text).context("write a tunnel's settings")?;
    Ok(path)
}

/// The far end, somewhere on the internet: a VPN provider, which also knows the way to the LAN.
fn far_end(topology: &Topology, daemon: &Daemon, keys: &Keys, allowed: &str) -> Result<()> {
    let net = topology.internet();
    net.run("ip link add far type wireguard").context(
        "WireGuard is not in this kernel\n\nhint: these tests run in the VM: crates/lab/vm/run",
    )?;
    let path = file(daemon, "far.key", &keys.far.0)?;
    let (path, peer) = (path.display(), &keys.near.1);
    net.run(&format!(
        "wg set far private-key {path} listen-port 51820 peer {peer} allowed-ips {allowed}"
    ))?;
    for line in
        ["addr add 10.9.0.1/24 dev far", "addr add 203.0.113.77/32 dev lo", "link set far up"]
    {
        net.run(&format!("ip {line}"))?;
    }
    for range in allowed.split(',').filter(|range| !range.starts_with("10.9.")) {
        net.run(&format!("ip route add {range} dev far"))?;
    }
    Ok(())
}

/// `wg-quick up`, with everything or just the far end's side through the tunnel.
fn wg_quick(topology: &Topology, daemon: &Daemon, keys: &Keys, full: bool) -> Result<()> {
    let allowed = if full { "0.0.0.0/0" } else { "10.9.0.0/24, 203.0.113.77/32" };
    let (private, public) = (&keys.near.0, &keys.far.1);
    let text = format!(
        "[Interface]\nPrivateKey = {private}\nAddress = 10.9.0.2/24\n\
         [Peer]\nPublicKey = {public}\nEndpoint = {ENDPOINT}\nAllowedIPs = {allowed}\n"
    );
    let path = file(daemon, "wg0.conf", &text)?;
    topology.router().run(&format!("wg-quick up {}", path.display())).map(drop)
}

/// What Tailscale 1.x sets up (util/linuxfw and wgengine/router of its sources).
fn tailscale(topology: &Topology, daemon: &Daemon, keys: &Keys) -> Result<()> {
    let router = topology.router();
    let path = file(daemon, "near.key", &keys.near.0)?;
    router.run("ip link add tailscale0 type wireguard")?;
    router.run(&format!(
        "wg set tailscale0 private-key {} fwmark 0x80000 peer {} endpoint {ENDPOINT} \
         allowed-ips 10.9.0.0/24,203.0.113.77/32",
        path.display(),
        keys.far.1
    ))?;
    for line in [
        "addr add 100.64.0.2/32 dev tailscale0",
        "link set tailscale0 mtu 1280 up",
        "rule add pref 5210 fwmark 0x80000/0xff0000 lookup main",
        "rule add pref 5230 fwmark 0x80000/0xff0000 lookup default",
        "rule add pref 5250 fwmark 0x80000/0xff0000 unreachable",
        "rule add pref 5270 lookup 52",
        "-6 rule add pref 5210 fwmark 0x80000/0xff0000 lookup main",
        "-6 rule add pref 5230 fwmark 0x80000/0xff0000 lookup default",
        "-6 rule add pref 5250 fwmark 0x80000/0xff0000 unreachable",
        "-6 rule add pref 5270 lookup 52",
        "route add 10.9.0.0/24 dev tailscale0 table 52",
        "route add 203.0.113.77/32 dev tailscale0 table 52",
        "route add throw 127.0.0.0/8 table 52",
    ] {
        router.run(&format!("ip {line}"))?;
    }
    router.nft(
        "table ip filter {
           chain ts-input {
             iifname != tailscale0 ip saddr 100.64.0.0/10 counter drop
             iifname tailscale0 counter accept
             udp dport 41641 counter accept
           }
           chain ts-forward {
             iifname tailscale0 counter meta mark set meta mark & 0xff00ffff | 0x00040000
             meta mark & 0x00ff0000 == 0x00040000 counter accept
             oifname tailscale0 ip saddr 100.64.0.0/10 counter drop
             oifname tailscale0 counter accept
           }
           chain INPUT { type filter hook input priority filter; policy accept;
             jump ts-input
           }
           chain FORWARD { type filter hook forward priority filter; policy accept;
             jump ts-forward
           }
         }
         table ip nat {
           chain ts-postrouting {
             meta mark & 0x00ff0000 == 0x00040000 counter masquerade
           }
           chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept;
             jump ts-postrouting
           }
         }",
    )?;
    Ok(())
}

/// Waits until both far addresses answer a box, with no other way than the tunnel.
fn wait_answered(space: &Netns, when: &str) -> Result<()> {
    for address in FAR {
        until(DEADLINE, &format!("{address} to answer {}, {when}", space.name()), || {
            space.run(&format!("ping -n -c 1 -W 2 {address}")).map(drop)
        })?;
    }
    Ok(())
}

/// Whether the tunnel is set up first.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    TunnelFirst,
    AnywanFirst,
}

/// Everything but parameters, which are ours to set and to put back.
fn foreign(topology: &Topology) -> Result<Snapshot> {
    Ok(Snapshot::take(topology.router())?.without(|section, _| section == "sysctl"))
}

/// Lives through start, failover, restart and `down` beside a tunnel. `internet`: what is not for
/// the tunnel goes by the WANs.
fn beside(
    order: Order,
    internet: bool,
    allowed: &str,
    set_up: impl Fn(&Topology, &Daemon, &Keys) -> Result<()>,
) -> Result<()> {
    let topology = Spec::routed(2).build()?;
    // The router must forward by itself before and after anywan.
    topology.router().set_sysctls(&[("net.ipv4.ip_forward", "1")])?;
    let keys = Keys::new()?;
    let config = Config::of(&topology).priorities(&[1, 2]);
    let mut daemon = Daemon::prepare(&topology, &config)?;
    far_end(&topology, &daemon, &keys, allowed)?;
    let bare = foreign(&topology)?;
    if order == Order::AnywanFirst {
        daemon.launch()?;
        daemon.wait_all_up()?;
    }
    let without = foreign(&topology)?;
    set_up(&topology, &daemon, &keys)?;
    let with = foreign(&topology)?;
    let theirs = without.diff(&with).lines;
    let untouched = |when: &str| -> Result<()> {
        let diff = bare.diff(&foreign(&topology)?);
        let lost: Vec<&String> = theirs
            .iter()
            .filter(|line| line.contains(": + ") && !diff.lines.contains(line))
            .collect();
        ensure!(lost.is_empty(), "{when}: {lost:?} is not in\n{diff}");
        wait_answered(topology.router(), when)?;
        wait_answered(topology.client_space(1), when)
    };
    if order == Order::TunnelFirst {
        wait_answered(topology.router(), "before anywan")?;
        daemon.launch()?;
        daemon.wait_all_up()?;
    }
    untouched("after the start")?;
    let by = |number: usize| -> Result<()> {
        let client = topology.client(1);
        until(DEADLINE, "the internet", || {
            ensure!(!internet || client.connect(Proto::Tcp, Family::V4)? == number);
            ensure!(client.connect(Proto::Tcp, Family::V6)? == number);
            Ok(())
        })
    };
    by(1)?;
    topology.break_wan(1, &Fault::Blackhole)?;
    daemon.wait_state("wan1", Family::V4, &["down"])?;
    untouched("after a failover")?;
    by(2)?;
    topology.mend_wan(1, &Fault::Blackhole)?;
    by(1)?;
    daemon.kill();
    daemon.launch()?;
    daemon.wait_all_up()?;
    untouched("after a restart")?;
    let outcome = daemon.cli(&["down"])?;
    ensure!(outcome.status == 0, "{outcome:?}");
    daemon.wait_end()?;
    untouched("after down")?;
    let ours: Vec<String> =
        bare.diff(&foreign(&topology)?).lines.into_iter().filter(|l| !theirs.contains(l)).collect();
    ensure!(ours.is_empty(), "down left {ours:?}");
    Ok(())
}

/// The far end's view of a LAN behind wg-quick: nobody translates.
const ROUTED: &str = "10.9.0.2/32,10.1.0.0/16";

#[test]
fn a_split_tunnel_of_wg_quick_set_up_before_keeps_working() -> Result<()> {
    beside(Order::TunnelFirst, true, ROUTED, |t, d, k| wg_quick(t, d, k, false))
}

#[test]
fn a_split_tunnel_of_wg_quick_set_up_after_keeps_working() -> Result<()> {
    beside(Order::AnywanFirst, true, ROUTED, |t, d, k| wg_quick(t, d, k, false))
}

#[test]
fn a_full_tunnel_of_wg_quick_set_up_before_keeps_working() -> Result<()> {
    beside(Order::TunnelFirst, false, ROUTED, |t, d, k| wg_quick(t, d, k, true))
}

#[test]
fn a_full_tunnel_of_wg_quick_set_up_after_keeps_working() -> Result<()> {
    beside(Order::AnywanFirst, false, ROUTED, |t, d, k| wg_quick(t, d, k, true))
}

/// A node of a tailnet speaks from its one address.
const TAILNET: &str = "100.64.0.2/32,10.1.0.0/16";

#[test]
fn tailscales_rules_set_up_before_keep_working() -> Result<()> {
    beside(Order::TunnelFirst, true, TAILNET, tailscale)
}

#[test]
fn tailscales_rules_set_up_after_keep_working() -> Result<()> {
    beside(Order::AnywanFirst, true, TAILNET, tailscale)
}
