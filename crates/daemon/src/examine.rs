//! Reads what `anywan doctor` wants to know of this machine. Out: core's findings. Changes nothing;
//! a daemon may be running meanwhile. What cannot be read is left out, as on a machine that does
//! not have it.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anywan_core::api::{API_VERSION, Findings, Problem};
use anywan_core::config::{self, Config};
use anywan_core::doctor::{self, Machine};
use anywan_core::facts::Kept;
use anywan_core::observed::Observed;

use crate::children::Children;
use crate::kernel::{Kernel, clock_kept, programs};
use crate::ports;
use crate::run::{CONFIG, Options, load_config};
use crate::state;

/// Where systemd-networkd's own configuration is looked for, as networkd.conf(5) says: of drop-ins
/// with the same name that of the earlier folder holds.
const NETWORKD: [&str; 4] =
    ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];

/// Reads the machine and says what is found; without the configuration, if there is none yet where
/// it is looked for when none is named.
///
/// # Errors
/// [`crate::run::BadConfig`], or the kernel cannot be read: without CAP_NET_ADMIN, for one.
pub fn examine(options: &Options) -> anyhow::Result<Findings> {
    let none_yet = options.config == Path::new(CONFIG) && !options.config.exists();
    let config = if none_yet { None } else { Some(load_config(&options.config)?) };
    let config = config.as_ref();
    let mut kernel = Kernel::open(&options.state_dir)?;
    let kept = state::read(&options.state_dir);
    let mut observed = kernel.observe(Vec::<String>::new())?;
    observed.sysctls = kernel.sysctls(doctor::watched(config, &observed))?;
    observed.cpus = kernel.cpus(&doctor::placed_interfaces(config, &observed))?;
    let machine = Machine {
        release: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
        rules_refused: config.and_then(|config| refused(&kernel, config, &kept, &observed)),
        dropping: kernel.dropping_chains()?,
        legacy_iptables: ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"].iter().any(
            |file| fs::read_to_string(file).is_ok_and(|all| all.lines().any(|t| t == "filter")),
        ),
        programs: programs::running(Path::new("/")).collect(),
        networkd: networkd(&NETWORKD.map(PathBuf::from)),
        flows: number("count").zip(number("max")),
        clock: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        clock_kept: clock_kept(),
        dns_holders: dns_holders(options),
        exposed: config.map(|config| exposed(options, config)).unwrap_or_default(),
        observed,
        kept,
    };
    let placement = config.map(|config| doctor::placement(&machine, config));
    Ok(Findings { version: API_VERSION, findings: doctor::examine(&machine, config), placement })
}

/// Files with secrets that others may read.
fn exposed(options: &Options, config: &Config) -> Vec<Problem> {
    let mode = |path: &Path| fs::metadata(path).ok().map(|data| data.permissions().mode());
    let file = options.config.display().to_string();
    let own = mode(&options.config).and_then(|mode| config::exposed(config, &file, mode));
    own.into_iter().chain(config::exposed_files(config, |path| mode(Path::new(path)))).collect()
}

/// Who has port 53; our own dnsmasq is no stranger there.
fn dns_holders(options: &Options) -> BTreeSet<(IpAddr, String)> {
    let ours = Children::open(&options.socket, &options.state_dir).pids();
    let others = ports::holders(&[53]).into_iter().filter(|holder| !ours.contains(&holder.pid));
    others.map(|holder| (holder.at.ip(), holder.program)).collect()
}

fn refused(kernel: &Kernel, config: &Config, kept: &Kept, observed: &Observed) -> Option<String> {
    let error = kernel.check_table(&doctor::rules(config, kept, observed)).err()?;
    // nft shows the whole rule below its first line.
    error.to_string().lines().next().map(str::to_owned)
}

fn line(file: &str) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim_end().to_owned())
}

fn number(what: &str) -> Option<u64> {
    line(&format!("/proc/sys/net/netfilter/nf_conntrack_{what}"))?.parse().ok()
}

/// The texts of `networkd.conf` and its drop-ins, in the order in which they hold.
fn networkd(folders: &[PathBuf]) -> Vec<String> {
    let main =
        folders.iter().map(|folder| folder.join("networkd.conf")).find(|file| file.is_file());
    let mut drop_ins: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let files = fs::read_dir(folder.join("networkd.conf.d")).into_iter().flatten().flatten();
        for file in files.map(|entry| entry.path()) {
            let hidden = drop_ins.iter().any(|other| other.file_name() == file.file_name());
            if !hidden && file.extension().is_some_and(|extension| extension == "conf") {
                drop_ins.push(file);
            }
        }
    }
    drop_ins.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    main.iter().chain(&drop_ins).filter_map(|file| fs::read_to_string(file).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_hold_in_the_order_of_their_names_and_hide_those_of_later_folders() {
        let root = std::env::temp_dir().join(format!("anywan-networkd-{}", std::process::id()));
        let folders = ["etc", "run"].map(|name| root.join(name));
        for folder in &folders {
            fs::create_dir_all(folder.join("networkd.conf.d")).expect("a folder of our own");
        }
        for (file, text) in [
            ("run/networkd.conf", "main"),
            ("etc/networkd.conf.d/20.conf", "second"),
            ("run/networkd.conf.d/20.conf", "hidden"),
            ("run/networkd.conf.d/10.conf", "first"),
            ("run/networkd.conf.d/30.txt", "none"),
        ] {
            fs::write(root.join(file), text).expect("a file of our own");
        }
        let found = networkd(&folders);
        fs::remove_dir_all(&root).expect("it was there");
        assert_eq!(found, ["main", "first", "second"]);
    }
}
