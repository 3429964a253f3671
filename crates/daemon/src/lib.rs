//! The part of anywan that acts: it reads the kernel, carries out the core's steps, sends probes,
//! and answers on a socket. A library with a thin binary, so that tests can use its parts.
//! Which WAN is used is never decided here.

pub mod children;
pub mod clock;
pub mod dhcp;
pub mod examine;
pub mod kernel;
pub mod lent;
pub mod ports;
pub mod ppp;
pub mod probe;
pub mod resolv_conf;
pub mod resolvers;
pub mod run;
pub mod serve;
pub mod state;
pub mod systemd;
