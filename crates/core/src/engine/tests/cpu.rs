//! The work of the interfaces is spread once traffic is steered, and goes back.

use super::*;
use crate::config::Cpu;
use crate::observed::{CpuFile, Cpus, Irq, Nic};

const ENTRIES: &str = "net/core/rps_sock_flow_entries";

/// The router of these tests on a machine with four CPUs: a card with an interrupt and a stick.
fn world() -> World {
    let mut world = World::new(config(vec![wan(1, 1, 1), wan(2, 2, 1)]), 2);
    let cpus = &mut world.kernel.cpus;
    cpus.usable = (0..4).map(|cpu| (cpu, Default::default())).collect();
    for (device, irqs) in [("eth0", vec![(40, Irq::default())]), ("wan1", Vec::new())] {
        let irqs = irqs.into_iter().collect();
        let nic = Nic { hardware: true, receive: 1, transmit: 1, irqs, ..Nic::default() };
        cpus.nics.insert(device.to_owned(), nic);
        let device = || device.to_owned();
        cpus.files.insert(CpuFile::Receive { device: device(), queue: 0 }, "1".to_owned());
        cpus.files.insert(CpuFile::Flows { device: device(), queue: 0 }, "0".to_owned());
    }
    cpus.files.insert(CpuFile::Interrupt { device: "eth0".to_owned(), irq: 40 }, "f".to_owned());
    world
}

fn files(cpus: &Cpus) -> Vec<String> {
    cpus.files.iter().map(|(file, value)| format!("{file} = {value}")).collect()
}

fn is_cpus(step: &Step) -> bool {
    matches!(step, Step::SetCpus { .. } | Step::RestoreCpus { .. })
}

#[test]
fn work_is_spread_after_traffic_is_steered_and_goes_back_when_we_leave() {
    let mut world = world();
    let before = files(&world.kernel.cpus);
    world.seconds(1);
    assert_eq!(
        files(&world.kernel.cpus),
        [
            "eth0/irq-40/smp_affinity = 1",
            "eth0/rx-0/rps_cpus = e",
            "wan1/rx-0/rps_cpus = e",
            "eth0/rx-0/rps_flow_cnt = 4096",
            "wan1/rx-0/rps_flow_cnt = 4096",
        ]
    );
    assert_eq!(world.kernel.sysctls[ENTRIES], "4096");
    let first = world.carried_out.iter().position(is_cpus).expect("some");
    let table = |step: &Step| matches!(step, Step::ReplaceTable { .. } | Step::AddRule(_));
    let last = world.carried_out.iter().rposition(table).expect("some");
    assert!(first > last, "{:?}", world.carried_out);

    world.engine.handle(Event::Leave, world.now);
    world.seconds(1);
    assert!(world.engine.left());
    assert_eq!(files(&world.kernel.cpus), before);
    assert_eq!(world.kernel.sysctls[ENTRIES], "0");
    assert!(world.kernel.cpus.before.is_empty());
}

#[test]
fn a_restart_changes_nothing_also_before_the_cpus_are_read() {
    let mut world = world();
    world.seconds(1);
    let mut world = world.restarted();
    world.carried_out.clear();
    let cpus = std::mem::take(&mut world.kernel.cpus);
    world.turn();
    world.kernel.cpus = cpus;
    world.seconds(1);
    assert_eq!(world.carried_out, []);
}

#[test]
fn what_somebody_else_changes_is_repaired_and_told() {
    let mut world = world();
    world.seconds(1);
    let file = CpuFile::Receive { device: "wan1".to_owned(), queue: 0 };
    world.kernel.cpus.files.insert(file.clone(), "1".to_owned());
    world.happenings.clear();
    world.seconds(1);
    assert_eq!(world.kernel.cpus.files[&file], "e");
    let told: Vec<&str> = world.happenings.iter().map(|h| h.new.as_str()).collect();
    assert_eq!(told, ["set wan1/rx-0/rps_cpus = e"]);
}

#[test]
fn switched_off_everything_goes_back_and_nothing_more_is_asked_for() {
    let mut world = world();
    let before = files(&world.kernel.cpus);
    world.seconds(1);
    let mut other = world.engine.config.clone();
    other.cpu = Cpu::Off;
    assert!(!world.engine.follows(&other));
    world.engine.handle(Event::Config(Box::new(other)), world.now);
    world.seconds(1);
    assert_eq!(files(&world.kernel.cpus), before);
    assert_eq!(world.kernel.sysctls[ENTRIES], "0");
    assert!(world.engine.watched_interfaces().is_empty());
}

#[test]
fn somebodys_own_number_of_flows_is_kept() {
    let mut world = world();
    world.kernel.sysctls.insert(ENTRIES.to_owned(), "32768".to_owned());
    world.seconds(1);
    let flows = CpuFile::Flows { device: "wan1".to_owned(), queue: 0 };
    assert_eq!(world.kernel.cpus.files[&flows], "32768");
    assert!(!world.kernel.sysctls_before.contains_key(ENTRIES));
}

#[test]
fn irqbalance_is_told_of_and_gets_its_interrupts_back() {
    let mut world = world();
    world.seconds(1);
    world.kernel.cpus.balanced = true;
    world.seconds(1);
    let irq = CpuFile::Interrupt { device: "eth0".to_owned(), irq: 40 };
    assert_eq!(world.kernel.cpus.files[&irq], "f");
    let status = world.engine.status(&|_| String::new());
    let codes: Vec<&str> = status.problems.iter().map(|p| p.code.as_str()).collect();
    assert_eq!(codes, ["cpu.irqbalance"]);
}
