//! Short forms of long lists of ports and addresses: consecutive values as first and last.

use std::net::IpAddr;

/// Minimum number of consecutive addresses that are shortened.
const RUN: usize = 4;

/// Sorted ports, such as `1-21, 23, 80-81`; at most `most` parts, then the number of remaining ports.
#[must_use]
pub fn ports(ports: &[u16], most: usize) -> Vec<String> {
    let runs: Vec<&[u16]> = ports.chunk_by(|a, b| a.checked_add(1) == Some(*b)).collect();
    let mut words: Vec<String> = runs
        .iter()
        .take(most)
        .filter_map(|run| match run {
            [one] => Some(one.to_string()),
            [first, .., last] => Some(format!("{first}-{last}")),
            [] => None,
        })
        .collect();
    let left: usize = runs.iter().skip(most).map(|run| run.len()).sum();
    if left > 0 {
        words.push(format!("and {left} more"));
    }
    words
}

/// Addresses in order, with consecutive ones as `10.0.0.1 to 10.0.3.232`. Entries that are not plain addresses stay
/// unchanged.
#[must_use]
pub fn addresses(words: &[&str]) -> Vec<String> {
    let number = |word: &str| match word.parse().ok()? {
        IpAddr::V4(v4) => Some((4, u128::from(v4.to_bits()))),
        IpAddr::V6(v6) => Some((6, v6.to_bits())),
    };
    let numbered: Vec<_> = words.iter().map(|word| (*word, number(word))).collect();
    let neighbours = |a: Option<(u8, u128)>, b: Option<(u8, u128)>| match (a, b) {
        (Some((family, a)), Some((other, b))) => family == other && a.checked_add(1) == Some(b),
        _ => false,
    };
    let mut shown = Vec::new();
    for run in numbered.chunk_by(|a, b| neighbours(a.1, b.1)) {
        match run {
            [(first, _), .., (last, _)] if run.len() >= RUN => shown.push(format!("{first} to {last}")),
            _ => shown.extend(run.iter().map(|(word, _)| (*word).to_owned())),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_a_run() {
        assert_eq!(ports(&[1, 2, 3, 22, 80, 81, 65_535], 9), ["1-3", "22", "80-81", "65535"]);
        assert_eq!(ports(&[1, 3, 5, 6], 2), ["1", "3", "and 2 more"]);
        assert_eq!(ports(&[], 2), [""; 0]);
        let four = ["10.0.0.254", "10.0.0.255", "10.0.1.0", "10.0.1.1"];
        assert_eq!(addresses(&four), ["10.0.0.254 to 10.0.1.1"]);
        assert_eq!(addresses(&four[1..]), four[1..]);
        assert_eq!(addresses(&["::1", "fe80::1%eth0", "0.0.0.1", "0.0.0.2"]).len(), 4);
    }
}
