//! Every parser of what strangers answer to probes: arbitrary bytes, and real messages with
//! arbitrary changes, never make one panic, and what it gives is bounded. `FUZZ_CASES` says how
//! many cases each has (10,000 if it is not set).
//!
//! The real messages are in `fuzz/icmp`, `fuzz/dns` and `fuzz/http`: each `NAME.bin` gives exactly
//! `NAME.expect`. `UPDATE_EXPECT=1` rewrites them.

use std::path::{Path, PathBuf};

use anywan_core::config::Expect;
use anywan_core::names::Family;
use anywan_core::steps::Failure;
use anywan_daemon::probe::dns::message::Query;
use anywan_daemon::probe::http::response::{BYTES_MAX, judge};
use anywan_daemon::probe::packet::Echo;
use proptest::prelude::*;
use proptest::sample::Index;

fn cases() -> ProptestConfig {
    let cases = match std::env::var("FUZZ_CASES") {
        Ok(text) => text.parse().expect("FUZZ_CASES is a number"),
        Err(_) => 10_000,
    };
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// The real messages of a folder, with the place for what each gives.
fn corpus(kind: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(kind);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the corpus is there") {
        let path = entry.expect("an entry can be read").path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let bytes = std::fs::read(&path).expect("a message can be read");
            found.push((path, bytes));
        }
    }
    assert!(found.len() >= 3, "only {} messages in {}", found.len(), folder.display());
    found.sort();
    found
}

/// A real message in which some bytes are others, and which may be cut off or go on.
fn changed(kind: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let messages: Vec<Vec<u8>> = corpus(kind).into_iter().map(|(_, bytes)| bytes).collect();
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..8);
    let more = prop::collection::vec(any::<u8>(), 0..40);
    let cut = prop::option::weighted(0.3, any::<Index>());
    (prop::sample::select(messages), changes, cut, more).prop_map(
        |(mut bytes, changes, cut, more)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes.extend(more);
            bytes
        },
    )
}

/// Made of whole words, because most of the time goes into making bytes, not into reading them.
fn bytes(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(any::<u64>(), 0..longest / 8), 0_usize..8).prop_map(|(words, cut)| {
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes
    })
}

/// The question that a message answers, if it is anything like an answer.
fn question_of(message: &[u8]) -> Option<Query> {
    let id = u16::from_be_bytes(*message.first_chunk()?);
    let mut rest = message.get(12..)?;
    let mut labels = Vec::new();
    loop {
        let (length, after) = rest.split_first()?;
        if *length == 0 {
            let family = if after.get(1) == Some(&28) { Family::Ipv6 } else { Family::Ipv4 };
            return Query::new(id, &labels.join("."), family);
        }
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        labels.push(String::from_utf8(label.to_vec()).ok()?);
        rest = after;
    }
}

fn expects() -> [Expect; 3] {
    [(204, None), (200, None), (200, Some("Success"))]
        .map(|(status, body)| Expect { status, body: body.map(str::to_owned) })
}

fn read_echo(bytes: &[u8]) -> Option<Echo> {
    let [ipv4, ipv6] = Family::BOTH.map(|family| Echo::from_reply(family, bytes));
    assert!(ipv4.is_none() || ipv6.is_none(), "a reply of both families");
    ipv4.or(ipv6)
}

fn read_answer(bytes: &[u8]) -> String {
    let others = Query::new(1, "example.com", Family::Ipv4).expect("a name");
    let _ = others.answer(bytes);
    let Some(answer) = question_of(bytes).and_then(|query| query.answer(bytes)) else {
        return "no answer".to_owned();
    };
    assert!(answer.addresses.len() <= 16 && answer.code < 16, "{answer:?}");
    format!("{:?} {:?} {:?}", answer.code, answer.addresses, answer.error())
}

fn read_response(bytes: &[u8]) -> String {
    let mut said = String::new();
    for expect in expects() {
        let early = judge(bytes, false, &expect);
        assert!(early.is_some() || bytes.len() < BYTES_MAX, "no verdict on a full response");
        let last = judge(bytes, true, &expect).expect("a verdict on a response that has ended");
        if let Err(Failure::Silent(why) | Failure::Portal(why)) = &last {
            assert!(why.len() < 400 && !why.contains(char::is_control), "{why:?}");
        }
        said += &format!("{:?} {:?}: {last:?}\n", expect.status, expect.body);
    }
    said
}

fn replay(kind: &str, read: impl Fn(&[u8]) -> String) {
    for (path, bytes) in corpus(kind) {
        let got = read(&bytes).trim_end().to_owned() + "\n";
        let expect = path.with_extension("expect");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expect, &got).expect("the corpus can be written to");
        }
        let wanted = std::fs::read_to_string(&expect).unwrap_or_default();
        assert_eq!(got, wanted, "{}", path.display());
    }
}

#[test]
fn real_echo_replies_are_read() {
    replay("icmp", |bytes| format!("{:?}", read_echo(bytes)));
}

#[test]
fn real_dns_answers_are_read() {
    replay("dns", read_answer);
}

#[test]
fn real_http_responses_are_judged() {
    replay("http", read_response);
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_bytes_are_an_echo_reply_or_none(bytes in bytes(160)) {
        let _ = read_echo(&bytes);
    }

    #[test]
    fn any_change_of_an_echo_reply_is_read(bytes in changed("icmp")) {
        let _ = read_echo(&bytes);
    }

    #[test]
    fn any_bytes_are_a_dns_answer_or_none(bytes in bytes(1_300)) {
        read_answer(&bytes);
    }

    #[test]
    fn any_change_of_a_dns_answer_is_read(bytes in changed("dns")) {
        read_answer(&bytes);
    }

    #[test]
    fn any_bytes_are_judged_as_a_response(bytes in bytes(600)) {
        read_response(&bytes);
    }

    #[test]
    fn any_change_of_a_response_is_judged(bytes in changed("http")) {
        read_response(&bytes);
    }

    #[test]
    fn any_chunks_are_judged(bytes in bytes(200), size in any::<u64>()) {
        let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n");
        read_response(&[head.as_bytes(), &bytes].concat());
    }
}
