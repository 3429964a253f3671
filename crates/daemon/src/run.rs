//! The one loop: await an event, let the engine handle it, carry out the steps, ask the asks.
//! One thread; it owns the kernel adapter, the prober and the engine. It ends on SIGTERM or
//! SIGINT, leaving everything in place so that traffic flows on, or when it was told to take
//! everything out.

mod asks;
mod files;
mod hand;
mod leases;
mod names;
mod read;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use anywan_core::api::{Notice, Plan, Problem};
use anywan_core::config::{self, Config};
use anywan_core::engine::{Engine, Event, Happening, KeptLease};
use anywan_core::names::{Family, MarkField};
use anywan_core::observed::ChildEnd;
use anywan_core::steps::{ProbeResult, Step};
use anywan_core::time::Moment;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{broadcast, mpsc};

use crate::children::Children;
use crate::clock::Clock;
use crate::dhcp::{Dhcp, Heard};
use crate::kernel::{Destroyed, Hints, Kernel, Monitor};
use crate::probe::Prober;
use crate::resolv_conf::ResolvConf;
use crate::serve::{Reloaded, Request, RequestKind, Server};
use crate::state::StateDir;
use crate::systemd::Systemd;

use asks::Waking;
use hand::{Follower, gone};
use read::touched_by;

/// Full re-reads in one go until the plan settles: steps that depend on others' effects (a
/// parameter that appears with its module) need two or three.
const ROUNDS_MAX: usize = 6;
/// Everything is read again this often, whether the kernel told of changes or not.
const REREAD: Duration = Duration::from_secs(30);
/// So soon after a reading that failed.
const REREAD_FAILED: Duration = Duration::from_millis(250);
/// Requests that wait for the loop.
const REQUESTS_MAX: usize = 32;
/// Answers of what takes long that wait for the loop; each WAN has one at most.
const OUTCOMES_MAX: usize = 64;
/// Notices that a slow reader of events may lag behind.
const NOTICES_MAX: usize = 256;
/// A configuration file larger than this is not one.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// The configuration file when none is named.
pub const CONFIG: &str = "/etc/anywan/anywan.toml";

/// How the daemon is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// The socket to answer on.
    pub socket: PathBuf,
    /// Where WAN numbers and former values are kept.
    pub state_dir: PathBuf,
    /// The file that tells this machine's programs whom to ask for names; if none is named, the
    /// machine's own, and only where the network namespace is the machine's too.
    pub resolv_conf: Option<PathBuf>,
}

/// A configuration file that cannot be used; the text is for a person.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub String);

/// Runs until told to end.
///
/// # Errors
/// [`BadConfig`], or what keeps it from starting.
pub async fn run(options: Options) -> anyhow::Result<()> {
    // Before anybody hears that we are ready: a signal that comes then must not kill.
    let signals = Signals::new()?;
    let config = read_config(&options)?;
    let state = StateDir::open(&options.state_dir)?;
    // Subscribed before the first dump, so that nothing falls between.
    let monitor = Monitor::open().context("watch the kernel")?;
    let mark_field = config.router.mark_field;
    let ends = Destroyed::open(mark_field.number_mask()).context("watch the ends of flows")?;
    let kernel = Kernel::open(&options.state_dir)?;
    let children = Children::open(&options.socket, &options.state_dir);
    let resolv_conf = ResolvConf::open(options.resolv_conf.as_deref(), &options.state_dir);
    let (prober, results) = Prober::new();
    let (dhcp, heard) = Dhcp::new();
    let clock = kernel.clock();
    let mut engine = Engine::new(config, &state.kept());
    let kept = state.leases(&clock);
    engine.resume(kept.clone(), RandomState::new().hash_one(std::process::id()));
    let (answers_to, answers) = mpsc::channel(names::ANSWERS_MAX);
    let (notices, _) = broadcast::channel(NOTICES_MAX);
    let waking = Waking::new(mark_field.ask());
    let (outcomes_to, outcomes) = mpsc::channel(OUTCOMES_MAX);
    let mut daemon = Daemon {
        options,
        engine,
        kernel,
        children,
        resolv_conf,
        prober,
        answers: answers_to,
        dhcp,
        leases: kept,
        leases_unkept: false,
        clock,
        state,
        notices,
        waking,
        follower: None,
        systemd: Systemd::from_environment(),
        unread: false,
        cpus_at: None,
        outcomes: outcomes_to,
        resets: Vec::new(),
        ends,
    };
    daemon.keep();
    daemon.reread_all();
    daemon.settle();
    let (requests_to, requests) = mpsc::channel(REQUESTS_MAX);
    let server = Server::start(&daemon.options.socket, requests_to, daemon.notices.clone())?;
    tracing::info!(socket = %daemon.options.socket.display(), "steering");
    // Also when nothing can be steered yet: a boot does not wait for somebody to plug in a WAN.
    daemon.systemd.status(daemon.engine.summary(), daemon.clock.now());
    daemon.systemd.ready(daemon.clock.now());
    let inbox = Inbox { results, answers, heard, outcomes, requests };
    let ended = daemon.watch(signals, monitor, inbox).await;
    server.stop().await;
    ended
}

/// Takes everything of ours out of the kernel, without a daemon.
///
/// # Errors
/// When a daemon is running, or something of ours could not be taken out.
pub fn take_down(options: &Options) -> anyhow::Result<()> {
    let state = StateDir::open(&options.state_dir)?;
    let mut kernel = Kernel::open(&options.state_dir)?;
    leases::give_back(&state, &mut kernel)?;
    let (mut children, clock) =
        (Children::open(&options.socket, &options.state_dir), kernel.clock());
    let mut resolv_conf = ResolvConf::left(options.resolv_conf.as_deref(), &options.state_dir);
    let mut failures = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let former: Vec<String> = kernel.sysctls_before().keys().cloned().collect();
        let mut observed = kernel.observe(&former)?;
        observed.children = children.running();
        observed.resolv_conf = resolv_conf.read();
        let desired = anywan_core::desired::nothing(&observed);
        let steps = anywan_core::steps::diff(&observed, &desired);
        if steps.is_empty() {
            return Ok(());
        }
        let now = clock.now();
        let mut carry_out = |step| apply(&mut kernel, &mut children, &mut resolv_conf, step, now);
        let outcomes = steps.iter().map(|step| (step, carry_out(step)));
        let failed = outcomes.filter_map(|(step, done)| Some(format!("{step}: {}", done.err()?)));
        failures = failed.collect();
        children.wait();
    }
    bail!("not everything could be taken out:\n{}", failures.join("\n"))
}

fn read_config(options: &Options) -> anyhow::Result<Config> {
    load_config(&options.config).map_err(anyhow::Error::from)
}

pub(crate) fn load_config(path: &std::path::Path) -> Result<Config, BadConfig> {
    let name = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        BadConfig(format!(
            "error: {name} cannot be read: {error}\n\nhint: `anywan check FILE` checks a file; \
             --config names another one"
        ))
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > CONFIG_BYTES_MAX {
        let text = format!("error: {name} has {size} bytes; a configuration has 1 MiB at most");
        return Err(BadConfig(text));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    config::parse_bytes(&bytes).map_err(|faults| {
        BadConfig(config::render(&name, &String::from_utf8_lossy(&bytes), &faults, false))
    })
}

/// An error with all its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Carries out one step; the error is told with all its causes.
fn apply(
    kernel: &mut Kernel,
    children: &mut Children,
    resolv_conf: &mut ResolvConf,
    step: &Step,
    now: Moment,
) -> Result<(), String> {
    if step.is_of_children() {
        children.apply(step, now).map_err(|error| chain(&error))
    } else if step.is_of_resolv_conf() {
        resolv_conf.apply(step).map_err(|error| chain(&error))
    } else {
        kernel.apply(step).map_err(|error| match error.hint() {
            Some(hint) => format!("{}; {hint}", chain(&error)),
            None => chain(&error),
        })
    }
}

struct Daemon {
    options: Options,
    engine: Engine,
    kernel: Kernel,
    children: Children,
    resolv_conf: ResolvConf,
    prober: Prober,
    /// Where the answers of resolvers come in.
    answers: mpsc::Sender<Event>,
    dhcp: Dhcp,
    /// As they were to be kept last.
    leases: BTreeMap<String, KeptLease>,
    /// They could not be.
    leases_unkept: bool,
    clock: Clock,
    state: StateDir,
    notices: broadcast::Sender<Notice>,
    /// Clients that are still to be woken.
    waking: Waking,
    /// Whoever follows the running drill.
    follower: Option<Follower>,
    systemd: Systemd,
    /// Some reading has failed, and not been made up for.
    unread: bool,
    /// When the CPUs' work is to be looked at again.
    cpus_at: Option<Moment>,
    /// For the answers of what takes long.
    outcomes: mpsc::Sender<Event>,
    /// Modems that are off the bus for a moment.
    resets: Vec<JoinHandle<()>>,
    /// The ends of flows.
    ends: Destroyed,
}

/// What reaches the loop from tasks.
struct Inbox {
    results: mpsc::Receiver<ProbeResult>,
    answers: mpsc::Receiver<Event>,
    outcomes: mpsc::Receiver<Event>,
    heard: mpsc::Receiver<Heard>,
    requests: mpsc::Receiver<Request>,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

impl Daemon {
    async fn watch(
        &mut self,
        mut signals: Signals,
        mut monitor: Monitor,
        mut inbox: Inbox,
    ) -> anyhow::Result<()> {
        let mut reread_at = self.clock.now() + REREAD;
        while !self.engine.left() {
            let engine = self.engine.poll_deadline();
            let next = [
                engine,
                self.waking.next(),
                self.cpus_at,
                self.children.next(),
                self.systemd.next(),
            ];
            let wait = next.into_iter().flatten().fold(reread_at, Moment::min);
            tokio::select! {
                biased;
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                hints = monitor.next() => {
                    self.hear_announced(monitor.announced());
                    self.reread(hints);
                }
                gone = self.ends.next() => self.hear_of_ends(gone),
                ended = self.children.ended() => self.hear_of_children(ended),
                Some(result) = inbox.results.recv() => self.handle(Event::Probe(result)),
                Some(answer) = inbox.answers.recv() => self.handle(answer),
                Some((wan, news)) = inbox.heard.recv() => self.handle(Event::Dhcp { wan, news }),
                _ = signals.hangup.recv() => {
                    // What is wrong is in the log and among the problems.
                    let _ = self.reload();
                }
                Some(outcome) = inbox.outcomes.recv() => self.handle(outcome),
                Some(request) = inbox.requests.recv() => self.answer(request),
                () = gone(self.follower.as_ref()) => self.end_drill("nobody follows it any more"),
                () = tokio::time::sleep(self.clock.until(wait)) => {}
            }
            if self.clock.now() >= reread_at {
                self.reread_all();
                self.keep();
                self.keep_leases_yet();
                self.children.bound_logs();
                reread_at = self.clock.now() + REREAD;
            }
            if self.unread {
                reread_at = reread_at.min(self.clock.now() + REREAD_FAILED);
            }
            // What has been answered by now is heard before anybody is judged by silence.
            tokio::task::yield_now().await;
            self.hear_what_waits(&mut inbox);
            self.settle();
            self.go_on_waking();
            self.look_at_cpus();
            self.children.mind(self.clock.now());
        }
        self.systemd.stopping(self.clock.now());
        self.end_drill("the daemon ends");
        for reset in self.resets.drain(..) {
            // What it panicked about has been told.
            let _ = reset.join();
        }
        Ok(())
    }

    /// However busy the kernel's announcements keep the loop, nobody else waits for long.
    fn hear_what_waits(&mut self, inbox: &mut Inbox) {
        while let Ok(result) = inbox.results.try_recv() {
            self.handle(Event::Probe(result));
        }
        while let Ok(answer) = inbox.answers.try_recv() {
            self.handle(answer);
        }
        while let Ok((wan, news)) = inbox.heard.try_recv() {
            self.handle(Event::Dhcp { wan, news });
        }
        while let Ok(outcome) = inbox.outcomes.try_recv() {
            self.handle(outcome);
        }
        if let Ok(request) = inbox.requests.try_recv() {
            self.answer(request);
        }
        // Also of those that were asked to end there is something to hear: that they are gone.
        if self.children.has_ended() {
            let ended = self.children.reap();
            self.hear_of_children(ended);
        }
    }

    fn handle(&mut self, event: Event) {
        self.engine.handle(event, self.clock.now());
    }

    /// Carries out what the engine wants until it wants nothing more, then asks its questions.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.systemd.mind(self.clock.now());
            self.engine.advance(self.clock.now());
            let mut touched = Hints::default();
            while let Some(step) = self.engine.poll_step() {
                touched |= self.carry_out(step);
            }
            self.tell();
            if !touched.is_empty() {
                self.reread(touched);
            } else if !self.ask_all() {
                break;
            }
        }
        self.ask_all();
        self.mind_leases();
        self.tell();
    }

    fn carry_out(&mut self, step: Step) -> Hints {
        tracing::debug!(%step, "step");
        if let Step::StartChild { .. } = step {
            // A PIN counts as tried before it is sent; if that cannot be noted, it is not sent.
            if !self.keep() && self.engine.sends_a_pin(&step) {
                let error = "that its PIN was tried cannot be noted".to_owned();
                self.handle(Event::StepFailed { step, error });
                return Hints::default();
            }
        }
        let touched = touched_by(&step);
        let now = self.clock.now();
        let Daemon { kernel, children, resolv_conf, .. } = self;
        if let Err(error) = apply(kernel, children, resolv_conf, &step, now) {
            tracing::warn!(%step, %error, "a step failed");
            self.handle(Event::StepFailed { step, error });
        }
        touched
    }

    /// Programs of ours have ended; how, where nobody had asked them to.
    fn hear_of_children(&mut self, ended: Vec<ChildEnd>) {
        self.read_logs();
        for mut end in ended {
            names::name_holder(&mut end);
            self.handle(Event::ChildEnded(end));
        }
        self.reread(Hints { children: true, ..Hints::default() });
    }

    /// Reads the CPUs' work if it is time, and has it spread: after everything that traffic waits
    /// for.
    fn look_at_cpus(&mut self) {
        if self.cpus_at.is_some_and(|at| at <= self.clock.now()) {
            self.cpus_at = None;
            self.reread(Hints { cpus: true, ..Hints::default() });
            self.read_logs();
            self.settle();
        }
    }

    /// Tells whoever follows what has happened.
    fn tell(&mut self) {
        let mut news = false;
        while let Some(happening) = self.engine.poll_happening() {
            news = true;
            log(&happening);
            self.tell_follower(&happening);
            // Nobody listening is fine.
            let _ = self.notices.send(notice(&self.clock, happening));
        }
        if news {
            self.systemd.status(self.engine.summary(), self.clock.now());
        }
        self.dismiss_follower();
    }

    fn answer(&mut self, request: Request) {
        let Request { kind, reply } = request;
        let answer = match kind {
            RequestKind::Status => reply.status(self.engine.status(&|m| self.clock.wall(m))),
            RequestKind::Plan(config) => reply.plan(self.preview(config.map(|c| *c))),
            RequestKind::Reload => reply.reload(self.reload()),
            RequestKind::Drain { wan, drained } => reply.drain(self.drain(&wan, drained)),
            RequestKind::PlanDrill(wan) => {
                reply.plan_drill(self.engine.plan_drill(&wan).map(|(_, plan)| plan))
            }
            RequestKind::Drill { wan, span, lines } => reply.drill(self.drill(wan, span, lines)),
            RequestKind::Down => {
                self.reread(Hints { cpus: true, ..Hints::default() });
                self.handle(Event::Leave);
                self.settle();
                self.children.wait();
                self.reread(Hints { children: true, ..Hints::default() });
                self.settle();
                reply.down(self.engine.left())
            }
        };
        let _ = answer;
    }

    fn preview(&self, config: Option<Config>) -> Plan {
        let steps = self.engine.preview(config, self.clock.now());
        Plan {
            version: anywan_core::api::API_VERSION,
            steps: steps.iter().map(ToString::to_string).collect(),
        }
    }

    /// Reads the file again; a bad one changes nothing.
    fn reload(&mut self) -> Result<Reloaded, String> {
        self.systemd.reloading(self.clock.now());
        let outcome = self.try_reload();
        self.systemd.status(self.engine.summary(), self.clock.now());
        self.systemd.ready(self.clock.now());
        outcome
    }

    fn try_reload(&mut self) -> Result<Reloaded, String> {
        let at = self.options.config.display().to_string();
        let code = "config.refused".to_owned();
        match load_config(&self.options.config) {
            Ok(config) => {
                let changed = !self.engine.follows(&config);
                self.handle(Event::Solved { code, at });
                self.look_at_config();
                if changed {
                    let mark_field = config.router.mark_field;
                    self.handle(Event::Config(Box::new(config)));
                    self.follow_marks(mark_field);
                    self.keep();
                    self.reread_all();
                }
                self.settle();
                Ok(Reloaded { changed })
            }
            Err(BadConfig(text)) => {
                tracing::error!("the new configuration is not used\n{text}");
                let what = "the file is not valid; the old configuration stays in force".to_owned();
                let hint = format!("`anywan check {at}` shows what is wrong");
                self.handle(Event::Problem(Problem { code, at, what, hint }));
                self.settle();
                Err(text)
            }
        }
    }

    /// Other bits of marks may be ours now.
    fn follow_marks(&mut self, field: MarkField) {
        if !self.waking.ask_by(field.ask()) {
            return;
        }
        match Destroyed::open(field.number_mask()) {
            Ok(ends) => self.ends = ends,
            Err(error) => tracing::warn!(%error, "the ends of flows are not watched anew"),
        }
    }

    /// Keeps what is to outlive this run; whether that worked.
    fn keep(&mut self) -> bool {
        let at = self.options.state_dir.display().to_string();
        let code = "state.not-kept".to_owned();
        let kept = self.state.keep(&self.engine.kept());
        let worked = kept.is_ok();
        match kept {
            Ok(()) => self.handle(Event::Solved { code, at }),
            Err(error) => {
                let what = format!("WAN numbers cannot be kept: {error}");
                let hint =
                    "is the disk full? after a restart WANs may get other numbers".to_owned();
                self.handle(Event::Problem(Problem { code, at, what, hint }));
            }
        }
        worked
    }
}

fn notice(clock: &Clock, happening: Happening) -> Notice {
    let time = clock.wall(happening.at);
    let Happening { kind, wan, family, old, new, reason, .. } = happening;
    let family = match family {
        None => "",
        Some(Family::Ipv4) => "ipv4",
        Some(Family::Ipv6) => "ipv6",
    };
    Notice { time, kind: kind.to_owned(), wan, family: family.to_owned(), old, new, reason }
}

fn log(happening: &Happening) {
    let Happening { kind, wan, family, old, new, reason, .. } = happening;
    let family = family.map_or_else(String::new, |f| f.to_string());
    tracing::info!(kind, %wan, %family, %old, %new, %reason);
}
