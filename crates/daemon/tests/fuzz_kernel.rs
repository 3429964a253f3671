//! Bytes from the kernel, true and spoilt: no parser panics, hangs, or finds more than the bytes
//! can hold. `fuzz_kernel/*.bin` are datagrams of a real kernel (6.18): dumps of conntrack, nftables
//! and rtnetlink, and DESTROY events. `FUZZ_CASES` says how many spoilt ones are tried.

use std::path::Path;
use std::{env, fs};

use anywan_daemon::kernel::parsers::parse;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Cases without `FUZZ_CASES`.
const CASES: u32 = 10_000;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz_kernel");
    let mut found: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "bin"))
        .map(|path| (path.display().to_string(), fs::read(&path).expect("readable")))
        .collect();
    found.sort();
    assert!(found.len() > 20, "only {} datagrams found", found.len());
    found
}

fn config() -> ProptestConfig {
    let cases = env::var("FUZZ_CASES").ok();
    let cases = cases.map_or(CASES, |n| n.parse().expect("FUZZ_CASES is a number"));
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What is understood of a datagram is bounded by its length: an element has at least 4 bytes and
/// is read once for each of our maps, and a message of 16 bytes by a dozen parsers.
fn check(datagram: &[u8]) {
    assert!(parse(datagram) <= datagram.len() * 4 + 12, "{} bytes", datagram.len());
}

/// A spoilt place: where, and with what.
type Harm = (Index, u8);

fn spoil(bytes: &mut Vec<u8>, harms: &[Harm], cut: Option<Index>) {
    for (place, value) in harms {
        let at = place.index(bytes.len());
        bytes[at] = *value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len() + 1));
    }
}

#[test]
fn every_datagram_of_a_real_kernel_is_understood() {
    for (name, datagram) in corpus() {
        let empty = ["refused", "nft_", "elements_lans", "elements_gone"]
            .iter()
            .any(|part| name.contains(part));
        assert!(parse(&datagram) > 0 || empty, "nothing found in {name}");
        check(&datagram);
    }
}

#[test]
fn spoilt_datagrams_never_panic_the_parsers() {
    let corpus: Vec<Vec<u8>> = corpus().into_iter().map(|(_, bytes)| bytes).collect();
    // Mostly lengths and types are worth spoiling: small numbers.
    let value = prop_oneof![0_u8..20, any::<u8>()];
    let harms = proptest::collection::vec((any::<Index>(), value), 0..12);
    let case = (select(corpus), harms, any::<Option<Index>>());
    proptest!(config(), |((mut bytes, harms, cut) in case)| {
        spoil(&mut bytes, &harms, cut);
        check(&bytes);
    });
}

#[test]
fn random_bytes_never_panic_the_parsers() {
    proptest!(config(), |(bytes in proptest::collection::vec(any::<u8>(), 0..600))| {
        check(&bytes);
        // The same behind a header that makes a message of it.
        let length = (bytes.len() + 16) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend([2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        message.extend(&bytes);
        check(&message);
    });
}
