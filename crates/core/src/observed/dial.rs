//! What is known about the lines that we dial beyond the kernel's own facts: which modems are there,
//! and the passwords that are in files.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::names::Secret;

/// What dialling depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dialling {
    /// The serial ports that exist, of those that were asked for.
    pub devices: BTreeSet<String>,
    /// What is in the files with passwords, or why that is not used.
    pub secrets: BTreeMap<String, Result<Secret, String>>,
}
