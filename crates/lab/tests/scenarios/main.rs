//! What anywan promises, shown with packets: the real daemon in the lab's networks.
//!
//! One module for each promise. Nothing here sleeps and hopes: conditions are waited for, with
//! deadlines that are only safety nets, and no assertion is about tight timings.

mod addresses;
mod all_down;
mod bad_input;
mod common;
mod cpu;
mod dhcp;
mod doctor;
mod down;
mod drain;
mod drift;
mod drill;
mod established;
mod faults;
mod flapping;
mod followed;
mod inbound;
mod interfaces;
mod keeping;
mod leases;
mod lending;
mod linger;
mod many;
mod names;
mod one_armed;
mod own_names;
mod partial;
mod placing;
mod restart;
mod saturated;
mod secrets;
mod service;
mod serving;
mod strangers;
mod twins;
