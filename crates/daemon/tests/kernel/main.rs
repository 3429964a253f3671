//! The contract between core and the real kernel: after each step, what is read back is what
//! `steps::expect` predicts, so that the simulation's kernel cannot drift from the real one.
//!
//! Every test has a fresh network namespace on its own thread. They need root, and fail without.

mod addresses;
mod conntrack;
mod cpu;
mod flows;
mod hosts;
mod links;
mod monitor;
mod net;
mod nft;
mod replaced;
mod routes;
mod rules;
mod speed;
mod sysctl;
mod traffic;
