//! A server in a directory of its own, with a task that plays the daemon's loop, and clients
//! that write bytes as they please.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anywan_core::api::{API_VERSION, DrillLine, Notice, Plan, Problem, Status};
use anywan_daemon::serve::{Limits, Reloaded, Request, RequestKind, Server};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A directory that vanishes.
pub(crate) struct Room(pub(crate) PathBuf);

impl Room {
    pub(crate) fn new() -> Room {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("anywan-serve-{}-{number}", std::process::id());
        let room = Room(std::env::temp_dir().join(name));
        std::fs::create_dir(&room.0).expect("a directory of our own");
        room
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("s/anywan.sock")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running server.
pub(crate) struct House {
    pub(crate) room: Room,
    pub(crate) notices: broadcast::Sender<Notice>,
    pub(crate) server: Server,
}

/// What the fake loop does with requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    Answers,
    /// Refuses reload and down.
    Refuses,
    Sleeps,
    IsGone,
}

impl House {
    pub(crate) fn open(mood: Mood, limits: Limits) -> House {
        let room = Room::new();
        let (sender, requests) = mpsc::channel(32);
        let (notices, _) = broadcast::channel(256);
        if mood != Mood::IsGone {
            tokio::spawn(play_the_loop(requests, mood));
        }
        let server = Server::start_with(&room.socket(), sender, &notices, limits);
        House { room, notices, server: server.expect("a server") }
    }

    pub(crate) fn usual() -> House {
        House::open(Mood::Answers, Limits::default())
    }

    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.room.socket()).await.expect("connect")
    }

    /// Sends a whole request and returns status and JSON of the answer.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = self.connect().await;
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("write");
        // A server that has read enough may close.
        let _ = stream.write_all(body).await;
        answer(&mut stream).await
    }

    /// Follows events, once the server has taken the request.
    pub(crate) async fn follow(&self, backlog: usize) -> UnixStream {
        self.try_follow(backlog).await.expect("a place to follow")
    }

    /// Follows events if there is a place.
    pub(crate) async fn try_follow(&self, backlog: usize) -> Option<UnixStream> {
        let mut stream = self.connect().await;
        let head = format!("GET /v1/events?backlog={backlog} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("write");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(stream.read_u8()).await.expect("a head"));
        }
        head.starts_with(b"HTTP/1.1 200").then_some(stream)
    }

    pub(crate) async fn must_serve(&self) {
        assert_eq!(self.ask("GET", "/v1/status", b"").await.0, 200);
    }

    pub(crate) fn tell(&self, number: usize, reason: &str) {
        let _ = self.notices.send(Notice {
            time: "2026-11-22T12:00:00Z".to_owned(),
            kind: "state".to_owned(),
            wan: "lte".to_owned(),
            family: "ipv4".to_owned(),
            old: "up".to_owned(),
            new: number.to_string(),
            reason: reason.to_owned(),
        });
    }
}

async fn play_the_loop(mut requests: mpsc::Receiver<Request>, mood: Mood) {
    let mut asleep = Vec::new();
    while let Some(request) = requests.recv().await {
        if mood == Mood::Sleeps {
            asleep.push(request);
            continue;
        }
        let Request { kind, reply } = request;
        let good = mood == Mood::Answers;
        match kind {
            RequestKind::Status => {
                reply.status(Status { version: API_VERSION, wans: vec![], problems: vec![] })
            }
            RequestKind::Plan(config) => {
                let steps = config.map_or(vec![], |c| vec![format!("{} WANs", c.wans.len())]);
                reply.plan(Plan { version: API_VERSION, steps })
            }
            RequestKind::Reload if good => reply.reload(Ok(Reloaded { changed: true })),
            RequestKind::Reload => reply.reload(Err("error: line 3\n".to_owned())),
            RequestKind::Drain { wan, .. } => {
                let outcome = if good { Ok(true) } else { Err(no_such(wan)) };
                reply.drain(outcome)
            }
            RequestKind::PlanDrill(wan) => reply.plan_drill(Err(no_such(wan))),
            RequestKind::Drill { wan, lines, .. } => {
                let line = |kind: &str| DrillLine {
                    ms: 0,
                    kind: kind.to_owned(),
                    family: String::new(),
                    old: String::new(),
                    new: String::new(),
                    reason: String::new(),
                };
                for kind in ["cut", "mended"] {
                    let _ = lines.try_send(line(kind));
                }
                reply.drill(if good { Ok(()) } else { Err(no_such(wan)) })
            }
            RequestKind::Down => reply.down(good),
        };
    }
}

fn no_such(wan: String) -> Problem {
    Problem {
        code: "wan.unknown".to_owned(),
        at: wan,
        what: "no such WAN".to_owned(),
        hint: String::new(),
    }
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

/// Reads an answer to its end.
pub(crate) async fn answer(stream: &mut UnixStream) -> (u16, Value) {
    let mut bytes = Vec::new();
    // A server that closes with a body unread resets the connection after its answer.
    let _ = within(stream.read_to_end(&mut bytes)).await;
    let text = String::from_utf8(bytes).expect("text");
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("not an answer: {text:?}"));
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Reads the JSON lines of a chunked body until there are `count`.
pub(crate) async fn lines(stream: &mut UnixStream, count: usize) -> Vec<Notice> {
    let mut text = String::new();
    loop {
        let found: Vec<Notice> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if found.len() >= count {
            return found;
        }
        let mut buffer = [0; 4096];
        let length = within(stream.read(&mut buffer)).await.expect("read");
        assert!(length > 0, "the stream has ended after {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}
