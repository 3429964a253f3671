//! HTTP targets: `"http://connectivity.example/204"`, and the table form
//! `{ url = "http://…", status = 200, body = "Success" }`.

use std::net::IpAddr;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::address;
use super::super::fault::{Fault, Wrong, quoted};
use super::super::model::{Expect, Host, HttpTarget, Target};
use super::super::near::nearest;
use super::super::types::wrong_type;
use super::authority;

/// What a page says that is made to be probed: nothing, successfully (RFC 9110 15.3.5).
const STATUS: u16 = 204;
/// What a page says in which a text is looked for.
const STATUS_WITH_TEXT: u16 = 200;
/// Statuses of responses that never have a content (RFC 9110 6.4.1).
const EMPTY: [u16; 2] = [204, 304];

/// The longest path and the longest text to look for, in bytes.
const MAX_TEXT: usize = 1_024;

const KEYS: [&str; 3] = ["url", "status", "body"];

/// Reads what follows `http://` in the string form.
pub(super) fn plain(rest: &str) -> Result<HttpTarget, Wrong> {
    let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (before, path) = rest.split_at(at);
    if before.contains('@') {
        let what = "a probe logs in nowhere";
        return Err(bad(what, "leave away what is before the `@`"));
    }
    let path = path_of(path)?;
    let (host, port) = authority::split(before, "http", 80)?;
    let host = match host.parse::<IpAddr>() {
        Ok(ip) => address::usable(ip).map(|()| Host::Address(ip))?,
        Err(_) => match authority::name(host).filter(|name| !looks_like_address(name)) {
            Some(name) => Host::Name(name),
            None => {
                let what = format!("{} is not a host", quoted(host));
                let hint = "write a host's name or address, e.g. \"http://example.com/204\"";
                return Err(bad(what, hint));
            }
        },
    };
    Ok(HttpTarget { host, port, path, expect: Expect { status: STATUS, body: None } })
}

/// No host's name ends in a number (RFC 1123 2.1), a mistyped address does.
fn looks_like_address(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
}

fn path_of(text: &str) -> Result<String, Wrong> {
    let wrong = |hint: &str| Err(bad(format!("{} is not a path", quoted(text)), hint));
    if text.contains('#') {
        wrong("leave away the `#` and what is behind it")
    } else if text.contains(' ') {
        wrong("write a space as `%20`")
    } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
        wrong("write it as a browser copies it, e.g. `%C3%A9` for é")
    } else if text.len() >= MAX_TEXT {
        wrong("a path may be 1,024 bytes long")
    } else if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Ok(format!("/{text}"))
    }
}

/// Says why `https://` is refused, and what to write.
pub(super) fn no_tls(rest: &str) -> Wrong {
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let hint = match authority::split(host, "https", 443) {
        Ok((host, port)) => match host.parse::<IpAddr>() {
            Ok(ip) => {
                let host = Host::Address(ip);
                format!("use \"tcp://{host}:{port}\": its handshake is enough")
            }
            Err(_) => format!(
                "use \"http://{}\", or for the handshake alone \"tcp://ADDRESS:{port}\" with its \
                 address",
                quoted(rest).trim_matches('`')
            ),
        },
        Err(_) => "use \"http://…\", or \"tcp://9.9.9.9:443\" for the handshake alone".to_owned(),
    };
    bad("probes do not speak TLS", hint)
}

/// Reads the table form.
pub(super) fn table(
    at: &str,
    table: &DeTable<'_>,
    span: Range<usize>,
    faults: &mut impl FnMut(Fault),
) -> Option<Target> {
    let mut given: [Option<&Spanned<DeValue<'_>>>; 3] = [None; 3];
    let mut sound = true;
    for (key, value) in table {
        let name: &str = key.get_ref();
        match KEYS.iter().position(|known| *known == name) {
            Some(n) => given[n] = Some(value),
            None => {
                sound = false;
                faults(unknown(name).at(format!("{at}.{}", plain_key(name)), key.span()));
            }
        }
    }
    let [url, status, body] = given;
    let Some(url) = url else {
        let what = "`url` is missing";
        let hint = "write e.g. { url = \"http://example.com/\", status = 200 }";
        faults(Wrong::new("config.missing-key", what, hint).at(at, span));
        return None;
    };
    let mut read = |name: &str, value: &Spanned<DeValue<'_>>, wrong: Wrong| {
        sound = false;
        faults(wrong.at(format!("{at}.{name}"), value.span()));
    };
    let page = url_of(url.get_ref()).map_err(|wrong| read("url", url, wrong)).ok();
    let default = if body.is_some() { STATUS_WITH_TEXT } else { STATUS };
    let status = match status.map(|value| (value, status_of(value.get_ref(), body.is_some()))) {
        None => default,
        Some((_, Ok(status))) => status,
        Some((value, Err(wrong))) => {
            read("status", value, wrong);
            default
        }
    };
    let body = match body.map(|value| (value, body_of(value.get_ref()))) {
        None => None,
        Some((_, Ok(body))) => Some(body),
        Some((value, Err(wrong))) => {
            read("body", value, wrong);
            None
        }
    };
    let page = page.filter(|_| sound)?;
    Some(Target::Http(HttpTarget { expect: Expect { status, body }, ..page }))
}

fn unknown(name: &str) -> Wrong {
    let hint = match nearest(name, KEYS.into_iter()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => "there are `url`, `status` and `body`".to_owned(),
    };
    Wrong::new("config.unknown-key", format!("there is no key {} here", quoted(name)), hint)
}

fn plain_key(name: &str) -> &str {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.len() <= 40 && name.bytes().all(plain) { name } else { "…" }
}

fn url_of(value: &DeValue<'_>) -> Result<HttpTarget, Wrong> {
    let example = "write e.g. \"http://example.com/\"";
    let text = value.as_str().ok_or_else(|| wrong_type("a string", value, example))?;
    match text.split_once("://") {
        Some(("http", rest)) => plain(rest),
        Some(("https", rest)) => Err(no_tls(rest)),
        Some(_) | None => Err(bad(format!("{} is not an `http://` URL", quoted(text)), example)),
    }
}

fn status_of(value: &DeValue<'_>, with_text: bool) -> Result<u16, Wrong> {
    let hint = "write a whole number from 200 to 599";
    let DeValue::Integer(number) = value else {
        return Err(wrong_type("a whole number", value, hint));
    };
    let number = u16::from_str_radix(number.as_str(), number.radix());
    let number = number.ok().filter(|n| (200..600).contains(n)).ok_or_else(|| {
        Wrong::new("config.out-of-range", "it is not the status of a final response", hint)
    })?;
    if with_text && EMPTY.contains(&number) {
        let what = format!("a page with status {number} is empty, so no text is found in it");
        return Err(bad(what, "leave away `body`, or write the status of a page with a text: 200"));
    }
    Ok(number)
}

fn body_of(value: &DeValue<'_>) -> Result<String, Wrong> {
    let hint = "write a text that the page contains, 1 to 1,024 bytes";
    let text = value.as_str().ok_or_else(|| wrong_type("a string", value, hint))?;
    if (1..=MAX_TEXT).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    let what = format!("the text has {} bytes", text.len());
    Err(Wrong::new("config.out-of-range", what, hint))
}

fn bad(what: impl Into<String>, hint: impl Into<String>) -> Wrong {
    Wrong::new("config.bad-target", what, hint)
}
