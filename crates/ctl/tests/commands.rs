//! The real program against a daemon that a thread plays: output, hints and exit statuses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

const ANYWAN: &str = env!("CARGO_BIN_EXE_anywan");

/// A directory that vanishes.
struct Room(PathBuf);

impl Room {
    fn new() -> Room {
        Room::new_in(&std::env::temp_dir())
    }

    fn new_in(parent: &Path) -> Room {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("anywan-ctl-{}-{number}", std::process::id());
        let room = Room(parent.join(name));
        std::fs::create_dir(&room.0).expect("a directory of our own");
        room
    }

    fn socket(&self) -> PathBuf {
        self.0.join("sock")
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("write a file");
        path.display().to_string()
    }

    /// The program, told to use this room's socket.
    fn anywan(&self, args: &[&str]) -> Command {
        let mut command = Command::new(ANYWAN);
        command.arg("--socket").arg(self.socket()).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        Said::from(self.anywan(args).output().expect("start anywan"))
    }

    /// Plays a daemon that gives the same answer to every request; requests come out.
    fn play(&self, status: &str, body: &str) -> mpsc::Receiver<String> {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.play_raw(answer)
    }

    fn play_raw(&self, answer: String) -> mpsc::Receiver<String> {
        let listener = UnixListener::bind(self.socket()).expect("listen");
        let (sender, requests) = mpsc::channel();
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let _ = sender.send(request(&stream));
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        requests
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// First line and body of a request.
fn request(stream: &UnixStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).expect("a request");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    format!("{}|{}", first.trim(), String::from_utf8_lossy(&body))
}

#[derive(Debug)]
struct Said {
    exit: i32,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            exit: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

fn status(state: &str, share: u8) -> String {
    let side = |state: &str, share: u8, address: &str| {
        format!(
            r#"{{"state":"{state}","share_percent":{share},"gateway":null,"address":{address},
            "rtt_ms":null,"loss_percent":null,"jitter_ms":null,"since":"","reason":"why"}}"#
        )
    };
    format!(
        r#"{{"version":1,"wans":[{{"name":"lte","number":1,"interface":"usb0","priority":1,
        "weight":1,"drained":false,"share_percent":0,"ipv4":{},"ipv6":{},"new_key":1}}],
        "problems":[]}}"#,
        side(state, share, "\"10.0.0.2\""),
        side("unknown", 0, "null")
    )
}

#[test]
fn status_is_0_while_a_wan_serves_and_1_when_none_does() {
    // The best of several that work badly serves. One that is down may be tried (`all_down`).
    let serving = ["up", "suspect", "impaired", "portal", "recovering", "unknown"];
    let serving = serving.map(|state| (state, 100, 0));
    let others = [("down", 100, 1), ("down", 0, 1), ("recovering", 0, 1), ("unknown", 0, 1)];
    for (state, share, exit) in serving.into_iter().chain(others) {
        let room = Room::new();
        let requests = room.play("200 OK", &status(state, share));
        let said = room.run(&["status"]);
        assert_eq!((said.exit, said.err.as_str()), (exit, ""), "{state}");
        let line = said.out.lines().nth(1).expect("a line");
        assert!(line.starts_with("lte") && line.contains(state), "{line}");
        assert_eq!(requests.recv().expect("asked"), "GET /v1/status HTTP/1.1|");
        let said = room.run(&["status", "--json"]);
        assert_eq!(
            (said.exit, said.out),
            (exit, status(state, share) + "\n"),
            "as the daemon said it"
        );
    }
}

#[test]
fn without_a_daemon_the_exit_status_is_3_and_a_hint_says_what_to_do() {
    let room = Room::new();
    let socket = room.socket().display().to_string();
    for round in ["no socket", "a dead one"] {
        for args in [&["status"][..], &["events"], &["plan"], &["reload"]] {
            let said = room.run(args);
            assert_eq!((said.exit, said.out.as_str()), (3, ""), "{round}: {said:?}");
            let start = format!("error: anywand does not answer on {socket}: ");
            assert!(said.err.starts_with(&start), "{said:?}");
            let hint = "\nhint: is the service running? systemctl status anywan; \
                        another socket: --socket PATH\n";
            assert!(said.err.ends_with(hint), "{said:?}");
        }
        if round == "no socket" {
            drop(UnixListener::bind(room.socket()).expect("bind"));
        }
    }
}

#[test]
fn wrong_usage_is_2() {
    let room = Room::new();
    for args in [&["frobnicate"][..], &[], &["status", "--jason"], &["check"]] {
        let said = room.run(args);
        assert_eq!((said.exit, said.out.as_str()), (2, ""), "{args:?}: {said:?}");
        assert!(said.err.contains("Usage: "), "{said:?}");
    }
    assert_eq!(room.run(&["--version"]).out, concat!("anywan ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(room.run(&["--help"]).exit, 0);
}

#[test]
fn a_daemon_of_another_version_is_said_to_be_one() {
    let room = Room::new();
    let _requests = room.play("200 OK", r#"{"version":2,"lines":[]}"#);
    for args in [&["status"][..], &["status", "--json"], &["plan"]] {
        let said = room.run(args);
        assert_eq!((said.exit, said.out.as_str()), (1, ""), "{said:?}");
        let text = "error: anywand speaks version 2 of the API, this anywan version 1\nhint: ";
        assert!(said.err.starts_with(text), "{said:?}");
    }
}

#[test]
fn what_is_no_daemon_is_not_mistaken_for_one() {
    for nonsense in
        ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.1 500 x\r\n\r\n{}"]
    {
        let room = Room::new();
        let _requests = room.play_raw(nonsense.to_owned());
        let said = room.run(&["status"]);
        assert_eq!((said.exit, said.out.as_str()), (1, ""), "{nonsense:?}: {said:?}");
        assert!(said.err.starts_with("error: ") && said.err.contains("\nhint: "), "{said:?}");
    }
}

#[test]
fn a_plan_is_asked_for_with_the_file_and_a_bad_file_is_2() {
    let room = Room::new();
    let requests = room.play("200 OK", r#"{"version":1,"steps":["add x"]}"#);
    assert_eq!(room.run(&["plan"]).out, "1. add x\n");
    assert_eq!(requests.recv().expect("asked"), "GET /v1/plan HTTP/1.1|");
    let file = room.write("a b.toml", "the text");
    assert_eq!(room.run(&["plan", &file]).out, "1. add x\n");
    let encoded = file.replace(' ', "%20");
    let wanted = format!("POST /v1/plan?file={encoded} HTTP/1.1|the text");
    assert_eq!(requests.recv().expect("asked"), wanted);
    assert_eq!(room.run(&["plan", "/nowhere/at/all"]).exit, 2);

    let room = Room::new();
    let refusal = r#"{"problems":[],"rendered":"error: unknown key\n  --> line 3\n"}"#;
    let _requests = room.play("422 Unprocessable Entity", refusal);
    for args in [&["plan", &file][..], &["reload"]] {
        let said = room.run(args);
        assert_eq!((said.exit, said.err.as_str()), (2, "error: unknown key\n  --> line 3\n"));
    }
}

#[test]
fn reload_and_down_ask_the_daemon_and_say_what_it_did() {
    let room = Room::new();
    let requests = room.play("200 OK", r#"{"changed":true}"#);
    let said = room.run(&["reload"]);
    assert_eq!((said.exit, said.out.as_str()), (0, "The new configuration is in force.\n"));
    assert_eq!(requests.recv().expect("asked"), "POST /v1/reload HTTP/1.1|");
    let said = room.run(&["down"]);
    assert_eq!(said.exit, 0, "{said:?}");
    assert_eq!(requests.recv().expect("asked"), "POST /v1/down HTTP/1.1|");

    let room = Room::new();
    let problem = r#"{"problems":[{"code":"c","at":"a","what":"not all is out","hint":"look"}]}"#;
    let _requests = room.play("500 Internal Server Error", problem);
    let said = room.run(&["down"]);
    assert_eq!((said.exit, said.err.as_str()), (1, "error: not all is out\nhint: look\n"));
}

#[test]
fn without_a_daemon_down_runs_the_anywand_beside_it() {
    let room = Room::new_in(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let (own, anywand) = (room.0.join("anywan"), room.0.join("anywand"));
    std::fs::hard_link(ANYWAN, &own).expect("anywan in a directory of its own");
    for (program, exit) in [("/bin/echo", 0), ("/bin/false", 1)] {
        symlink(program, &anywand).expect("something to run beside it");
        let mut command = Command::new(&own);
        command.arg("--socket").arg(room.socket()).args(["down", "--state-dir", "/some/where"]);
        let said = Said::from(command.output().expect("start anywan"));
        assert_eq!(said.exit, exit, "{said:?}");
        if exit == 0 {
            assert!(said.out.starts_with("--take-down --state-dir /some/where\n"), "{said:?}");
        } else {
            let start = format!("error: {} --take-down has failed: ", anywand.display());
            assert!(said.err.starts_with(&start), "{said:?}");
        }
        std::fs::remove_file(&anywand).expect("remove it");
    }
}

#[test]
fn drain_and_undrain_ask_the_daemon_and_say_what_it_did() {
    for (changed, drained, undrained) in [
        ("true", "lte is drained: new connections", "lte is in service again."),
        ("false", "lte was drained already.", "lte was not drained."),
    ] {
        let room = Room::new();
        let requests = room.play("200 OK", &format!(r#"{{"changed":{changed}}}"#));
        for (word, text) in [("drain", drained), ("undrain", undrained)] {
            let said = room.run(&[word, "lte"]);
            assert!(said.exit == 0 && said.out.starts_with(text), "{said:?}");
            let wanted = format!("POST /v1/{word}?wan=lte HTTP/1.1|");
            assert_eq!(requests.recv().expect("asked"), wanted);
        }
    }
    let room = Room::new();
    let problem = r#"{"problems":[{"code":"wan.unknown","at":"wan let",
        "what":"there is no WAN called let","hint":"did you mean lte?"}]}"#;
    let _requests = room.play("404 Not Found", problem);
    let said = room.run(&["drain", "let"]);
    let wanted = "error: there is no WAN called let\nhint: did you mean lte?\n";
    assert_eq!((said.exit, said.err.as_str()), (1, wanted));
}

#[test]
fn a_drill_needs_somebody_to_ask_or_yes_and_a_sensible_time() {
    let room = Room::new();
    let plan = r#"{"version":1,"wan":"lte","share_percent":100.0,"others":["adsl"],"alone":[],
        "addresses":[],"targets":[]}"#;
    let requests = room.play("200 OK", plan);
    let said = room.run(&["drill", "lte"]);
    assert_eq!((said.exit, said.out.as_str()), (2, ""), "{said:?}");
    assert!(said.err.ends_with("hint: --yes goes ahead\n"), "{said:?}");
    assert_eq!(requests.recv().expect("asked"), "GET /v1/drill?wan=lte HTTP/1.1|");
    for span in ["1s", "10m", "soon"] {
        assert_eq!(room.run(&["drill", "lte", "--yes", "--for", span]).exit, 2, "{span}");
    }
}

const EVENTS: &str = concat!(
    r#"{"time":"t1","kind":"state","wan":"lte","family":"ipv4","old":"up","new":"down","#,
    r#""reason":"gone"}"#,
    "\n",
    r#"{"from":"the future"}"#,
    "\n"
);

#[test]
fn events_are_followed_until_the_daemon_ends() {
    let room = Room::new();
    let requests = room.play("200 OK", EVENTS);
    let said = room.run(&["events", "--backlog", "3"]);
    assert_eq!(said.out, "t1 state lte IPv4 up -> down (gone)\n{\"from\":\"the future\"}\n");
    assert_eq!(said.exit, 1, "{said:?}");
    assert_eq!(requests.recv().expect("asked"), "GET /v1/events?backlog=3 HTTP/1.1|");
    assert_eq!(room.run(&["events", "--json"]).out, EVENTS);
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let room = Room::new();
    let _requests = room.play("200 OK", &EVENTS.repeat(50_000));
    let mut command = room.anywan(&["events"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    let mut first = [0; 2];
    child.stdout.take().expect("piped").read_exact(&mut first).expect("the first line");
    let said = Said::from(child.wait_with_output().expect("wait"));
    assert_eq!((said.exit, said.err.as_str()), (0, ""));
}

#[test]
fn check_needs_no_daemon_and_shows_every_fault() {
    let room = Room::new();
    let good = "[[lan]]\ninterface = \"eth0\"\n[[wan]]\nname = \"a\"\ninterface = \"w1\"\n";
    let file = room.write("good.toml", good);
    let said = room.run(&["check", &file]);
    assert_eq!((said.exit, said.out), (0, format!("{file} is fine: 1 LAN, 1 WAN.\n")));
    let file = room.write("bad.toml", &format!("{good}wieght = 3\nnmae = 1\n"));
    let said = room.run(&["check", &file]);
    assert_eq!((said.exit, said.out.as_str()), (2, ""), "{said:?}");
    for part in ["wieght", "nmae", "bad.toml", "hint"] {
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
    assert!(!said.err.contains('\u{1b}'), "no colour without a terminal");
    let said = room.run(&["check", "/nowhere/at/all"]);
    assert_eq!(said.exit, 2);
    assert!(said.err.contains("error: read /nowhere/at/all: "), "{said:?}");
    assert!(said.err.contains("hint: is the name right?"), "{said:?}");
    let said = room.run(&["check", &room.0.display().to_string()]);
    assert_eq!(said.exit, 2);
    assert!(said.err.contains("hint: this is a folder; name a file, e.g. "), "{said:?}");
}
