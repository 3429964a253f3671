//! What dnsmasq reads, as text, and how it is started. Which resolvers are asked is not said here: it
//! knows all of them, each bound to its WAN's interface, asks all that our nftables table lets it
//! reach, and takes the first answer. So a switch changes none of these texts. Written for dnsmasq
//! 2.89 and later.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use crate::config::{Config, Dhcp, Dns};
use crate::desired::Program;
use crate::facts::{Numbers, numbered};
use crate::render::resolv_conf;
use crate::resolvers::Known;

/// Our name for it.
pub const NAME: &str = "dnsmasq";
/// A question that nobody has answered is asked again after this, and then after twice as long each
/// time, of whoever is asked by then: a WAN that died is found dead before the second time.
const AGAIN_MS: u32 = 250;
/// Questions on their way at once: while no WAN works they pile up for ten seconds.
const UNDER_WAY_MAX: u32 = 2_000;

/// The program that serves LANs; `None` while there is nothing to serve.
pub fn program(config: &Config, numbers: &Numbers, known: &Known) -> Option<Program> {
    if config.dns.is_none() && config.lans.iter().all(|lan| lan.dhcp.is_none()) {
        return None;
    }
    let command = [
        NAME,
        "--keep-in-foreground",
        "--log-facility=-",
        "--pid-file=",
        "--conf-file={dir}/dnsmasq.conf",
        "--servers-file={dir}/servers",
        "--addn-hosts={dir}/hosts",
        "--dhcp-hostsfile={dir}/leases",
        "--dhcp-leasefile={state}/dhcp.leases",
    ];
    let file = |name: &str, text: String| (name.to_owned(), text.into());
    Some(Program {
        command: command.map(str::to_owned).to_vec(),
        files: BTreeMap::from([file("dnsmasq.conf", settings(config))]),
        reread: BTreeMap::from([
            file("servers", servers(config, numbers, known)),
            file("hosts", hosts(config.dns.as_ref())),
            file("leases", leases(config)),
        ]),
    })
}

/// What it means by its exit code (dnsmasq(8)); nothing where its words say more.
pub fn meaning(status: i32) -> Option<&'static str> {
    match status {
        1 => Some("it does not understand its configuration"),
        2 => Some("a port or an address that it needs is not to be had"),
        3 => Some("a file or folder that it needs is not to be had"),
        4 => Some("there is no memory left"),
        _ => None,
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{arguments}");
}

fn settings(config: &Config) -> String {
    let mut text = String::new();
    // Interfaces that come later, and addresses that change, are served too; 127.0.0.1 is left to
    // whoever has it: a taken address would keep it from starting.
    text.push_str("bind-dynamic\nexcept-interface=lo\nno-resolv\nno-poll\nno-hosts\n");
    let serves = |dhcp: bool| dhcp || config.dns.is_some();
    for lan in config.lans.iter().filter(|lan| serves(lan.dhcp.is_some())) {
        line(&mut text, format_args!("interface={}", lan.interface));
        if lan.dhcp.is_none() {
            line(&mut text, format_args!("no-dhcp-interface={}", lan.interface));
        }
    }
    match &config.dns {
        Some(dns) => resolving(&mut text, dns),
        None => text.push_str("port=0\n"),
    }
    let lending: Vec<(&str, &Dhcp)> = config
        .lans
        .iter()
        .filter_map(|lan| Some((lan.interface.as_str(), lan.dhcp.as_ref()?)))
        .collect();
    if !lending.is_empty() {
        // Nobody else lends here, or this would not be asked of us: a client that comes with an
        // address from elsewhere is told at once.
        text.push_str("dhcp-authoritative\n");
    }
    if lending.iter().any(|(_, dhcp)| dhcp.ra) {
        text.push_str("enable-ra\n");
    }
    for (interface, dhcp) in lending {
        lend(&mut text, interface, dhcp);
    }
    text
}

fn resolving(text: &mut String, dns: &Dns) {
    if dns.resolv_conf {
        line(text, format_args!("listen-address={}", resolv_conf::ADDRESS));
    }
    text.push_str("all-servers\ndomain-needed\nbogus-priv\nexpand-hosts\n");
    line(text, format_args!("domain={}\nlocal=/{}/", dns.domain, dns.domain));
    line(text, format_args!("cache-size={}", dns.cache));
    line(text, format_args!("fast-dns-retry={AGAIN_MS},10000"));
    line(text, format_args!("dns-forward-max={UNDER_WAY_MAX}"));
}

/// Clients are told this router by the address that it has there, which dnsmasq sees itself.
fn lend(text: &mut String, interface: &str, dhcp: &Dhcp) {
    let (first, last) = dhcp.range;
    let seconds = dhcp.lease.as_secs();
    line(text, format_args!("dhcp-range={first},{last},{seconds}"));
    let option = format!("dhcp-option=tag:{interface},option");
    if let Some(router) = dhcp.router {
        line(text, format_args!("{option}:router,{router}"));
    }
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = dhcp.dns.iter().partition(|a| a.is_ipv4());
    // 0.0.0.0 stands for this router; said because dnsmasq does not where it answers no questions.
    let v4: Vec<String> = v4.iter().map(ToString::to_string).collect();
    let v4 = if v4.is_empty() { "0.0.0.0".to_owned() } else { v4.join(",") };
    line(text, format_args!("{option}:dns-server,{v4}"));
    if !v6.is_empty() {
        let v6: Vec<String> = v6.iter().map(|address| format!("[{address}]")).collect();
        line(text, format_args!("{option}6:dns-server,{}", v6.join(",")));
    }
    if dhcp.ra {
        line(text, format_args!("dhcp-range=::,constructor:{interface},ra-stateless,{seconds}"));
    }
}

/// All resolvers, each bound to its WAN's interface.
fn servers(config: &Config, numbers: &Numbers, known: &Known) -> String {
    let mut text = String::new();
    let wans = numbered(config, numbers);
    let mut lines: Vec<String> = known
        .keys()
        .filter_map(|(id, address)| Some(format!("server={address}@{}", wans.get(id)?.interface)))
        .collect();
    // The same one behind two WANs of one interface is asked once.
    lines.sort();
    lines.dedup();
    for server in lines {
        line(&mut text, format_args!("{server}"));
    }
    text
}

fn hosts(dns: Option<&Dns>) -> String {
    let mut text = String::new();
    for host in dns.iter().flat_map(|dns| &dns.hosts) {
        line(&mut text, format_args!("{} {}", host.address, host.name));
    }
    text
}

fn leases(config: &Config) -> String {
    let mut text = String::new();
    for lease in config.lans.iter().filter_map(|lan| lan.dhcp.as_ref()).flat_map(|d| &d.leases) {
        let name = lease.name.as_ref().map_or_else(String::new, |name| format!(",{name}"));
        line(&mut text, format_args!("{},{}{name}", lease.mac, lease.address));
    }
    text
}
