//! Keeps leases between runs, and gives them back when anywan leaves for good.

use anywan_core::api::Problem;
use anywan_core::dhcp::Port;
use anywan_core::engine::Event;

use super::Daemon;
use crate::dhcp;
use crate::kernel::{Kernel, KernelError};
use crate::state::StateDir;

impl Daemon {
    /// Listens only where it is needed, and writes down what has changed.
    pub(super) fn mind_leases(&mut self) {
        self.dhcp.listen_only(&self.engine.dhcp_ports());
        let leases = self.engine.leases();
        if leases != self.leases {
            self.leases = leases;
            self.keep_leases();
        }
    }

    /// Tries again what could not be written down.
    pub(super) fn keep_leases_yet(&mut self) {
        if self.leases_unkept {
            self.keep_leases();
        }
    }

    fn keep_leases(&mut self) {
        let kept = self.state.keep_leases(&self.leases, &self.clock);
        self.leases_unkept = kept.is_err();
        let at = self.options.state_dir.display().to_string();
        let code = "leases.not-kept".to_owned();
        match kept {
            Ok(()) => self.handle(Event::Solved { code, at }),
            Err(error) => {
                let what = format!("leases cannot be kept: {error}");
                let hint = "is the disk full? after a restart WANs may get other addresses";
                self.handle(Event::Problem(Problem { code, at, what, hint: hint.to_owned() }));
            }
        }
    }
}

/// Gives all leases back whose interface is still the same.
pub(super) fn give_back(state: &StateDir, kernel: &mut Kernel) -> Result<(), KernelError> {
    let clock = kernel.clock();
    let leases = state.leases(&clock);
    let links = kernel.links()?;
    let found = leases.into_values().filter_map(|kept| {
        let (device, _) = links
            .iter()
            .find(|(_, link)| link.name == kept.interface && link.mac == Some(kept.mac))?;
        Some((Port { device: *device, mac: kept.mac }, kept))
    });
    let found: Vec<_> = found.collect();
    dhcp::give_back(&found);
    if !found.is_empty() {
        if let Err(error) = state.keep_leases(&Default::default(), &clock) {
            tracing::warn!(%error, "the leases given back are still written down");
        }
    }
    Ok(())
}
