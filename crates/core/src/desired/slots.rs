//! Weights become slot counts. A new connection takes the next slot in turn (or the one that its
//! addresses hash to), so the share of a WAN is its share of the slots.

use std::collections::BTreeMap;

use crate::choose::FamilyChoice;
use crate::names::{WanId, Weight};

/// How many slots there are. Constant, because changing it would reshuffle whatever sticks by
/// hash; 256 gives shares to 0.4 %.
pub const SLOTS: u32 = 256;

/// Deals the slots out. Every WAN of the serving priority has its slots, interleaved as evenly
/// as the weights allow; the slots of those that do not serve now are dealt out once more among
/// those that do, so nobody else's change. `None` everywhere when nothing serves.
pub(super) fn deal(choice: &FamilyChoice) -> Vec<Option<WanId>> {
    if choice.serving.is_empty() {
        return vec![None; SLOTS as usize];
    }
    let mut first = Deck::new(&choice.peers);
    let mut second = Deck::new(&choice.serving);
    (0..SLOTS)
        .map(|_| {
            first.next().filter(|id| choice.serving.contains_key(id)).or_else(|| second.next())
        })
        .collect()
}

/// Smooth weighted round robin: each turn every WAN gains its weight, the richest is taken and
/// pays the sum of all weights.
struct Deck {
    wans: Vec<(WanId, i64, i64)>,
    sum: i64,
}

impl Deck {
    fn new(weights: &BTreeMap<WanId, Weight>) -> Deck {
        let wans: Vec<_> = weights.iter().map(|(id, w)| (*id, i64::from(w.0), 0)).collect();
        let sum = wans.iter().map(|(_, weight, _)| weight).sum();
        Deck { wans, sum }
    }

    fn next(&mut self) -> Option<WanId> {
        for (_, weight, credit) in &mut self.wans {
            *credit += *weight;
        }
        // The first of the richest: ties go to the lower number.
        let best = self.wans.iter_mut().rev().max_by_key(|(_, _, credit)| *credit)?;
        best.2 -= self.sum;
        Some(best.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(peers: &[(u8, u16)], serving: &[u8]) -> FamilyChoice {
        let peers: BTreeMap<_, _> = peers.iter().map(|(n, w)| (WanId(*n), Weight(*w))).collect();
        let serving =
            peers.iter().filter(|(id, _)| serving.contains(&id.0)).map(|(a, b)| (*a, *b)).collect();
        FamilyChoice { serving, peers, ..FamilyChoice::default() }
    }

    fn count(slots: &[Option<WanId>], wan: u8) -> usize {
        slots.iter().filter(|s| **s == Some(WanId(wan))).count()
    }

    #[test]
    fn shares_follow_the_weights_to_one_slot() {
        let slots = deal(&choice(&[(1, 8), (2, 6), (3, 3)], &[1, 2, 3]));
        assert_eq!(slots.len(), 256);
        for (wan, share) in [(1, 8.0), (2, 6.0), (3, 3.0)] {
            let exact = 256.0 * share / 17.0;
            let dealt = f64::from(u32::try_from(count(&slots, wan)).unwrap());
            assert!((dealt - exact).abs() < 1.0, "WAN {wan}: {dealt} of {exact}");
        }
    }

    #[test]
    fn any_seventeen_slots_in_a_row_have_the_shares_too() {
        let slots = deal(&choice(&[(1, 8), (2, 6), (3, 3)], &[1, 2, 3]));
        for window in slots[..255].windows(17) {
            assert!((7..=9).contains(&count(window, 1)), "{window:?}");
        }
    }

    #[test]
    fn a_wan_that_goes_changes_only_its_own_slots() {
        let peers = [(1, 8), (2, 6), (3, 3)];
        let all = deal(&choice(&peers, &[1, 2, 3]));
        let two = deal(&choice(&peers, &[1, 3]));
        for (before, after) in all.iter().zip(&two) {
            if *before != Some(WanId(2)) {
                assert_eq!(before, after);
            }
        }
        assert_eq!(count(&two, 2), 0);
        assert!(count(&two, 1) > count(&all, 1) && count(&two, 3) > count(&all, 3));
    }

    #[test]
    fn nobody_serving_means_no_slots() {
        assert!(deal(&choice(&[(1, 1)], &[])).iter().all(Option::is_none));
    }
}
