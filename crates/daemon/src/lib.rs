//! x
pub mod probe;
pub mod serve;
