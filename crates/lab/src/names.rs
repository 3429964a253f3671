//! Resolvers of ISPs, and who asks: a client that looks names up, and asks for an address, as
//! programs do. Owned: a resolver ends with its value.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::command::Running;
use crate::daemon::{Daemon, child_in};
use crate::netns::Netns;
use crate::tempdir::TempDir;
use crate::topology::Topology;
use anyhow::{Context as _, Result, ensure};
use rustix::process::Pid;

/// A resolver in an ISP's namespace, on an address that only its customers can reach.
#[derive(Debug)]
pub struct Resolver {
    _running: Option<Running>,
    dir: TempDir,
}

/// What honest ones know beside their own: the names that probes and checks ask for.
const OTHERS: [&str; 3] =
    ["--address=/example.com/192.0.2.1", "--address=/probe.example/192.0.2.1", "--local=/invalid/"];

/// The address of the first resolver of ISP `number`.
pub fn address(topology: &Topology, number: usize) -> String {
    three(topology, number)[0].clone()
}

/// Addresses of an ISP's resolvers.
pub fn three(_topology: &Topology, number: usize) -> [String; 3] {
    [53, 54, 55].map(|last| format!("10.99.{number}.{last}"))
}

impl Resolver {
    /// Knows names below `.test`, and says of others that they do not exist.
    pub fn honest(topology: &Topology, number: usize) -> Result<Resolver> {
        Resolver::honest_at(topology, number, &address(topology, number))
    }

    /// The same on another address.
    pub fn honest_at(topology: &Topology, number: usize, own: &str) -> Result<Resolver> {
        let known = format!("--address=/test/198.18.{number}.80");
        Resolver::start(topology, number, own, &[&[known.as_str()], &OTHERS[..]].concat())
    }

    /// Another like it.
    pub fn spare(topology: &Topology, number: usize) -> Result<Resolver> {
        let known = format!("--address=/test/198.18.{number}.81");
        let args = [&[known.as_str()], &OTHERS[..]].concat();
        Resolver::start(topology, number, &three(topology, number)[2], &args)
    }

    /// Has an address for every name.
    pub fn liar(topology: &Topology, number: usize) -> Result<Resolver> {
        Resolver::start(topology, number, &address(topology, number), &["--address=/#/198.18.9.9"])
    }

    /// Has an address, and never says anything.
    pub fn silent(topology: &Topology, number: usize) -> Result<Resolver> {
        let isp = topology.isp(number);
        isp.ip_batch(&format!("addr replace {}/32 dev lo", three(topology, number)[1]))?;
        isp.nft(&format!(
            "table ip mute {{\nchain in {{ type filter hook input priority 0; \
             ip daddr {} drop; }}\n}}",
            three(topology, number)[1]
        ))?;
        Ok(Resolver { _running: None, dir: TempDir::new()? })
    }

    fn start(topology: &Topology, number: usize, own: &str, more: &[&str]) -> Result<Resolver> {
        let isp = topology.isp(number);
        let bits = if own.contains(':') { 128 } else { 32 };
        isp.ip_batch(&format!("addr replace {own}/{bits} dev lo"))?;
        let dir = TempDir::new()?;
        let listen = format!("--listen-address={own}");
        let args = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--local-ttl=600",
            "--log-queries",
            "--log-facility=-",
            "--pid-file=",
            &listen,
        ];
        let args: Vec<&str> = args.into_iter().chain(more.iter().copied()).collect();
        let running = isp.spawn(&args, Some(&dir.join("log")));
        let running = running.context("hint: apt-get install dnsmasq-base")?;
        Ok(Resolver { _running: Some(running), dir })
    }

    /// What it was asked.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

/// The process of our dnsmasq.
pub fn child_pid(daemon: &Daemon) -> Result<Pid> {
    child_in(&daemon.path("anywan.sock.children/dnsmasq"))
}

/// Asks for an address by DHCP once; what was lent, as `ip=… router=… dns=… domain=… `.
pub fn udhcpc(client: &Netns) -> Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new()?;
    let (script, lease) = (dir.join("script"), dir.join("lease"));
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = bound ] && echo \"ip=$ip router=$router dns=$dns domain=$domain \" \
         > {}\nexit 0\n",
        lease.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let script = script.display().to_string();
    let line = ["udhcpc", "-f", "-q", "-n", "-i", "eth0", "-s", &script, "-t", "3", "-T", "1"];
    let outcome = client.try_run(&line).context("hint: apt-get install udhcpc")?;
    fs::read_to_string(&lease).with_context(|| format!("{outcome:?}"))
}

/// Asks for an address of `name` once; `None`: there is none.
pub fn lookup(
    space: &Netns,
    server: IpAddr,
    name: &str,
    within: Duration,
) -> Result<Option<String>> {
    space.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(within))?;
        socket.connect((server, 53))?;
        ask(&socket, name)
    })?
}

fn ask(socket: &UdpSocket, name: &str) -> Result<Option<String>> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    socket.send(&question)?;
    let mut answer = [0; 512];
    let count = socket.recv(&mut answer)?;
    let answer = &answer[..count];
    ensure!(count >= question.len() && answer[..2] == question[..2], "another answer");
    match (answer[3] & 15, answer[7]) {
        (0, 0) | (3, _) => Ok(None),
        // One record of 16 bytes, the address last.
        (0, _) => {
            Ok(Some(answer[count - 4..].iter().map(u8::to_string).collect::<Vec<_>>().join(".")))
        }
        (code, _) => anyhow::bail!("{name}: error {code}"),
    }
}

/// One question that was asked.
#[derive(Debug, Clone)]
pub struct Looked {
    /// When it was asked.
    pub at: Instant,
    /// What was answered; `None`: nothing, or an error.
    pub address: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// A client that looks up a new name again and again, each from a thread of its own.
#[derive(Debug)]
pub struct Lookups {
    over: Arc<AtomicBool>,
    looked: Arc<Mutex<Vec<Looked>>>,
    thread: JoinHandle<Result<()>>,
}

/// Begins to ask, a question `every` so often; a program gives up after five seconds.
pub fn lookups(client: &Netns, server: IpAddr, every: Duration) -> Lookups {
    let (over, looked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let (ends, notes, space) = (Arc::clone(&over), Arc::clone(&looked), client.clone());
    let thread = client.thread(move || {
        let mut asked = Vec::new();
        while !ends.load(Ordering::Relaxed) {
            let (notes, number) = (Arc::clone(&notes), asked.len());
            asked.push(space.thread(move || {
                let begun = Instant::now();
                let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
                socket.connect((server, 53)).expect("an address");
                let address = ask(&socket, &format!("x{number}.test")).ok().flatten();
                let looked = Looked { at: begun, address, took: begun.elapsed() };
                notes.lock().expect("nobody panics with it").push(looked);
            }));
            std::thread::sleep(every);
        }
        for one in asked {
            let _ = one.join();
        }
    });
    Lookups { over, looked, thread }
}

impl Lookups {
    fn so_far(&self) -> Vec<Looked> {
        self.looked.lock().expect("nobody panics with it").clone()
    }

    /// Fails unless there are so many answers.
    pub fn ensure_answers(&self, count: usize) -> Result<()> {
        self.ensure_count(count, |_| true).context("answers")
    }

    /// Fails unless so many answers have this address.
    pub fn ensure_answers_of(&self, address: &str, count: usize) -> Result<()> {
        let fits = |l: &Looked| l.address.as_deref() == Some(address);
        self.ensure_count(count, fits).with_context(|| format!("answers of {address}"))
    }

    /// Fails unless so many that were asked since have this address.
    pub fn ensure_answers_since(&self, since: Instant, address: &str, count: usize) -> Result<()> {
        let fits = |l: &Looked| l.at > since && l.address.as_deref() == Some(address);
        self.ensure_count(count, fits).with_context(|| format!("answers of {address}"))
    }

    fn ensure_count(&self, count: usize, fits: impl Fn(&Looked) -> bool) -> Result<()> {
        let have = self.so_far().iter().filter(|looked| fits(looked)).count();
        ensure!(have >= count, "{have} of {count}");
        Ok(())
    }

    /// Fails unless the last answer has this address.
    pub fn ensure_last(&self, address: &str) -> Result<()> {
        let all = self.so_far();
        let last = all.last().and_then(|looked| looked.address.as_deref());
        ensure!(last == Some(address), "the last answer is {last:?}");
        Ok(())
    }

    /// Ends; gives all that was asked.
    pub fn stop(self) -> Result<Vec<Looked>> {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the asking thread panicked"))??;
        let looked = self.looked.lock().expect("nobody panics with it");
        Ok(looked.clone())
    }
}
