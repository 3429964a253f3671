//! An ISP's router that announces itself, its prefix and resolvers (router advertisements), by a real
//! dnsmasq. It ends with the value.

use std::fs;

use anyhow::{Context as _, Result};

use crate::command::Running;
use crate::tempdir::TempDir;
use crate::topology::Topology;

/// What announces; it says goodbye to nobody.
#[derive(Debug)]
pub struct Announcer {
    _running: Running,
    dir: TempDir,
}

impl Announcer {
    /// Announces `resolver` on the link of WAN `number`, once a minute and whenever it is asked.
    pub fn start(topology: &Topology, number: usize, resolver: &str) -> Result<Announcer> {
        let dir = TempDir::new()?;
        let option = format!("--dhcp-option=option6:dns-server,[{resolver}]");
        let line = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--port=0",
            "--log-facility=-",
            "--log-dhcp",
            "--pid-file=",
            "--interface=lan",
            "--bind-dynamic",
            "--enable-ra",
            "--ra-param=lan,60,600",
            "--dhcp-range=::,constructor:lan,ra-only,600",
            &option,
        ];
        let running = topology.isp(number).spawn(&line, Some(&dir.join("log")));
        let _running = running.context("hint: apt-get install dnsmasq-base")?;
        Ok(Announcer { _running, dir })
    }

    /// How often it was asked to announce itself.
    pub fn asked(&self) -> usize {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("RTR-SOLICIT")).count()
    }
}
