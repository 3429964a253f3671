//! `anywan reload`.

use super::put;
use crate::client::Client;
use crate::failure::Failure;

pub(super) async fn run(client: &Client) -> Result<bool, Failure> {
    let answer = client.post("/v1/reload", Vec::new()).await?;
    put(if answer.value["changed"] == true {
        "The new configuration is in force.\n"
    } else {
        "The file says nothing new.\n"
    })?;
    Ok(true)
}
