//! What decides the outcomes of an experiment. Pure: the combinations are a grid, and a pattern has the outcome of each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The combinations of factors with these numbers of values. The last factor changes fastest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    sizes: Vec<usize>,
}

/// For each factor the indexes of the values of one part of a grid.
pub type Part = Vec<Vec<usize>>;

/// The fewest factors that turn one outcome into another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// A combination with the first outcome.
    pub from: usize,
    /// A combination with the second one.
    pub to: usize,
}

/// Number of outcomes up to which [`steps`] compares every pair.
const MOST_COMPARED: usize = 12;

impl Grid {
    /// A grid. Every size is at least 1.
    #[must_use]
    pub fn new(sizes: Vec<usize>) -> Grid {
        Grid { sizes }
    }

    /// Number of combinations; `usize::MAX` if it is larger.
    #[must_use]
    pub fn size(&self) -> usize {
        self.sizes.iter().fold(1, |product: usize, size| product.saturating_mul(*size))
    }

    /// For each factor the index of its value in a combination.
    #[must_use]
    pub fn values(&self, run: usize) -> Vec<usize> {
        let mut rest = run;
        let mut values: Vec<usize> = self
            .sizes
            .iter()
            .rev()
            .map(|size| {
                let value = rest % size;
                rest /= size;
                value
            })
            .collect();
        values.reverse();
        values
    }

    /// The combination with these values.
    #[must_use]
    pub fn run(&self, values: &[usize]) -> usize {
        self.sizes.iter().zip(values).fold(0, |run, (size, value)| run * size + value)
    }

    /// The combinations that differ from `run` in the value of one factor, with that factor.
    fn neighbours(&self, run: usize) -> Vec<usize> {
        let values = self.values(run);
        let mut found = Vec::new();
        for (factor, &size) in self.sizes.iter().enumerate() {
            for value in (0..size).filter(|value| *value != values[factor]) {
                let mut other = values.clone();
                other[factor] = value;
                found.push(self.run(&other));
            }
        }
        found
    }

    /// Factors in which two combinations differ.
    #[must_use]
    pub fn difference(&self, a: usize, b: usize) -> Vec<usize> {
        let (a, b) = (self.values(a), self.values(b));
        (0..self.sizes.len()).filter(|&factor| a[factor] != b[factor]).collect()
    }
}

/// The factors that decide the outcome. A set of factors is decisive if two combinations that differ in exactly these have
/// different outcomes, and no smaller part of it is decisive. Where every combination has an outcome, each decisive set has one factor.
/// `None` is a combination without an outcome.
#[must_use]
pub fn deciding(grid: &Grid, pattern: &[Option<u32>]) -> Vec<usize> {
    let factors = grid.sizes.len();
    let mut single = vec![false; factors];
    let mut stride = pattern.len();
    for (factor, &size) in grid.sizes.iter().enumerate() {
        stride /= size;
        // Combinations that differ in this factor alone are `stride` apart.
        single[factor] = (0..pattern.len()).any(|run| {
            !(run / stride).is_multiple_of(size)
                && match (pattern[run], pattern[first_of_line(pattern, run, stride, size)]) {
                    (Some(here), Some(first)) => here != first,
                    _ => false,
                }
        });
    }
    if pattern.iter().any(Option::is_none) {
        joint(grid, pattern, &mut single);
    }
    (0..factors).filter(|&factor| single[factor]).collect()
}

/// The first combination with an outcome among those that differ from `run` in one factor alone.
fn first_of_line(pattern: &[Option<u32>], run: usize, stride: usize, size: usize) -> usize {
    let start = run - (run / stride % size) * stride;
    (0..size).map(|step| start + step * stride).find(|&other| pattern[other].is_some()).unwrap_or(run)
}

/// Adds the factors of decisive sets of several factors, which exist only where combinations have no outcome.
fn joint(grid: &Grid, pattern: &[Option<u32>], deciding: &mut [bool]) {
    // Two combinations that differ in a factor that decides alone prove nothing more.
    let mut groups: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for run in (0..pattern.len()).filter(|&run| pattern[run].is_some()) {
        let values = grid.values(run);
        let key =
            values.into_iter().zip(deciding.iter()).filter(|(_, alone)| **alone).map(|(value, _)| value);
        groups.entry(key.collect()).or_default().push(run);
    }
    let mut sets: BTreeSet<Vec<usize>> = BTreeSet::new();
    for runs in groups.values() {
        for (index, &a) in runs.iter().enumerate() {
            for &b in &runs[index + 1..] {
                if pattern[a] != pattern[b] {
                    sets.insert(grid.difference(a, b));
                }
            }
        }
    }
    let smaller = |set: &Vec<usize>| {
        sets.iter().any(|other| other.len() < set.len() && other.iter().all(|factor| set.contains(factor)))
    };
    for set in sets.iter().filter(|set| !smaller(set)) {
        for &factor in set {
            deciding[factor] = true;
        }
    }
}

/// The smallest step between each two outcomes, in the order of their first combinations; with many outcomes, from the outcome of the
/// first combination to each other.
#[must_use]
pub fn steps(grid: &Grid, pattern: &[Option<u32>]) -> Vec<Step> {
    let mut outcomes: Vec<u32> = Vec::new();
    for &outcome in pattern.iter().flatten() {
        if !outcomes.contains(&outcome) {
            outcomes.push(outcome);
        }
    }
    let starts = if outcomes.len() <= MOST_COMPARED { outcomes.len() } else { 1 };
    let mut found = Vec::new();
    for (index, &from) in outcomes.iter().enumerate().take(starts) {
        // Distances count factors, so the search also passes combinations without an outcome.
        let mut reached: Vec<Option<(usize, usize)>> = vec![None; pattern.len()];
        let mut queue: VecDeque<usize> = VecDeque::new();
        for run in (0..pattern.len()).filter(|&run| pattern[run] == Some(from)) {
            reached[run] = Some((0, run));
            queue.push_back(run);
        }
        while let Some(run) = queue.pop_front() {
            let Some((distance, origin)) = reached[run] else { continue };
            for next in grid.neighbours(run) {
                if reached[next].is_none() {
                    reached[next] = Some((distance + 1, origin));
                    queue.push_back(next);
                }
            }
        }
        for &to in &outcomes[index + 1..] {
            let ends = (0..pattern.len()).filter(|&run| pattern[run] == Some(to));
            let best =
                ends.filter_map(|run| reached[run].map(|(distance, origin)| (distance, run, origin))).min();
            found.extend(best.map(|(_, to, from)| Step { from, to }));
        }
    }
    found
}

/// Parts of the grid that together cover the combinations with `outcome` and no combination with another one. Combinations without an
/// outcome may be in any part.
#[must_use]
pub fn parts(grid: &Grid, pattern: &[Option<u32>], outcome: u32) -> Vec<Part> {
    let fits = |part: &Part| {
        runs_of(grid, part).into_iter().all(|run| pattern[run].is_none_or(|other| other == outcome))
    };
    let mut covered = vec![false; pattern.len()];
    let mut found = Vec::new();
    for run in 0..pattern.len() {
        if covered[run] || pattern[run] != Some(outcome) {
            continue;
        }
        let mut part: Part = grid.values(run).into_iter().map(|value| vec![value]).collect();
        for (factor, &size) in grid.sizes.iter().enumerate() {
            let mut whole = part.clone();
            whole[factor] = (0..size).collect();
            if fits(&whole) {
                part = whole;
            }
        }
        for (factor, &size) in grid.sizes.iter().enumerate() {
            for value in 0..size {
                if part[factor].contains(&value) {
                    continue;
                }
                let mut wider = part.clone();
                wider[factor].push(value);
                wider[factor].sort_unstable();
                let mut added = part.clone();
                added[factor] = vec![value];
                // Without a combination of its own, the value only repeats what another part says.
                let adds = runs_of(grid, &added)
                    .into_iter()
                    .any(|run| !covered[run] && pattern[run] == Some(outcome));
                if adds && fits(&wider) {
                    part = wider;
                }
            }
        }
        for run in runs_of(grid, &part) {
            covered[run] = true;
        }
        found.push(part);
    }
    found
}

fn runs_of(grid: &Grid, part: &Part) -> Vec<usize> {
    let mut runs = vec![0];
    for (size, values) in grid.sizes.iter().zip(part) {
        runs = runs.iter().flat_map(|run| values.iter().map(move |value| run * size + value)).collect();
    }
    runs
}

/// The grid of some factors, and the outcome of each of its combinations: that of any combination of the whole grid with these values.
#[must_use]
pub fn projected(grid: &Grid, pattern: &[Option<u32>], factors: &[usize]) -> (Grid, Vec<Option<u32>>) {
    let small = Grid::new(factors.iter().map(|&factor| grid.sizes[factor]).collect());
    let mut outcomes = vec![None; small.size()];
    for (run, outcome) in pattern.iter().enumerate() {
        let values = grid.values(run);
        let chosen: Vec<usize> = factors.iter().map(|&factor| values[factor]).collect();
        let place = &mut outcomes[small.run(&chosen)];
        *place = place.or(*outcome);
    }
    (small, outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of [`deciding`], by comparing all pairs of combinations.
    fn by_all_pairs(grid: &Grid, pattern: &[Option<u32>]) -> Vec<usize> {
        let mut sets = BTreeSet::new();
        for a in 0..pattern.len() {
            for b in 0..a {
                if let (Some(one), Some(other)) = (pattern[a], pattern[b])
                    && one != other
                {
                    sets.insert(grid.difference(a, b));
                }
            }
        }
        let minimal = |set: &&Vec<usize>| {
            !sets.iter().any(|other| other != *set && other.iter().all(|factor| set.contains(factor)))
        };
        let factors: BTreeSet<usize> = sets.iter().filter(minimal).flatten().copied().collect();
        factors.into_iter().collect()
    }

    /// A grid, and outcomes that depend on some of its factors only.
    fn experiments() -> impl Strategy<Value = (Grid, Vec<Option<u32>>)> {
        (prop::collection::vec(1..5_usize, 1..5), any::<u32>(), prop::collection::vec(0..9_u8, 256), 1..4_u32)
            .prop_map(|(sizes, mask, missing, outcomes)| {
                let grid = Grid::new(sizes);
                let pattern = (0..grid.size())
                    .map(|run| {
                        let values = grid.values(run);
                        let hash = values.iter().enumerate().fold(7_u32, |hash, (factor, value)| {
                            let value = if mask >> factor & 1 == 1 { *value as u32 } else { 0 };
                            (hash ^ value).wrapping_mul(0x9E37_79B1).rotate_left(11)
                        });
                        // One mask in four has combinations without an outcome.
                        let none = mask & 0xC000 == 0xC000 && missing[run % 256] < 4;
                        (!none).then_some(hash % outcomes)
                    })
                    .collect();
                (grid, pattern)
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn deciding_factors_are_those_of_all_pairs((grid, pattern) in experiments()) {
            let found = deciding(&grid, &pattern);
            prop_assert_eq!(&found, &by_all_pairs(&grid, &pattern));
            // The factors are enough: combinations that agree in them have the same outcome.
            let (small, outcomes) = projected(&grid, &pattern, &found);
            for (run, &outcome) in pattern.iter().enumerate() {
                let values = grid.values(run);
                let chosen: Vec<usize> = found.iter().map(|&factor| values[factor]).collect();
                if outcome.is_some() {
                    prop_assert_eq!(outcomes[small.run(&chosen)], outcome);
                }
            }
        }

        #[test]
        fn steps_are_the_smallest((grid, pattern) in experiments()) {
            for step in steps(&grid, &pattern) {
                let length = grid.difference(step.from, step.to).len();
                for a in 0..pattern.len() {
                    for b in 0..pattern.len() {
                        if (pattern[a], pattern[b]) == (pattern[step.from], pattern[step.to]) {
                            prop_assert!(grid.difference(a, b).len() >= length);
                        }
                    }
                }
            }
        }

        #[test]
        fn parts_cover_an_outcome_and_no_other((grid, pattern) in experiments()) {
            for outcome in pattern.iter().flatten().collect::<BTreeSet<_>>() {
                let mut covered = BTreeSet::new();
                for part in parts(&grid, &pattern, *outcome) {
                    for run in runs_of(&grid, &part) {
                        prop_assert!(pattern[run].is_none_or(|other| other == *outcome));
                        covered.insert(run);
                    }
                }
                for (run, other) in pattern.iter().enumerate() {
                    prop_assert!(*other != Some(*outcome) || covered.contains(&run));
                }
            }
        }
    }

    #[test]
    fn two_factors_that_only_decide_together_are_both_named() {
        // 0.0.0.0 with v6only is not possible: only (0, 0) and (1, 1) have outcomes.
        let grid = Grid::new(vec![2, 2]);
        assert_eq!(deciding(&grid, &[Some(1), None, None, Some(2)]), [0, 1]);
        assert_eq!(deciding(&grid, &[Some(1), None, None, Some(1)]), [0; 0]);
    }
}
