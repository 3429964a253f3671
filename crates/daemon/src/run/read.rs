//! Reads again what may have changed, and hands it to the engine. In: hints, of the kernel and of
//! steps. A reading that fails is a problem, and made up for soon.

use std::collections::BTreeMap;
use std::time::Duration;

use anywan_core::api::Problem;
use anywan_core::engine::Event;
use anywan_core::steps::Step;

use super::{Daemon, chain};
use crate::kernel::{Hints, KernelError};
use crate::ppp;

/// The CPUs' work is looked at so long after an interface came or changed: it comes with several
/// messages, and whatever else it brings goes first.
const CPUS_AFTER: Duration = Duration::from_millis(200);

impl Daemon {
    pub(super) fn reread_all(&mut self) {
        self.reread(Hints { overrun: true, ..Hints::default() });
    }

    /// Reads again what may have changed.
    pub(super) fn reread(&mut self, hints: Hints) {
        let outcome = self.try_reread(hints);
        // A hint that could not be followed is not forgotten: everything is read again soon.
        self.unread = outcome.is_err() || (self.unread && !hints.overrun);
        if let Err(error) = outcome {
            tracing::warn!(error = %chain(&error), "the kernel could not be read");
            self.handle(Event::Problem(Problem {
                code: "kernel.unreadable".to_owned(),
                at: "kernel".to_owned(),
                what: chain(&error),
                hint: "it is tried again; what was known last is used until then".to_owned(),
            }));
            return;
        }
        let (code, at) = ("kernel.unreadable".to_owned(), "kernel".to_owned());
        self.handle(Event::Solved { code, at });
    }

    /// Reads what programs have written, where that says more than that they run.
    pub(super) fn read_logs(&mut self) {
        let names = self.engine.watched_logs().into_iter();
        let logs =
            names.filter_map(|name| ppp::log_of(&self.children, &name).map(|log| (name, log)));
        let logs: BTreeMap<String, String> = logs.collect();
        if !logs.is_empty() {
            self.handle(Event::Logs(logs));
        }
    }

    fn try_reread(&mut self, hints: Hints) -> Result<(), KernelError> {
        if hints.overrun || hints.links {
            let soon = self.clock.now() + CPUS_AFTER;
            self.cpus_at = Some(self.cpus_at.unwrap_or(soon));
        }
        if hints.overrun {
            return self.try_reread_all();
        }
        if hints.children {
            self.handle(Event::Children(self.children.running()));
        }
        // Who gets an address is often who writes the file.
        if hints.resolv_conf || hints.addresses {
            self.handle(Event::ResolvConf(self.resolv_conf.read()));
        }
        if hints.cpus {
            let cpus = self.kernel.cpus(&self.engine.watched_interfaces())?;
            self.handle(Event::Cpus(cpus));
        }
        if hints.links {
            let links = self.kernel.links()?;
            self.handle(Event::Links(links));
        }
        // A change of a link changes more than links.
        if hints.links || hints.addresses {
            let addresses = self.kernel.addresses()?;
            self.handle(Event::Addresses(addresses));
            self.read_resolvers();
        }
        if hints.links || hints.addresses || hints.routes {
            let routes = self.kernel.routes()?;
            self.handle(Event::Routes(routes));
        }
        if hints.neighbours {
            // A host that has just come is a neighbour, and may have been lent an address.
            self.read_lent();
        }
        if hints.links || hints.neighbours {
            let neighbours = self.kernel.neighbours()?;
            self.handle(Event::Neighbours(neighbours));
        }
        if hints.rules {
            let (ours, foreign) = (self.kernel.rules()?, self.kernel.foreign_rules()?);
            self.handle(Event::Rules { ours, foreign });
        }
        if hints.nft {
            let nft = self.kernel.nft()?;
            self.handle(Event::Nft(nft));
        }
        if hints.links || hints.sysctls {
            let now = self.kernel.sysctls(self.engine.watched_sysctls())?;
            let before = self.kernel.sysctls_before().clone();
            self.handle(Event::Sysctls { now, before });
        }
        Ok(())
    }

    fn try_reread_all(&mut self) -> Result<(), KernelError> {
        self.read_logs();
        self.look_at_config();
        self.read_lent();
        // Which parameters matter depends on which interfaces there are.
        let links = self.kernel.links()?;
        self.handle(Event::Links(links));
        self.read_resolvers();
        let now = self.kernel.observe(self.engine.watched_sysctls())?;
        for event in [
            Event::Links(now.links),
            Event::Addresses(now.addresses),
            Event::Routes(now.routes),
            Event::Neighbours(now.neighbours),
            Event::Rules { ours: now.rules, foreign: now.foreign_rules },
            Event::Nft(now.nft),
            Event::Followed(now.followed),
            Event::Sysctls { now: now.sysctls, before: now.sysctls_before },
            Event::Children(self.children.running()),
            Event::ResolvConf(self.resolv_conf.read()),
        ] {
            self.handle(event);
        }
        Ok(())
    }
}

/// What a step may have changed.
pub(super) fn touched_by(step: &Step) -> Hints {
    let mut hints = Hints::default();
    match step {
        Step::SetSysctl { .. } | Step::RestoreSysctl { .. } => hints.sysctls = true,
        Step::SetCpus { .. } | Step::RestoreCpus { .. } => hints.cpus = true,
        // Connection tracking and its parameters come with the first rule that needs them.
        Step::ReplaceTable { .. } => (hints.nft, hints.sysctls) = (true, true),
        Step::ChangeElements(_) | Step::DeleteTable => hints.nft = true,
        Step::SetUp(_) => hints.links = true,
        // Routes go with the last address of an interface.
        Step::PutAddress(_) | Step::DeleteAddress(_) => hints.addresses = true,
        Step::PutRoute(_) | Step::DeleteRoute(_) => hints.routes = true,
        Step::AddRule(_) | Step::DeleteRule(_) => hints.rules = true,
        Step::StartChild { .. } | Step::ReloadChild { .. } | Step::StopChild { .. } => {
            hints.children = true;
        }
        Step::TakeResolvConf { .. } | Step::GiveBackResolvConf => hints.resolv_conf = true,
    }
    hints
}
