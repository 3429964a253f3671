//! Steps in words, for people and as the names under which attempts are counted.

use std::fmt;

use super::{ElementChange, Step};
use crate::observed::{Key, OwnAddress, Route, Rule, RuleAction};

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::SetSysctl { path, value } => {
                write!(f, "set {} = {value}", path.replace('/', "."))
            }
            Step::RestoreSysctl { path, value } => {
                write!(f, "put back {} = {value}", path.replace('/', "."))
            }
            Step::SetCpus { file, value } => write!(f, "set {file} = {value}"),
            Step::RestoreCpus { file, value } => write!(f, "put back {file} = {value}"),
            Step::ReplaceTable { .. } => f.write_str("load nftables table inet anywan"),
            Step::ChangeElements(changes) => {
                f.write_str("change nftables elements: ")?;
                let shown: Vec<String> = changes.iter().take(3).map(ToString::to_string).collect();
                f.write_str(&shown.join(", "))?;
                match changes.len().checked_sub(3) {
                    Some(more) if more > 0 => write!(f, ", and {more} more"),
                    _ => Ok(()),
                }
            }
            Step::DeleteTable => f.write_str("delete nftables table inet anywan"),
            Step::SetUp(device) => write!(f, "set interface {} up", device.0),
            Step::PutAddress(own) => write!(f, "put {own}"),
            Step::DeleteAddress(own) => write!(f, "delete {own}"),
            Step::PutRoute(route) => write!(f, "put {route}"),
            Step::DeleteRoute(route) => write!(f, "delete {route}"),
            Step::AddRule(rule) => write!(f, "add {rule}"),
            Step::DeleteRule(rule) => write!(f, "delete {rule}"),
            Step::StartChild { name, .. } => write!(f, "start {name}"),
            Step::ReloadChild { name, .. } => write!(f, "have {name} read its files again"),
            Step::StopChild { name } => write!(f, "stop {name}"),
            Step::TakeResolvConf { .. } => f.write_str("have the router ask its own DNS"),
            Step::GiveBackResolvConf => f.write_str("put back resolv.conf"),
        }
    }
}

impl fmt::Display for ElementChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self.key {
            Key::Number(n) if self.map.starts_with("restore") => format!("{n:#x}"),
            Key::Number(n) => n.to_string(),
            Key::DeviceIpv4(d, a) => format!("{d} {a}"),
            Key::DeviceIpv6(d, a) => format!("{d} {a}"),
            Key::DeviceMac(d, a) => format!("{d} {a}"),
            Key::Ipv4(a) => a.to_string(),
        };
        let show = |chain: &Option<String>| match chain.as_deref() {
            None => "nothing".to_owned(),
            Some("") => "present".to_owned(),
            Some(chain) => chain.to_owned(),
        };
        write!(f, "{}[{key}] {} -> {}", self.map, show(&self.old), show(&self.new))
    }
}

/// Lifetimes aside: they differ each time, and the step is the same.
impl fmt::Display for OwnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {}/{} dev {}", self.address, self.prefix, self.device.0)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            None => write!(f, "{} default route", self.family)?,
            Some(to) => write!(f, "{} route to {to}", self.family)?,
        }
        if self.hops.is_empty() {
            f.write_str(" unreachable")?;
        }
        for hop in &self.hops {
            if let Some(via) = hop.via {
                write!(f, " via {via}")?;
            }
            write!(f, " dev {}", hop.device.0)?;
            if self.hops.len() > 1 {
                write!(f, " weight {}", hop.weight)?;
            }
        }
        write!(f, " table {} metric {}", self.table.0, self.metric)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule {}:", self.family, self.priority.0)?;
        if self.invert {
            f.write_str(" not")?;
        }
        if let Some(source) = self.source {
            match source.prefix_len() == source.max_prefix_len() {
                true => write!(f, " from {}", source.addr())?,
                false => write!(f, " from {source}")?,
            }
        }
        if let Some((mark, mask)) = self.mark {
            write!(f, " fwmark {mark:#x}/{mask:#x}")?;
        }
        match self.action {
            RuleAction::Lookup(table) => write!(f, " lookup {}", table.0),
            RuleAction::LookupNoDefault(table) => {
                write!(f, " lookup {} suppress_prefixlength 0", table.0)
            }
            RuleAction::Goto(priority) => write!(f, " goto {}", priority.0),
            RuleAction::Unreachable => f.write_str(" unreachable"),
        }
    }
}
