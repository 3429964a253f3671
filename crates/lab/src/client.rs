//! A measuring client: opens connections from one box and says which WAN carried them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::dial::{Attempts, Done, Failure, Proto, Target};
use crate::flows::{Flow, Flows};
use crate::netns::Netns;
use crate::servers::ECHO;
use crate::topology::{Family, SERVERS};
use crate::wait::{fewer, slower};

pub use dialer::{Attempt, DialReport, Dialer};

mod dialer;

/// So many attempts are under way at once when many are asked for; fewer in an emulated machine.
const ABREAST: usize = 64;

/// Who asks whom, in which namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    space: Netns,
    sources: Vec<IpAddr>,
    servers: Vec<SocketAddr>,
    timeout: Duration,
    directory: Arc<BTreeMap<IpAddr, usize>>,
}

impl Client {
    pub(crate) fn new(
        space: Netns,
        sources: Vec<IpAddr>,
        directory: Arc<BTreeMap<IpAddr, usize>>,
    ) -> Client {
        let (v4, v6) = SERVERS[0];
        let servers = vec![SocketAddr::new(v4.into(), ECHO), SocketAddr::new(v6.into(), ECHO)];
        Client { space, sources, servers, timeout: slower(Duration::from_secs(2)), directory }
    }

    /// The namespace it works in.
    pub fn space(&self) -> &Netns {
        &self.space
    }

    /// Takes turns among these own addresses; of each family, or the kernel's choice if none.
    #[must_use]
    pub fn from(self, sources: Vec<IpAddr>) -> Client {
        Client { sources, ..self }
    }

    /// Takes turns among these servers; the default is the first server's echo port.
    #[must_use]
    pub fn to(self, servers: Vec<SocketAddr>) -> Client {
        Client { servers, ..self }
    }

    /// Takes who answers that it sees us as `address` for WAN `number`; 0 where there is none.
    #[must_use]
    pub fn known_as(mut self, address: IpAddr, number: usize) -> Client {
        Arc::make_mut(&mut self.directory).insert(address, number);
        self
    }

    /// Takes turns among all servers of the internet.
    #[must_use]
    pub fn to_all(self) -> Client {
        let all = SERVERS.iter().flat_map(|(v4, v6)| [IpAddr::from(*v4), (*v6).into()]);
        self.to(all.map(|address| SocketAddr::new(address, ECHO)).collect())
    }

    /// Gives up an attempt after so long; the default is 2 s, more in an emulated machine.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Client {
        Client { timeout, ..self }
    }

    /// The `turn`-th target.
    fn target(&self, turn: usize, proto: Proto, family: Family) -> Option<Target> {
        let of = |address: IpAddr| match family {
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        };
        let servers: Vec<_> = self.servers.iter().filter(|server| of(server.ip())).collect();
        let sources: Vec<_> = self.sources.iter().filter(|source| of(**source)).collect();
        let server = **servers.get(turn.checked_rem(servers.len())?)?;
        let source = turn.checked_rem(sources.len()).and_then(|at| sources.get(at));
        Some(Target { proto, server, source: source.map(|source| **source) })
    }

    /// Opens `count` connections as fast as it goes and hands out each as it ends.
    fn each(
        &self,
        count: usize,
        proto: Proto,
        family: Family,
        mut take: impl FnMut(Done) + Send,
    ) -> Result<()> {
        self.target(0, proto, family).context("a server of that family")?;
        self.space.inside(|| {
            let mut attempts = Attempts::new(self.timeout)?;
            let mut turns = (0..count).filter_map(|turn| self.target(turn, proto, family));
            let mut ended = 0;
            let abreast = fewer(ABREAST);
            while ended < count {
                while attempts.under_way() < abreast {
                    let Some(target) = turns.next() else { break };
                    attempts.start(target);
                }
                for done in attempts.poll(Duration::from_millis(20))? {
                    ended += 1;
                    take(done);
                }
            }
            Ok(())
        })?
    }

    /// Opens and closes `count` connections; returns which WANs they took.
    pub fn place(&self, count: usize, proto: Proto, family: Family) -> Result<Placement> {
        let begun = Instant::now();
        let mut placement = Placement::default();
        self.each(count, proto, family, |done| {
            let source = done.target.source;
            match wan_of(&self.directory, done.result.map(|(_, answer)| answer)) {
                Ok(wan) => {
                    *placement.by_wan.entry(wan).or_default() += 1;
                    placement.by_source.entry(source).or_default().insert(wan);
                }
                Err(failure) => *placement.failures.entry(failure).or_default() += 1,
            }
        })?;
        placement.took = begun.elapsed();
        Ok(placement)
    }

    /// Makes one connection; returns the WAN it took.
    pub fn connect(&self, proto: Proto, family: Family) -> Result<usize> {
        let placement = self.place(1, proto, family)?;
        placement.only().with_context(|| format!("{proto:?} {family:?}: {placement}"))
    }

    /// Makes one connection; returns what the other end sees as our address, whatever it is.
    pub fn reach(&self, proto: Proto, family: Family) -> Result<IpAddr> {
        let mut answer = None;
        self.each(1, proto, family, |done| answer = Some(done.result.map(|(_, address)| address)))?;
        match answer.context("an attempt that ended")? {
            Ok(address) => Ok(address),
            Err(why) => anyhow::bail!("{proto:?} {family:?} to {:?}: {why}", self.servers),
        }
    }

    /// Opens `count` connections that stay open.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn flows(&self, count: usize, proto: Proto, family: Family) -> Result<Flows> {
        let mut flows = Vec::new();
        let mut failure = None;
        self.each(count, proto, family, |done| match done.result {
            Ok((socket, answer)) => match wan_of(&self.directory, Ok(answer)) {
                Ok(wan) => flows.push(Flow::new(socket, wan)),
                Err(why) => failure = Some(why),
            },
            Err(why) => failure = Some(why),
        })?;
        match failure {
            Some(why) => anyhow::bail!("opening {count} flows ({proto:?} {family:?}): {why}"),
            None => Ok(Flows::new(flows, self.directory.clone())),
        }
    }

    /// Starts to try a new connection every `every`, on a thread of its own.
    pub fn dial(&self, proto: Proto, family: Family, every: Duration) -> Dialer {
        Dialer::start(self.clone(), proto, family, every)
    }
}

/// The WAN an answer came through.
pub(crate) fn wan_of(
    directory: &BTreeMap<IpAddr, usize>,
    answer: Result<IpAddr, Failure>,
) -> Result<usize, Failure> {
    let answer = answer?;
    directory.get(&answer).copied().ok_or(Failure::Stranger(answer))
}

/// Where a number of connections went.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// How many each WAN carried.
    pub by_wan: BTreeMap<usize, usize>,
    /// How many failed, and how.
    pub failures: BTreeMap<Failure, usize>,
    /// Which WANs each own address was seen on.
    pub by_source: BTreeMap<Option<IpAddr>, BTreeSet<usize>>,
    /// From the first start to the last end.
    pub took: Duration,
}

impl Placement {
    /// Connections that worked.
    pub fn worked(&self) -> usize {
        self.by_wan.values().sum()
    }

    /// Connections that failed.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// Share of a WAN in those that worked, in percent.
    pub fn percent(&self, wan: usize) -> f64 {
        let part = self.by_wan.get(&wan).copied().unwrap_or(0);
        100.0 * part as f64 / self.worked().max(1) as f64
    }

    /// The one WAN that carried all, if none failed.
    pub fn only(&self) -> Option<usize> {
        let (wan, _) = self.by_wan.first_key_value()?;
        (self.by_wan.len() == 1 && self.failed() == 0).then_some(*wan)
    }
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "by WAN {:?}, failed {:?}", self.by_wan, self.failures)
    }
}
