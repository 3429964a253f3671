//! Which interface is meant.

use super::*;
use crate::config::parse;
use crate::names::Mac;

fn written(interfaces: &[&str]) -> Config {
    let mut text = "[[lan]]\ninterface = \"eth0\"\n".to_owned();
    for (number, interface) in interfaces.iter().enumerate() {
        text += &format!("[[wan]]\nname = \"wan{number}\"\ninterface = \"{interface}\"\n");
    }
    parse(&text).expect("a valid file")
}

fn stick(name: &str, port: &str, last: u8) -> Link {
    Link {
        name: name.to_owned(),
        mac: Some(Mac([2, 0, 0, 0, 0, last])),
        parent: Some(format!("{port}:1.0")),
        driver: Some("cdc_ether".to_owned()),
        ..Link::default()
    }
}

fn links(all: impl IntoIterator<Item = (u32, Link)>) -> BTreeMap<IfIndex, Link> {
    all.into_iter().map(|(index, link)| (IfIndex(index), link)).collect()
}

fn names(written: &Config, links: &BTreeMap<IfIndex, Link>) -> Vec<String> {
    resolved(written, links).wans.into_iter().map(|wan| wan.interface).collect()
}

#[test]
fn an_interface_is_found_by_its_hardware_address_its_port_or_its_driver() {
    let there = links([(5, stick("usb0", "1-1.3", 3)), (6, stick("usb1", "1-1.30", 4))]);
    assert_eq!(names(&written(&["mac:02:00:00:00:00:04"]), &there), ["usb1"]);
    assert_eq!(names(&written(&["mac:02-00-00-00-00-04"]), &there), ["usb1"]);
    assert_eq!(names(&written(&["usb:1-1.3"]), &there), ["usb0"]);
    assert_eq!(names(&written(&["usb:1-1.30"]), &there), ["usb1"]);
    assert_eq!(names(&written(&["driver:cdc_ether"]), &there), ["usb0"]);
    assert_eq!(names(&written(&["usb1"]), &there), ["usb1"]);
}

#[test]
fn it_is_followed_under_another_name_and_index() {
    let written = written(&["mac:02:00:00:00:00:03"]);
    assert_eq!(names(&written, &links([(5, stick("usb0", "1-1.3", 3))])), ["usb0"]);
    assert_eq!(names(&written, &links([(9, stick("wwan7", "2-1", 3))])), ["wwan7"]);
    assert_eq!(names(&written, &links([])), ["mac:02:00:00:00:00:03"]);
}

#[test]
fn of_several_the_lowest_index_that_nobody_else_names_is_taken_and_told() {
    let there = links([
        (5, stick("usb0", "1-1", 3)),
        (6, stick("usb1", "1-2", 4)),
        (7, stick("usb2", "1-3", 5)),
        (8, stick("usb3", "1-4", 6)),
    ]);
    let written = written(&["driver:cdc_ether", "usb0", "usb:1-2"]);
    assert_eq!(names(&written, &there), ["usb2", "usb0", "usb1"]);
    let doubts = resolve(&mut written.clone(), &written, &there);
    let expected = ("usb2".to_owned(), vec!["usb3".to_owned()]);
    assert_eq!(doubts, Doubts::from([("driver:cdc_ether".to_owned(), expected)]));
}

#[test]
fn a_vlan_on_the_interface_is_not_taken_for_it() {
    let vlan = Link { parent: None, driver: None, ..stick("vlan7", "", 3) };
    let there = links([(4, vlan), (5, stick("usb0", "1-1", 3))]);
    let written = written(&["mac:02:00:00:00:00:03"]);
    assert_eq!(names(&written, &there), ["usb0"]);
    assert!(resolve(&mut written.clone(), &written, &there).is_empty());
}
