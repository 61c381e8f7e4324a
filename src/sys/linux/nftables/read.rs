//! Reads the rules of the calling thread's network namespace, and changes nothing: no table is made and no module is loaded by
//! asking (see [`super::super::filters`]).

use super::super::netlink::{Netlink, Refusal, Service, attribute, attributes, read, until_nul};
use super::{HEADER, family, header, message, numbers};
use crate::model::ruleset::{NftFamily, NftKind, NftObject, Ruleset};

/// `NFT_MSG_NEWGEN` is the answer to `NFT_MSG_GETGEN`, with `NFTA_GEN_ID`.
const GET_GENERATION: u16 = message(16);
const GENERATION_ID: u16 = 1;
/// The most bytes of attributes that are read.
pub const LARGEST: usize = 16 << 20;
/// How often a ruleset is read again that changed in between.
const TRIES: u32 = 5;

/// The kinds in the order of a dump: what later ones refer to comes first.
const KINDS: [NftKind; 6] =
    [NftKind::Table, NftKind::Object, NftKind::Flowtable, NftKind::Chain, NftKind::Set, NftKind::Rule];

/// Why the rules are not known.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// The kernel has no nf_tables.
    #[error("the kernel has no nf_tables")]
    Absent,
    /// Permission is missing: CAP_NET_ADMIN.
    #[error("permission is missing (CAP_NET_ADMIN)")]
    Forbidden,
    /// There are too many.
    #[error("the rules are larger than {} MiB", LARGEST >> 20)]
    TooLarge,
    /// Another refusal.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// The nf_tables rules of the calling thread's namespace, with `legacy` and `ipset` empty.
///
/// # Errors
/// Why they are not known.
pub fn ruleset() -> Result<Ruleset, Unread> {
    let mut kernel = Netlink::open(Service::Netfilter).map_err(Refusal::from)?;
    let mut before = generation(&mut kernel)?;
    let mut tries = 1;
    loop {
        let (nftables, whole) = objects(&mut kernel)?;
        let after = generation(&mut kernel)?;
        let consistent = whole && before == after;
        if consistent || tries == TRIES {
            return Ok(Ruleset { generation: after, consistent, nftables, ..Ruleset::default() });
        }
        before = after;
        tries += 1;
    }
}

/// The generation of the rules of the calling thread's namespace, which rises with each change.
///
/// # Errors
/// As [`ruleset`].
fn generation(kernel: &mut Netlink) -> Result<u32, Unread> {
    let answer = kernel.ask(GET_GENERATION, &header(0)).map_err(unread)?;
    let id = attributes(answer.get(HEADER..).unwrap_or_default()).find(|(kind, _)| *kind == GENERATION_ID);
    Ok(id.and_then(|(_, value)| read(value, 0)).map_or(0, u32::from_be_bytes))
}

fn unread(refusal: Refusal) -> Unread {
    if refusal.is(libc::EPERM) {
        Unread::Forbidden
    } else if refusal.is(libc::EINVAL) || refusal.is(libc::EOPNOTSUPP) {
        Unread::Absent
    } else {
        Unread::Refused(refusal)
    }
}

/// What a dump gave so far.
#[derive(Default)]
struct Found {
    objects: Vec<NftObject>,
    bytes: usize,
}

/// Every object, and whether no list changed while it was read.
fn objects(kernel: &mut Netlink) -> Result<(Vec<NftObject>, bool), Unread> {
    let mut all: Vec<NftObject> = Vec::new();
    let mut whole = true;
    let mut bytes = 0;
    for kind in KINDS {
        let found = match list(kernel, kind, &header(0), LARGEST - bytes) {
            Ok((found, consistent)) => {
                whole &= consistent;
                found
            }
            // A kernel without stateful objects or flow tables has none of them.
            Err(refusal)
                if matches!(kind, NftKind::Object | NftKind::Flowtable)
                    && (refusal.is(libc::EINVAL) || refusal.is(libc::EOPNOTSUPP)) =>
            {
                Found::default()
            }
            Err(refusal) => return Err(unread(refusal)),
        };
        bytes += found.bytes;
        let sets: Vec<(NftFamily, Vec<u8>, Vec<u8>)> = match kind {
            NftKind::Set => found.objects.iter().map(names_of_set).collect(),
            _ => Vec::new(),
        };
        all.extend(found.objects);
        for (family, table, name) in sets {
            let elements = elements(kernel, family, &table, &name, LARGEST.saturating_sub(bytes));
            match elements {
                Ok((found, consistent)) => {
                    whole &= consistent;
                    bytes += found.bytes;
                    all.extend(found.objects);
                }
                // The set went away in between: the generation tells that.
                Err(refusal) if refusal.is(libc::ENOENT) => whole = false,
                Err(refusal) => return Err(unread(refusal)),
            }
        }
        if bytes > LARGEST {
            return Err(Unread::TooLarge);
        }
    }
    Ok((all, whole))
}

fn elements(
    kernel: &mut Netlink,
    family: NftFamily,
    table: &[u8],
    set: &[u8],
    most: usize,
) -> Result<(Found, bool), Refusal> {
    let mut request = header(family.number()).to_vec();
    request.extend(attribute(1, &[table, &[0]].concat()));
    request.extend(attribute(2, &[set, &[0]].concat()));
    list(kernel, NftKind::Element, &request, most)
}

/// One list of the kernel, of which at most `most` bytes are kept, and one more message that shows that there is more.
fn list(kernel: &mut Netlink, kind: NftKind, request: &[u8], most: usize) -> Result<(Found, bool), Refusal> {
    let (made, listed) = numbers(kind);
    let mut found = Found::default();
    let restart = |found: &mut Found| *found = Found::default();
    let consistent =
        kernel.dump_each(message(listed), request, &mut found, restart, |found, type_, payload| {
            if type_ == message(made) && found.bytes <= most {
                found.bytes += payload.len();
                found.objects.extend(object(kind, payload));
            }
        })?;
    Ok((found, consistent))
}

/// Family, table and name of a set, as bytes: names need not be UTF-8.
fn names_of_set(set: &NftObject) -> (NftFamily, Vec<u8>, Vec<u8>) {
    let text = |wanted: u16| {
        let found = attributes(&set.attributes).find(|(kind, _)| *kind == wanted);
        found.map(|(_, value)| until_nul(value).to_vec()).unwrap_or_default()
    };
    (set.family, text(1), text(2))
}

/// An object of a message, of which nothing but its names is looked at.
pub(super) fn object(kind: NftKind, payload: &[u8]) -> Option<NftObject> {
    let bytes = payload.get(HEADER..)?;
    let find = |wanted: u16| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let text = |wanted: u16| Some(String::from_utf8_lossy(until_nul(find(wanted)?)).into_owned());
    let handle = |wanted: u16| find(wanted).and_then(|value| read(value, 0)).map(u64::from_be_bytes);
    // NFTA_{TABLE,CHAIN,RULE,SET,OBJ,FLOWTABLE}_*: the first attribute of each names the table.
    let (chain, name, handle) = match kind {
        NftKind::Table => (None, None, handle(4)),
        NftKind::Chain => (None, text(3), handle(2)),
        NftKind::Rule => (text(2), None, handle(3)),
        NftKind::Set => (None, text(2), handle(16)),
        NftKind::Element => (None, text(2), None),
        NftKind::Object => (None, text(2), handle(6)),
        NftKind::Flowtable => (None, text(2), handle(5)),
    };
    let (family, table) = (family(payload)?, text(1)?);
    Some(NftObject { kind, family, table, chain, name, handle, text: None, attributes: bytes.to_vec() })
}
