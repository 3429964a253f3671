//! Reads the CPUs, and the queues and interrupts of interfaces, from `/sys` and `/proc/irq`; says
//! which CPUs serve them. In: names of interfaces. Out: [`Cpus`]. What is not there, or cannot be
//! written, is left out without a word: a container may have no `/sys`, or only one to look at.
//! Refuses to write what it has not read as a file of that interface.

mod irqs;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anywan_core::names::IfIndex;
use anywan_core::observed::{Core, CpuFile, CpuSet, Cpus, Link, Nic};
use rustix::fs::Access;

use super::error::KernelError;
use super::remember::Memory;
use irqs::{Found, Interrupts};

/// The most queues of an interface that are looked at: the largest cards have 256.
const QUEUES_MAX: u16 = 1024;
/// A bridge of bonds of VLANs is three; what is deeper is a loop.
const LAYERS_MAX: usize = 8;
/// Interfaces that only pass on what others have received: a packet is not steered once more.
const STACKED: [&str; 5] = ["bridge", "bond", "vlan", "macvlan", "team"];

/// The files of one kernel, and what it said to our changes.
#[derive(Debug)]
pub struct Files {
    /// `/`, or the copy of one.
    root: PathBuf,
    /// Interrupts that it refused to move, while so many CPUs were there.
    refused: BTreeSet<u32>,
    usable: BTreeSet<u16>,
    /// What can be written, as last read.
    known: BTreeSet<CpuFile>,
}

impl Files {
    /// The files below `root`.
    pub fn new(root: &Path) -> Files {
        let (refused, usable, known) = Default::default();
        Files { root: root.to_owned(), refused, usable, known }
    }

    /// The CPUs, what of the interfaces `names` is to be spread over them, and the present state of
    /// what was changed `before`. Nothing is read where nobody asks.
    pub fn read(&mut self, names: &BTreeSet<String>, before: &BTreeMap<CpuFile, String>) -> Cpus {
        if names.is_empty() && before.is_empty() {
            self.known.clear();
            return Cpus::default();
        }
        let usable = self.cores();
        let present: BTreeSet<u16> = usable.keys().copied().collect();
        if self.usable != present {
            // With other CPUs the answer may be another.
            self.refused.clear();
            self.usable = present;
        }
        let mut devices = BTreeSet::new();
        for name in names {
            self.real(name, LAYERS_MAX, &mut devices);
        }
        let mut interrupts = Interrupts::new(&self.root, &self.refused);
        let mut cpus = Cpus { usable, before: before.clone(), ..Cpus::default() };
        for device in &devices {
            let nic = self.nic(device, &mut interrupts, &mut cpus.files);
            cpus.nics.insert(device.clone(), nic);
        }
        let former: BTreeSet<&str> = before.keys().map(CpuFile::device).collect();
        for device in former.into_iter().filter(|device| !devices.contains(*device)) {
            self.nic(device, &mut interrupts, &mut cpus.files);
        }
        cpus.balanced = interrupts.balanced();
        self.known = cpus.files.keys().cloned().collect();
        cpus
    }

    /// Writes a file, after what it says has been remembered.
    pub(crate) fn set(
        &mut self,
        memory: &mut Memory,
        file: &CpuFile,
        value: &str,
    ) -> Result<(), KernelError> {
        let was_ours = memory.cpus().contains_key(file);
        if let Some(before) = self.say(file) {
            memory.remember_cpus(file, before);
        }
        let outcome = self.write(file, value);
        if outcome.is_err() && !was_ours {
            memory.forget_cpus(file);
        }
        outcome
    }

    /// Writes what a file said before us, and forgets it. One that went away with its interface,
    /// or an interrupt that belongs to another by now, needs no restoring.
    pub(crate) fn restore(
        &mut self,
        memory: &mut Memory,
        file: &CpuFile,
        value: &str,
    ) -> Result<(), KernelError> {
        if self.known.contains(file) && self.path(file).exists() {
            self.write(file, value)?;
        }
        memory.forget_cpus(file);
        Ok(())
    }

    fn write(&mut self, file: &CpuFile, value: &str) -> Result<(), KernelError> {
        let failed = |source| KernelError::Cpus { what: format!("set {file} to {value}"), source };
        if !self.known.contains(file) {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        // Not `fs::write`: it would create a file, should this one not exist.
        let opened = fs::OpenOptions::new().write(true).open(self.path(file));
        let written = opened.and_then(|mut opened| opened.write_all(value.as_bytes()));
        if let (Err(_), CpuFile::Interrupt { irq, .. }) = (&written, file) {
            // Its controller cannot (`EIO`, `EINVAL`), though its mode says otherwise.
            self.refused.insert(*irq);
        }
        written.map_err(failed)
    }

    fn path(&self, file: &CpuFile) -> PathBuf {
        let queues = |device: &str| self.interface(device).join("queues");
        match file {
            CpuFile::Interrupt { irq, .. } => {
                self.root.join(format!("proc/irq/{irq}/smp_affinity"))
            }
            CpuFile::Receive { device, queue } => {
                queues(device).join(format!("rx-{queue}/rps_cpus"))
            }
            CpuFile::Flows { device, queue } => {
                queues(device).join(format!("rx-{queue}/rps_flow_cnt"))
            }
            CpuFile::Transmit { device, queue } => {
                queues(device).join(format!("tx-{queue}/xps_cpus"))
            }
        }
    }

    fn interface(&self, device: &str) -> PathBuf {
        self.root.join("sys/class/net").join(device)
    }

    /// What a file says, if it can be written.
    fn say(&self, file: &CpuFile) -> Option<String> {
        let path = self.path(file);
        if !writable(&path) {
            return None;
        }
        let text = fs::read_to_string(path).ok()?;
        match file {
            CpuFile::Flows { .. } => Some(text.trim().to_owned()),
            CpuFile::Interrupt { .. } | CpuFile::Receive { .. } | CpuFile::Transmit { .. } => {
                CpuSet::from_mask(&text).map(|set| set.mask())
            }
        }
    }

    /// The CPUs that may be given work.
    fn cores(&self) -> BTreeMap<u16, Core> {
        let folder = self.root.join("sys/devices/system/cpu");
        let list = |name: &str| {
            let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
            CpuSet::from_list(&text).unwrap_or_default().0
        };
        // The kernel refuses RPS to CPUs that were set apart.
        let apart: BTreeSet<u16> = list("isolated").union(&list("nohz_full")).copied().collect();
        let core = |cpu: u16| {
            let capacity = fs::read_to_string(folder.join(format!("cpu{cpu}/cpu_capacity"))).ok();
            let threads = list(&format!("cpu{cpu}/topology/thread_siblings_list"));
            let first = threads.first().copied().unwrap_or(cpu);
            Core { capacity: capacity.and_then(|c| c.trim().parse().ok()), sibling: first != cpu }
        };
        let online = list("online");
        online.difference(&apart).map(|cpu| (*cpu, core(*cpu))).collect()
    }

    /// Adds the interfaces by which the packets of one really come: itself, or those below it.
    fn real(&self, name: &str, layers: usize, devices: &mut BTreeSet<String>) {
        let folder = self.interface(name);
        if layers == 0 || !folder.is_dir() {
            return;
        }
        let kind = fs::read_to_string(folder.join("uevent")).unwrap_or_default();
        let kind = kind.lines().find_map(|line| line.strip_prefix("DEVTYPE=")).unwrap_or_default();
        let below: Vec<String> = entries(&folder)
            .filter_map(|entry| entry.strip_prefix("lower_").map(str::to_owned))
            .collect();
        if below.is_empty() && !STACKED.contains(&kind) {
            devices.insert(name.to_owned());
        }
        for lower in below {
            // Other ports of a bridge lead to containers and virtual machines, not to the network.
            let real = |lower: &String| self.interface(lower).join("device").exists();
            if kind != "bridge" || real(&lower) {
                self.real(&lower, layers - 1, devices);
            }
        }
    }

    /// One interface; what its files say is added to `files`.
    fn nic(
        &self,
        device: &str,
        interrupts: &mut Interrupts<'_>,
        files: &mut BTreeMap<CpuFile, String>,
    ) -> Nic {
        let folder = self.interface(device);
        let hardware = folder.join("device").exists();
        let near = fs::read_to_string(folder.join("device/local_cpulist")).unwrap_or_default();
        let near = CpuSet::from_list(&near).unwrap_or_default();
        let (mut receive, mut transmit) = (0, 0);
        let mut say = |file: CpuFile| {
            if let Some(text) = self.say(&file) {
                files.insert(file, text);
            }
        };
        let own = || device.to_owned();
        for entry in entries(&folder.join("queues")) {
            let Some((kind, number)) = entry.split_once('-') else { continue };
            let Some(queue) = number.parse().ok().filter(|queue| *queue < QUEUES_MAX) else {
                continue;
            };
            if kind == "rx" {
                receive += 1;
                say(CpuFile::Receive { device: own(), queue });
                say(CpuFile::Flows { device: own(), queue });
            } else if kind == "tx" {
                transmit += 1;
                say(CpuFile::Transmit { device: own(), queue });
            }
        }
        let found = if hardware { interrupts.of(device) } else { BTreeMap::new() };
        for (irq, Found { movable, .. }) in &found {
            if *movable {
                say(CpuFile::Interrupt { device: own(), irq: *irq });
            }
        }
        let irqs = found.into_iter().map(|(irq, found)| (irq, found.irq)).collect();
        Nic { hardware, near, receive, transmit, irqs }
    }
}

/// Whether `/sys` shows the network namespace whose interfaces `links` are: it is that of whoever
/// mounted it, which need not be ours.
pub(crate) fn shows(links: &BTreeMap<IfIndex, Link>) -> bool {
    let folder = Path::new("/sys/class/net");
    let index = |name: &String| -> Option<IfIndex> {
        let text = fs::read_to_string(folder.join(name).join("ifindex")).ok()?;
        text.trim().parse().ok().map(IfIndex)
    };
    let shown: BTreeSet<(IfIndex, String)> =
        entries(folder).filter_map(|name| Some((index(&name)?, name))).collect();
    let there: BTreeSet<(IfIndex, String)> =
        links.iter().map(|(index, link)| (*index, link.name.clone())).collect();
    shown == there
}

/// The names in a folder, sorted; none where there is no such folder.
fn entries(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let read = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names: BTreeSet<String> =
        read.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.into_iter()
}

/// Whether a file is there to be written. Root may write whatever is not mounted read-only; the
/// mode of a file tells what its driver can do.
fn writable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path).map(|about| about.permissions().mode()).unwrap_or_default();
    mode & 0o222 != 0 && rustix::fs::access(path, Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four CPUs, and a card with one queue whose interrupt 45 its mode allows to be moved.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str) -> Machine {
            let id = std::process::id();
            let root = std::env::temp_dir().join(format!("anywan-files-{name}-{id}"));
            let _ = fs::remove_dir_all(&root);
            let machine = Machine(root);
            for (path, text) in [
                ("sys/devices/system/cpu/online", "0-3"),
                ("sys/class/net/eth0/device/irq", "45"),
                ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0"),
                ("proc/irq/45/smp_affinity", "f"),
                ("proc/irq/45/effective_affinity", "4"),
                ("proc/interrupts", "CPU0 CPU1 CPU2 CPU3\n45: 0 0 9 0 PCI-MSI 1-edge eth0"),
            ] {
                machine.write(path, text);
            }
            machine
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            fs::write(path, text).expect("writable");
        }

        fn say(&self, path: &str) -> String {
            fs::read_to_string(self.0.join(path)).expect("it is there")
        }

        fn memory(&self) -> Memory {
            Memory::open(&self.0)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn interrupt() -> CpuFile {
        CpuFile::Interrupt { device: "eth0".to_owned(), irq: 45 }
    }

    fn read(files: &mut Files, memory: &Memory) -> Cpus {
        files.read(&BTreeSet::from(["eth0".to_owned()]), memory.cpus())
    }

    #[test]
    fn an_interrupt_that_is_refused_is_fixed_until_other_cpus_are_there() {
        let machine = Machine::new("refused");
        let (mut files, mut memory) = (Files::new(&machine.0), machine.memory());
        assert_eq!(read(&mut files, &memory).nics["eth0"].irqs[&45].fixed, None);
        // A folder cannot be written, as little as an interrupt whose controller cannot move it.
        let path = machine.0.join("proc/irq/45/smp_affinity");
        fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).expect("ours");
        files.set(&mut memory, &interrupt(), "2").expect_err("a folder");
        fs::remove_dir(&path).expect("empty");
        machine.write("proc/irq/45/smp_affinity", "f");

        let cpus = read(&mut files, &memory);
        assert_eq!(cpus.nics["eth0"].irqs[&45].fixed, CpuSet::from_mask("4"));
        assert!(!cpus.files.contains_key(&interrupt()) && cpus.before.is_empty());
        machine.write("sys/devices/system/cpu/online", "0-2");
        assert_eq!(read(&mut files, &memory).nics["eth0"].irqs[&45].fixed, None);
    }

    #[test]
    fn an_interrupt_that_is_anothers_by_now_is_forgotten_and_not_written() {
        let machine = Machine::new("anothers");
        let (mut files, mut memory) = (Files::new(&machine.0), machine.memory());
        read(&mut files, &memory);
        files.set(&mut memory, &interrupt(), "2").expect("writable");
        assert_eq!(machine.say("proc/irq/45/smp_affinity"), "2");
        assert_eq!(read(&mut files, &memory).before[&interrupt()], "f");

        machine.write("sys/class/net/eth0/device/irq", "0");
        machine.write("proc/interrupts", "CPU0 CPU1 CPU2 CPU3\n45: 0 0 9 0 PCI-MSI 1-edge nvme0q1");
        read(&mut files, &memory);
        files.restore(&mut memory, &interrupt(), "f").expect("there is nothing to do");
        assert_eq!(machine.say("proc/irq/45/smp_affinity"), "2");
        assert!(memory.cpus().is_empty());
    }
}
