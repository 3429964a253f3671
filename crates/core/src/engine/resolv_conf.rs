//! Whether this machine's own programs ask our dnsmasq: while it runs well and has somebody to ask, and
//! nobody fights for the file. In any other case they ask whom they asked before.

use std::time::Duration;

use super::Engine;
use super::report::problem;
use crate::api::Problem;
use crate::observed::{ResolvConf, ResolvFile, Writer};
use crate::render::{dnsmasq, resolv_conf};
use crate::time::Moment;

/// Replaced again within this time, it is a fight: who watches the file is faster, while a DHCP client
/// that renews a lease writes more seldom, and is simply made good.
const ROW: Duration = Duration::from_secs(2 * 60);
/// So often in a row it is put back; whoever wins five times does not stop by itself.
const PATIENCE: u32 = 5;
/// Then it is left alone for so long.
const PEACE: Duration = Duration::from_secs(60 * 60);
/// The pause after the file could not be written: a person may make it writable.
const PAUSE: Duration = Duration::from_secs(5 * 60);

/// What is known of others' claims to the file.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// How often in a row, and when last, somebody replaced ours.
    lost: Option<(u32, Moment)>,
    /// Ours was put there, and the file has not been read since.
    put: bool,
    rest: Option<Rest>,
}

/// The file is left alone for a while.
#[derive(Debug)]
struct Rest {
    until: Moment,
    why: Why,
}

#[derive(Debug)]
enum Why {
    /// Somebody replaces it again and again.
    Fight(Writer),
    /// It could not be written.
    Failure(String),
}

impl Claims {
    fn lose(&mut self, to: Writer, now: Moment) {
        let before = self.lost.filter(|(_, last)| now.since(*last) < ROW);
        let count = before.map_or(0, |(count, _)| count) + 1;
        self.lost = Some((count, now));
        if count >= PATIENCE {
            self.rest = Some(Rest { until: now + PEACE, why: Why::Fight(to) });
            self.lost = None;
        }
    }

    /// Ours is put there. Who watches the file may replace it before it is read back.
    pub(super) fn put(&mut self) {
        self.put = true;
    }

    pub(super) fn fail(&mut self, error: String, now: Moment) {
        self.put = false;
        self.rest = Some(Rest { until: now + PAUSE, why: Why::Failure(error) });
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.rest.as_ref().map(|rest| rest.until)
    }

    /// Ends what is over; says whether anything was.
    pub(super) fn go_on(&mut self, now: Moment) -> bool {
        let over = self.deadline().is_some_and(|until| until <= now);
        if over {
            self.rest = None;
        }
        over
    }

    pub(super) fn problem(&self) -> Option<Problem> {
        let hint = "`resolv_conf = false` in [dns] leaves the file alone; LANs are served all the \
                    same";
        self.rest.as_ref().map(|rest| match &rest.why {
            Why::Fight(writer) => {
                let what = format!(
                    "the router does not ask its own DNS: resolv.conf is replaced again and again, \
                     by {writer}; it is left alone for an hour"
                );
                let hint = format!("{}, or {hint}", advice(*writer));
                problem("dns.resolv-conf-contested", "dns", &what, &hint)
            }
            Why::Failure(error) => {
                let what = format!("the router does not ask its own DNS: {error}");
                problem("dns.resolv-conf-failed", "dns", &what, hint)
            }
        })
    }
}

/// How to have a program leave the file alone.
fn advice(writer: Writer) -> &'static str {
    match writer {
        Writer::NetworkManager => "write `dns=none` below [main] in NetworkManager.conf",
        Writer::Dhcpcd => "write `nohook resolv.conf` in dhcpcd.conf",
        Writer::Resolvconf => "write `resolvconf=NO` in /etc/resolvconf.conf",
        Writer::Resolved | Writer::Unknown | Writer::Nobody => {
            "find out which program writes it, and have it stop"
        }
    }
}

impl Engine {
    /// What the file should say; nothing, where it is to be as it was before us.
    pub(super) fn wanted_resolv_conf(&self) -> Option<String> {
        let dns = self.config.dns.as_ref().filter(|dns| dns.resolv_conf)?;
        let runs = self.observed.children.get(dnsmasq::NAME).is_some_and(|is| !is.stopping);
        let well = runs && !self.ends.is_noted(dnsmasq::NAME);
        let answers = well && !self.resolving.known.is_empty();
        (answers && self.claims.rest.is_none()).then(|| resolv_conf::text(dns))
    }

    pub(super) fn take_resolv_conf(&mut self, found: ResolvConf, now: Moment) {
        let read_ours = matches!(self.observed.resolv_conf.file, ResolvFile::Ours(_));
        let was_ours = std::mem::take(&mut self.claims.put) || read_ours;
        if let ResolvFile::Others(writer) = found.file {
            if was_ours && !self.leaving && self.wanted_resolv_conf().is_some() {
                self.claims.lose(writer, now);
            }
        }
        self.stale |= self.observed.resolv_conf != found;
        self.observed.resolv_conf = found;
    }

    /// Lets time pass.
    pub(super) fn mind_claims(&mut self, now: Moment) {
        self.stale |= self.claims.go_on(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(n: u32) -> Moment {
        Moment::default() + Duration::from_secs(60) * n
    }

    #[test]
    fn who_replaces_it_five_times_in_a_row_is_left_alone_for_an_hour() {
        let mut claims = Claims::default();
        for n in 0..4 {
            claims.lose(Writer::NetworkManager, minute(n));
            assert!(claims.problem().is_none());
        }
        claims.lose(Writer::NetworkManager, minute(4));
        let problem = claims.problem().expect("a fight is told");
        assert!(problem.what.contains("NetworkManager") && problem.hint.contains("dns=none"));
        assert!(!claims.go_on(minute(63)));
        assert!(claims.go_on(minute(64)) && claims.problem().is_none());
        claims.lose(Writer::NetworkManager, minute(65));
        assert!(claims.problem().is_none(), "it is counted anew");
    }

    #[test]
    fn who_replaces_it_now_and_then_is_made_good_for_ever() {
        let mut claims = Claims::default();
        for n in 0..50 {
            claims.lose(Writer::Unknown, minute(10 * n));
            assert!(claims.problem().is_none());
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_tried_again_after_a_while() {
        let mut claims = Claims::default();
        claims.fail("Read-only file system".to_owned(), minute(0));
        assert!(claims.problem().is_some_and(|p| p.what.contains("Read-only")));
        assert_eq!(claims.deadline(), Some(minute(5)));
        assert!(claims.go_on(minute(5)) && claims.deadline().is_none());
    }
}
