//! What the response to a probe says: the page that was expected, somebody else's, or none. In:
//! the bytes received so far. Out: a verdict as soon as there can be one. Bytes come from
//! strangers: whatever they are, it never panics and reads no more than [`BYTES_MAX`].

use anywan_core::config::Expect;
use anywan_core::steps::Failure;
use httparse::{EMPTY_HEADER, Status};

/// The most that is read of a response, in bytes: a page made to be probed is a hundredth of it.
pub const BYTES_MAX: usize = 16 * 1024;

/// How much of the body is searched for the expected text, in bytes.
const BODY_MAX: usize = 4 * 1024;

/// The most headers in a response; what has more is no page made to be probed.
const HEADERS_MAX: usize = 64;

/// The longest piece of a response that is repeated in a message, in characters.
const QUOTED_MAX: usize = 80;

/// Judges a response of which `bytes` have been received; `ended` says that no more will come.
/// `None`: more is needed, which is never the case when it has ended or is [`BYTES_MAX`] long.
pub fn judge(bytes: &[u8], ended: bool, expect: &Expect) -> Option<Result<(), Failure>> {
    let full = bytes.len() >= BYTES_MAX;
    let mut bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    loop {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let body = match response.parse(bytes) {
            Ok(Status::Complete(length)) => bytes.get(length..).unwrap_or_default(),
            Ok(Status::Partial) if !ended && !full => return None,
            Ok(Status::Partial) if bytes.is_empty() => {
                return silent("closed the connection without an answer");
            }
            Ok(Status::Partial) => return silent("answered with headers that do not end"),
            Err(_) => return silent("answered with something that is not HTTP"),
        };
        let status = response.code.unwrap_or_default();
        if (100..200).contains(&status) {
            // Interim: the response proper follows (RFC 9110 15.2).
            bytes = body;
            continue;
        }
        let headers = Headers(response.headers);
        if status != expect.status {
            return Some(Err(unexpected(status, expect.status, &headers)));
        }
        let Some(wanted) = &expect.body else { return Some(Ok(())) };
        let (text, whole) = headers.body(body);
        return if contains(&text, wanted.as_bytes()) {
            Some(Ok(()))
        } else if whole || ended || full || text.len() >= BODY_MAX {
            let why = format!("answered {status} with a page that is not the expected one");
            Some(Err(Failure::Portal(why)))
        } else {
            None
        };
    }
}

fn silent(why: &str) -> Option<Result<(), Failure>> {
    Some(Err(Failure::Silent(why.to_owned())))
}

/// What another status than the expected one means.
fn unexpected(status: u16, expected: u16, headers: &Headers<'_>) -> Failure {
    match (status, headers.find("location")) {
        (300..400, Some(place)) => Failure::Portal(format!("redirected to {}", quoted(place))),
        (511, _) => Failure::Portal("answered 511: a login is required".to_owned()),
        (200..400, _) => Failure::Portal(format!("answered {status} instead of {expected}")),
        (_, _) => Failure::Silent(format!("answered {status} instead of {expected}")),
    }
}

struct Headers<'a>(&'a [httparse::Header<'a>]);

impl Headers<'_> {
    fn find(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    }

    /// The beginning of the body, and whether that is all of it.
    fn body(&self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let coding = self.find("transfer-encoding").unwrap_or_default();
        if contains(&coding.to_ascii_lowercase(), b"chunked") {
            return joined(bytes);
        }
        let length = self.find("content-length").and_then(|value| std::str::from_utf8(value).ok());
        let length = length.and_then(|text| text.trim().parse::<usize>().ok());
        let whole = length.is_some_and(|length| bytes.len() >= length);
        let end = bytes.len().min(length.unwrap_or(usize::MAX)).min(BODY_MAX);
        (bytes[..end].to_owned(), whole)
    }
}

/// The beginning of a body that comes in chunks (RFC 9112 7.1), and whether that is all of it.
fn joined(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while body.len() < BODY_MAX {
        let (start, size) = match httparse::parse_chunk_size(bytes) {
            Ok(Status::Complete((_, 0))) | Err(_) => return (body, true),
            Ok(Status::Complete(found)) => found,
            Ok(Status::Partial) => return (body, false),
        };
        let end = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(start);
        let chunk = bytes.get(start..end.min(bytes.len())).unwrap_or_default();
        body.extend_from_slice(&chunk[..chunk.len().min(BODY_MAX - body.len())]);
        match bytes.get(end.saturating_add(2)..) {
            Some(rest) => bytes = rest,
            None => return (body, false),
        }
    }
    (body, false)
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|piece| piece == wanted)
}

/// A piece of a response as it is repeated in a message: short, and harmless on a terminal.
fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    for c in text.chars().take(QUOTED_MAX) {
        out.push(if c.is_ascii_graphic() { c } else { '?' });
    }
    if text.chars().nth(QUOTED_MAX).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &str, status: u16, body: Option<&str>) -> Result<(), String> {
        let expect = Expect { status, body: body.map(str::to_owned) };
        let whole = judge(bytes.as_bytes(), true, &expect).expect("it has ended");
        for length in 0..bytes.len() {
            let early = judge(&bytes.as_bytes()[..length], false, &expect);
            assert!(early.is_none() || early.as_ref() == Some(&whole), "{length}: {early:?}");
        }
        whole.map_err(|failure| match failure {
            Failure::Silent(why) => format!("silent: {why}"),
            Failure::Portal(why) => format!("portal: {why}"),
        })
    }

    #[test]
    fn the_expected_status_and_text_are_an_answer() {
        assert_eq!(said("HTTP/1.1 204 No Content\r\n\r\n", 204, None), Ok(()));
        let interim = "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
        assert_eq!(said(interim, 204, None), Ok(()));
        let page = "HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\nall is well!";
        assert_eq!(said(page, 200, Some("is well")), Ok(()));
        let page = "HTTP/1.0 200 OK\r\n\r\nall is well!";
        assert_eq!(said(page, 200, Some("is well")), Ok(()));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n\
                       6\r\nall is\r\n6;x=y\r\n well!\r\n0\r\n\r\n";
        assert_eq!(said(chunked, 200, Some("is well")), Ok(()));
    }

    #[test]
    fn a_redirect_and_a_foreign_page_are_a_portals() {
        let redirect = "HTTP/1.1 302 Found\r\nlocation: http://login.example/\x7f\r\n\r\n";
        assert!(said(redirect, 204, None).is_err());
        let redirect = "HTTP/1.1 302 Found\r\nlocation: http://login.example/\r\n\r\n";
        let why = "portal: redirected to http://login.example/".to_owned();
        assert_eq!(said(redirect, 204, None), Err(why));
        let page = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(said(page, 204, None), Err("portal: answered 200 instead of 204".to_owned()));
        let why = "portal: answered 200 with a page that is not the expected one".to_owned();
        assert_eq!(said(page, 200, Some("success")), Err(why));
        let login = "HTTP/1.1 511 Network Authentication Required\r\n\r\n";
        assert_eq!(said(login, 204, None), Err("portal: answered 511: a login is required".into()));
    }

    #[test]
    fn an_error_and_what_is_not_http_are_silence() {
        let error = "HTTP/1.1 503 Busy\r\n\r\n";
        assert_eq!(said(error, 204, None), Err("silent: answered 503 instead of 204".to_owned()));
        let why = "silent: answered with something that is not HTTP".to_owned();
        assert_eq!(said("SSH-2.0-x\r\n", 204, None), Err(why));
        let why = "silent: closed the connection without an answer".to_owned();
        assert_eq!(said("", 204, None), Err(why));
    }

    #[test]
    fn no_response_is_read_without_end() {
        let expect = Expect { status: 200, body: Some("x".to_owned()) };
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "y".repeat(BODY_MAX));
        assert!(judge(long.as_bytes(), false, &expect).is_some());
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "y".repeat(BYTES_MAX));
        assert!(judge(long.as_bytes(), false, &expect).is_some());
    }
}
