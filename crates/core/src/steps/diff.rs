//! What is there against what should be: the ordered steps between them, make before break.
//!
//! The order is the whole point, so it is one list:
//! 1. parameters, because what the kernel does by itself must be right first; but forwarding only
//!    when the table that translates and guards is there;
//! 2. links that must be up, and new addresses: without them there are no routes; new routes: ways
//!    to be used later;
//! 3. if there is no table yet, all of it, so that flows of others are pinned to where they leave
//!    now, before any rule sends them elsewhere;
//! 4. new rules;
//! 5. our table, if it is not as we loaded it; otherwise elements: of flows that are found again
//!    first, then the slots and all others in one transaction: from here on new connections go
//!    where they should;
//! 6. routes that replace one; then slots that lead to WANs whose way these are: a gateway may have
//!    changed while nobody looked; old rules, old routes;
//! 7. elements that say a WAN is lost: a client that is told to start anew finds the new way;
//! 8. old addresses: the kernel forgets the flows that have them, and, with the last, the routes;
//!    then parameters that go back;
//! 9. which CPUs do the work: nothing depends on it;
//! 10. programs of ours, which take longer than the kernel: first those that stand in the way; before
//!     them this machine's programs are told to ask others again, behind them to ask ours.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{ElementChange, Step, same_place};
use crate::desired::{Desired, Table};
use crate::names::{IfIndex, PROTOCOL, fingerprint};
use crate::observed::{
    Address, Elements, MAPS, Observed, OwnAddress, ResolvFile, Route, Structure,
};
use crate::render::nft;
use crate::time::Moment;

/// The kernel tells lifetimes in whole seconds, and counts them by a clock of its own.
const UNTOLD: Duration = Duration::from_secs(5);

/// The steps from `observed` to `desired`.
pub fn diff(observed: &Observed, desired: &Desired) -> Vec<Step> {
    let (at_once, forwarding) = sysctls(observed, desired);
    let (put_first, put_later) = routes_to_put(observed, desired);
    let (table, late, lost) = table(observed, desired.table.as_ref(), &put_later);
    let new_rules = desired.rules.difference(&observed.rules).cloned().map(Step::AddRule);
    let mut steps = at_once;
    let down = |device: &&IfIndex| observed.links.get(*device).is_some_and(|link| !link.up);
    steps.extend(desired.up.iter().filter(down).copied().map(Step::SetUp));
    steps.extend(addresses_to_put(observed, desired).map(Step::PutAddress));
    steps.extend(desired.parting.difference(&observed.routes).cloned().map(Step::PutRoute));
    steps.extend(put_first.into_iter().map(Step::PutRoute));
    if observed.nft.structure == Structure::Absent {
        steps.extend(table);
        steps.extend(forwarding);
        steps.extend(new_rules);
    } else {
        steps.extend(new_rules);
        steps.extend(table);
        steps.extend(forwarding);
    }
    steps.extend(put_later.into_iter().map(Step::PutRoute));
    if !late.is_empty() {
        steps.push(Step::ChangeElements(late));
    }
    // The last first: so a packet never meets a refusal whose alternative is gone already.
    let old_rules: Vec<_> = observed.rules.difference(&desired.rules).cloned().collect();
    steps.extend(old_rules.into_iter().rev().map(Step::DeleteRule));
    steps.extend(old_routes(observed, desired).map(Step::DeleteRoute));
    if !lost.is_empty() {
        steps.push(Step::ChangeElements(lost));
    }
    steps.extend(old_addresses(observed, desired).map(Step::DeleteAddress));
    let back = desired.restore.iter();
    steps.extend(
        back.map(|(path, value)| Step::RestoreSysctl { path: path.clone(), value: value.clone() }),
    );
    steps.extend(cpus(observed, desired));
    let (give_back, take) = resolv_conf(observed, desired);
    steps.extend(give_back);
    steps.extend(children(observed, desired));
    steps.extend(take);
    steps
}

/// What goes back, and what is taken.
fn resolv_conf(observed: &Observed, desired: &Desired) -> (Option<Step>, Option<Step>) {
    let take = |text: &String| Some(Step::TakeResolvConf { text: text.clone() });
    match (observed.resolv_conf.file, &desired.resolv_conf) {
        (ResolvFile::Untouchable, _) | (ResolvFile::Others(_), None) => (None, None),
        (ResolvFile::Ours(_), None) => (Some(Step::GiveBackResolvConf), None),
        (ResolvFile::Ours(print), Some(text)) if print == fingerprint([text.as_str()]) => {
            (None, None)
        }
        (ResolvFile::Ours(_) | ResolvFile::Others(_), Some(text)) => (None, take(text)),
    }
}

/// One whose program has changed ends first, and is started once it is gone.
fn children(observed: &Observed, desired: &Desired) -> Vec<Step> {
    let (mut stop, mut start) = (Vec::new(), Vec::new());
    for (name, is) in observed.children.iter().filter(|(_, is)| !is.stopping) {
        let should = desired.children.get(name).map(|program| (program, program.running()));
        match should {
            Some((_, should)) if should == *is => {}
            Some((program, should)) if should.program == is.program => {
                let (name, program) = (name.clone(), program.clone());
                start.push(Step::ReloadChild { name, program });
            }
            None if desired.unknown_children.contains(name) => {}
            Some(_) | None => stop.push(Step::StopChild { name: name.clone() }),
        }
    }
    let missing =
        desired.children.iter().filter(|(name, _)| !observed.children.contains_key(*name));
    start.extend(missing.map(|(name, program)| {
        let (name, program) = (name.clone(), program.clone());
        Step::StartChild { name, program }
    }));
    stop.extend(start);
    stop
}

/// What goes back first: it may stand in the way of what is wanted now.
fn cpus<'a>(observed: &'a Observed, desired: &'a Desired) -> impl Iterator<Item = Step> + 'a {
    let back = desired.restore_cpus.iter();
    let wrong =
        desired.cpus.iter().filter(|(file, value)| observed.cpus.files.get(*file) != Some(*value));
    back.map(|(file, value)| Step::RestoreCpus { file: file.clone(), value: value.clone() }).chain(
        wrong.map(|(file, value)| Step::SetCpus { file: file.clone(), value: value.clone() }),
    )
}

/// Parameters that are wrong: those to set at once, and those that begin to forward.
fn sysctls(observed: &Observed, desired: &Desired) -> (Vec<Step>, Vec<Step>) {
    let (mut at_once, mut forwarding) = (Vec::new(), Vec::new());
    let wrong = desired
        .sysctls
        .iter()
        .filter(|(path, value)| observed.sysctls.get(*path) != Some(*value))
        .map(|(path, value)| (path.clone(), value.clone()));
    for (path, value) in wrong {
        let begins = path.ends_with("/forwarding") || path.ends_with("/ip_forward");
        let group = if begins { &mut forwarding } else { &mut at_once };
        group.push(Step::SetSysctl { path, value });
    }
    (at_once, forwarding)
}

/// Addresses that are missing, or that the kernel would take away too soon or too late. One that
/// somebody else has put there is as good as ours.
fn addresses_to_put<'a>(
    observed: &'a Observed,
    desired: &'a Desired,
) -> impl Iterator<Item = OwnAddress> + 'a {
    let there = |own: &OwnAddress| {
        let same = |a: &&Address| (a.device, a.address) == (own.device, own.address);
        let mut same = observed.addresses.iter().filter(same);
        same.any(|a| !a.ours || (a.prefix == own.prefix && lives_as_long(a.until, own.until)))
    };
    desired.addresses.iter().filter(move |own| !there(own)).cloned()
}

fn lives_as_long(is: Option<Moment>, should: Option<Moment>) -> bool {
    match (is, should) {
        (None, None) => true,
        (Some(is), Some(should)) => is.since(should).max(should.since(is)) <= UNTOLD,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn old_addresses<'a>(
    observed: &'a Observed,
    desired: &'a Desired,
) -> impl Iterator<Item = OwnAddress> + 'a {
    let ours = observed.addresses.iter().filter(|address| address.ours);
    ours.filter(|address| !desired.addresses.iter().any(|own| own.is(address))).map(OwnAddress::of)
}

/// Routes that are missing or differ: those for which nothing is in place yet, and those that
/// replace one.
fn routes_to_put(observed: &Observed, desired: &Desired) -> (Vec<Route>, Vec<Route>) {
    desired
        .routes
        .difference(&observed.routes)
        .cloned()
        .partition(|route| !observed.routes.iter().any(|old| same_place(old, route)))
}

fn old_routes<'a>(
    observed: &'a Observed,
    desired: &'a Desired,
) -> impl Iterator<Item = Route> + 'a {
    observed
        .routes
        .iter()
        .filter(|old| old.protocol == PROTOCOL)
        .filter(|old| !desired.routes.iter().any(|route| same_place(old, route)))
        .cloned()
}

/// Steps for the table; the changes that wait for `routes` that are yet to be put; and those that
/// wait until all routes are right.
fn table(
    observed: &Observed,
    desired: Option<&Table>,
    routes: &[Route],
) -> (Vec<Step>, Vec<ElementChange>, Vec<ElementChange>) {
    let Some(desired) = desired else {
        let there = observed.nft.structure != Structure::Absent;
        let steps = there.then_some(Step::DeleteTable).into_iter().collect();
        return (steps, Vec::new(), Vec::new());
    };
    let fingerprint = nft::fingerprint(&desired.shape);
    if observed.nft.structure != Structure::Intact(fingerprint) {
        let text = nft::replacement(desired);
        let interim = nft::interim_chains(&desired.shape);
        let step = Step::ReplaceTable { fingerprint, text, interim, maps: desired.maps.clone() };
        return (vec![step], Vec::new(), Vec::new());
    }
    let waits = |change: &ElementChange| {
        let way = change.new.as_ref().and_then(|chain| desired.ways.get(chain));
        way.is_some_and(|table| routes.iter().any(|route| route.table == *table))
    };
    let (mut found, mut now, mut late, mut lost) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let none = Elements::new();
    for spec in &MAPS {
        let is = observed.nft.maps.get(spec.name).unwrap_or(&none);
        let should = desired.maps.get(spec.name).unwrap_or(&none);
        for change in changes(spec.name, is, should) {
            if waits(&change) {
                late.push(change);
            } else if !spec.name.starts_with("restore") {
                now.push(change);
            } else if change.new.as_deref().is_some_and(|chain| chain != "lost") {
                found.push(change);
            } else {
                lost.push(change);
            }
        }
    }
    let groups = [found, now].into_iter().filter(|group| !group.is_empty());
    (groups.map(Step::ChangeElements).collect(), late, lost)
}

fn changes(map: &str, is: &Elements, should: &Elements) -> Vec<ElementChange> {
    let keys: BTreeSet<_> = is.keys().chain(should.keys()).copied().collect();
    keys.into_iter()
        .filter(|key| is.get(key) != should.get(key))
        .map(|key| ElementChange {
            map: map.to_owned(),
            key,
            old: is.get(&key).cloned(),
            new: should.get(&key).cloned(),
        })
        .collect()
}
