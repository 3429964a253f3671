//! From a [`Draft`] to a [`Config`]: values that were read, defaults where nothing was given. Gives
//! `None` only where a fault was reported.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::keys;
use super::model::{
    Addressing, AllDown, Config, Cpu, Dhcp, Dns, Gateway, Health, Inbound, Lan, Line, Modem, Nat,
    Password, Ppp, Router, Sticky, Target, Wan,
};
use super::value::{self, Value};
use super::walk::{Draft, Fields};
use crate::names::{MarkField, RulePriority, Secret, TableId, Weight};

/// Builds the whole configuration.
pub(super) fn config(draft: &Draft) -> Option<Config> {
    let lans = draft.lans.iter().zip(&draft.lan_dhcp);
    let wans = draft.wans.iter().zip(&draft.wan_health).zip(&draft.wan_ppp);
    let wan = |((fields, own), ppp)| wan(fields, own, &draft.health, ppp);
    Some(Config {
        lans: lans.map(|(fields, dhcp)| lan(fields, dhcp)).collect::<Option<_>>()?,
        wans: wans.map(wan).collect::<Option<_>>()?,
        retiring: Vec::new(),
        cpu: cpu(&draft.top)?,
        router: router(&draft.router)?,
        dns: if draft.dns.is_there() { Some(dns(&draft.dns)?) } else { None },
    })
}

/// The value of a key of the section `path`: from the first layer that gives it, or its default.
/// `None`: what is given is wrong, or nothing is given for a key that has no default.
pub(super) fn defaulted(layers: &[&Fields], path: &str, name: &str) -> Option<Value> {
    if let Some(given) = layers.iter().find_map(|layer| layer.given(name)) {
        return given.cloned();
    }
    let key = keys::section(path)?.key(name)?;
    let default = DeValue::parse(key.default?).ok()?;
    value::read(key, path, &default, &mut |_| {})
}

/// The bits of the mark, also where the rest of the section is wrong.
pub(super) fn mark_field(router: &Fields) -> Option<MarkField> {
    MarkField::new(Layers(&[router], "router").number("mark_mask")?)
}

/// Typed access to the keys of one section.
struct Layers<'a>(&'a [&'a Fields], &'a str);

impl Layers<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        defaulted(self.0, self.1, name)
    }

    fn text(&self, name: &str) -> Option<String> {
        if let Value::Text(text) = self.value(name)? { Some(text) } else { None }
    }

    fn texts(&self, name: &str) -> Option<Vec<String>> {
        if let Value::Texts(texts) = self.value(name)? { Some(texts) } else { None }
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        if let Value::Secret(secret) = self.value(name)? { Some(secret) } else { None }
    }

    fn word(&self, name: &str) -> Option<&'static str> {
        if let Value::Word(word) = self.value(name)? { Some(word) } else { None }
    }

    fn number(&self, name: &str) -> Option<u32> {
        if let Value::Number(number) = self.value(name)? { Some(number) } else { None }
    }

    fn flag(&self, name: &str) -> Option<bool> {
        if let Value::Flag(flag) = self.value(name)? { Some(flag) } else { None }
    }

    fn time(&self, name: &str) -> Option<Duration> {
        if let Value::Time(time) = self.value(name)? { Some(time) } else { None }
    }

    fn bytes(&self, name: &str) -> Option<u64> {
        if let Value::Bytes(bytes) = self.value(name)? { Some(bytes) } else { None }
    }

    /// A time, or `None` for the word that stands for no limit.
    fn limit(&self, name: &str) -> Option<Option<Duration>> {
        if self.word(name).is_some() { Some(None) } else { self.time(name).map(Some) }
    }

    fn servers(&self, name: &str) -> Option<Vec<IpAddr>> {
        if let Value::Servers(list) = self.value(name)? { Some(list) } else { None }
    }

    fn targets(&self, name: &str) -> Option<Vec<Target>> {
        if let Value::Targets(targets) = self.value(name)? { Some(targets) } else { None }
    }

    /// An address, or the word instead of it.
    fn address(&self, name: &str) -> Option<Result<IpAddr, &'static str>> {
        let value = self.value(name)?;
        if let Value::Address(address) = value {
            return Some(Ok(address));
        }
        if let Value::Word(word) = value { Some(Err(word)) } else { None }
    }

    fn addresses(&self, name: &str) -> Option<Vec<IpNet>> {
        if let Value::Addresses(all) = self.value(name)? { Some(all) } else { None }
    }
}

/// Probe bytes a month of a metered WAN.
const BUDGET_METERED: u64 = 30_000_000;
/// How long established connections may stay on a metered WAN.
const LINGER_METERED: Duration = Duration::from_secs(300);

fn cpu(fields: &Fields) -> Option<Cpu> {
    let only = [fields];
    Some(match Layers(&only, "").word("cpu")? {
        "off" => Cpu::Off,
        _ => Cpu::Auto,
    })
}

fn lan(fields: &Fields, own: &Fields) -> Option<Lan> {
    let only = [fields];
    let keys = Layers(&only, "lan");
    Some(Lan {
        interface: keys.text("interface")?,
        inbound: match keys.word("inbound")? {
            "allow" => Inbound::Allow,
            _ => Inbound::Drop,
        },
        dhcp: if own.is_there() { Some(dhcp(own)?) } else { None },
    })
}

fn wan(fields: &Fields, own: &Fields, shared: &Fields, dialled: &Fields) -> Option<Wan> {
    let only = [fields];
    let keys = Layers(&only, "wan");
    let metered = keys.flag("metered")?;
    let ppp = if dialled.is_there() { Some(ppp(dialled)?) } else { None };
    let on_demand = ppp.as_ref().is_some_and(|ppp| ppp.on_demand);
    Some(Wan {
        name: keys.text("name")?,
        interface: keys.text("interface")?,
        address: match keys.word("address") {
            Some("dhcp") => Addressing::Dhcp,
            Some(_) => Addressing::Observe,
            None => Addressing::Static(keys.addresses("address")?),
        },
        gateway: gateway(keys.address("gateway")?, v4)?,
        gateway6: gateway(keys.address("gateway6")?, v6)?,
        gateway_alias: keys.address("gateway_alias")?.ok().and_then(v4),
        priority: u8::try_from(keys.number("priority")?).ok()?,
        weight: Weight(u16::try_from(keys.number("weight")?).ok()?),
        metered,
        budget: match keys.word("budget") {
            Some("auto") => metered.then_some(BUDGET_METERED),
            Some(_) => None,
            None => Some(keys.bytes("budget")?),
        },
        linger: match keys.word("linger") {
            Some("auto") => (metered || on_demand).then_some(LINGER_METERED),
            Some(_) => None,
            None => Some(keys.time("linger")?),
        },
        nat: nat(keys.address("nat")?, v4)?,
        nat6: nat(keys.address("nat6")?, v6)?,
        dns: keys.servers("dns")?,
        health: health(&Layers(&[own, shared], "health"))?,
        ppp,
    })
}

fn ppp(fields: &Fields) -> Option<Ppp> {
    let only = [fields];
    let keys = Layers(&only, "wan.ppp");
    let (device, interface) = (keys.text("device")?, keys.text("pppoe")?);
    let line = if device.is_empty() {
        Line::Ethernet { interface, service: keys.text("service")? }
    } else {
        Line::Modem(Modem {
            device,
            apn: keys.text("apn")?,
            pin: keys.secret("pin")?,
            number: keys.text("number")?,
            speed: keys.number("speed")?,
            init: keys.texts("init")?,
            reset: keys.text("reset")?,
            reset_usb: keys.text("reset_usb")?,
        })
    };
    let (secret, file) = (keys.secret("secret")?, keys.text("secret_file")?);
    Some(Ppp {
        line,
        user: keys.text("user")?,
        password: match (secret.is_empty(), file.is_empty()) {
            (false, _) => Password::Given(secret),
            (true, false) => Password::File(file),
            (true, true) => Password::None,
        },
        mtu: u16::try_from(keys.number("mtu")?).ok().filter(|mtu| *mtu > 0),
        on_demand: keys.flag("on_demand")?,
        reset_command: keys.text("reset_command")?,
    })
}

fn gateway<A>(
    given: Result<IpAddr, &str>,
    pick: impl Fn(IpAddr) -> Option<A>,
) -> Option<Gateway<A>> {
    match given {
        Ok(address) => pick(address).map(Gateway::Address),
        Err("off") => Some(Gateway::Off),
        Err(_) => Some(Gateway::Auto),
    }
}

fn nat<A>(given: Result<IpAddr, &str>, pick: impl Fn(IpAddr) -> Option<A>) -> Option<Nat<A>> {
    match given {
        Ok(address) => pick(address).map(Nat::Address),
        Err("none") => Some(Nat::None),
        Err(_) => Some(Nat::Masquerade),
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    if let IpAddr::V4(address) = address { Some(address) } else { None }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    if let IpAddr::V6(address) = address { Some(address) } else { None }
}

fn dhcp(fields: &Fields) -> Option<Dhcp> {
    let only = [fields];
    let keys = Layers(&only, "lan.dhcp");
    let Value::Range(first, last) = keys.value("range")? else { return None };
    let Value::Leases(leases) = keys.value("leases")? else { return None };
    Some(Dhcp {
        range: (first, last),
        lease: keys.time("lease")?,
        leases,
        router: keys.address("router")?.ok().and_then(v4),
        dns: keys.servers("dns")?,
        ra: keys.flag("ra")?,
    })
}

fn dns(fields: &Fields) -> Option<Dns> {
    let only = [fields];
    let keys = Layers(&only, "dns");
    let Value::Hosts(hosts) = keys.value("hosts")? else { return None };
    Some(Dns {
        upstreams: keys.servers("upstreams")?,
        cache: keys.number("cache")?,
        domain: keys.text("domain")?,
        hosts,
        resolv_conf: keys.flag("resolv_conf")?,
    })
}

fn health(keys: &Layers<'_>) -> Option<Health> {
    Some(Health {
        targets: keys.targets("targets")?,
        interval: keys.time("interval")?,
        timeout: keys.limit("timeout")?,
        hold: keys.time("hold")?,
        max_loss_percent: u8::try_from(keys.number("max_loss_percent")?).ok().filter(|n| *n > 0),
        max_latency: keys.limit("max_latency")?,
        max_jitter: keys.limit("max_jitter")?,
    })
}

fn router(fields: &Fields) -> Option<Router> {
    let only = [fields];
    let keys = Layers(&only, "router");
    Some(Router {
        all_down: match keys.word("all_down")? {
            "try" => AllDown::Try,
            _ => AllDown::Refuse,
        },
        sticky: match keys.word("sticky")? {
            "source" => Sticky::Source,
            "source-destination" => Sticky::SourceDestination,
            _ => Sticky::Flow,
        },
        mark_field: mark_field(fields)?,
        table_base: TableId(keys.number("table_base")?),
        rule_priority_base: RulePriority(keys.number("rule_priority_base")?),
    })
}
