//! Kernel parameters and the memory of what they were.

use std::fs;

use anywan_core::steps::Step;

use crate::net::{contract, fresh_network, observe, open};

fn set(value: &str) -> Step {
    Step::SetSysctl { path: "net/ipv4/fib_multipath_hash_policy".into(), value: value.into() }
}

#[test]
fn the_first_value_is_remembered_across_restarts_until_it_is_restored() {
    fresh_network(|state| {
        let mut kernel = open(state);
        contract(&mut kernel, set("1"));
        contract(&mut kernel, set("2"));
        let mut kernel = open(state);
        contract(&mut kernel, set("1"));
        let before = kernel.sysctls_before().clone();
        assert_eq!(before.into_values().collect::<Vec<_>>(), ["0"]);
        let path = "net/ipv4/fib_multipath_hash_policy".to_owned();
        contract(&mut kernel, Step::RestoreSysctl { path, value: "0".into() });
        assert!(observe(&mut open(state)).sysctls_before.is_empty());
    });
}

#[test]
fn what_was_remembered_of_another_boot_or_damaged_is_void() {
    fresh_network(|state| {
        contract(&mut open(state), set("1"));
        let file = state.0.join("sysctls.json");
        let text = fs::read_to_string(&file).expect("it is there");
        fs::write(&file, text.replace("\"about\": \"", "\"about\": \"x")).expect("writable");
        assert!(open(state).sysctls_before().is_empty());
        fs::write(&file, "{").expect("writable");
        assert!(open(state).sysctls_before().is_empty());
    });
}

#[test]
fn an_unwritable_state_directory_does_not_stop_a_change() {
    fresh_network(|state| {
        fs::remove_dir_all(&state.0).expect("removable");
        let mut kernel = open(state);
        contract(&mut kernel, set("1"));
        assert_eq!(kernel.sysctls_before().len(), 1);
    });
}

#[test]
fn a_parameter_that_does_not_exist_is_absent_and_cannot_be_set() {
    fresh_network(|state| {
        let mut kernel = open(state);
        let path = "net/ipv4/conf/nothere/rp_filter";
        assert!(kernel.sysctls([path]).expect("readable").is_empty());
        let (path, value) = (path.to_owned(), "2".to_owned());
        assert!(
            kernel.apply(&Step::SetSysctl { path: path.clone(), value: value.clone() }).is_err()
        );
        kernel.apply(&Step::RestoreSysctl { path, value }).expect("it went away, which is fine");
    });
}
