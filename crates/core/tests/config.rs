//! The cases of `config/`: each `NAME.toml` gives exactly `NAME.expect`, which is the rendered
//! faults of a file that is wrong, or the configuration as JSON. `UPDATE_EXPECT=1` rewrites them.

#![expect(clippy::disallowed_methods, reason = "a test reads its cases; the core itself does not")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anywan_core::config;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

fn check(name: &str) {
    let path = folder().join(format!("{name}.toml"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let got = match config::parse_bytes(&bytes) {
        Ok(config) => serde_json::to_string_pretty(&config).expect("a config is JSON") + "\n",
        Err(faults) => {
            let known = |code| config::CODES.iter().any(|(known, _)| *known == code);
            for fault in &faults {
                assert!(known(fault.code), "{} is not in CODES", fault.code);
                assert!(!fault.what.is_empty() && !fault.hint.is_empty(), "{fault:?}");
            }
            config::render(
                &format!("{name}.toml"),
                &String::from_utf8_lossy(&bytes),
                &faults,
                false,
            )
        }
    };
    let expect = path.with_extension("expect");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&expect, &got).expect("the folder of cases can be written to");
    }
    let wanted = std::fs::read_to_string(&expect).unwrap_or_default();
    assert_eq!(got, wanted, "{name}: UPDATE_EXPECT=1 rewrites it, if this is right");
}

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            check(&stringify!($name).replace('_', "-"));
        })+

        #[test]
        fn each_file_is_a_case() {
            let listed: BTreeSet<String> =
                [$(stringify!($name).replace('_', "-")),+].into_iter().collect();
            let mut files = BTreeSet::new();
            for entry in std::fs::read_dir(folder()).expect("the folder of cases is there") {
                let path = entry.expect("an entry can be read").path();
                files.insert(path.file_stem().expect("a file").to_string_lossy().into_owned());
            }
            assert_eq!(listed, files);
        }
    };
}

cases![
    a_hundred_and_more,
    a_long_line,
    addresses,
    backslash,
    bad_addresses,
    binary,
    bom_and_crlf,
    bom_and_crlf_with_an_error,
    cargo_toml,
    cpu,
    cpu_section,
    cpu_words,
    deep_keys,
    deep_nesting,
    dhcp_bad_range,
    dhcp_before_its_lan,
    dhcp_without_a_lan,
    dotted_keys,
    double_brackets,
    duplicate_keys,
    duplicate_targets,
    duplicates,
    durations,
    empty,
    everything,
    gateways,
    health_before_its_wan,
    hints_within_bounds,
    huge_numbers,
    inline_tables,
    inner_sections,
    interfaces,
    json,
    keys_at_the_top,
    lan_services,
    lan_services_twice,
    lan_services_wrong,
    later_keys,
    leading_zeros,
    link_local_gateway,
    mask_decimal,
    mask_too_small,
    mask_too_wide,
    masks,
    missing_comma,
    missing_keys,
    missing_quotes,
    misspelt_keys,
    misspelt_sections,
    names,
    nat,
    no_equals,
    no_family,
    no_lan,
    no_targets,
    no_wan,
    not_utf8,
    one_armed,
    one_armed_auto,
    one_armed_off,
    one_armed_without_gateway,
    one_driver_twice,
    one_mac_spelt_twice,
    only_comments,
    open_header,
    open_list,
    open_quotes,
    other_line_ends,
    out_of_range,
    own_gateways,
    page_targets,
    page_text,
    ppp,
    ppp_hardware,
    ppp_secrets,
    ppp_wrong,
    prose,
    reserved_tables,
    sections_as_values,
    selectors,
    single_brackets,
    single_brackets_after_double,
    single_brackets_twice,
    sixty_three_wans,
    smallest,
    tabs,
    target_types,
    targets,
    too_many_targets,
    two_on_a_line,
    two_wans_on_one_interface,
    two_wans_one_family_each,
    two_wans_told_apart,
    two_wans_with_one_gateway,
    uci,
    unusable_addresses,
    utf16,
    web_page,
    words,
    wrong_types,
    yaml,
];
