//! Names of interfaces over time. An arrival is reported by the name that its interface had when it arrived, although it may be
//! accepted only after the interface was renamed or deleted, or its index was given to another one. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::model::IfName;

/// How many names of an index are remembered.
const REMEMBERED: usize = 8;

/// So many indexes are remembered before those whose interfaces are gone are forgotten.
const INDEXES: usize = 4096;

/// Something happened at a moment within: not before `after`, and not later than `by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) after: Instant,
    pub(super) by: Instant,
}

/// What an interface was called at the time of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameThen<'a> {
    /// This.
    Is(&'a IfName),
    /// The index was not known then.
    Unknown,
    /// A change came at about the same time: which was first is not known. If all that changed is the name of one interface, this is
    /// the newer name.
    Unsure(Option<&'a IfName>),
}

#[derive(Debug)]
struct Name {
    /// When it began; `None` when it was there before anything was known of the index.
    begun: Option<Period>,
    /// `None` while no interface had the index.
    name: Option<IfName>,
}

/// The names of all interfaces, oldest first.
#[derive(Debug, Default)]
pub(super) struct InterfaceNames(BTreeMap<u32, Vec<Name>>);

impl InterfaceNames {
    /// Learns a name without a change; what is known already stays.
    pub(super) fn learn(&mut self, index: u32, name: &IfName) {
        self.0.entry(index).or_insert_with(|| vec![Name { begun: None, name: Some(name.clone()) }]);
    }

    /// From a moment in `period` on the interface has this name, or is gone. Returns whether that is new.
    pub(super) fn change(&mut self, index: u32, name: Option<IfName>, period: Period) -> bool {
        if self.now(index) == name.as_ref() && (name.is_some() || self.0.contains_key(&index)) {
            return false;
        }
        if name.is_none() && self.0.len() > INDEXES {
            self.0.retain(|_, names| names.last().is_some_and(|last| last.name.is_some()));
        }
        let names = self.0.entry(index).or_default();
        names.push(Name { begun: Some(period), name });
        if names.len() > REMEMBERED {
            names.remove(0);
        }
        true
    }

    /// The name now.
    pub(super) fn now(&self, index: u32) -> Option<&IfName> {
        self.0.get(&index)?.last()?.name.as_ref()
    }

    /// Every index that an interface has now.
    pub(super) fn indexes(&self) -> impl Iterator<Item = u32> {
        let is_here = |names: &[Name]| names.last().is_some_and(|last| last.name.is_some());
        self.0.iter().filter(move |(_, names)| is_here(names)).map(|(index, _)| *index)
    }

    /// The name at a moment in `arrival`. No packet arrives on an index that no interface has.
    pub(super) fn during(&self, index: u32, arrival: Period) -> NameThen<'_> {
        let Some(names) = self.0.get(&index) else { return NameThen::Unknown };
        let (mut then, mut deleted) = (NameThen::Unknown, false);
        for (number, entry) in names.iter().enumerate() {
            let begun = entry.begun.is_none_or(|begun| begun.after <= arrival.by);
            let ended =
                names.get(number + 1).and_then(|next| next.begun).is_some_and(|end| end.by < arrival.after);
            let Some(name) = entry.name.as_ref() else {
                deleted = true;
                continue;
            };
            if !begun || ended {
                continue;
            }
            then = match then {
                NameThen::Unknown => NameThen::Is(name),
                NameThen::Is(other) if other == name => then,
                NameThen::Is(_) | NameThen::Unsure(_) if !deleted => NameThen::Unsure(Some(name)),
                _ => return NameThen::Unsure(None),
            };
            deleted = false;
        }
        // What was before the oldest change that is remembered is forgotten.
        let forgotten = |oldest: &Name| oldest.begun.is_some_and(|begun| arrival.after <= begun.by);
        if matches!(then, NameThen::Is(_))
            && names.len() == REMEMBERED
            && names.first().is_some_and(forgotten)
        {
            return NameThen::Unsure(None);
        }
        then
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn period(start: Instant, after: u64, by: u64) -> Period {
        Period { after: start + Duration::from_millis(after), by: start + Duration::from_millis(by) }
    }

    fn shown(then: NameThen<'_>) -> String {
        match then {
            NameThen::Is(name) => name.to_string(),
            NameThen::Unknown => "unknown".to_owned(),
            NameThen::Unsure(None) => "unsure".to_owned(),
            NameThen::Unsure(Some(name)) => format!("unsure {name}"),
        }
    }

    #[test]
    fn an_arrival_has_the_name_of_its_time() {
        let (mut names, start) = (InterfaceNames::default(), Instant::now());
        names.learn(7, &"w0".into());
        assert!(names.change(7, Some("w1".into()), period(start, 100, 110)));
        assert!(!names.change(7, Some("w1".into()), period(start, 120, 130)), "it had that name");
        let at = |after, by| shown(names.during(7, period(start, after, by)));
        assert_eq!(at(0, 99), "w0");
        assert_eq!(at(111, 200), "w1");
        for (after, by) in [(0, 100), (0, 105), (102, 104), (105, 200), (110, 110), (0, 500)] {
            assert_eq!(at(after, by), "unsure w1", "{after} to {by}");
        }
        assert_eq!(names.now(7), Some(&"w1".into()));
        assert_eq!(shown(names.during(8, period(start, 0, 1))), "unknown");
    }

    #[test]
    fn who_is_gone_keeps_the_name_and_an_index_used_again_has_two() {
        let (mut names, start) = (InterfaceNames::default(), Instant::now());
        names.learn(100, &"w0".into());
        names.change(100, None, period(start, 100, 110));
        assert!(!names.change(100, None, period(start, 115, 116)));
        let at = |names: &InterfaceNames, after, by| shown(names.during(100, period(start, after, by)));
        // It cannot have come after the interface was gone.
        assert_eq!(at(&names, 0, 300), "w0");
        assert_eq!(at(&names, 111, 300), "unknown");
        assert_eq!((names.now(100), names.indexes().count()), (None, 0));
        names.change(100, Some("impostor".into()), period(start, 120, 130));
        assert_eq!(at(&names, 0, 115), "w0");
        assert_eq!(at(&names, 112, 140), "impostor");
        assert_eq!(at(&names, 105, 125), "unsure");
        // An interface that is deleted and made again under its name is no doubt.
        names.change(100, None, period(start, 200, 210));
        names.change(100, Some("impostor".into()), period(start, 200, 210));
        assert_eq!(at(&names, 131, 500), "impostor");
    }

    #[test]
    fn names_without_end_are_forgotten_without_a_guess() {
        let (mut names, start) = (InterfaceNames::default(), Instant::now());
        names.learn(1, &"n".into());
        for number in 0..100u64 {
            let name = format!("n{}", number % 7);
            names.change(1, Some(name.as_str().into()), period(start, number * 10, number * 10 + 1));
        }
        assert_eq!(shown(names.during(1, period(start, 995, 999))), "n1");
        assert_eq!(shown(names.during(1, period(start, 0, 5))), "unknown");
        assert_eq!(shown(names.during(1, period(start, 920, 920))), "unsure");
        for index in 0..3 * u32::try_from(INDEXES).unwrap() {
            names.change(index + 2, Some("x".into()), period(start, 0, 1));
            names.change(index + 2, None, period(start, 2, 3));
        }
        assert!(names.0.len() <= INDEXES + 2);
    }
}
