//! `anywan`: shows what the daemon says, and passes on what people want. In: a command line.
//! Out: text or JSON, and an exit status. Decides nothing and touches no kernel.

pub mod client;
pub mod commands;
pub mod failure;
pub mod print;
