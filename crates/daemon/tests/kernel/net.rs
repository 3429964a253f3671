//! A fresh network for one test, and the comparison that makes a contract.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs, panic, process, thread};

use anywan_core::names::IfIndex;
use anywan_core::observed::Observed;
use anywan_core::steps::{Step, expect};
use anywan_daemon::kernel::Kernel;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The state directory of one test, removed at its end.
pub(crate) struct StateDir(pub(crate) PathBuf);

impl StateDir {
    fn new() -> StateDir {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("anywan-kernel-{}-{number}", process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        StateDir(path)
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a test in a fresh network namespace with a loopback interface that is up, on a thread of
/// its own.
pub(crate) fn fresh_network(test: impl FnOnce(&StateDir) + Send) {
    let state = StateDir::new();
    let joined = thread::scope(|scope| {
        let run_it = || {
            // SAFETY: only the network namespace of this thread is unshared, no descriptors.
            #[expect(unsafe_code, reason = "there is no safe way to enter a namespace")]
            let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
            if let Err(error) = unshared {
                panic!("cannot make a network namespace: {error}\n\nhint: run these tests as root");
            }
            run("ip link set lo up");
            test(&state);
        };
        scope.spawn(run_it).join()
    });
    if let Err(failure) = joined {
        panic::resume_unwind(failure);
    }
}

/// Has `/sys` show the network namespace of this thread, in a mount namespace of its own, as
/// `ip netns exec` does.
pub(crate) fn mount_sys() {
    // SAFETY: only the mounts (and with them the working directory) of this thread are unshared.
    #[expect(unsafe_code, reason = "there is no safe way to enter a namespace")]
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("root may");
    run("mount --make-rprivate /");
    run("mount -t sysfs sysfs /sys");
}

/// Runs a command line (words at blanks), and returns what it prints.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output().expect(program);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes a pair of interfaces `NAME` and `NAMEp`, both up, and returns the first one's index.
pub(crate) fn pair(name: &str) -> IfIndex {
    run(&format!("ip link add {name} address 02:00:00:00:00:01 type veth peer name {name}p"));
    run(&format!("ip link set {name}p up"));
    run(&format!("ip link set {name} up"));
    index(name)
}

/// The index of an interface.
pub(crate) fn index(name: &str) -> IfIndex {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok();
    let text = text.unwrap_or_else(|| {
        let shown = run(&format!("ip -o link show {name}"));
        shown.split(':').next().expect("an index").to_owned()
    });
    IfIndex(text.trim().parse().expect("a number"))
}

/// Opens the kernel of this thread's namespace.
pub(crate) fn open(state: &StateDir) -> Kernel {
    Kernel::open(&state.0).expect("root, and a kernel with nf_tables")
}

/// All that steps change, re-read from the kernel.
pub(crate) fn observe(kernel: &mut Kernel) -> Observed {
    let sysctls = ["net/ipv4/ip_forward", "net/ipv4/fib_multipath_hash_policy"];
    let observed = kernel.observe(sysctls).expect("the kernel can be read");
    // Neighbours come and go by themselves.
    Observed { neighbours: Default::default(), ..observed }
}

/// Applies a step and compares what the kernel then says with what core expects.
pub(crate) fn contract(kernel: &mut Kernel, step: Step) {
    let mut expected = observe(kernel);
    expect(&mut expected, &step);
    if let Err(error) = kernel.apply(&step) {
        panic!("{step}: {error}: {:?}", std::error::Error::source(&error));
    }
    assert_eq!(observe_after(kernel, &step), expected, "after: {step}");
}

/// What the kernel says once a step has had its effect: it looks for duplicates of an address in
/// work of its own, also where it is told not to look.
pub(crate) fn observe_after(kernel: &mut Kernel, step: &Step) -> Observed {
    for _ in 0..1000 {
        let found = observe(kernel);
        let Step::PutAddress(own) = step else { return found };
        if found.addresses.iter().any(|address| own.is(address) && address.global) {
            return found;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("in vain, waited for the effect of: {step}");
}
