//! `anywan plan`.

use std::path::Path;

use anywan_core::api::Plan;

use super::{put, read};
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

/// Percent-encodes all but what is safe anywhere in a URL.
fn encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn a_name_with_anything_in_it_survives_a_url() {
        assert_eq!(encoded("/etc/a-1.toml"), "/etc/a-1.toml");
        assert_eq!(encoded("ä b&c"), "%C3%A4%20b%26c");
    }
}
