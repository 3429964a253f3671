//! Namespaces for probe tests: a router, and one ISP for each WAN, of which each claims the
//! same addresses. All vanish on drop. Without privilege everything here fails, with a hint.

use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The hosts that every ISP of the tests plays.
pub(crate) const HOSTS: [&str; 2] = ["192.0.2.1", "2001:db8:2::1"];

/// One network namespace.
pub(crate) struct Space {
    name: String,
}

impl Space {
    fn new(role: &str) -> Space {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("awp{}-{number}-{role}", std::process::id());
        run("ip", &["netns", "add", &name], "");
        let space = Space { name };
        // An address that is being checked for duplicates answers no neighbour for a second.
        space.sysctl("net/ipv6/conf/all/accept_dad", "0");
        space.sysctl("net/ipv6/conf/default/accept_dad", "0");
        space
    }

    /// Runs `work` inside, on a thread of its own. A panic passes through.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace is there");
        let enter = move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter a namespace\n  hint: run these tests as root");
            work()
        };
        thread::scope(|scope| {
            scope.spawn(enter).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Carries out `ip` commands, one a line.
    pub(crate) fn ip(&self, lines: &str) {
        run("ip", &["-n", &self.name, "-batch", "-"], lines);
    }

    /// Waits until a link carries packets, which is a little later than it is up.
    fn wait_for_carrier(&self, link: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let shown = Command::new("ip").args(["-n", &self.name, "link", "show", link]).output();
            let shown = String::from_utf8(shown.expect("ip").stdout).expect("text");
            if shown.contains("state UP") {
                return;
            }
            assert!(Instant::now() < end, "waited in vain for {link}: {shown}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Loads nft commands.
    pub(crate) fn nft(&self, text: &str) {
        self.inside(|| run("nft", &["-f", "-"], text));
    }

    /// Sets a kernel parameter, e.g. `net/ipv4/ip_forward`.
    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        self.inside(|| std::fs::write(format!("/proc/sys/{path}"), value)).expect(path);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(program: &str, args: &[&str], input: &str) {
    let hint = "  hint: run these tests as root, with iproute2 and nftables installed";
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {program}: {error}\n{hint}"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("feed it");
    let output = child.wait_with_output().expect("wait");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}{input}\n{hint}");
}

/// A router with WANs `w1`, `w2`…, all with the same own address and the same gateway address.
pub(crate) struct Internet {
    pub(crate) router: Space,
    pub(crate) isps: Vec<Space>,
}

impl Internet {
    pub(crate) fn new(wans: usize) -> Internet {
        let internet = Internet {
            router: Space::new("router"),
            isps: (0..wans).map(|_| Space::new("isp")).collect(),
        };
        internet.router.ip("link set lo up");
        for wan in 1..=wans {
            internet.plug_in(wan);
        }
        internet
    }

    /// The ISP of a WAN, counted from 1.
    pub(crate) fn isp(&self, wan: usize) -> &Space {
        &self.isps[wan - 1]
    }

    /// Makes the interface of a WAN and its other end.
    pub(crate) fn plug_in(&self, wan: usize) {
        let isp = self.isp(wan);
        self.router.ip(&format!(
            "link add w{wan} type veth peer name line netns {name}
             addr add 10.0.1.2/24 dev w{wan}
             addr add fd00:1::2/64 dev w{wan} nodad
             link set w{wan} up",
            name = isp.name
        ));
        isp.ip("link set lo up
             addr replace 192.0.2.1/32 dev lo
             addr replace 192.0.2.9/32 dev lo
             addr replace 2001:db8:2::1/128 dev lo nodad
             addr replace 2001:db8:2::9/128 dev lo nodad
             addr add 10.0.1.1/24 dev line
             addr add fd00:1::1/64 dev line nodad
             link set line up");
        self.router.wait_for_carrier(&format!("w{wan}"));
        isp.wait_for_carrier("line");
        self.router.ip(&format!(
            "route add default via 10.0.1.1 dev w{wan} metric {wan}
             route add ::/0 via fd00:1::1 dev w{wan} metric {wan}"
        ));
    }

    pub(crate) fn unplug(&self, wan: usize) {
        self.router.ip(&format!("link del w{wan}"));
    }
}

/// The test hosts as addresses.
pub(crate) fn hosts() -> [IpAddr; 2] {
    HOSTS.map(|host| host.parse().expect("an address"))
}
