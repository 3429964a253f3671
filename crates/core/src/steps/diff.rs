//! What is there against what should be: the ordered steps between them, make before break.
//!
//! The order is the whole point, so it is one list:
//! 1. parameters, because forwarding and link-down behaviour must hold before anything else;
//! 2. new routes in WAN tables and new rules: ways to be used later;
//! 3. our table, if it is not there as loaded; otherwise elements, of flows that are found again
//!    first, then the slots and all others in one transaction: from here on new connections go
//!    where they should;
//! 4. routes of `balance` and whatever was replaced;
//! 5. old rules, then old routes;
//! 6. elements that say a WAN is lost: a client that is told to start anew finds the new way;
//! 7. parameters that go back.

use std::collections::BTreeSet;

use super::{ElementChange, Step, same_place};
use crate::desired::{Desired, Table};
use crate::names::PROTOCOL;
use crate::observed::{Elements, MAPS, Observed, Route, Structure};
use crate::render::nft;

/// The steps from `observed` to `desired`.
pub fn diff(observed: &Observed, desired: &Desired) -> Vec<Step> {
    let mut steps = Vec::new();
    sysctls(observed, desired, &mut steps);
    steps.extend(desired.parting.difference(&observed.routes).cloned().map(Step::PutRoute));
    let (put_first, put_later) = routes_to_put(observed, desired);
    steps.extend(put_first.into_iter().map(Step::PutRoute));
    steps.extend(desired.rules.difference(&observed.rules).cloned().map(Step::AddRule));
    let lost = table(observed, desired.table.as_ref(), &mut steps);
    steps.extend(put_later.into_iter().map(Step::PutRoute));
    steps.extend(observed.rules.difference(&desired.rules).cloned().map(Step::DeleteRule));
    steps.extend(old_routes(observed, desired).map(Step::DeleteRoute));
    if !lost.is_empty() {
        steps.push(Step::ChangeElements(lost));
    }
    let back = desired.restore.iter();
    steps.extend(back.map(|(path, value)| Step::RestoreSysctl {
        path: path.clone(),
        value: value.clone(),
    }));
    steps
}

fn sysctls(observed: &Observed, desired: &Desired, steps: &mut Vec<Step>) {
    // Router advertisements must be taken while forwarding before forwarding begins.
    let forwarding = |path: &str| path.ends_with("forwarding") || path.ends_with("ip_forward");
    let mut wrong: Vec<_> = desired
        .sysctls
        .iter()
        .filter(|(path, value)| observed.sysctls.get(*path) != Some(*value))
        .collect();
    wrong.sort_by_key(|(path, _)| forwarding(path));
    steps.extend(
        wrong
            .into_iter()
            .map(|(path, value)| Step::SetSysctl { path: path.clone(), value: value.clone() }),
    );
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

/// Steps for the table; returns the changes that have to wait until the routes are right.
fn table(observed: &Observed, desired: Option<&Table>, steps: &mut Vec<Step>) -> Vec<ElementChange> {
    let Some(desired) = desired else {
        if observed.nft.structure != Structure::Absent {
            steps.push(Step::DeleteTable);
        }
        return Vec::new();
    };
    let fingerprint = nft::fingerprint(&desired.structure);
    if observed.nft.structure != Structure::Intact(fingerprint) {
        steps.push(Step::ReplaceTable {
            fingerprint,
            text: nft::replacement(desired),
            maps: desired.maps.clone(),
        });
        return Vec::new();
    }
    let (mut found, mut now, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    let none = Elements::new();
    for spec in &MAPS {
        let is = observed.nft.maps.get(spec.name).unwrap_or(&none);
        let should = desired.maps.get(spec.name).unwrap_or(&none);
        for change in changes(spec.name, is, should) {
            if !spec.name.starts_with("restore") {
                now.push(change);
            } else if change.new.as_deref().is_some_and(|chain| chain != "lost") {
                found.push(change);
            } else {
                lost.push(change);
            }
        }
    }
    for group in [found, now] {
        if !group.is_empty() {
            steps.push(Step::ChangeElements(group));
        }
    }
    lost
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
