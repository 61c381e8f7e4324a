//! Replays a dumped ruleset into the calling thread's network namespace, and compares what the kernel made of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::super::netlink::{Netlink, Refusal, Request, Service, attribute, attributes, until_nul};
use super::read::{self, LARGEST};
use super::strict::{Prepared, prepare};
use super::{SUBSYSTEM, header, message, numbers, words};
use crate::model::ruleset::{NftFamily, NftKind, NftObject, Ruleset};
use crate::sys::filter_types::{BaseChain, Replayed};

const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// The most bytes of one transaction: it must fit one `sendmsg(2)`, which `net.core.wmem_max` bounds.
const LARGEST_BATCH: usize = 200_000;
/// How often a transaction is sent again without what was refused.
const TRIES: u32 = 16;
/// How many refusals of one kind are named each.
const MOST_NAMED: usize = 8;

/// Requests that stand and fall together: an anonymous set, its elements and the rule that uses it.
struct Unit {
    requests: Vec<(usize, Request)>,
}

impl Unit {
    fn bytes(&self) -> usize {
        self.requests.iter().map(|(_, request)| request.payload.len() + 16).sum()
    }
}

/// Replays `ruleset` into the calling thread's network namespace, which has no rules yet.
#[must_use]
pub fn replay(ruleset: &Ruleset) -> Replayed {
    let mut replay = Replay { objects: &ruleset.nftables, ..Replay::default() };
    if ruleset.nftables.iter().map(|object| object.attributes.len()).sum::<usize>() > LARGEST {
        replay
            .out
            .missing
            .push(format!("the rules are larger than {} MiB and are not copied", LARGEST >> 20));
        return replay.out;
    }
    replay.prepare();
    if let Err(refusal) = replay.send() {
        replay.out.missing.push(format!("the rules of nftables could not be replayed: {refusal}"));
        return replay.out;
    }
    if !replay.prepared.is_empty() {
        replay.compare();
    }
    replay.tell();
    replay.out
}

#[derive(Default)]
struct Replay<'a> {
    objects: &'a [NftObject],
    /// What may be sent, by place; what was refused is taken away.
    prepared: BTreeMap<usize, Prepared>,
    /// What is left out, by reason: places.
    left_out: BTreeMap<String, Vec<usize>>,
    /// Objects that the kernel reads back differently.
    differing: Vec<usize>,
    out: Replayed,
}

impl Replay<'_> {
    fn prepare(&mut self) {
        let mut limits: HashMap<(NftFamily, &str, Vec<u8>), bool> = HashMap::new();
        for object in self.objects {
            // NFT_OBJECT_LIMIT; NFT_LIMIT_F_INV of its flags.
            if object.kind == NftKind::Object && number(&object.attributes, 3) == Some(4) {
                let data = attributes(&object.attributes).find(|(kind, _)| *kind == 4);
                let flags = data.and_then(|(_, data)| number(data, 5)).unwrap_or(0);
                let name = text(&object.attributes, 2).unwrap_or_default();
                limits.insert((object.family, object.table.as_str(), name), flags & 1 != 0);
            }
        }
        for (place, object) in self.objects.iter().enumerate() {
            let limit =
                |name: &[u8]| limits.get(&(object.family, object.table.as_str(), name.to_vec())).copied();
            match prepare(object, &limit) {
                Ok(prepared) => {
                    if prepared.rejects {
                        self.out.rejecting.push(place);
                    }
                    if let Some(base) = base(object) {
                        let name = object.name.clone().unwrap_or_default();
                        self.out.bases.insert((object.family, object.table.clone(), name), base);
                    }
                    if prepared.limited {
                        self.out.limited.push(place);
                    }
                    if !prepared.unfaithful.is_empty() {
                        let reasons = prepared.unfaithful.iter().copied().collect();
                        self.out.unfaithful.insert(place, reasons);
                    }
                    if !prepared.never {
                        self.prepared.insert(place, prepared);
                    }
                }
                Err(reason) => self.left_out.entry(reason).or_default().push(place),
            }
        }
    }

    /// The requests, in an order in which each finds what it refers to.
    fn units(&mut self) -> Vec<Unit> {
        let objects = self.objects;
        let name =
            |place: usize| objects.get(place).and_then(|object| object.name.clone()).unwrap_or_default();
        let key = |object: &NftObject, name: &str| (object.family, object.table.clone(), name.to_owned());
        let mut anonymous: HashMap<_, Unit> = HashMap::new();
        let mut units = Vec::new();
        let mut named_elements = Vec::new();
        let mut rules = Vec::new();
        let mut set_id = 0u32;
        let mut request = |place: usize, prepared: &Prepared| {
            let object = objects.get(place)?;
            let flags = if object.kind == NftKind::Rule { CREATE | APPEND } else { CREATE };
            let mut payload = header(object.family.number()).to_vec();
            payload.extend_from_slice(&prepared.attributes);
            match object.kind {
                NftKind::Set => {
                    set_id += 1;
                    payload.extend(attribute(10, &set_id.to_be_bytes()));
                }
                NftKind::Rule => payload.extend(prepared.compat.iter().flatten()),
                _ => {}
            }
            Some(Request { kind: message(numbers(object.kind).0), flags, payload })
        };
        let order = [NftKind::Table, NftKind::Object, NftKind::Chain, NftKind::Set, NftKind::Element];
        for kind in order {
            for (&place, prepared) in &self.prepared {
                let Some(object) = objects.get(place).filter(|object| object.kind == kind) else { continue };
                let Some(made) = request(place, prepared) else { continue };
                let unit = Unit { requests: vec![(place, made)] };
                match kind {
                    // NFT_SET_ANONYMOUS
                    NftKind::Set if number(&object.attributes, 3).unwrap_or(0) & 1 != 0 => {
                        anonymous.insert(key(object, &name(place)), unit);
                    }
                    NftKind::Element => match anonymous.get_mut(&key(object, &name(place))) {
                        Some(set) => set.requests.extend(unit.requests),
                        None => named_elements.push(unit),
                    },
                    _ => units.push(unit),
                }
            }
        }
        units.append(&mut named_elements);
        for (&place, prepared) in &self.prepared {
            let Some(object) = objects.get(place).filter(|object| object.kind == NftKind::Rule) else {
                continue;
            };
            let Some(made) = request(place, prepared) else { continue };
            let sets = prepared.sets.iter().filter_map(|set| anonymous.remove(&key(object, set)));
            let mut requests: Vec<_> = sets.flat_map(|unit| unit.requests).collect();
            requests.push((place, made));
            rules.push(Unit { requests });
        }
        units.append(&mut rules);
        // Without its rule an anonymous set is of no use.
        let unused: Vec<usize> =
            anonymous.into_values().flat_map(|unit| unit.requests).map(|(place, _)| place).collect();
        for place in unused {
            self.prepared.remove(&place);
        }
        units
    }

    fn send(&mut self) -> Result<(), Refusal> {
        let mut kernel = None;
        let mut batch: Vec<Unit> = Vec::new();
        let mut bytes = 0;
        let mut gone: HashSet<(NftFamily, String)> = HashSet::new();
        for unit in self.units() {
            let size = unit.bytes();
            if size > LARGEST_BATCH {
                self.refuse(&unit, "too large for one transaction".to_owned());
                continue;
            }
            if bytes + size > LARGEST_BATCH {
                self.commit(&mut kernel, std::mem::take(&mut batch), &mut gone)?;
                bytes = 0;
            }
            bytes += size;
            batch.push(unit);
        }
        self.commit(&mut kernel, batch, &mut gone)
    }

    /// Sends one transaction, again without what is refused.
    fn commit(
        &mut self,
        kernel: &mut Option<Netlink>,
        mut batch: Vec<Unit>,
        gone: &mut HashSet<(NftFamily, String)>,
    ) -> Result<(), Refusal> {
        for tries in 0.. {
            let objects = self.objects;
            let table = |place: usize| objects.get(place).map(|one| (one.family, one.table.clone()));
            let within = |unit: &Unit, gone: &HashSet<_>| {
                unit.requests
                    .iter()
                    .any(|(place, _)| table(*place).is_some_and(|table| gone.contains(&table)))
            };
            let (lost, kept): (Vec<Unit>, Vec<Unit>) = batch.into_iter().partition(|unit| within(unit, gone));
            // The table was named.
            lost.iter().flat_map(|unit| &unit.requests).for_each(|(place, _)| {
                self.prepared.remove(place);
            });
            batch = kept;
            if batch.is_empty() {
                return Ok(());
            }
            let kernel = match kernel {
                Some(kernel) => kernel,
                None => kernel.insert(Netlink::open(Service::Netfilter)?),
            };
            let requests: Vec<Request> = batch
                .iter()
                .flat_map(|unit| unit.requests.iter().map(|(_, request)| request.clone()))
                .collect();
            let refused = kernel.batch(SUBSYSTEM, &requests)?;
            if refused.is_empty() {
                return Ok(());
            }
            if tries == TRIES {
                return Err(refused.into_iter().next().map_or_else(
                    || Refusal::from(std::io::Error::from_raw_os_error(libc::EINVAL)),
                    |(_, refusal)| refusal,
                ));
            }
            let reasons: HashMap<usize, String> =
                refused.iter().map(|(at, refusal)| (*at, format!("the kernel refuses: {refusal}"))).collect();
            let mut at = 0;
            let mut kept = Vec::new();
            for unit in batch {
                let reason = (at..at + unit.requests.len()).find_map(|at| reasons.get(&at));
                at += unit.requests.len();
                let Some(reason) = reason else {
                    kept.push(unit);
                    continue;
                };
                for (place, _) in &unit.requests {
                    let object = objects.get(*place).filter(|object| object.kind == NftKind::Table);
                    gone.extend(object.map(|object| (object.family, object.table.clone())));
                }
                self.refuse(&unit, reason.clone());
            }
            batch = kept;
        }
        Ok(())
    }

    fn refuse(&mut self, unit: &Unit, reason: String) {
        for (place, _) in &unit.requests {
            self.prepared.remove(place);
        }
        // The last one is what the others are for.
        let place = unit.requests.last().map(|(place, _)| *place);
        self.left_out.entry(reason).or_default().extend(place);
    }

    /// Reads the copy back and compares message by message: a kernel passes over attributes that it does not know, so it may
    /// accept rules and mean others.
    fn compare(&mut self) {
        let copy = match read::ruleset() {
            Ok(copy) => copy,
            Err(error) => {
                self.out.missing.push(format!("the copied rules could not be read back: {error}"));
                return;
            }
        };
        let mut copies: HashMap<(NftKind, NftFamily, &str, &str), Vec<&NftObject>> = HashMap::new();
        for object in &copy.nftables {
            copies.entry(group(object)).or_default().push(object);
        }
        let mut originals: BTreeMap<(NftKind, NftFamily, &str, &str), Vec<usize>> = BTreeMap::new();
        for &place in self.prepared.keys() {
            if let Some(object) = self.objects.get(place) {
                originals.entry(group(object)).or_default().push(place);
            }
        }
        let again = |object: &NftObject| prepare(object, &|_| None).map(|one| one.attributes);
        let mut differing = Vec::new();
        for (key, places) in originals {
            let found = copies.remove(&key).unwrap_or_default();
            let wanted = |place: &usize| self.prepared.get(place).map(|one| one.attributes.as_slice());
            if key.0 == NftKind::Element {
                let all = |lists: &mut dyn Iterator<Item = Vec<u8>>| -> BTreeSet<Vec<u8>> {
                    lists.flat_map(|list| elements(&list)).collect()
                };
                let was = all(&mut places.iter().filter_map(wanted).map(<[u8]>::to_vec));
                let is = all(&mut found.iter().filter_map(|object| again(object).ok()));
                if was != is {
                    differing.extend(places.first());
                }
                continue;
            }
            for (at, place) in places.iter().enumerate() {
                let same = found.get(at).and_then(|object| again(object).ok());
                if same.as_deref() != wanted(place) {
                    differing.push(*place);
                }
                if let (NftKind::Rule, Some(object)) = (key.0, found.get(at)) {
                    let chain = (key.1, key.2.to_owned(), key.3.to_owned());
                    let list = self.out.rules.entry(chain).or_default();
                    list.extend(object.handle.map(|handle| (handle, *place)));
                }
            }
        }
        self.differing = differing;
    }

    /// Sentences about what is missing.
    fn tell(&mut self) {
        let mut number: HashMap<(NftFamily, &str, &str), usize> = HashMap::new();
        let mut numbers: Vec<Option<usize>> = Vec::with_capacity(self.objects.len());
        for object in self.objects {
            numbers.push((object.kind == NftKind::Rule).then(|| {
                let chain = object.chain.as_deref().unwrap_or_default();
                let number = number.entry((object.family, &object.table, chain)).or_default();
                *number += 1;
                *number
            }));
        }
        let not_copied =
            self.left_out.iter().map(|(reason, places)| ("is not copied", reason.as_str(), places));
        let changed =
            ("is not the same in the copy", "the kernel reads it back differently", &self.differing);
        let all = not_copied.chain([changed].into_iter().filter(|(.., places)| !places.is_empty()));
        for (what, reason, places) in all {
            let named = places.iter().take(MOST_NAMED).filter_map(|place| {
                Some(words(self.objects.get(*place)?, numbers.get(*place).copied().flatten()))
            });
            let mut named: Vec<String> = named.collect();
            if places.len() > MOST_NAMED {
                named.push(format!("{} more", places.len() - MOST_NAMED));
            }
            self.out.missing.push(format!("{} {what}: {}", named.join(", "), reason));
        }
    }
}

/// What is compared in order: objects of one kind in one table, rules in one chain, elements in one set.
fn group(object: &NftObject) -> (NftKind, NftFamily, &str, &str) {
    let within = match object.kind {
        NftKind::Rule => object.chain.as_deref(),
        NftKind::Element => object.name.as_deref(),
        _ => None,
    };
    // Tables of one family are one list.
    let table = if object.kind == NftKind::Table { "" } else { &object.table };
    (object.kind, object.family, table, within.unwrap_or_default())
}

/// The elements in a message about a set.
fn elements(bytes: &[u8]) -> Vec<Vec<u8>> {
    let lists = attributes(bytes).filter(|(kind, _)| *kind == 3);
    lists.flat_map(|(_, list)| attributes(list).map(|(_, element)| element.to_vec())).collect()
}

/// How a chain is registered; `None` for a chain without a hook.
fn base(object: &NftObject) -> Option<BaseChain> {
    if object.kind != NftKind::Chain {
        return None;
    }
    let (_, hook) = attributes(&object.attributes).find(|(kind, _)| *kind == 4)?;
    Some(BaseChain {
        kind: String::from_utf8_lossy(&text(&object.attributes, 7)?).into_owned(),
        hook: number(hook, 1)?,
        priority: number(hook, 2)?.cast_signed(),
    })
}

fn number(bytes: &[u8], wanted: u16) -> Option<u32> {
    let (_, value) = attributes(bytes).find(|(kind, _)| *kind == wanted)?;
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn text(bytes: &[u8], wanted: u16) -> Option<Vec<u8>> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| until_nul(value).to_vec())
}
