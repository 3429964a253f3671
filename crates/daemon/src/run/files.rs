//! Looks at files that change without anybody telling: how the configuration file may be read, and
//! which addresses have been lent. A stat and a few kilobytes, with each full reading.

use std::os::unix::fs::PermissionsExt as _;

use anywan_core::engine::Event;

use super::Daemon;
use crate::lent;

impl Daemon {
    /// Tells when others may read secrets in the configuration file.
    pub(super) fn look_at_config(&mut self) {
        let path = &self.options.config;
        let file = path.display().to_string();
        let mode = std::fs::metadata(path).ok().map(|data| data.permissions().mode());
        match mode.and_then(|mode| self.engine.exposed(&file, mode)) {
            Some(problem) => self.handle(Event::Problem(problem)),
            None => self.handle(Event::Solved { code: "secret.readable".to_owned(), at: file }),
        }
    }

    /// Reads again which addresses have been lent, where any are.
    pub(super) fn read_lent(&mut self) {
        if self.engine.lends() {
            let lent = lent::read(&self.options.state_dir, self.clock.unix());
            self.handle(Event::Lent(lent));
        }
    }
}
