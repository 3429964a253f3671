//! The lab: whole internets in network namespaces, for tests, the demo and the benchmarks.
//!
//! A [`Topology`] is a router, its LAN clients, N internet connections each behind an ISP that
//! NATs, and an internet with servers. [`Fault`]s break it, [`Client`]s measure it, a [`Daemon`]
//! is the real `anywand` in the router. Everything dies with the value that owns it.
//! The lab never skips: without the privileges it needs it fails and says what to do.

pub mod announced;
pub mod announcer;
pub mod client;
pub mod command;
pub mod counters;
pub mod daemon;
pub mod dhcp;
pub mod dial;
pub mod fault;
pub mod flows;
pub mod house;
pub mod modem;
pub mod names;
pub mod netns;
pub mod notices;
pub mod servers;
pub mod snapshot;
pub mod stranger;
pub mod tempdir;
pub mod topology;
pub mod tunnel;
pub mod wait;

pub use announcer::Announcer;
pub use client::{Client, Placement};
pub use counters::IspCounts;
pub use daemon::{Config, Daemon};
pub use dial::{Failure, Proto};
pub use fault::Fault;
pub use flows::Flows;
pub use modem::Modem;
pub use netns::Netns;
pub use servers::Servers;
pub use snapshot::Snapshot;
pub use topology::{Families, Family, Spec, Topology, Wan, WanSpec};
pub use wait::until;
