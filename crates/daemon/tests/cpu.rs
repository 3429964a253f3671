//! Machines as the kernel shows them in `/sys` and `/proc`, read by the daemon's own reader and
//! spread over their CPUs by the core: `cpu/*.txt` gives `cpu/*.expect`; `UPDATE_EXPECT=1` rewrites.
//!
//! A machine is a list of files, a line each: `PATH: CONTENT`, `PATH (ro): CONTENT` for one that
//! cannot be written, `PATH -> TARGET` for a link, `interrupts: LINE` for one more line of
//! `/proc/interrupts`. `{0..15}` makes a line for each number; several ranges count together.
//! `ask NAME …` are the interfaces of the configuration; `flows N` what the kernel has for RFS.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anywan_core::desired::spread_over_cpus;
use anywan_core::observed::{CpuFile, CpuSet, Cpus};
use anywan_daemon::kernel::cpu::Files;

/// A machine's files in a folder of their own, removed at the end.
struct Machine {
    root: PathBuf,
    asked: BTreeSet<String>,
    flows: Option<u32>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Machine {
    fn build(name: &str, text: &str) -> Machine {
        let root = std::env::temp_dir().join(format!("anywan-cpu-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let mut machine = Machine { root, asked: BTreeSet::new(), flows: None };
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines.flat_map(expanded) {
            machine.learn(&line);
        }
        machine
    }

    fn learn(&mut self, line: &str) {
        if let Some(names) = line.strip_prefix("ask ") {
            self.asked = names.split_whitespace().map(str::to_owned).collect();
        } else if let Some(number) = line.strip_prefix("flows ") {
            self.flows = Some(number.parse().expect("a number"));
        } else if let Some(row) = line.strip_prefix("interrupts: ") {
            let path = self.path("proc/interrupts");
            let before = fs::read_to_string(&path).unwrap_or_default();
            fs::write(path, format!("{before}{row}\n")).expect("writable");
        } else if let Some((path, target)) = line.split_once(" -> ") {
            symlink(target, self.path(path)).expect("a link");
        } else {
            let (path, content) = line.split_once(": ").expect("a path and its content");
            let read_only = path.strip_suffix(" (ro)");
            let path = self.path(read_only.unwrap_or(path));
            fs::write(&path, format!("{content}\n")).expect("writable");
            let mode = if read_only.is_some() { 0o444 } else { 0o644 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
        }
    }

    /// A path below the root, whose folder is made.
    fn path(&self, path: &str) -> PathBuf {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the temporary directory");
        path
    }

    fn read(&self) -> Cpus {
        Files::new(&self.root).read(&self.asked, &BTreeMap::new())
    }
}

/// A line for each number of its ranges.
fn expanded(line: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for count in 0.. {
        let (mut text, mut rest) = (String::new(), line);
        while let Some((before, (range, after))) =
            rest.split_once('{').and_then(|(before, r)| Some((before, r.split_once('}')?)))
        {
            let (first, last) = range.split_once("..").expect("a range");
            let number = first.parse::<u32>().expect("a number") + count;
            if number > last.parse().expect("a number") {
                return lines;
            }
            let _ = write!(text, "{before}{number}");
            rest = after;
        }
        lines.push(text + rest);
        if rest == line {
            break;
        }
    }
    lines
}

/// What was read of a machine, and what is made of it.
fn told(machine: &Machine) -> String {
    let cpus = machine.read();
    let mut out = String::new();
    let usable: Vec<String> = cpus.usable.keys().map(ToString::to_string).collect();
    let _ =
        writeln!(out, "cpus {}{}", usable.join(" "), if cpus.balanced { ", balanced" } else { "" });
    for (name, nic) in &cpus.nics {
        let kind = if nic.hardware { "a device" } else { "the kernel's own" };
        let _ =
            writeln!(out, "{name}: {kind}, {} to receive, {} to send", nic.receive, nic.transmit);
        for (irq, about) in &nic.irqs {
            let queue = about.queue.map_or_else(String::new, |queue| format!(" of queue {queue}"));
            let fixed = about
                .fixed
                .as_ref()
                .map_or_else(|| "can be moved".to_owned(), |at| format!("stays at {}", at.mask()));
            let _ = writeln!(out, "  irq {irq}{queue} {fixed}");
        }
    }
    out.push_str("wanted\n");
    for (file, value) in spread_over_cpus(&cpus, machine.flows) {
        let _ = writeln!(out, "  {file} = {value}");
    }
    out
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cpu").join(name);
    let text = fs::read_to_string(path.with_extension("txt")).expect("the machine is there");
    let is = told(&Machine::build(name, &text));
    let expected = path.with_extension("expect");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&expected, &is).expect("the tree is writable");
    }
    let expected = fs::read_to_string(expected).unwrap_or_default();
    assert!(is == expected, "{name} differs; UPDATE_EXPECT=1 rewrites it, if this is right:\n{is}");
}

macro_rules! machines {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_file_is_a_machine() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cpu");
            let there: BTreeSet<String> = fs::read_dir(folder)
                .expect("the machines are there")
                .map(|entry| entry.expect("readable").path())
                .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
                .collect();
            assert_eq!(there, BTreeSet::from([$(stringify!($name).to_owned()),*]));
        }
    };
}

machines! {
    bridge_and_vlans
    irqbalance_runs
    raspberry_pi_2
    raspberry_pi_3
    raspberry_pi_4
    raspberry_pi_5
    server_16_queues_16_cpus
    server_16_queues_32_cpus
    virtual_machine
}

#[test]
fn this_machine_is_read_as_it_is_and_nothing_is_wanted_that_it_lacks() {
    let names = fs::read_dir("/sys/class/net").expect("this is Linux");
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let cpus = Files::new(Path::new("/")).read(&names, &BTreeMap::new());
    let online = fs::read_to_string("/sys/devices/system/cpu/online").expect("there are CPUs");
    let online = CpuSet::from_list(&online).expect("a list").0;
    let usable: BTreeSet<u16> = cpus.usable.keys().copied().collect();
    assert!(!usable.is_empty() && usable.is_subset(&online), "{usable:?} of {online:?}");
    for (file, value) in spread_over_cpus(&cpus, Some(4096)) {
        assert!(cpus.files.contains_key(&file), "{file}");
        if !matches!(file, CpuFile::Flows { .. }) {
            let set = CpuSet::from_mask(&value).expect("a mask").0;
            assert!(!set.is_empty() && set.is_subset(&usable), "{file} = {value}");
        }
    }
}

#[test]
fn a_machine_without_sys_has_nothing_to_spread() {
    let mut machine = Machine::build("nothing", "");
    machine.asked = BTreeSet::from(["eth0".to_owned()]);
    assert_eq!(machine.read(), Cpus::default());
}
