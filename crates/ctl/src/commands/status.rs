//! `anywan status`.

use anywan_core::api::Status;

use super::{colour, put};
use crate::client::Client;
use crate::failure::Failure;
use crate::print::{Look, status_table};

pub(super) async fn run(client: &Client, json: bool) -> Result<bool, Failure> {
    let answer = client.get("/v1/status").await?;
    let status: Status = answer.read()?;
    if json {
        put(&format!("{}\n", answer.text))?;
    } else {
        let out = std::io::stdout();
        let (width, colour) = (width(), colour(&out));
        put(&status_table(&status, Look { now: jiff::Timestamp::now(), width, colour }))?;
    }
    Ok(serves(&status))
}

/// Whether any WAN works in any family.
fn serves(status: &Status) -> bool {
    // A drained one serves when nothing else does.
    status.wans.iter().any(|wan| wan.ipv4.state.works() || wan.ipv6.state.works())
}

/// The columns of the terminal, `None` where there is none.
fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
