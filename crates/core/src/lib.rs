//! The part of anywan that decides. From facts (what the kernel, probes and people say) it works
//! out which WANs serve, what the kernel should look like, and the ordered steps that get there.
//!
//! No I/O, clock, async or threads: time is an argument, steps are data. The rooms are a
//! staircase, and imports only go down it: `names`, `time` < `observed`, `api` < `config` <
//! `facts` < `health`, `dhcp` < `choose`, `dial` < `resolvers` < `desired` < `render` < `steps` <
//! `engine`; `doctor` stands beside
//! `engine`.

pub mod api;
pub mod choose;
pub mod config;
pub mod desired;
pub mod dhcp;
pub mod dial;
pub mod doctor;
pub mod engine;
pub mod facts;
pub mod health;
pub mod names;
pub mod observed;
pub mod render;
pub mod resolvers;
pub mod steps;
pub mod time;
