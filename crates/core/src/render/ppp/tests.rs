//! What pppd and chat get to read, for a modem and for PPPoE.

use super::*;
use crate::config;

fn wans() -> Vec<Wan> {
    let text = r#"
        [[lan]]
        interface = "eth0"
        [[wan]]
        name = "umts"
        interface = "ppp7"
        gateway6 = "off"
        [wan.ppp]
        device = "/dev/ttyUSB0"
        apn = "a.b\"c"
        pin = "0000"
        user = "u\\v"
        secret = "h\"2"
        [[wan]]
        name = "dsl"
        interface = "dsl"
        ppp = { pppoe = "eth1", service = "x", mtu = 1480 }
    "#;
    config::parse(text).expect("it is valid").wans
}

fn text(program: &Program, file: &str) -> String {
    let Text { text, secret } = &program.files[file];
    assert!(secret, "{file} is for root alone");
    text.clone()
}

fn dialled(wan: &Wan, with_pin: bool) -> Program {
    program(wan, wan.ppp.as_ref().expect("it is dialled"), &Secret::new("h\"2"), with_pin)
}

#[test]
fn a_modem_is_told_the_pin_only_by_the_script_that_is_to() {
    let wans = wans();
    let (without, with) = (dialled(&wans[0], false), dialled(&wans[0], true));
    assert!(!text(&without, "chat").contains("0000"));
    assert_eq!(
        text(&with, "chat").lines().skip(ANSWERS.len()).collect::<Vec<_>>(),
        [
            "ABORT 'READY'",
            "ABORT ERROR",
            "TIMEOUT 5",
            "'' ATZ",
            "OK-ATZ-OK ATE0",
            "OK '\\c'",
            "'' AT+CPIN?",
            "'SIM PIN' '\\c'",
            "OK '\\c'",
            "SAY 'anywan: PIN sent\\n'",
            "TIMEOUT 20",
            "'' 'AT+CPIN=\\0420000\\042\\q'",
            "OK '\\c'",
            "SAY 'anywan: PIN accepted\\n'",
            "CLR_ABORT READY",
            "TIMEOUT 5",
            "'' '\\d\\d\\c'",
            "'' 'AT+CGDCONT=1,\\042IP\\042,\\042a.b\\042c\\042'",
            "OK '\\c'",
            "TIMEOUT 20",
            "TIMEOUT 60",
            "'' 'ATD*99#'",
            "CONNECT '\\c'",
        ]
    );
    let options = text(&with, "options");
    assert!(options.starts_with("/dev/ttyUSB0\n115200\nlock\n"), "{options}");
    let end = "unit 7\nnoipv6\nuser \"u\\\\v\"\npassword \"h\\\"2\"\n";
    assert!(options.ends_with(end), "{options}");
}

#[test]
fn no_argument_has_a_secret() {
    for wan in wans() {
        let words = dialled(&wan, true).command.join(" ");
        assert!(!words.contains("0000") && !words.contains("h\"2"), "{words}");
    }
}

#[test]
fn pppoe_has_no_modem_and_keeps_its_own_size() {
    let program = dialled(&wans()[1], false);
    assert_eq!(program.command, ["pppd", "file", "{dir}/options"]);
    let options = text(&program, "options");
    assert!(options.starts_with("plugin pppoe.so\nnic-eth1\npppoe-service \"x\"\n"), "{options}");
    assert!(options.ends_with("ipparam dsl\n+ipv6\nmtu 1480\nmru 1480\n"), "{options}");
    assert!(!options.contains("\nmodem\n") && !options.contains("unit"), "{options}");
}
