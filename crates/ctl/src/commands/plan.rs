//! `anywan plan`.

use std::path::Path;

use anywan_core::api::Plan;

use super::{encoded, put, read};
use crate::client::Client;
use crate::failure::Failure;
use crate::print::plan_text;

pub(super) async fn run(client: &Client, file: Option<&Path>, json: bool) -> Result<bool, Failure> {
    let answer = match file {
        None => client.get("/v1/plan").await?,
        Some(file) => {
            let (name, bytes) = read(file)?;
            client.post(&format!("/v1/plan?file={}", encoded(&name)), bytes).await?
        }
    };
    let plan: Plan = answer.read()?;
    if json {
        put(&format!("{}\n", answer.text))?;
    } else {
        put(&plan_text(&plan, file.is_some()))?;
    }
    Ok(true)
}
