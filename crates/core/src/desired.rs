//! The kernel state that follows: routes, rules, parameters, and our nftables table. In:
//! configuration, facts, choice, and what was observed. Out: [`Desired`], compared with
//! [`Observed`](crate::observed::Observed) by `steps`. Nothing is remembered here.

mod maps;
mod routing;
mod slots;
mod sysctl;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::choose::Choice;
use crate::config::Config;
use crate::facts::{Numbers, WanFacts};
use crate::names::WanId;
use crate::observed::{Elements, Observed, Route, Rule};

pub use slots::SLOTS;
pub use sysctl::watched as watched_sysctls;

/// What the kernel should look like, as far as it is ours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Desired {
    /// Default routes in our tables.
    pub routes: BTreeSet<Route>,
    /// Our ip rules.
    pub rules: BTreeSet<Rule>,
    /// Kernel parameters that must have these values.
    pub sysctls: BTreeMap<String, String>,
    /// Kernel parameters that go back to what they were.
    pub restore: BTreeMap<String, String>,
    /// Routes that are left behind in main when we leave, not tagged as ours.
    pub parting: BTreeSet<Route>,
    /// Our nftables table; `None`: there must be none.
    pub table: Option<Table>,
}

/// Our nftables table as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// Its chains, rules and (empty) maps, as text for nft.
    pub structure: String,
    /// The elements of its maps.
    pub maps: BTreeMap<String, Elements>,
}

/// What is needed to work out the desired state.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The WANs' numbers.
    pub numbers: &'a Numbers,
    /// What the facts say about each WAN.
    pub facts: &'a BTreeMap<WanId, WanFacts>,
    /// Which WANs serve.
    pub choice: &'a Choice,
    /// The kernel.
    pub observed: &'a Observed,
}

/// Works out what the kernel should look like.
pub fn desire(basis: Basis<'_>) -> Desired {
    Desired {
        routes: routing::routes(basis),
        rules: routing::rules(basis),
        sysctls: sysctl::values(basis),
        restore: sysctl::obsolete(basis),
        parting: BTreeSet::new(),
        table: Some(Table {
            structure: crate::render::nft::structure(basis),
            maps: maps::maps(basis),
        }),
    }
}

/// What the kernel should look like once we have left: nothing of ours, every parameter as it
/// was before us.
pub fn nothing(observed: &Observed) -> Desired {
    Desired { restore: observed.sysctls_before.clone(), ..Desired::default() }
}
