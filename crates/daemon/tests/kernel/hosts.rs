//! A router between a LAN client and the internet: the test's own namespace is the router, with
//! our real table for one WAN; client and internet are namespaces of other threads.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anywan_core::config::{Nat, Sticky};
use anywan_core::desired::{Shape, Table, WanShape};
use anywan_core::names::{Family, Mark, MarkField, PerFamily, WanId};
use anywan_core::observed::{Key, TcpFlow, empty_maps};
use anywan_core::render::nft;
use anywan_core::steps::{ElementChange, Step};
use anywan_daemon::kernel::Kernel;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::net::{StateDir, fresh_network, index, open, run};

/// Only a safety net: everything waited for takes milliseconds, and seconds in an emulated machine
/// that shares its processor.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The mark of flows of the one WAN, and the bits of WAN numbers.
pub(crate) const PINNED: u32 = 0x100_0000;
pub(crate) const NUMBERS: u32 = 0x3f00_0000;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace and the thread that lives in it.
pub(crate) struct Host {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    id: i32,
}

impl Host {
    fn new() -> Host {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            // SAFETY: only the network namespace of this thread is unshared, no descriptors.
            #[expect(unsafe_code, reason = "there is no safe way to enter a namespace")]
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root");
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("is awaited");
            todo.iter().for_each(|job| job());
        });
        let id = told.recv().expect("the thread runs");
        Host { jobs: Some(jobs), thread: Some(thread), id }
    }

    /// Runs work in this host.
    pub(crate) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = Box::new(move || drop(tell.send(work())));
        self.jobs.as_ref().expect("alive").send(job).expect("the thread lives");
        told.recv().expect("the work does not panic")
    }

    /// Runs command lines in this host.
    pub(crate) fn run(&self, lines: &'static str) {
        self.inside(move || {
            lines.lines().map(str::trim).filter(|l| !l.is_empty()).for_each(|l| drop(run(l)))
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The two hosts around the router.
pub(crate) struct Hosts {
    pub(crate) client: Host,
    pub(crate) internet: Host,
    /// The internet's servers. For the length of a test: bound once more, one would meet itself, for
    /// a command that another test is about to run holds all of our sockets for a moment.
    servers: PerFamily<TcpListener>,
}

/// Runs a test in the router, with the table loaded.
pub(crate) fn routed(test: impl FnOnce(&mut Kernel, &Hosts, &StateDir) + Send) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("up to the maximum is allowed");
    fresh_network(|state| {
        let (client, internet) = (Host::new(), Host::new());
        connect_hosts(&client, &internet);
        let bind = |family| internet.inside(move || TcpListener::bind(server(family)));
        let servers = PerFamily::from_fn(|family| bind(family).expect("free"));
        let hosts = Hosts { client, internet, servers };
        let mut kernel = open(state);
        kernel.apply(&our_table()).expect("the table loads");
        test(&mut kernel, &hosts, state);
    });
}

fn connect_hosts(client: &Host, internet: &Host) {
    run(&format!("ip link add lan0 type veth peer name eth0 netns {}", client.id));
    run(&format!("ip link add wan0 type veth peer name eth0 netns {}", internet.id));
    client.run(
        "ip link set lo up
        ip link set eth0 up
        ip address add 192.168.1.2/24 dev eth0
        ip address add 2001:db8:1::2/64 dev eth0 nodad
        ip route add default via 192.168.1.1
        ip -6 route add default via 2001:db8:1::1",
    );
    internet.run(
        "ip link set lo up
        ip link set eth0 up
        ip address add 198.51.100.1/24 dev eth0
        ip address add 2001:db8:2::1/64 dev eth0 nodad
        ip address add 203.0.113.9/32 dev lo
        ip address add 2001:db8:f::9/128 dev lo nodad",
    );
    for line in [
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        "sysctl -qw net.netfilter.nf_conntrack_events=1",
        "ip link set lan0 up",
        "ip link set wan0 up",
        "ip address add 192.168.1.1/24 dev lan0",
        "ip address add 2001:db8:1::1/64 dev lan0 nodad",
    ] {
        run(line);
    }
    give_wan_its_addresses();
    for family in ["-4", "-6"] {
        for rule in [
            "pref 100 fwmark 0x40000000/0x7f000000 lookup main suppress_prefixlength 0",
            "pref 101 fwmark 0x40000000/0x7f000000 unreachable",
            "pref 102 lookup main suppress_prefixlength 0",
            "pref 103 lookup 101",
        ] {
            run(&format!("ip {family} rule add {rule}"));
        }
    }
}

/// Gives the router its addresses on the WAN, and its way out.
pub(crate) fn give_wan_its_addresses() {
    run("ip address replace 198.51.100.2/24 dev wan0");
    run("ip address replace 2001:db8:2::2/64 dev wan0 nodad");
    run("ip route replace default via 198.51.100.1 table 101");
    run("ip -6 route replace default via 2001:db8:2::1 table 101");
}

pub(crate) fn our_table() -> Step {
    let (nat, nat6) = (Nat::Masquerade, Nat::Masquerade);
    let wan = WanShape { nat, nat6, mtu: 1500, shared: false, twin: false };
    let shape = Shape {
        field: MarkField::default(),
        sticky: Sticky::Flow,
        shared: false,
        aliased: false,
        clamps: false,
        dns: false,
        wans: BTreeMap::from([(WanId(1), wan)]),
    };
    let (lan, wan) = (Key::Number(index("lan0").0), Key::Number(index("wan0").0));
    let mut maps = empty_maps();
    let mut put = |map: &str, key, chain: &str| {
        maps.entry(map.to_owned()).or_default().insert(key, chain.to_owned());
    };
    for digit in ["4", "6"] {
        for slot in 0..256 {
            put(&format!("slots{digit}"), Key::Number(slot), "place1");
        }
        put(&format!("restore{digit}"), Key::Number(PINNED), &format!("keep{digit}_1"));
        put(&format!("out_by{digit}"), wan, &format!("leave{digit}_1"));
    }
    put("from_wan", wan, "from1");
    put("lans", lan, "");
    put("guarded", lan, "");
    put("outside", wan, "");
    let table = Table { shape, maps, ways: BTreeMap::new() };
    let fingerprint = nft::fingerprint(&table.shape);
    let text = nft::replacement(&table);
    let interim = nft::interim_chains(&table.shape);
    Step::ReplaceTable { fingerprint, text, interim, maps: table.maps }
}

/// The one WAN is lost for a family.
pub(crate) fn lose(kernel: &mut Kernel, family: Family) {
    let digit = family.digit();
    let change = ElementChange {
        map: format!("restore{digit}"),
        key: Key::Number(PINNED),
        old: Some(format!("keep{digit}_1")),
        new: Some("lost".to_owned()),
    };
    kernel.apply(&Step::ChangeElements(vec![change])).expect("there is such a chain");
}

/// Wakes the clients of all flows.
pub(crate) fn wake_all(kernel: &mut Kernel, flows: &[TcpFlow]) {
    let end = std::time::Instant::now() + DEADLINE;
    let mut rest = flows;
    while !rest.is_empty() {
        assert!(std::time::Instant::now() < end, "{} clients could not be woken", rest.len());
        let portion = kernel.wake(rest, ask()).expect("root");
        rest = &rest[portion.done..];
        thread::sleep(portion.pause);
    }
}

/// The mark of what wakes clients.
pub(crate) fn ask() -> Mark {
    MarkField::default().ask()
}

/// The server's address of a family.
pub(crate) fn server(family: Family) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::Ipv4 => "203.0.113.9".parse().expect("an address"),
        Family::Ipv6 => "2001:db8:f::9".parse().expect("an address"),
    };
    SocketAddr::new(ip, 4000)
}

/// Connections from the client to the internet, both ends; those of the client come first.
pub(crate) fn connections(
    hosts: &Hosts,
    family: Family,
    count: usize,
) -> Vec<(TcpStream, TcpStream)> {
    let listener = hosts.servers.get(family).try_clone().expect("a descriptor is free");
    hosts.client.inside(move || (0..count).map(|_| connection(&listener)).collect())
}

/// A connection from the router itself; its own end comes first.
pub(crate) fn own_connection(hosts: &Hosts, family: Family) -> (TcpStream, TcpStream) {
    connection(hosts.servers.get(family))
}

fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let to = listener.local_addr().expect("bound");
    let near = TcpStream::connect_timeout(&to, DEADLINE).expect("connects");
    near.set_read_timeout(Some(DEADLINE)).expect("not zero");
    let (far, _) = listener.accept().expect("one is there");
    far.set_read_timeout(Some(DEADLINE)).expect("not zero");
    (near, far)
}
