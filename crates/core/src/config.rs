//! Text to [`Config`], valid by construction; every error has a place and a hint.

mod model;

pub use model::*;
