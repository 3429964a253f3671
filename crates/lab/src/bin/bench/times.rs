//! How long things take, and what the daemon costs while nothing happens.

use anyhow::Result;

use crate::report::Page;

/// Start to steering.
pub fn start(_page: &mut Page) -> Result<()> {
    Ok(())
}

/// Link loss to the last step.
pub fn link_loss(_page: &mut Page) -> Result<()> {
    Ok(())
}

/// Outages.
pub fn outages(_page: &mut Page) -> Result<()> {
    Ok(())
}

/// Idle cost.
pub fn idle(_page: &mut Page) -> Result<()> {
    Ok(())
}
