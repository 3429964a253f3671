//! How the status, events and plans look to people.

use anywan_core::api::{
    API_VERSION, AddressFrom, DrillLine, DrillPlan, FamilyStatus, Notice, Plan, Problem, State,
    Status, WanStatus,
};
use anywan_ctl::print::drill::{
    Course, Established, Measured, NewConnections, line_text, question, summary_text,
};
use anywan_ctl::print::{Look, notice_line, plan_text, status_table};

fn side(state: State, address: Option<&str>, since: &str, reason: &str) -> FamilyStatus {
    FamilyStatus {
        state,
        share_percent: 0.0,
        gateway: None,
        address: address.map(str::to_owned),
        address_from: address.map(|_| AddressFrom::Observed),
        address_until: None,
        rtt_ms: None,
        loss_percent: None,
        jitter_ms: None,
        since: since.to_owned(),
        reason: reason.to_owned(),
    }
}

fn absent() -> FamilyStatus {
    side(State::Unknown, None, "", "")
}

fn wan(name: &str, interface: &str, ipv4: FamilyStatus, ipv6: FamilyStatus) -> WanStatus {
    WanStatus {
        name: name.to_owned(),
        number: 1,
        interface: interface.to_owned(),
        priority: 1,
        weight: 8,
        drained: false,
        share_percent: ipv4.share_percent,
        ipv4,
        ipv6,
    }
}

fn household() -> Status {
    let up = FamilyStatus {
        share_percent: 57.2,
        address_from: Some(AddressFrom::Dhcp),
        address_until: Some("2026-11-22T23:58:00Z".to_owned()),
        rtt_ms: Some(23.14),
        loss_percent: Some(0.0),
        ..side(State::Up, Some("192.168.1.2"), "2026-11-22T11:56:48Z", "2 of 2 targets answer")
    };
    let up6 = FamilyStatus {
        share_percent: 100.0,
        rtt_ms: Some(8.06),
        loss_percent: Some(0.3),
        ..side(State::Up, Some("fd00::2"), "2026-11-20T11:00:00Z", "2 of 2 targets answer")
    };
    let down = FamilyStatus {
        loss_percent: Some(100.0),
        ..side(State::Down, None, "2026-11-22T11:59:58Z", "none of 4 targets answered")
    };
    let problem = Problem {
        code: "wan.interface-missing".to_owned(),
        at: "wan lte".to_owned(),
        what: "there is no interface usb0".to_owned(),
        hint: "is the stick plugged in? `ip link` lists interfaces".to_owned(),
    };
    let lte = WanStatus { priority: 2, weight: 1, ..wan("lte", "usb0", down, absent()) };
    Status {
        version: API_VERSION,
        wans: vec![wan("adsl", "eth0", up, up6), lte],
        problems: vec![problem],
    }
}

fn drawn(status: &Status, width: Option<usize>, colour: bool) -> String {
    let now = "2026-11-22T12:00:00Z".parse().expect("a time");
    status_table(status, Look { now, width, colour })
}

#[test]
fn a_household_is_a_table_with_its_problems_below() {
    let expected = "\
WAN   INTERFACE  PRIO  WEIGHT  SHARE  FAMILY  STATE     RTT   LOSS  SINCE  REASON
adsl  eth0          1       8   57 %  IPv4    up      23 ms    0 %  3m12s  2 of 2 targets answer
                               100 %  IPv6    up     8.1 ms   <1 %  2d01h  2 of 2 targets answer
lte   usb0          2       1    0 %  IPv4    down        -  100 %     2s  none of 4 targets answered

Problems:
  wan lte: there is no interface usb0 (wan.interface-missing)
    hint: is the stick plugged in? `ip link` lists interfaces
";
    assert_eq!(drawn(&household(), Some(101), false), expected);
}

#[test]
fn where_there_is_room_addresses_are_shown_with_where_they_come_from() {
    let text = drawn(&household(), None, false);
    let addresses = [
        "FAMILY  ADDRESS                          STATE",
        "IPv4    192.168.1.2 (dhcp, 11h58m left)  up",
        "IPv6    fd00::2 (observed)               up",
        "IPv4    -                                down",
    ];
    for (line, address) in text.lines().zip(addresses) {
        assert!(line.contains(address), "{address}:\n{text}");
    }
}

#[test]
fn what_can_be_spared_goes_when_the_terminal_is_narrow() {
    let expected = "\
WAN   INTERFACE  SHARE  FAMILY  STATE     RTT   LOSS  SINCE  REASON
adsl  eth0        57 %  IPv4    up      23 ms    0 %  3m12s  2 of 2 targets…
                 100 %  IPv6    up     8.1 ms   <1 %  2d01h  2 of 2 targets…
lte   usb0         0 %  IPv4    down        -  100 %     2s  none of 4 targ…
";
    let text = drawn(&household(), Some(76), false);
    assert_eq!(text.split("\n\n").next().expect("the table").to_owned() + "\n", expected);
    for width in 1..120 {
        let text = drawn(&household(), Some(width), false);
        let table = text.split("\n\n").next().expect("the table");
        let longest = table.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(longest <= width.max(38), "{width}: {longest}\n{table}");
    }
}

#[test]
fn colours_change_nothing_but_the_state() {
    let text = drawn(&household(), None, true);
    assert!(text.contains("\u{1b}[32mup   \u{1b}[0m"), "{text:?}");
    assert!(text.contains("\u{1b}[31mdown \u{1b}[0m"), "{text:?}");
    let plain = text.replace("\u{1b}[32m", "").replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
    assert_eq!(plain, drawn(&household(), None, false));
}

#[test]
fn sixty_wans_are_sixty_lines_of_one_width() {
    let mut status = household();
    status.problems.clear();
    let side = || side(State::Up, Some("10.0.0.2"), "2026-11-22T11:00:00Z", "answers");
    status.wans = (1..=60)
        .map(|number| wan(&format!("line-{number}"), &format!("vlan{number}"), side(), absent()))
        .collect();
    let text = drawn(&status, Some(100), false);
    assert_eq!(text.lines().count(), 61);
    let lengths: Vec<usize> = text.lines().skip(1).map(str::len).collect();
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{text}");
}

#[test]
fn a_wan_without_any_family_still_has_a_line_and_no_text_can_hurt_the_terminal() {
    let mut status = household();
    status.wans = vec![wan("new", "x\u{1b}]0;evil\u{7}", absent(), absent())];
    status.problems[0].what = "line\n\u{1b}[2J".to_owned();
    let text = drawn(&status, None, false);
    assert!(text.contains("new  x ]0;evil "), "{text}");
    assert!(text.contains("IPv4    -        unknown"), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
}

#[test]
fn an_event_is_one_line() {
    let notice = |kind: &str, wan: &str, family: &str, old: &str, new: &str, reason: &str| Notice {
        time: "2026-11-22T12:00:00.123Z".to_owned(),
        kind: kind.to_owned(),
        wan: wan.to_owned(),
        family: family.to_owned(),
        old: old.to_owned(),
        new: new.to_owned(),
        reason: reason.to_owned(),
    };
    let state = notice("state", "lte", "ipv4", "up", "down", "no target answers");
    assert_eq!(
        notice_line(&state),
        "2026-11-22T12:00:00.123Z state lte IPv4 up -> down (no target answers)"
    );
    let lost = notice("lost", "", "", "", "7", "7 notices were not read in time");
    assert_eq!(
        notice_line(&lost),
        "2026-11-22T12:00:00.123Z lost 7 (7 notices were not read in time)"
    );
    let bare = notice("repair", "", "", "", "", "a rule\nwas gone");
    assert_eq!(notice_line(&bare), "2026-11-22T12:00:00.123Z repair a rule was gone");
}

#[test]
fn a_plan_is_a_numbered_list_or_a_sentence() {
    let plan = |steps: &[&str]| Plan {
        version: API_VERSION,
        steps: steps.iter().map(|step| (*step).to_owned()).collect(),
    };
    assert_eq!(plan_text(&plan(&["add a", "add b"]), false), "1. add a\n2. add b\n");
    let text = plan_text(&plan(&["x"; 10]), false);
    assert!(text.starts_with(" 1. x\n") && text.ends_with("10. x\n"), "{text}");
    assert_eq!(plan_text(&plan(&[]), false), "Nothing to do: the kernel is as it should be.\n");
}

fn drilled() -> DrillPlan {
    DrillPlan {
        version: API_VERSION,
        wan: "adsl".to_owned(),
        share_percent: 100.0,
        others: vec!["lte".to_owned()],
        alone: vec!["ipv6".to_owned()],
        addresses: Vec::new(),
        targets: Vec::new(),
    }
}

fn course(recovered: bool) -> Course {
    let line = |ms, kind: &str, family: &str, old: &str, new: &str| DrillLine {
        ms,
        kind: kind.to_owned(),
        family: family.to_owned(),
        old: old.to_owned(),
        new: new.to_owned(),
        reason: "why".to_owned(),
    };
    let lines = vec![
        line(0, "cut", "", "", "cut"),
        line(612, "state", "ipv4", "suspect", "down"),
        line(613, "told", "ipv4", "", "12"),
        line(614, "told", "ipv4", "", "30"),
        line(20_000, "mended", "", "cut", "mended"),
        line(28_200, "back", "", "mended", "back"),
    ];
    let new = NewConnections {
        family: "ipv4".to_owned(),
        tried: 560,
        failed: 13,
        outage_ms: 650,
        recovered,
    };
    let open = Established { family: "ipv4".to_owned(), told_ms: Some(614) };
    let measured = Measured { new_connections: vec![new], established: vec![open] };
    Course::of(&drilled(), lines, measured)
}

#[test]
fn a_drill_says_before_what_it_does_and_after_what_it_showed() {
    let asked = question(&drilled(), std::time::Duration::from_secs(20));
    assert!(asked.contains("adsl (100 % of new connections) off for 20 s"), "{asked}");
    assert!(asked.contains("No other WAN has IPv6"), "{asked}");
    let course = course(true);
    assert_eq!(line_text(&course.events[1]), "   0.612 s  IPv4 state suspect -> down (why)");
    assert_eq!(line_text(&course.events[0]), "   0.000 s  cut (why)");
    assert_eq!(
        summary_text(&course),
        "\n\
         Found dead, IPv4        after 612 ms\n\
         New connections, IPv4   failed for 650 ms (13 of 560)\n\
         Open connection, IPv4   knew after 614 ms that it is over\n\
         Flows told              42\n\
         Back on adsl            8.2 s after it was mended\n"
    );
}

#[test]
fn a_drill_passes_when_the_wan_was_found_dead_and_connections_worked_without_it() {
    assert!(course(true).passed);
    assert!(!course(false).passed);
    let unnoticed = Course::of(&drilled(), Vec::new(), Measured::default());
    assert!(!unnoticed.passed);
    assert!(summary_text(&unnoticed).contains("never: its probes did not notice"));
}
