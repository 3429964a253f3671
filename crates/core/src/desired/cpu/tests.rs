//! Where the work goes, for machines made up here; those of the kernel's `/sys` are beside the
//! daemon's reader (`crates/daemon/tests/cpu/`).

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::observed::Core;

/// A machine with CPUs 0 to N-1, all alike.
fn machine(cpus: u16) -> Cpus {
    Cpus { usable: (0..cpus).map(|cpu| (cpu, Core::default())).collect(), ..Cpus::default() }
}

fn set(cpus: impl IntoIterator<Item = u16>) -> CpuSet {
    CpuSet(cpus.into_iter().collect())
}

fn movable(queue: Option<u16>) -> Irq {
    Irq { queue, fixed: None }
}

fn fixed(cpus: impl IntoIterator<Item = u16>) -> Irq {
    Irq { queue: None, fixed: Some(set(cpus)) }
}

/// Plugs an interface with all its files in.
fn plug(cpus: &mut Cpus, name: &str, hardware: bool, queues: (u16, u16), irqs: &[(u32, Irq)]) {
    let device = || name.to_owned();
    for queue in 0..queues.0 {
        cpus.files.insert(CpuFile::Receive { device: device(), queue }, "0".to_owned());
        cpus.files.insert(CpuFile::Flows { device: device(), queue }, "0".to_owned());
    }
    for queue in (0..queues.1).filter(|_| queues.1 > 1) {
        cpus.files.insert(CpuFile::Transmit { device: device(), queue }, "0".to_owned());
    }
    for (irq, _) in irqs.iter().filter(|(_, about)| about.fixed.is_none()) {
        cpus.files.insert(CpuFile::Interrupt { device: device(), irq: *irq }, "f".to_owned());
    }
    let (receive, transmit) = queues;
    let irqs = irqs.iter().cloned().collect();
    let near = CpuSet::default();
    cpus.nics.insert(device(), Nic { hardware, near, receive, transmit, irqs });
}

/// What is wanted, a line each.
fn told(cpus: &Cpus) -> Vec<String> {
    spread(cpus, None).iter().map(|(file, value)| format!("{file} = {value}")).collect()
}

#[test]
fn nothing_is_spread_over_one_cpu_or_none() {
    for count in [0, 1] {
        let mut cpus = machine(count);
        plug(&mut cpus, "eth0", true, (4, 4), &[(40, movable(None))]);
        plug(&mut cpus, "ppp0", false, (1, 1), &[]);
        assert_eq!(told(&cpus), Vec::<String>::new());
    }
}

#[test]
fn an_interrupt_that_cannot_leave_its_cpu_keeps_it_and_the_others_do_the_rest() {
    let mut cpus = machine(4);
    plug(&mut cpus, "usb0", true, (1, 1), &[(31, fixed([0]))]);
    plug(&mut cpus, "usb1", true, (1, 1), &[(31, fixed([0]))]);
    assert_eq!(told(&cpus), ["usb0/rx-0/rps_cpus = e", "usb1/rx-0/rps_cpus = e"]);
}

#[test]
fn single_queues_are_interrupted_each_on_a_cpu_of_its_own() {
    let mut cpus = machine(4);
    plug(&mut cpus, "eth0", true, (1, 1), &[(40, movable(None))]);
    plug(&mut cpus, "eth1", true, (1, 1), &[(41, movable(None))]);
    plug(&mut cpus, "usb0", true, (1, 1), &[(31, fixed([0]))]);
    assert_eq!(
        told(&cpus),
        [
            "eth0/irq-40/smp_affinity = 2",
            "eth1/irq-41/smp_affinity = 4",
            "eth0/rx-0/rps_cpus = c",
            "eth1/rx-0/rps_cpus = a",
            "usb0/rx-0/rps_cpus = e",
        ]
    );
}

#[test]
fn two_cpus_share_interrupt_and_rest() {
    let mut cpus = machine(2);
    plug(&mut cpus, "eth0", true, (1, 1), &[(40, movable(None))]);
    plug(&mut cpus, "usb0", true, (1, 1), &[(31, fixed([0]))]);
    assert_eq!(
        told(&cpus),
        ["eth0/irq-40/smp_affinity = 2", "eth0/rx-0/rps_cpus = 1", "usb0/rx-0/rps_cpus = 2"]
    );
}

#[test]
fn a_queue_for_each_cpu_needs_no_rps() {
    let mut cpus = machine(4);
    let irqs: Vec<(u32, Irq)> = (0..4_u16)
        .map(|q| (50 + u32::from(q), movable(Some(q))))
        .chain([(54, movable(None))])
        .collect();
    plug(&mut cpus, "eth0", true, (4, 4), &irqs);
    let wanted = told(&cpus);
    assert_eq!(wanted.len(), 8, "{wanted:?}");
    for queue in 0..4 {
        let mask = format!("{:x}", 1 << queue);
        assert!(wanted.contains(&format!("eth0/irq-{}/smp_affinity = {mask}", 50 + queue)));
        assert!(wanted.contains(&format!("eth0/tx-{queue}/xps_cpus = {mask}")));
    }
}

#[test]
fn fewer_queues_than_cpus_share_the_spare_ones() {
    let mut cpus = machine(8);
    let irqs: Vec<(u32, Irq)> = (0..2_u16).map(|q| (50 + u32::from(q), movable(Some(q)))).collect();
    plug(&mut cpus, "eth0", true, (2, 2), &irqs);
    assert_eq!(
        told(&cpus),
        [
            "eth0/irq-50/smp_affinity = 1",
            "eth0/irq-51/smp_affinity = 2",
            "eth0/rx-0/rps_cpus = 55",
            "eth0/rx-1/rps_cpus = aa",
            "eth0/tx-0/xps_cpus = 55",
            "eth0/tx-1/xps_cpus = aa",
        ]
    );
}

#[test]
fn more_queues_to_send_by_than_cpus_are_all_used() {
    let mut cpus = machine(2);
    plug(&mut cpus, "eth0", true, (4, 4), &[(50, fixed([0]))]);
    assert_eq!(
        told(&cpus),
        [
            "eth0/rx-0/rps_cpus = 2",
            "eth0/rx-1/rps_cpus = 2",
            "eth0/rx-2/rps_cpus = 2",
            "eth0/rx-3/rps_cpus = 2",
            "eth0/tx-0/xps_cpus = 1",
            "eth0/tx-1/xps_cpus = 2",
            "eth0/tx-2/xps_cpus = 1",
            "eth0/tx-3/xps_cpus = 2",
        ]
    );
}

#[test]
fn classes_of_priority_are_not_given_to_cpus() {
    let mut cpus = machine(4);
    plug(&mut cpus, "wlan0", true, (1, 4), &[]);
    assert_eq!(told(&cpus), ["wlan0/rx-0/rps_cpus = e"]);
}

#[test]
fn the_kernels_own_interfaces_leave_out_the_cpu_of_unplaced_interrupts() {
    let mut cpus = machine(4);
    plug(&mut cpus, "ppp0", false, (1, 1), &[]);
    plug(&mut cpus, "tun0", false, (4, 4), &[]);
    assert_eq!(told(&cpus), ["ppp0/rx-0/rps_cpus = e"]);
}

#[test]
fn offline_cpus_get_nothing() {
    let mut cpus = machine(4);
    cpus.usable.remove(&0);
    cpus.usable.remove(&2);
    plug(&mut cpus, "eth0", true, (1, 1), &[(40, movable(None))]);
    plug(&mut cpus, "usb0", true, (1, 1), &[(31, fixed([1]))]);
    assert_eq!(
        told(&cpus),
        ["eth0/irq-40/smp_affinity = 8", "eth0/rx-0/rps_cpus = 2", "usb0/rx-0/rps_cpus = 8"]
    );
}

#[test]
fn irqbalance_keeps_the_interrupts() {
    let mut cpus = machine(4);
    cpus.balanced = true;
    plug(&mut cpus, "eth0", true, (1, 1), &[(40, movable(None))]);
    plug(&mut cpus, "eth1", true, (2, 2), &[(41, movable(Some(0))), (42, movable(Some(1)))]);
    assert_eq!(
        told(&cpus),
        ["eth0/rx-0/rps_cpus = f", "eth1/tx-0/xps_cpus = 5", "eth1/tx-1/xps_cpus = a"]
    );
}

#[test]
fn strong_cpus_and_whole_cores_are_interrupted_first() {
    let mut cpus = machine(6);
    for (cpu, core) in &mut cpus.usable {
        core.capacity = Some(if *cpu < 4 { 485 } else { 1024 });
    }
    plug(&mut cpus, "eth0", true, (1, 1), &[(40, movable(None))]);
    assert_eq!(told(&cpus), ["eth0/irq-40/smp_affinity = 10", "eth0/rx-0/rps_cpus = 2f"]);

    let mut cpus = machine(4);
    for (cpu, core) in &mut cpus.usable {
        core.sibling = cpu % 2 == 1;
    }
    let irqs = [(50, movable(Some(0))), (51, movable(Some(1)))];
    plug(&mut cpus, "eth0", true, (2, 2), &irqs);
    assert_eq!(
        told(&cpus),
        [
            "eth0/irq-50/smp_affinity = 1",
            "eth0/irq-51/smp_affinity = 4",
            "eth0/tx-0/xps_cpus = 3",
            "eth0/tx-1/xps_cpus = c",
        ]
    );
}

#[test]
fn only_cpus_that_share_the_memory_are_handed_packets() {
    let mut cpus = machine(8);
    plug(&mut cpus, "eth0", true, (1, 1), &[(40, movable(None))]);
    if let Some(nic) = cpus.nics.get_mut("eth0") {
        nic.near = set(4..8);
    }
    assert_eq!(told(&cpus), ["eth0/irq-40/smp_affinity = 10", "eth0/rx-0/rps_cpus = e0"]);
}

#[test]
fn flows_are_followed_only_beside_rps_and_where_the_kernel_can() {
    let mut cpus = machine(4);
    plug(&mut cpus, "eth0", true, (1, 1), &[(40, movable(None))]);
    let flows = CpuFile::Flows { device: "eth0".to_owned(), queue: 0 };
    assert_eq!(spread(&cpus, Some(FLOWS)).get(&flows).map(String::as_str), Some("4096"));
    assert_eq!(spread(&cpus, Some(5000)).get(&flows).map(String::as_str), Some("4096"));
    assert_eq!(spread(&cpus, None).get(&flows), None);
}

#[test]
fn what_cannot_be_written_is_not_wanted() {
    let mut cpus = machine(4);
    plug(&mut cpus, "eth0", true, (2, 2), &[(40, movable(None))]);
    cpus.files.clear();
    assert_eq!(spread(&cpus, Some(FLOWS)), BTreeMap::new());
}

/// A queue's name and the CPU that cannot be left, of an interrupt.
type DrawnIrq = (Option<u16>, Option<u16>);

proptest! {
    #[test]
    fn only_usable_cpus_get_work_whatever_the_files_say_now(
        count in 0_u16..40,
        absent in any::<u64>(),
        balanced in any::<bool>(),
        nics in vec((any::<bool>(), 0_u16..9, 0_u16..9, vec(any::<DrawnIrq>(), 0..9)), 0..5),
    ) {
        let mut cpus = machine(count);
        cpus.usable.retain(|cpu, core| {
            core.sibling = cpu % 3 == 1;
            absent >> cpu & 1 == 0
        });
        cpus.balanced = balanced;
        for (place, (hardware, receive, transmit, drawn)) in (0_u32..).zip(nics) {
            let irq = |(queue, at): DrawnIrq| Irq { queue, fixed: at.map(|at| set([at % 40])) };
            let irqs: Vec<(u32, Irq)> = (100 * place..).zip(drawn.into_iter().map(irq)).collect();
            plug(&mut cpus, &format!("eth{place}"), hardware, (receive, transmit), &irqs);
        }
        let wanted = spread(&cpus, Some(FLOWS));
        for (file, value) in &wanted {
            if !matches!(file, CpuFile::Flows { .. }) {
                let set = CpuSet::from_mask(value).expect("a mask").0;
                let usable = set.iter().all(|cpu| cpus.usable.contains_key(cpu));
                prop_assert!(usable && !set.is_empty());
            }
            prop_assert!(cpus.files.contains_key(file));
        }
        // What was written changes nothing, or the plan would never settle.
        cpus.files.extend(wanted.clone());
        prop_assert_eq!(spread(&cpus, Some(FLOWS)), wanted);
    }
}
