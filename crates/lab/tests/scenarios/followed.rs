//! Whoever follows flows by conntrack (conntrackd, `conntrack -E`) is told of them as without us.

use std::fs::read_to_string;
use std::time::Duration;

use anyhow::{Result, ensure};
use anywan_lab::{Config, Daemon, Family, Proto, Spec, Topology, until};

use crate::common::DEADLINE;

/// Who listens is looked at with each full re-read, every 30 s.
const RE_READ: Duration = Duration::from_secs(60);

/// Waits until the daemon has noticed that somebody follows flows, or nobody any more.
fn wait_noticed(topology: &Topology, followed: bool) -> Result<()> {
    until(RE_READ, "it to be noticed", || {
        let set = topology.router().run("nft list set inet anywan unfollowed")?;
        ensure!(set.contains("elements") != followed, "{set}");
        Ok(())
    })
}

#[test]
fn whoever_follows_flows_hears_how_they_change() -> Result<()> {
    let topology = Spec::routed(1).build()?;
    let daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    wait_noticed(&topology, false)?;
    let heard = daemon.path("follower.log");
    let follower =
        topology.router().spawn(&["conntrack", "-E", "-e", "NEW,UPDATES"], Some(&heard))?;
    wait_noticed(&topology, true)?;
    topology.client(1).connect(Proto::Tcp, Family::V4)?;
    until(DEADLINE, "what became of the connection", || {
        let text = read_to_string(&heard)?;
        for word in ["[NEW]", "[UPDATE]", "ESTABLISHED"] {
            ensure!(text.contains(word), "no {word}: {text}");
        }
        Ok(())
    })?;
    drop(follower);
    wait_noticed(&topology, false)
}
