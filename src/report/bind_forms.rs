//! Coverage of bind forms, in the document of `interfaces`. Most forms of a host differ only in their address and
//! reason, so the rest of their text is cached.

use super::json;
use crate::model::bind_forms::{Coverage, Reach};
use crate::model::{Family, FamilyExposure, IfName};

/// Placeholder for the variable parts of cached text.
const ANY: &str = "@";

/// Family, IPV6_V6ONLY, reach, exposure and interfaces of a form.
type Common = (Family, Option<bool>, Reach, FamilyExposure, Vec<IfName>);

/// Cached texts of forms.
#[derive(Debug)]
pub struct Forms {
    levels: usize,
    depth: usize,
    /// The fields of the last form that similar forms share.
    like: Option<Common>,
    /// Its text around the address, the address again, and the reason.
    pieces: [Vec<u8>; 4],
    text: Vec<u8>,
}

impl Forms {
    /// A cache for a document with one line per container at `levels`, where the forms are inside `depth` containers.
    #[must_use]
    pub fn new(levels: usize, depth: usize) -> Forms {
        Forms { levels, depth, like: None, pieces: Default::default(), text: Vec::new() }
    }

    /// The form as JSON, if it covers one address for one reason. serde writes the others.
    pub fn text(&mut self, form: &Coverage<'_>) -> Option<json::Made<'_>> {
        let ([address], [reason]) = (form.addresses, form.because) else { return None };
        if *address != form.bind
            || json::has_escapes(address.as_bytes())
            || json::has_escapes(reason.as_bytes())
        {
            return None;
        }
        let known = self.like.as_ref().is_some_and(|(family, v6only, reach, exposure, interfaces)| {
            (*family, *v6only, *reach, *exposure) == (form.family, form.v6only, form.reach, form.exposure)
                && interfaces == form.interfaces
        });
        if !known {
            let any = Coverage { bind: ANY, addresses: &[ANY], because: &[ANY.to_owned()], ..*form };
            let text = json::part(&any, self.levels, self.depth).ok()?;
            // An interface may have this name.
            let mut pieces = text.split(|byte| *byte == ANY.as_bytes()[0]).map(<[u8]>::to_vec);
            self.like = None;
            self.pieces = [pieces.next()?, pieces.next()?, pieces.next()?, pieces.next()?];
            if pieces.next().is_some() {
                return None;
            }
            self.like = Some((form.family, form.v6only, form.reach, form.exposure, form.interfaces.to_vec()));
        }
        let [first, second, third, last] = &self.pieces;
        self.text.clear();
        for piece in [first, address.as_bytes(), second, address.as_bytes(), third, reason.as_bytes(), last] {
            self.text.extend_from_slice(piece);
        }
        Some(json::Made(&self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Exposure;

    #[test]
    fn texts_are_what_serde_writes() {
        let names = ["eth0", "@", "a\"b"].map(IfName::from);
        let exposure = |ipv4| FamilyExposure { ipv4, ipv6: Exposure::None };
        let mut forms = Forms::new(4, 2);
        let mut kept = 0;
        for (bind, family, reason) in [
            ("192.0.2.1", Family::Ipv4, "one"),
            ("192.0.2.2", Family::Ipv4, "another @"),
            ("fe80::1%a\"b", Family::Ipv6, "it is \"quoted\""),
            ("fe80::1%@", Family::Ipv6, "one"),
        ] {
            for (reach, exposure) in [
                (Reach::AnyInterface, exposure(Exposure::Global)),
                (Reach::Link, exposure(Exposure::Link)),
                (Reach::Link, exposure(Exposure::Private)),
            ] {
                for interfaces in [&[][..], &names[..1], &names[1..2], &names[2..]] {
                    let v6only = (family == Family::Ipv6).then_some(true);
                    let because = &[reason.to_owned()];
                    let form = Coverage {
                        bind,
                        family,
                        v6only,
                        addresses: &[bind],
                        reach,
                        interfaces,
                        exposure,
                        because,
                    };
                    let whole = json::part(&form, 4, 2).unwrap();
                    // Twice: first serialized, then from the cache.
                    for _ in 0..2 {
                        let Some(json::Made(text)) = forms.text(&form) else { continue };
                        assert_eq!(String::from_utf8_lossy(text), String::from_utf8_lossy(&whole));
                        kept += 1;
                    }
                    let others = [
                        Coverage { addresses: &[], ..form },
                        Coverage { addresses: &["::"], ..form },
                        Coverage { because: &[], ..form },
                    ];
                    for other in others {
                        assert!(forms.text(&other).is_none());
                    }
                }
            }
        }
        assert_eq!(kept, 3 * 3 * 3 * 2);
    }
}
