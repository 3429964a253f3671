//! `anywan events`.

use anywan_core::api::Notice;

use super::put;
use crate::client::Client;
use crate::failure::Failure;
use crate::print::{notice_line, printable};

pub(super) async fn run(client: &Client, json: bool, backlog: u16) -> Result<bool, Failure> {
    let mut lines = client.follow(&format!("/v1/events?backlog={backlog}")).await?;
    while let Some(line) = lines.next().await {
        let text = String::from_utf8_lossy(&line);
        match serde_json::from_str::<Notice>(&text) {
            Ok(notice) if !json => put(&format!("{}\n", notice_line(&notice)))?,
            // JSON is passed on as it is; and what a newer daemon says, as far as possible.
            Ok(_) => put(&format!("{text}\n"))?,
            Err(_) => put(&format!("{}\n", printable(&text)))?,
        }
    }
    Err(Failure::failed(
        "the daemon has closed the connection",
        "it has ended, or this reader was too slow: anywan status",
    ))
}
