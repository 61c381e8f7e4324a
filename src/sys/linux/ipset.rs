//! Sets of ipset: read in one network namespace, made again in another one.

use super::netlink::{Netlink, Refusal, Service, attribute, attributes, read, until_nul};
use crate::escape::escape;
use crate::model::ruleset::IpSet;

/// `NFNL_SUBSYS_IPSET` of `linux/netfilter/nfnetlink.h`.
const fn message(number: u16) -> u16 {
    6 << 8 | number
}
const CREATE: u16 = message(2);
const DESTROY: u16 = message(3);
const LIST: u16 = message(7);
const ADD: u16 = message(9);
const GET_BY_NAME: u16 = message(14);
/// `enum ipset_attr` of `linux/netfilter/ipset/ip_set.h`.
const PROTOCOL: u16 = 1;
const SET_NAME: u16 = 2;
const TYPE_NAME: u16 = 3;
const REVISION: u16 = 4;
const FAMILY: u16 = 5;
const DATA: u16 = 7;
const ADT: u16 = 8;
const LINE: u16 = 9;
const INDEX: u16 = 11;
const NESTED: u16 = 0x8000;
const NET_BYTE_ORDER: u16 = 0x4000;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;
/// The version of the protocol (`IPSET_PROTOCOL`).
const VERSION: u8 = 7;
/// The highest index of a set, and the most elements that a set may announce.
const HIGHEST: u16 = 1024;
const MOST_ANNOUNCED: u32 = 1 << 22;
/// The most bytes of elements in one request.
const LONGEST: usize = 30_000;

/// The sets of the calling thread's namespace, by rising index.
///
/// # Errors
/// The kernel's refusal.
pub fn sets() -> Result<Vec<IpSet>, Refusal> {
    let mut kernel = Netlink::open(Service::Netfilter)?;
    let mut request = header();
    request.extend(attribute(PROTOCOL, &[VERSION]));
    let dump = match kernel.dump(LIST, &request) {
        // There is no set.
        Err(refusal) if refusal.is(libc::ENOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let mut sets: Vec<IpSet> = Vec::new();
    for (_, payload) in dump.messages() {
        let bytes = payload.get(HEADER..).unwrap_or_default();
        let find = |wanted: u16| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let text = |wanted: u16| Some(String::from_utf8_lossy(until_nul(find(wanted)?)).into_owned());
        let Some(name) = text(SET_NAME) else { continue };
        // A long set comes in several messages, of which the first one has its header.
        if let (Some(kind), Some(data)) = (text(TYPE_NAME), find(DATA)) {
            let mut create = Vec::new();
            for kind in [SET_NAME, TYPE_NAME, REVISION, FAMILY] {
                create.extend(find(kind).map(|value| attribute(kind, value)).into_iter().flatten());
            }
            create.extend(attribute(DATA | NESTED, data));
            sets.push(IpSet { name: name.clone(), kind, index: 0, create, elements: Vec::new() });
        }
        if let (Some(set), Some(list)) = (sets.iter_mut().find(|set| set.name == name), find(ADT)) {
            set.elements.extend(attributes(list).map(|(_, element)| element.to_vec()));
        }
    }
    for set in &mut sets {
        set.index = index(&mut kernel, &set.name)?;
    }
    sets.sort_by_key(|set| set.index);
    Ok(sets)
}

fn index(kernel: &mut Netlink, name: &str) -> Result<u16, Refusal> {
    let answer = kernel.ask(GET_BY_NAME, &named(name))?;
    let found = attributes(answer.get(HEADER..).unwrap_or_default()).find(|(kind, _)| *kind == INDEX);
    Ok(found.and_then(|(_, value)| read(value, 0)).map_or(0, u16::from_be_bytes))
}

/// Makes sets in the calling thread's namespace, which has none, each with its index: rules refer to sets by it. Returns what is
/// missing, one sentence each.
#[must_use]
pub fn replay(sets: &[IpSet]) -> Vec<String> {
    let mut missing = Vec::new();
    if sets.is_empty() {
        return missing;
    }
    let mut kernel = match Netlink::open(Service::Netfilter) {
        Ok(kernel) => kernel,
        Err(error) => return vec![format!("the sets of ipset are not copied: {error}")],
    };
    let mut fillers = Vec::new();
    let mut next = 0;
    let mut made = Vec::new();
    let mut sorted: Vec<&IpSet> = sets.iter().collect();
    sorted.sort_by_key(|set| set.index);
    for set in sorted {
        let shown = escape(&set.name);
        let request = match create(set) {
            Ok(request) => request,
            Err(reason) => {
                missing.push(format!("the set {shown} of ipset is not copied: {reason}"));
                continue;
            }
        };
        // The kernel gives the lowest index that is free.
        while next < set.index.min(HIGHEST) {
            let name = format!("bindscope-{next}");
            if kernel.request(CREATE, CREATE_FLAGS, &filler(&name)).is_err() {
                break;
            }
            fillers.push(name);
            next += 1;
        }
        match kernel.request(CREATE, CREATE_FLAGS, &request) {
            Ok(()) => {
                next += 1;
                made.push(set);
                if !index(&mut kernel, &set.name).is_ok_and(|index| index == set.index) {
                    missing.push(format!(
                        "the set {shown} of ipset has another number in the copy, and rules do not find it"
                    ));
                }
            }
            Err(refusal) => missing.push(format!("the set {shown} of ipset is not copied: {refusal}")),
        }
    }
    for set in made {
        let refused = add(&mut kernel, set);
        missing.extend(
            refused.map(|why| {
                format!("elements of the set {} of ipset are not copied: {why}", escape(&set.name))
            }),
        );
    }
    for name in fillers {
        let _ = kernel.request(DESTROY, 0, &named(&name));
    }
    missing
}

/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE_FLAGS: u16 = 0x600;

fn header() -> Vec<u8> {
    vec![2, 0, 0, 0]
}

fn named(name: &str) -> Vec<u8> {
    let mut request = header();
    request.extend(attribute(PROTOCOL, &[VERSION]));
    request.extend(attribute(SET_NAME, &[name.as_bytes(), &[0]].concat()));
    request
}

/// A set that only takes up an index.
fn filler(name: &str) -> Vec<u8> {
    let mut request = named(name);
    request.extend(attribute(TYPE_NAME, b"hash:ip\0"));
    request.extend(attribute(REVISION, &[0]));
    request.extend(attribute(FAMILY, &[2]));
    request.extend(attribute(DATA | NESTED, &[]));
    request
}

/// The request that makes a set; what is not known is refused.
fn create(set: &IpSet) -> Result<Vec<u8>, String> {
    let known = ["bitmap:", "hash:", "list:"].iter().any(|kind| set.kind.starts_with(kind));
    if !known || set.index >= HIGHEST {
        return Err("its type or its number is not known".to_owned());
    }
    let mut request = header();
    request.extend(attribute(PROTOCOL, &[VERSION]));
    for (kind, value) in attributes(&set.create) {
        match kind {
            SET_NAME | TYPE_NAME if value.len() <= 32 => request.extend(attribute(kind, value)),
            REVISION | FAMILY if value.len() == 1 => request.extend(attribute(kind, value)),
            DATA => request.extend(attribute(DATA | NESTED, &data(value, true)?)),
            _ => return Err(format!("attribute {kind} is not known")),
        }
    }
    Ok(request)
}

/// The data of a set or an element, as they are wanted. `header` is for a set, whose counts are left out.
fn data(bytes: &[u8], header: bool) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    for (kind, value) in attributes(bytes) {
        match kind {
            // Numbers of elements, of references and of bytes.
            24..=26 if header => {}
            // The size of the table and the most elements.
            18 | 19 | 23 if header => {
                let number = read(value, 0).map(u32::from_be_bytes);
                if number.is_none_or(|number| number > MOST_ANNOUNCED) {
                    return Err(format!("the set announces more than {MOST_ANNOUNCED} elements"));
                }
                out.extend(attribute(kind | NET_BYTE_ORDER, value));
            }
            // Addresses: IP, IP_TO, and those of a second dimension.
            1 | 2 | 20..=22 if is_address(value) => {
                let inner: Vec<u8> = attributes(value)
                    .flat_map(|(kind, address)| attribute(kind | NET_BYTE_ORDER, address))
                    .collect();
                out.extend(attribute(kind | NESTED, &inner));
            }
            0..=40 if value.len() <= 256 => {
                // Numbers of more than a byte are in network order.
                let flag = if matches!(value.len(), 2 | 4 | 8) { NET_BYTE_ORDER } else { 0 };
                out.extend(attribute(kind | flag, value));
            }
            _ => return Err(format!("attribute {kind} is not known")),
        }
    }
    Ok(out)
}

/// Whether a value is a nested address (`IPSET_ATTR_IPADDR_IPV4`, `IPSET_ATTR_IPADDR_IPV6`).
fn is_address(value: &[u8]) -> bool {
    let mut inner = attributes(value);
    matches!(inner.next(), Some((1, address)) if address.len() == 4) || {
        matches!(attributes(value).next(), Some((2, address)) if address.len() == 16)
    }
}

/// Adds the elements of a set; returns the refusal.
fn add(kernel: &mut Netlink, set: &IpSet) -> Option<String> {
    let mut batch: Vec<u8> = Vec::new();
    let mut send = |batch: &mut Vec<u8>| -> Option<String> {
        if batch.is_empty() {
            return None;
        }
        let mut request = named(&set.name);
        request.extend(attribute(LINE | NET_BYTE_ORDER, &1u32.to_be_bytes()));
        request.extend(attribute(ADT | NESTED, batch));
        batch.clear();
        kernel.request(ADD, 0, &request).err().map(|refusal| refusal.to_string())
    };
    for element in &set.elements {
        let element = match data(element, false) {
            Ok(element) => attribute(DATA | NESTED, &element),
            Err(reason) => return Some(reason),
        };
        if batch.len() + element.len() > LONGEST
            && let Some(why) = send(&mut batch)
        {
            return Some(why);
        }
        batch.extend(element);
    }
    send(&mut batch)
}
