//! With real processes, in folders of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use anywan_core::desired::Text;

use super::*;

/// A folder that is gone afterwards, with what runs in it.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("anywan-children-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder of our own");
        Place(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }

    fn children(&self) -> Children {
        Children::open(&self.socket())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut children = self.children();
        let names: Vec<String> = children.running.keys().cloned().collect();
        for name in names {
            children.stop(&name, Moment::default()).expect("it can be stopped");
        }
        children.wait();
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn shell(script: &str) -> Program {
    let text = |text: &str| Text { text: text.to_owned(), secret: true };
    Program {
        command: ["sh", "{dir}/script"].map(str::to_owned).to_vec(),
        files: BTreeMap::from([
            ("script".to_owned(), Text::from(script.to_owned())),
            ("secret".to_owned(), text("hunter2")),
        ]),
        reread: BTreeMap::from([("again".to_owned(), Text::from("first".to_owned()))]),
    }
}

fn start(name: &str, program: Program) -> Step {
    Step::StartChild { name: name.to_owned(), program }
}

fn apply(children: &mut Children, step: &Step) {
    children.apply(step, Moment::default()).expect("the step can be carried out");
}

/// Waits until `holds`, for a minute at most: a machine may be busy.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain: {what}");
}

fn one_end(children: &mut Children) -> ChildEnd {
    let mut ends = Vec::new();
    until("an end", || {
        ends.append(&mut children.reap());
        !ends.is_empty()
    });
    assert_eq!(ends.len(), 1);
    ends.remove(0)
}

const WAITS: &str = "while :; do sleep 0.05; done";

#[test]
fn a_program_is_found_again_by_the_next_daemon_and_ended_by_it() {
    let place = Place::new();
    let program = shell(WAITS);
    let mut children = place.children();
    apply(&mut children, &start("one", program.clone()));
    let pid = children.running["one"].record.pid;
    drop(children);

    let mut next = place.children();
    assert_eq!(next.running(), BTreeMap::from([("one".to_owned(), program.running())]));
    assert_eq!(next.running["one"].record.pid, pid);
    apply(&mut next, &Step::StopChild { name: "one".to_owned() });
    assert!(next.running()["one"].stopping);
    next.wait();
    assert!(next.running().is_empty());
    assert!(!next.folder.exists(), "its files are left");
}

#[test]
fn a_record_of_another_process_with_the_same_number_is_not_believed() {
    let place = Place::new();
    let mut children = place.children();
    apply(&mut children, &start("one", shell(WAITS)));
    let child = &mut children.running.get_mut("one").expect("it runs");
    let mut record = child.record;
    record.started += 1;
    child.folder.record(&record).expect("it can be recorded");
    assert!(place.children().running().is_empty());
    child.folder.record(&child.record).expect("it can be recorded");
}

#[test]
fn how_it_ended_and_what_it_said_last_is_told() {
    let place = Place::new();
    let mut children = place.children();
    let script = "echo one; echo two >&2; echo three; echo four; exit 7";
    apply(&mut children, &start("one", shell(script)));
    let end = one_end(&mut children);
    assert_eq!((end.name.as_str(), end.status, end.signal), ("one", Some(7), None));
    assert_eq!(end.said, "two; three; four");
    assert!(children.running().is_empty());
    assert!(place.children().running().is_empty());

    apply(&mut children, &start("one", shell("kill -9 $$")));
    let end = one_end(&mut children);
    assert_eq!((end.status, end.signal, end.said.as_str()), (None, Some(9), ""));
}

#[test]
fn one_that_does_not_end_is_killed_when_its_time_is_over() {
    let place = Place::new();
    let mut children = place.children();
    let script = format!("trap : TERM; echo ready; {WAITS}");
    apply(&mut children, &start("one", shell(&script)));
    let log = children.folder_of("one").join("log");
    until("the trap", || fs::read_to_string(&log).is_ok_and(|text| text == "ready\n"));
    apply(&mut children, &Step::StopChild { name: "one".to_owned() });
    assert_eq!(children.next(), Some(Moment::default() + GRACE));
    children.mind(Moment::default());
    assert!(children.reap().is_empty() && children.running().len() == 1);
    children.mind(Moment::default() + GRACE);
    until("its end", || children.reap().is_empty() && children.running().is_empty());
}

#[test]
fn files_are_written_again_and_the_program_is_told() {
    let place = Place::new();
    let mut children = place.children();
    let script = format!("trap 'cat \"${{0%/*}}/again\"' HUP; echo ready; {WAITS}");
    let mut program = shell(&script);
    apply(&mut children, &start("one", program.clone()));
    let folder = children.folder_of("one");
    until("the trap", || fs::read_to_string(folder.join("log")).is_ok_and(|t| t == "ready\n"));
    program.reread.insert("again".to_owned(), Text::from("second\n".to_owned()));
    apply(&mut children, &Step::ReloadChild { name: "one".to_owned(), program: program.clone() });
    until("it to read again", || {
        fs::read_to_string(folder.join("log")).is_ok_and(|text| text == "ready\nsecond\n")
    });
    assert_eq!(children.running()["one"], program.running());
    assert_eq!(place.children().running()["one"], program.running());
}

#[test]
fn secrets_are_for_root_alone_and_the_rest_for_who_gave_up_root() {
    let place = Place::new();
    let mut children = place.children();
    apply(&mut children, &start("one", shell(WAITS)));
    let mode = |name: &str| {
        let path = children.folder_of("one").join(name);
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    };
    assert_eq!([mode("secret"), mode("script"), mode("again")], [0o600, 0o644, 0o644]);
    assert_eq!([mode(""), mode("log")], [0o755, 0o640]);
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    let place = Place::new();
    let mut children = place.children();
    let program = Program { command: vec!["no-such-program".to_owned()], ..Program::default() };
    let error = children.apply(&start("one", program), Moment::default()).expect_err("missing");
    assert_eq!(error.to_string(), "no-such-program is not installed");
    let error = ChildError::Missing { program: "dnsmasq".to_owned() }.to_string();
    assert_eq!(error, "dnsmasq is not installed; on Debian: apt install dnsmasq-base");
    assert!(children.running().is_empty());
}

#[tokio::test(flavor = "current_thread")]
async fn an_end_wakes_whoever_waits() {
    let place = Place::new();
    let mut children = place.children();
    apply(&mut children, &start("one", shell("read line < \"${0%/*}/gate\" || exit 3")));
    let ends = tokio::time::timeout(Duration::from_secs(60), children.ended()).await;
    assert_eq!(ends.expect("it ends").len(), 1);
}
