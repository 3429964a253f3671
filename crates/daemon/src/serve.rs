//! The API: HTTP/1 and JSON over a unix socket. In: requests of people and programs. Out:
//! [`Request`]s to the daemon's loop, and its answers and notices back.
//!
//! Decides nothing and knows nothing but the last notices. Whatever a client does, the loop never
//! waits for it: everything in between is bounded ([`Limits`]). All tasks belong to the
//! [`Server`] and end with it.

mod connection;
mod hand;
mod notices;
mod routes;
mod socket;

use std::path::Path;
use std::time::Duration;

use anywan_core::api::{DrillLine, DrillPlan, Notice, Plan, Problem, Status};
use anywan_core::config::Config;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use socket::ServeError;
use socket::SocketFile;

/// How long open connections may take to end once the server stops: an answer that is under way
/// is still delivered, and systemd does not lose its patience.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What people and programs may take of the daemon.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections; more wait until one ends.
    pub connections: usize,
    /// Connections that follow events, so that `status` always finds room.
    pub followers: usize,
    /// How long a request's head may take, from the first moment of the connection.
    pub head: Duration,
    /// How long a request's body may take.
    pub body: Duration,
    /// Bytes of a request's body; no configuration is larger.
    pub body_bytes: usize,
    /// How long the loop may take to answer; taking everything out may need seconds.
    pub answer: Duration,
    /// How long a client may leave its socket full.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 32,
            followers: 16,
            head: Duration::from_secs(5),
            body: Duration::from_secs(10),
            body_bytes: 1 << 20,
            answer: Duration::from_secs(30),
            write: Duration::from_secs(30),
        }
    }
}

/// What somebody wants of the daemon's loop.
#[derive(Debug)]
pub struct Request {
    /// What it is.
    pub kind: RequestKind,
    /// Where its answer goes; dropped, the client is told that the daemon is ending.
    pub reply: Reply,
}

/// The kinds of requests, each answered through the method of [`Reply`] of the same name.
#[derive(Debug)]
pub enum RequestKind {
    /// How everything is.
    Status,
    /// The steps that would be taken: now, or with another configuration.
    Plan(Option<Box<Config>>),
    /// Read the configuration file again.
    Reload,
    /// Take a WAN out of service, or put it back.
    Drain {
        /// The WAN's name.
        wan: String,
        /// Whether it is to be out of service.
        drained: bool,
    },
    /// What a drill of the WAN of this name would do.
    PlanDrill(String),
    /// Begin a drill. It ends when nobody reads its lines any more.
    Drill {
        /// The WAN's name.
        wan: String,
        /// How long it is cut off.
        span: Duration,
        /// Where its course is told.
        lines: mpsc::Sender<DrillLine>,
    },
    /// Take everything of ours out of the kernel, then end.
    Down,
}

/// The place for one answer. Each method says whether somebody still wants it.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Answer>);

impl Reply {
    /// Answers [`RequestKind::Status`].
    pub fn status(self, status: Status) -> bool {
        self.0.send(Answer::Status(status)).is_ok()
    }

    /// Answers [`RequestKind::Plan`].
    pub fn plan(self, plan: Plan) -> bool {
        self.0.send(Answer::Plan(plan)).is_ok()
    }

    /// Answers [`RequestKind::Reload`]; a refused file comes as text for a person.
    pub fn reload(self, outcome: Result<Reloaded, String>) -> bool {
        self.0.send(Answer::Reload(outcome)).is_ok()
    }

    /// Answers [`RequestKind::Drain`]: whether anything changed.
    pub fn drain(self, outcome: Result<bool, Problem>) -> bool {
        self.0.send(Answer::Drain(outcome)).is_ok()
    }

    /// Answers [`RequestKind::PlanDrill`].
    pub fn plan_drill(self, outcome: Result<DrillPlan, Problem>) -> bool {
        self.0.send(Answer::PlanDrill(outcome)).is_ok()
    }

    /// Answers [`RequestKind::Drill`], once the WAN is cut off.
    pub fn drill(self, outcome: Result<(), Problem>) -> bool {
        self.0.send(Answer::Drill(outcome)).is_ok()
    }

    /// Answers [`RequestKind::Down`]: whether everything is out.
    pub fn down(self, all_out: bool) -> bool {
        self.0.send(Answer::Down { all_out }).is_ok()
    }
}

/// What the loop answered.
#[derive(Debug)]
enum Answer {
    Status(Status),
    Plan(Plan),
    Reload(Result<Reloaded, String>),
    Drain(Result<bool, Problem>),
    PlanDrill(Result<DrillPlan, Problem>),
    Drill(Result<(), Problem>),
    Down { all_out: bool },
}

/// What reading the configuration file again has brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Whether it says something else than before.
    pub changed: bool,
}

/// The running server.
#[derive(Debug)]
pub struct Server {
    stopping: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// Removes the socket's file on drop.
    _file: SocketFile,
}

impl Server {
    /// Listens on `path` with the usual [`Limits`]. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// When another daemon answers there, or the socket cannot be made.
    pub fn start(
        path: &Path,
        requests: mpsc::Sender<Request>,
        notices: broadcast::Sender<Notice>,
    ) -> Result<Server, ServeError> {
        Server::start_with(path, requests, &notices, Limits::default())
    }

    /// [`Server::start`] with other limits.
    ///
    /// # Errors
    /// The same.
    pub fn start_with(
        path: &Path,
        requests: mpsc::Sender<Request>,
        notices: &broadcast::Sender<Notice>,
        limits: Limits,
    ) -> Result<Server, ServeError> {
        let (listener, file) = socket::listen(path)?;
        let listener = UnixListener::from_std(listener)
            .map_err(|source| ServeError::Listen { path: path.to_owned(), source })?;
        let (stopping, stop) = watch::channel(false);
        let recent = notices::Recent::default();
        let router = routes::router(requests, recent.clone(), limits);
        let tasks = vec![
            tokio::spawn(notices::collect(recent, notices.subscribe(), stop.clone())),
            tokio::spawn(connection::accept_all(listener, router, limits, stop)),
        ];
        Ok(Server { stopping, tasks, _file: file })
    }

    /// Ends all connections, after the answers that are under way, and removes the socket.
    pub async fn stop(mut self) {
        // Fails only when both tasks have ended.
        let _ = self.stopping.send(true);
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the server has failed");
            }
        }
    }
}
