//! The nearest of several words, for "did you mean".

/// The longest word that is compared: no key is longer, and the cost grows with the square.
const MAX_LENGTH: usize = 32;

/// The word that `typed` was probably meant to be: within a third of its length, or begun by it.
pub(crate) fn nearest<'a>(typed: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if typed.is_empty() || typed.len() > MAX_LENGTH {
        return None;
    }
    let typed = typed.to_lowercase().replace('-', "_");
    let allowed = (typed.chars().count() / 3).clamp(1, 3);
    words
        .map(|word| (cost(&typed, word, allowed), word))
        .filter(|(cost, _)| *cost <= allowed)
        .min_by_key(|(cost, _)| *cost)
        .map(|(_, word)| word)
}

fn cost(typed: &str, word: &str, allowed: usize) -> usize {
    let found = distance(typed, &word.replace('-', "_"));
    let begins = typed.len() >= 3 && word.starts_with(typed);
    if begins { found.min(allowed) } else { found }
}

/// How many letters must be inserted, removed, changed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before_last[j - 2] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_nonsense_finds_none() {
        let words = ["gateway", "gateway6", "weight", "wan", "all_down", "priority"];
        let near = |typed| nearest(typed, words.into_iter());
        assert_eq!(near("gatway"), Some("gateway"));
        assert_eq!(near("wieght"), Some("weight"));
        assert_eq!(near("Weight"), Some("weight"));
        assert_eq!(near("all-down"), Some("all_down"));
        assert_eq!(near("prio"), Some("priority"));
        assert_eq!(near("wans"), Some("wan"));
        assert_eq!(near("colour"), None);
        assert_eq!(near("x"), None);
        assert_eq!(near(&"w".repeat(1_000_000)), None);
    }
}
