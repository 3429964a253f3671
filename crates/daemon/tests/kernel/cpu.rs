//! Which CPUs serve an interface's queues, by the real `/sys` of a network namespace. The machine
//! must have two CPUs at least.

use std::collections::BTreeSet;
use std::fs;

use anywan_core::desired::spread_over_cpus;
use anywan_core::observed::{CpuFile, CpuSet, Cpus, Observed};
use anywan_core::steps::{Step, expect};
use anywan_daemon::kernel::Kernel;

use crate::net::{fresh_network, index, mount_sys, open, pair, run};

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn read(kernel: &mut Kernel, of: &[&str]) -> Cpus {
    kernel.cpus(&names(of)).expect("the links can be read")
}

fn mask(device: &str) -> String {
    let path = format!("/sys/class/net/{device}/queues/rx-0/rps_cpus");
    fs::read_to_string(path).expect("the kernel has RPS").trim().to_owned()
}

fn of_queue(device: &str) -> CpuFile {
    CpuFile::Receive { device: device.to_owned(), queue: 0 }
}

/// Applies a step and compares what is read then with what core expects.
fn contract(kernel: &mut Kernel, of: &[&str], step: &Step) {
    let mut expected = Observed { cpus: read(kernel, of), ..Observed::default() };
    expect(&mut expected, step);
    kernel.apply(step).expect("it can be written");
    assert_eq!(read(kernel, of), expected.cpus, "after: {step}");
}

fn set(kernel: &mut Kernel, device: &str) -> Step {
    let wanted = spread_over_cpus(&read(kernel, &[device]), None);
    let file = of_queue(device);
    let value = wanted.get(&file).expect("two CPUs at least").clone();
    Step::SetCpus { file, value }
}

#[test]
fn a_queue_is_handed_to_other_cpus_and_back_exactly_as_it_was() {
    fresh_network(|state| {
        mount_sys();
        pair("a0");
        fs::write("/sys/class/net/a0/queues/rx-0/rps_cpus", "1").expect("two CPUs");
        let (mut kernel, before) = (open(state), mask("a0"));
        let step = set(&mut kernel, "a0");
        contract(&mut kernel, &["a0"], &step);
        assert_ne!(mask("a0"), before);
        let now = read(&mut kernel, &["a0"]);
        assert_eq!(
            spread_over_cpus(&now, None).get(&of_queue("a0")),
            now.files.get(&of_queue("a0"))
        );

        // Another daemon knows what was, though nobody asks for the interface any more.
        let mut kernel = open(state);
        contract(&mut kernel, &["a0"], &step);
        let found = read(&mut kernel, &[]);
        let (file, value) = found.before.first_key_value().expect("it is remembered");
        assert_eq!((file, value.as_str()), (&of_queue("a0"), "1"));
        let back = Step::RestoreCpus { file: file.clone(), value: value.clone() };
        contract(&mut kernel, &["a0"], &back);
        assert_eq!(mask("a0"), before);
        assert_eq!(read(&mut open(state), &[]), Cpus::default());
    });
}

#[test]
fn queues_are_seen_as_the_kernel_has_them() {
    fresh_network(|state| {
        mount_sys();
        run("ip link add many numrxqueues 4 numtxqueues 4 type veth peer name manyp");
        pair("a0");
        run("ip link add br0 type bridge");
        run("ip link set many master br0");
        run("ip link add link a0 name mac0 type macvlan");
        run("ip tuntap add name ppp7 mode tun");
        let found = read(&mut open(state), &["many", "br0", "mac0", "ppp7", "not-there"]);
        // A bridge's ports without a device lead to containers; what is for mac0 comes by a0.
        assert_eq!(found.nics.keys().collect::<Vec<_>>(), ["a0", "many", "ppp7"]);
        let nic = |name: &str| (found.nics[name].receive, found.nics[name].transmit);
        assert_eq!([nic("a0"), nic("many"), nic("ppp7")], [(1, 1), (4, 4), (1, 1)]);
        assert!(found.nics.values().all(|nic| !nic.hardware && nic.irqs.is_empty()));
        assert!(found.files.contains_key(&of_queue("a0")), "{:?}", found.files);
        let several = CpuFile::Transmit { device: "many".into(), queue: 3 };
        assert!(found.files.contains_key(&several), "{:?}", found.files);
        // Senders bring what is for several queues on as many CPUs, and choose among them themselves.
        let wanted = spread_over_cpus(&found, None);
        assert!(wanted.keys().all(|file| matches!(file, CpuFile::Receive { queue: 0, .. })));
        assert!(!wanted.contains_key(&of_queue("many")), "{wanted:?}");
        let cpus = fs::read_to_string("/sys/devices/system/cpu/online").expect("it is there");
        let cpus = CpuSet::from_list(&cpus).expect("a list");
        assert!(!found.usable.is_empty() && found.usable.keys().all(|cpu| cpus.0.contains(cpu)));
    });
}

#[test]
fn nothing_is_read_or_remembered_where_nobody_asks() {
    fresh_network(|state| {
        mount_sys();
        pair("a0");
        let mut kernel = open(state);
        assert_eq!(read(&mut kernel, &[]), Cpus::default());
        let step = Step::SetCpus { file: of_queue("a0"), value: "1".to_owned() };
        assert!(kernel.apply(&step).is_err(), "what was not read is not written");
        assert_eq!(mask("a0").trim_matches(['0', ',']), "");
        assert!(!state.0.join("cpus.json").exists() || read(&mut kernel, &[]) == Cpus::default());
    });
}

#[test]
fn another_namespaces_sys_is_not_ours_to_write() {
    fresh_network(|state| {
        // What is mounted is the test's own, from outside.
        pair("a0");
        let found = read(&mut open(state), &["a0", "lo", "eth0"]);
        assert_eq!(found, Cpus::default());
    });
}

#[test]
fn an_interface_that_went_away_is_forgotten_and_a_new_one_of_its_name_has_its_own_past() {
    fresh_network(|state| {
        mount_sys();
        let first = pair("a0");
        let mut kernel = open(state);
        let step = set(&mut kernel, "a0");
        contract(&mut kernel, &["a0"], &step);
        run("ip link del a0");
        let back = Step::RestoreCpus { file: of_queue("a0"), value: "0".to_owned() };
        contract(&mut kernel, &["a0"], &back);
        assert!(read(&mut kernel, &["a0"]).before.is_empty());
        pair("a0");
        assert_ne!(index("a0"), first);
        let step = set(&mut kernel, "a0");
        contract(&mut kernel, &["a0"], &step);
    });
}

#[test]
fn a_refused_mask_is_told_and_not_remembered() {
    fresh_network(|state| {
        mount_sys();
        pair("a0");
        let mut kernel = open(state);
        read(&mut kernel, &["a0"]);
        let step = Step::SetCpus { file: of_queue("a0"), value: "nonsense".to_owned() };
        let error = kernel.apply(&step).expect_err("this is no mask");
        assert_eq!(error.to_string(), "set a0/rx-0/rps_cpus to nonsense");
        assert!(read(&mut kernel, &["a0"]).before.is_empty());
    });
}
