//! Programs that we run for ourselves: which should run, and how long one that ended, or could not
//! be started, waits for its next try. A program that ends again and again costs nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use super::report::problem;
use crate::api::Problem;
use crate::desired::Program;
use crate::observed::ChildEnd;
use crate::render::dnsmasq;
use crate::time::Moment;

/// The pause before a program that ended is started again; doubles.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause: whoever mends its cause should not wait long to see it run.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A program that ran this long was well: its next end is a first one.
const WELL: Duration = Duration::from_secs(60);
/// An end is a problem for so long after the program was started again.
const TOLD: Duration = Duration::from_secs(10);

/// How programs of ours ended last.
#[derive(Debug, Default)]
pub(super) struct Ends {
    by_name: BTreeMap<String, End>,
}

#[derive(Debug)]
struct End {
    code: &'static str,
    what: String,
    pause: Duration,
    again: Moment,
    /// It has been started since, or may be.
    over: bool,
}

impl Ends {
    /// Takes note of an end after `lived`, or of a start that failed.
    pub(super) fn note(
        &mut self,
        name: &str,
        code: &'static str,
        what: String,
        lived: Duration,
        now: Moment,
    ) {
        let before = self.by_name.get(name).filter(|_| lived < WELL).map(|end| end.pause);
        let pause = before.map_or(PAUSE_FIRST, |pause| (pause * 2).min(PAUSE_MAX));
        let end = End { code, what, pause, again: now + pause, over: false };
        self.by_name.insert(name.to_owned(), end);
    }

    /// Whether a program has to wait.
    fn waits(&self, name: &str, now: Moment) -> bool {
        self.by_name.get(name).is_some_and(|end| now < end.again)
    }

    /// Whether it ended, or did not start, and has not run well since.
    pub(super) fn is_noted(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether a pause, or the time for which an end is told, is over.
    pub(super) fn due(&self, now: Moment) -> bool {
        self.by_name.values().any(|end| end.next() <= now)
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.by_name.values().map(End::next).min()
    }

    /// Forgets what was long ago, and what is no program of ours any more.
    fn go_on(&mut self, ours: &BTreeMap<String, Program>, now: Moment) {
        self.by_name.retain(|name, end| {
            let told = end.over && end.next() <= now;
            end.over |= end.again <= now;
            ours.contains_key(name) && !told
        });
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.by_name.iter().map(|(name, end)| {
            let hint = "it is started again and again; everything else goes on";
            problem(end.code, name, &end.what, hint)
        })
    }
}

impl End {
    fn next(&self) -> Moment {
        if self.over { self.again + self.pause + TOLD } else { self.again }
    }
}

impl Engine {
    /// The programs that should run now.
    pub(super) fn programs(&self, now: Moment) -> BTreeMap<String, Program> {
        let mut programs = self.wanted_programs();
        programs.retain(|name, _| !self.ends.waits(name, now));
        programs
    }

    /// The programs that should run, were none of them to wait.
    fn wanted_programs(&self) -> BTreeMap<String, Program> {
        let mut programs = self.dial_programs();
        let known = &self.resolving.known;
        if let Some(program) = dnsmasq::program(&self.config, &self.numbers, known) {
            programs.insert(dnsmasq::NAME.to_owned(), program);
        }
        programs
    }

    pub(super) fn child_ended(&mut self, end: &ChildEnd, now: Moment) {
        self.stale = true;
        if self.dial_ended(end, now) {
            return;
        }
        let how = match (end.status, end.signal) {
            (Some(status), _) => match meaning(&end.name, status) {
                Some(words) => format!("ended with exit code {status} ({words})"),
                None => format!("ended with exit code {status}"),
            },
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        let said = end.said.trim();
        let what = if said.is_empty() { how } else { format!("{how}: {said}") };
        self.ends.note(&end.name, "child.ended", what, end.lived, now);
    }

    /// Lets time pass for programs that ended.
    pub(super) fn mind_ends(&mut self, now: Moment) {
        if self.ends.due(now) {
            let wanted = self.wanted_programs();
            self.ends.go_on(&wanted, now);
            self.stale = true;
        }
    }
}

fn meaning(name: &str, status: i32) -> Option<&'static str> {
    if name == dnsmasq::NAME { dnsmasq::meaning(status) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ours() -> BTreeMap<String, Program> {
        BTreeMap::from([("dnsmasq".to_owned(), Program::default())])
    }

    #[test]
    fn a_program_that_ends_again_and_again_waits_longer_each_time() {
        let (mut ends, mut now) = (Ends::default(), Moment::default());
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            ends.note("dnsmasq", "child.ended", String::new(), seconds(5), now);
            assert_eq!(ends.deadline(), Some(now + seconds(pause)));
            assert!(ends.waits("dnsmasq", now) && !ends.waits("other", now));
            now = now + seconds(pause);
            assert!(!ends.waits("dnsmasq", now));
            ends.go_on(&ours(), now);
        }
        ends.note("dnsmasq", "child.ended", String::new(), seconds(60), now);
        assert_eq!(ends.deadline(), Some(now + seconds(1)));
    }

    #[test]
    fn an_end_is_a_problem_until_the_program_has_run_for_a_while() {
        let (mut ends, start) = (Ends::default(), Moment::default());
        ends.note("dnsmasq", "child.ended", "ended".to_owned(), seconds(0), start);
        ends.go_on(&ours(), start + seconds(1));
        assert_eq!(ends.problems().count(), 1);
        assert_eq!(ends.deadline(), Some(start + seconds(12)));
        ends.go_on(&ours(), start + seconds(12));
        assert_eq!(ends.problems().count(), 0);
        assert_eq!(ends.deadline(), None);
    }

    #[test]
    fn nothing_is_told_of_a_program_that_is_no_longer_ours() {
        let (mut ends, start) = (Ends::default(), Moment::default());
        ends.note("dnsmasq", "child.ended", "ended".to_owned(), seconds(0), start);
        ends.go_on(&BTreeMap::new(), start);
        assert_eq!(ends.problems().count(), 0);
    }
}
