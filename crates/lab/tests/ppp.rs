//! Lines that are dialled: a modem, emulated down to its AT commands, and PPPoE; at the far end a
//! real pppd and a real concentrator.
//!
//! Needs PPP in the kernel, and Debian's packages ppp and pppoe, so this program runs in the VM, where
//! Debian's kernels have it; anywhere else it fails and says so.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::daemon::{Status, child_in};
use anywan_lab::modem::{Answer, Sim, ensure_ppp};
use anywan_lab::{Config, Daemon, Family, Fault, Modem, Proto, Spec, Topology, until};
use rustix::process::{Pid, Signal, kill_process};

/// Safety net for whatever is waited for: dialling takes seconds, and the machine is slow.
const DEADLINE: Duration = Duration::from_secs(180);
/// What must be seen nowhere.
const SECRETS: [&str; 2] = ["hunter2-secret", "73591"];
/// The line's interface.
const LINE: &str = "ppp7";

/// A router with two WANs, the second of which is a line of this `[wan.ppp]`.
fn config(topology: &Topology, ppp: &str) -> Config {
    Config::of(topology).priorities(&[1, 2]).wan(2, |wan| {
        wan.interface = LINE.to_owned();
        (wan.gateway, wan.gateway6) = (None, None);
        wan.more.push(("ppp".to_owned(), format!("{{ {ppp} }}")));
    })
}

fn modem_keys(modem: &Modem, more: &str) -> String {
    format!("device = {:?}, apn = \"internet\"{more}", modem.port())
}

fn lab() -> Result<Topology> {
    ensure_ppp()?;
    let topology = Spec::routed(2).wan(2, |wan| wan.main_route = false).build()?;
    topology.router().run("ip addr flush dev w2")?;
    Ok(topology)
}

fn wait(daemon: &Daemon, what: &str, fits: impl Fn(&Status) -> bool) -> Result<Status> {
    until(DEADLINE, what, || {
        let status = daemon.status()?;
        ensure!(fits(&status), "{}", status.summary());
        Ok(status)
    })
    .with_context(|| format!("the daemon's log:\n{}", daemon.log_tail()))
}

fn wait_state(daemon: &Daemon, name: &str, state: &str) -> Result<()> {
    wait(daemon, &format!("{name} to be {state}"), |s| s.state(name, Family::V4) == state).map(drop)
}

/// Waits for a problem with this code, whose text has these words.
fn wait_problem(daemon: &Daemon, code: &str, words: &str) -> Result<()> {
    wait(daemon, &format!("the problem {code}: {words}"), |status| {
        status.problems().iter().any(|line| line.starts_with(code) && line.contains(words))
    })
    .map(drop)
}

/// The process of the line's pppd.
fn pppd(daemon: &Daemon) -> Result<Pid> {
    child_in(&daemon.path("anywan.sock.children/ppp-wan2"))
}

/// Waits until another process dials, and the line is up again.
fn wait_redialled(daemon: &Daemon, before: Pid, why: &str) -> Result<Pid> {
    let pid = until(DEADLINE, &format!("another pppd, {why}"), || {
        let pid = pppd(daemon)?;
        ensure!(pid != before);
        Ok(pid)
    })
    .with_context(|| format!("the daemon's log:\n{}", daemon.log_tail()))?;
    wait_state(daemon, "wan2", "up")?;
    Ok(pid)
}

fn connects_by(topology: &Topology, number: usize) -> Result<()> {
    let client = topology.client(1);
    until(DEADLINE, &format!("connections by wan{number}"), || {
        let by = client.connect(Proto::Tcp, Family::V4)?;
        ensure!(by == number, "by wan{by}");
        Ok(())
    })
}

/// A file of every process, as `ps` reads it.
fn of_processes(file: &str) -> String {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let texts = processes.filter_map(|process| fs::read(process.path().join(file)).ok());
    texts.map(|text| String::from_utf8_lossy(&text).into_owned() + "\n").collect()
}

/// Neither in arguments, nor in a log, nor in what a person is shown, nor readable by anybody.
fn no_secret_is_seen(daemon: &Daemon) -> Result<()> {
    let children = daemon.path("anywan.sock.children").join("ppp-wan2");
    let mut texts = vec![
        ("an argument".to_owned(), of_processes("cmdline")),
        ("an environment".to_owned(), of_processes("environ")),
        ("status".to_owned(), daemon.cli(&["status", "--json"])?.stdout),
        ("plan".to_owned(), daemon.cli(&["plan"])?.stdout),
        ("log".to_owned(), fs::read_to_string(daemon.path("log"))?),
        ("pppd's log".to_owned(), fs::read_to_string(children.join("log"))?),
    ];
    for folder in [daemon.path("state"), children] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if fs::metadata(&path)?.permissions().mode() & 0o077 != 0 {
                let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
                texts.push((path.display().to_string(), text));
            }
        }
    }
    for (place, text) in texts {
        for secret in SECRETS {
            ensure!(!text.contains(secret), "{place} shows a secret:\n{text}");
        }
    }
    Ok(())
}

#[test]
fn a_modem_line_carries_a_lan_and_comes_back_from_everything_that_ends_it() -> Result<()> {
    let topology = lab()?;
    let mut modem = Modem::new(topology.isp(2), Sim::Pin(SECRETS[1]))?;
    let [secret, pin] = SECRETS;
    let keys = modem_keys(&modem, &format!(", user = \"u\", secret = {secret:?}, pin = {pin:?}"));
    let mut config = config(&topology, &keys);
    config.wans.remove(0);
    let mut daemon = Daemon::start(&topology, &config)?;
    wait_state(&daemon, "wan2", "up")?;
    connects_by(&topology, 2)?;
    no_secret_is_seen(&daemon)?;
    ensure!(modem.told("AT+CPIN=") == 1, "one PIN");
    let status = daemon.status()?;
    ensure!(status.wan("wan2")["ipv4"]["address_from"] == "ppp", "{}", status.summary());
    let mut pid = pppd(&daemon)?;

    daemon.kill();
    daemon.launch()?;
    wait_state(&daemon, "wan2", "up")?;
    ensure!(pppd(&daemon)? == pid, "the line was dialled anew by a daemon that was started anew");
    connects_by(&topology, 2)?;

    modem.hang_up()?;
    pid = wait_redialled(&daemon, pid, "because the far end hung up")?;
    kill_process(pid, Signal::KILL)?;
    pid = wait_redialled(&daemon, pid, "because it was killed")?;
    modem.unplug();
    wait_problem(&daemon, "dial.device-missing", "is not there")?;
    modem.plug_in()?;
    pid = wait_redialled(&daemon, pid, "because the modem was unplugged")?;
    // A pppd that hangs is noticed when it is needed: until then the kernel carries the line.
    kill_process(pid, Signal::STOP)?;
    modem.go_silent();
    wait_redialled(&daemon, pid, "because the line was silent and pppd hung")?;
    connects_by(&topology, 2)?;
    no_secret_is_seen(&daemon)?;
    ensure!(modem.told("AT+CPIN=") == 1, "a SIM that works was sent its PIN");

    let outcome = daemon.cli(&["down"])?;
    ensure!(outcome.status == 0, "{outcome:?}");
    ensure!(topology.router().run(&format!("ip link show {LINE}")).is_err(), "the line is up");
    Ok(())
}

#[test]
fn a_wrong_pin_is_tried_once_even_by_another_daemon_until_the_file_has_another() -> Result<()> {
    let topology = lab()?;
    let modem = Modem::new(topology.isp(2), Sim::Pin(SECRETS[1]))?;
    let wrong = config(&topology, &modem_keys(&modem, ", pin = \"1111\""));
    let mut daemon = Daemon::start(&topology, &wrong)?;
    wait_problem(&daemon, "dial.pin-refused", "not sent again")?;
    for _ in 0..2 {
        let asked = modem.told("AT+CPIN?");
        until(DEADLINE, "the SIM to be asked again", || {
            ensure!(modem.told("AT+CPIN?") > asked + 1);
            Ok(())
        })?;
        ensure!(modem.told("AT+CPIN=") == 1, "{} PINs were tried", modem.told("AT+CPIN="));
        daemon.kill();
        daemon.launch()?;
        wait_problem(&daemon, "dial.pin-refused", "not sent again")?;
    }
    connects_by(&topology, 1)?;
    let right = modem_keys(&modem, &format!(", pin = {:?}", SECRETS[1]));
    daemon.reload(&config(&topology, &right))?;
    wait_state(&daemon, "wan2", "up")?;
    ensure!(modem.told("AT+CPIN=") == 2);
    no_secret_is_seen(&daemon)
}

#[test]
fn a_sim_that_wants_its_puk_is_told_and_sent_nothing() -> Result<()> {
    let topology = lab()?;
    let modem = Modem::new(topology.isp(2), Sim::Puk)?;
    let keys = modem_keys(&modem, &format!(", pin = {:?}", SECRETS[1]));
    let mut daemon = Daemon::start(&topology, &config(&topology, &keys))?;
    wait_problem(&daemon, "dial.puk", "wants its PUK")?;
    daemon.kill();
    daemon.launch()?;
    wait_problem(&daemon, "dial.puk", "wants its PUK")?;
    connects_by(&topology, 1)?;
    ensure!(modem.told("AT+CPIN=") == 0, "{} PINs were tried", modem.told("AT+CPIN="));
    no_secret_is_seen(&daemon)
}

#[test]
fn a_modem_that_does_not_connect_is_told_in_plain_words_and_disturbs_nothing() -> Result<()> {
    let topology = lab()?;
    let modem = Modem::new(topology.isp(2), Sim::Ready)?;
    modem.answer(Answer::Words("BUSY"));
    let daemon = Daemon::start(&topology, &config(&topology, &modem_keys(&modem, "")))?;
    wait_problem(&daemon, "dial.failed", "the number is busy")?;
    modem.answer(Answer::Words("NO CARRIER"));
    wait_problem(&daemon, "dial.failed", "no connection came about")?;
    modem.answer(Answer::Words("ERROR"));
    wait_problem(&daemon, "dial.failed", "the modem refuses a command")?;
    modem.answer(Answer::Silence);
    wait_problem(&daemon, "dial.failed", "the modem does not answer")?;
    connects_by(&topology, 1)?;
    modem.answer(Answer::Words("BUSY"));
    wait_problem(&daemon, "dial.failed", "the number is busy")?;
    modem.answer(Answer::Nonsense);
    wait_problem(&daemon, "dial.failed", "not as a modem does")?;
    ensure!(modem.told("AT+CFUN=1,1") == 1, "after three failures in a row it is reset");
    modem.answer(Answer::Connect);
    wait_state(&daemon, "wan2", "up")
}

#[test]
fn a_line_on_demand_is_dialled_when_the_better_wan_dies_and_hung_up_after() -> Result<()> {
    let topology = lab()?;
    let modem = Modem::new(topology.isp(2), Sim::Ready)?;
    let config = config(&topology, &modem_keys(&modem, ", on_demand = true"))
        .wan(2, |wan| wan.more.insert(0, ("linger".to_owned(), "\"1s\"".to_owned())));
    let daemon = Daemon::start(&topology, &config)?;
    wait_state(&daemon, "wan1", "up")?;
    connects_by(&topology, 1)?;
    wait(&daemon, "the line to be spared", |status| {
        status.wan("wan2")["ipv4"]["reason"] == "not dialled: a better WAN works"
    })?;
    ensure!(modem.told("AT") == 0, "it was dialled though a better WAN works");
    topology.break_wan(1, &Fault::Blackhole)?;
    wait_state(&daemon, "wan2", "up")?;
    connects_by(&topology, 2)?;
    topology.mend_wan(1, &Fault::Blackhole)?;
    connects_by(&topology, 1)?;
    until(DEADLINE, "the line to be hung up", || {
        ensure!(!modem.is_connected());
        Ok(())
    })?;
    ensure!(modem.told("ATD") == 1, "dialled {} times", modem.told("ATD"));
    Ok(())
}

#[test]
fn a_session_over_ethernet_is_set_up_with_a_password_that_only_root_may_read() -> Result<()> {
    let topology = lab()?;
    let mut config = config(&topology, "");
    let mut daemon = {
        config.wans.remove(0);
        let mut daemon = Daemon::prepare(&topology, &config)?;
        let (file, etc) = (daemon.path("secret"), daemon.path("ppp"));
        fs::write(&file, format!("{}\n", SECRETS[0]))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        fs::create_dir(&etc)?;
        fs::write(etc.join("options"), "")?;
        fs::write(etc.join("pap-secrets"), format!("\"u\" * \"{}\" *\n", SECRETS[0]))?;
        fs::write(etc.join("server"), "require-pap\nms-dns 10.65.0.53\nlcp-echo-interval 0\n")?;
        let keys = format!("pppoe = \"w2\", user = \"u\", secret_file = {file:?}");
        config.wans[0].more = vec![("ppp".to_owned(), format!("{{ {keys} }}"))];
        daemon.write_config(&config.to_toml())?;
        daemon.launch()?;
        daemon
    };
    let isp = topology.isp(2);
    isp.nft(
        "table ip dialled { chain out { type nat hook postrouting priority srcnat
         oifname net0 masquerade
         }
         }",
    )?;
    let etc = daemon.path("ppp");
    let etc = etc.display();
    let serve = format!(
        "mount --bind {etc} /etc/ppp && exec pppoe-server -I lan -L 10.65.0.1 -R 10.65.0.10 -N 5 \
         -C lab -S isp -k -O {etc}/server -F"
    );
    let _server =
        isp.spawn(&["unshare", "-m", "sh", "-c", &serve], Some(&daemon.path("server")))?;
    wait_problem(&daemon, "dial.secret-file", "mode 644")?;
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(daemon.path("secret"), private)?;
    wait_state(&daemon, "wan2", "up")?;
    connects_by(&topology, 2)?;
    no_secret_is_seen(&daemon)?;
    let link = topology.router().run(&format!("ip link show {LINE}"))?;
    ensure!(link.contains("mtu 1492"), "{link}");
    // A daemon that starts has read no password yet.
    let pid = pppd(&daemon)?;
    daemon.terminate()?;
    daemon.launch()?;
    wait_state(&daemon, "wan2", "up")?;
    ensure!(pppd(&daemon)? == pid, "the line was dialled anew by a daemon that was started anew");
    Ok(())
}
