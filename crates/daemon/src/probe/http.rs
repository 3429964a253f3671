//! One HTTP probe: a page is fetched through one WAN and held against what it must be like. A
//! redirect or a foreign page says that somebody else answered, as captive portals do.
//!
//! A host's name is resolved through the same WAN (`http/lookup.rs`); what it was resolved to is
//! kept for minutes, so that the page, not the resolver, is what most probes ask.

mod lookup;
pub mod response;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anywan_core::config::{Host, HttpTarget, Target};
use anywan_core::steps::{Failure, Probe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::{Question, tcp, words};
pub(super) use lookup::Addresses;
use response::{BYTES_MAX, judge};

/// Asks and answers one question; as long as its timeout at most.
pub(super) async fn ask(question: Question, addresses: Addresses) {
    let probe = &question.probe;
    let Target::Http(page) = &probe.target else {
        return question.silent("not an HTTP probe");
    };
    let deadline = Instant::now() + probe.timeout;
    let outcome = match timeout_at(deadline, fetch(probe, page, &addresses, deadline)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Silent(question.unanswered())),
    };
    if let (Err(_), Host::Name(name)) = (&outcome, &page.host) {
        // It may have moved, or a portal may have said where it is.
        addresses.forget(probe, name);
    }
    question.answer(outcome);
}

/// Fetches the page. The time from the first packet to the page's host until enough of the
/// response is there to judge it.
async fn fetch(
    probe: &Probe,
    page: &HttpTarget,
    addresses: &Addresses,
    deadline: Instant,
) -> Result<Duration, Failure> {
    let address = match &page.host {
        Host::Address(address) => *address,
        Host::Name(name) => {
            lookup::resolve(probe, name, addresses, deadline).await.map_err(Failure::Silent)?
        }
    };
    let sent = Instant::now();
    exchange(probe, page, address).await.map(|()| sent.elapsed())
}

async fn exchange(probe: &Probe, page: &HttpTarget, address: IpAddr) -> Result<(), Failure> {
    let plain = |error| Failure::Silent(words::plain(&error, &probe.device));
    let to = SocketAddr::new(address, page.port);
    let mut connection = tcp::connect(probe, to).await.map_err(plain)?;
    connection.write_all(request(page).as_bytes()).await.map_err(plain)?;
    let mut bytes = Vec::new();
    let mut piece = [0; 2_048];
    loop {
        let read = connection.read(&mut piece).await;
        // A reset after the response ends it as well as a proper end does.
        let ended = !matches!(read, Ok(1..));
        if let Ok(length) = read {
            let room = BYTES_MAX - bytes.len();
            bytes.extend_from_slice(&piece[..length.min(room)]);
        }
        match (judge(&bytes, ended, &page.expect), read) {
            (None, _) if !ended => {}
            (_, Err(error)) if bytes.is_empty() => return Err(plain(error)),
            (Some(outcome), _) => return outcome,
            (None, _) => return Err(Failure::Silent("no whole answer".to_owned())),
        }
    }
}

fn request(page: &HttpTarget) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: anywan/{}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        page.path,
        page.authority(),
        env!("CARGO_PKG_VERSION")
    )
}
