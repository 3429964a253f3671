//! System errors of sending and connecting, in words that a person without the manual understands.

use std::io;
use std::time::Duration;

/// Says that there was no answer in time.
pub(super) fn unanswered(within: Duration) -> String {
    format!("no answer in {} ms", within.as_millis())
}

/// Says why a probe through `device` could not be sent or was refused on the way.
pub(super) fn plain(error: &io::Error, device: &str) -> String {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH) => "network is unreachable".to_owned(),
        Some(libc::EHOSTUNREACH) => "host is unreachable".to_owned(),
        Some(libc::EACCES) => "forbidden by a route or on the way".to_owned(),
        Some(libc::ENODEV | libc::ENXIO) => format!("interface {device} is gone"),
        Some(libc::ENETDOWN) => format!("interface {device} is down"),
        Some(libc::EADDRNOTAVAIL) => format!("interface {device} has no usable address"),
        Some(libc::EPERM) => "refused by a firewall here, or no right to send probes".to_owned(),
        Some(libc::ENOBUFS | libc::EAGAIN) => format!("the send queue of {device} is full"),
        Some(libc::EINVAL) => "no usable route".to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => "too many open files".to_owned(),
        Some(libc::ECONNREFUSED) => "refused: nothing listens there".to_owned(),
        Some(libc::ECONNRESET) => "the connection was reset".to_owned(),
        Some(libc::ETIMEDOUT) => "no answer".to_owned(),
        Some(libc::ENOPROTOOPT | libc::EPROTO) => "the protocol is refused there".to_owned(),
        _ => error.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_errors_are_said_in_plain_words() {
        let said = |code| plain(&io::Error::from_raw_os_error(code), "usb0");
        assert_eq!(said(libc::ENETUNREACH), "network is unreachable");
        assert_eq!(said(libc::ENODEV), "interface usb0 is gone");
        assert_eq!(said(libc::EPIPE), "broken pipe (os error 32)");
    }
}
