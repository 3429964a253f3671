//! `anywan status`.

use anywan_core::api::{State, Status};

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

/// Whether any WAN gets new connections, of any family: also one that works badly, or is drained,
/// where there is no better one. To try one that is known to be down is not to serve.
fn serves(status: &Status) -> bool {
    let mut sides = status.wans.iter().flat_map(|wan| [&wan.ipv4, &wan.ipv6]);
    sides.any(|side| side.share_percent > 0.0 && side.state != State::Down)
}

/// The columns of the terminal, `None` where there is none.
fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
