//! What the servers say: answers of DNS and HTTP, as plain bytes. Pure.

use crate::topology::SERVERS;

/// An HTTP answer with nothing in it.
pub(super) const EMPTY_PAGE: &str =
    "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// An HTTP answer as captive portals give it.
pub(super) const ELSEWHERE: &str = "HTTP/1.1 302 Found\r\nLocation: http://sign-in.example/\r\n\
     Content-Length: 0\r\nConnection: close\r\n\r\n";

/// Octets of a DNS header: RFC 1035, 4.1.1.
const HEADER: usize = 12;
/// Types of records: RFC 1035 and RFC 3596.
const A: [u8; 2] = [0, 1];
const AAAA: [u8; 2] = [0, 28];

/// Answers a question with one question in it: every name is the first server. `None` for what is
/// no such question.
pub(super) fn resolve(asked: &[u8]) -> Option<Vec<u8>> {
    let mut at = HEADER;
    loop {
        match *asked.get(at)? {
            0 => break,
            label => at += 1 + usize::from(label),
        }
    }
    // The name's end, type and class.
    let question = asked.get(HEADER..at + 5)?;
    let kind = [asked[at + 1], asked[at + 2]];
    let (v4, v6) = SERVERS[0];
    let data: Option<Vec<u8>> = match kind {
        A => Some(v4.octets().to_vec()),
        AAAA => Some(v6.octets().to_vec()),
        _ => None,
    };
    let mut answer = asked[..2].to_vec();
    // An answer, recursion desired and available, no error; one question, so many answers.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    answer.extend(question);
    if let Some(data) = data {
        // The name is where the question has it; its class; good for a minute.
        answer.extend([0xc0, 12]);
        answer.extend(kind);
        answer.extend([0, 1, 0, 0, 0, 60, 0]);
        answer.extend(u8::try_from(data.len()));
        answer.extend(data);
    }
    Some(answer)
}
