//! WANs that people take out of service: new connections avoid them, established ones stay. Kept
//! by name across restarts; a WAN that leaves the file is forgotten.

use super::Engine;
use crate::api::Problem;
use crate::config::nearest;
use crate::names::WanId;
use crate::time::Moment;

impl Engine {
    /// The configured WAN of this name.
    ///
    /// # Errors
    /// What is wrong, with the nearest name.
    pub fn wan_named(&self, name: &str) -> Result<WanId, Problem> {
        let known = self.config.wans.iter().find(|wan| wan.name == name);
        if let Some(id) = known.and_then(|wan| self.numbers.get(&wan.name)) {
            return Ok(*id);
        }
        let names = || self.config.wans.iter().map(|wan| wan.name.as_str());
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        let (code, at) = ("wan.unknown".to_owned(), format!("wan {name}"));
        Err(Problem { code, at, what: format!("there is no WAN called {name}"), hint })
    }

    /// Whether people have taken the WAN out of service.
    pub fn is_drained(&self, id: WanId) -> bool {
        self.wan(id).is_some_and(|wan| self.drained.contains(&wan.name))
    }

    /// Forgets those that are no longer configured.
    pub(super) fn forget_drained(&mut self) {
        let wans = &self.config.wans;
        self.drained.retain(|name| wans.iter().any(|wan| wan.name == *name));
    }

    pub(super) fn drain(&mut self, id: WanId, drained: bool, now: Moment) {
        if self.is_drained(id) == drained {
            return;
        }
        let Some(name) = self.wan(id).map(|wan| wan.name.clone()) else { return };
        let (old, new, reason) = if drained {
            self.drained.insert(name);
            ("", "drained", "taken out of service by hand; established connections stay")
        } else {
            self.drained.remove(&name);
            ("drained", "", "in service again, by hand")
        };
        self.stale = true;
        self.tell(now, "drain", Some(id), None, (old, new, reason));
    }
}
