//! `anywan drain` and `anywan undrain`.

use super::{encoded, put};
use crate::client::Client;
use crate::failure::Failure;
use crate::print::printable;

pub(super) async fn run(client: &Client, wan: &str, drained: bool) -> Result<bool, Failure> {
    let word = if drained { "drain" } else { "undrain" };
    let answer = client.post(&format!("/v1/{word}?wan={}", encoded(wan)), Vec::new()).await?;
    let said = match (drained, answer.value["changed"] == true) {
        (true, true) => "is drained: new connections avoid it, established ones stay.",
        (true, false) => "was drained already.",
        (false, true) => "is in service again.",
        (false, false) => "was not drained.",
    };
    put(&format!("{} {said}\n", printable(wan)))?;
    Ok(true)
}
