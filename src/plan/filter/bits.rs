//! Bytes of which some bits may be unknown, and comparisons that know three answers.

use super::expression::{Comparison, REGISTERS};

/// An answer that may be unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Certainly so.
    Yes,
    /// Certainly not so.
    No,
    /// It depends on what is not known.
    Unknown,
}

impl Answer {
    /// The opposite.
    #[must_use]
    pub fn not(self) -> Answer {
        match self {
            Answer::Yes => Answer::No,
            Answer::No => Answer::Yes,
            Answer::Unknown => Answer::Unknown,
        }
    }

    /// Inverted if asked for.
    #[must_use]
    pub fn inverted(self, inverted: bool) -> Answer {
        if inverted { self.not() } else { self }
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Answer) -> Answer {
        match (self, other) {
            (Answer::No, _) | (_, Answer::No) => Answer::No,
            (Answer::Yes, Answer::Yes) => Answer::Yes,
            _ => Answer::Unknown,
        }
    }

    /// One of both, or both.
    #[must_use]
    pub fn or(self, other: Answer) -> Answer {
        self.not().and(other.not()).not()
    }
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Answer {
        if yes { Answer::Yes } else { Answer::No }
    }
}

impl From<Option<bool>> for Answer {
    fn from(known: Option<bool>) -> Answer {
        known.map_or(Answer::Unknown, Answer::from)
    }
}

/// Up to 64 bytes; a bit of `known` says whether that bit of `value` is known. Unknown bits of `value` are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    value: [u8; REGISTERS],
    known: [u8; REGISTERS],
}

impl Bits {
    /// Nothing is known.
    pub const UNKNOWN: Bits = Bits { value: [0; REGISTERS], known: [0; REGISTERS] };

    /// Writes known bytes at `at`.
    pub fn set(&mut self, at: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.set_masked(at + index, *byte, 0xff);
        }
    }

    /// Writes one byte of which the bits in `known` are known.
    pub fn set_masked(&mut self, at: usize, value: u8, known: u8) {
        if let (Some(to), Some(mask)) = (self.value.get_mut(at), self.known.get_mut(at)) {
            *to = value & known;
            *mask = known;
        }
    }

    /// Makes bytes unknown.
    pub fn forget(&mut self, at: usize, length: usize) {
        for index in at..at + length {
            self.set_masked(index, 0, 0);
        }
    }

    /// Copies bytes out of another one.
    pub fn copy(&mut self, to: usize, other: &Bits, from: usize, length: usize) {
        for index in 0..length {
            let (value, known) = other.byte(from + index);
            self.set_masked(to + index, value, known);
        }
    }

    /// One byte and which of its bits are known.
    #[must_use]
    pub fn byte(&self, at: usize) -> (u8, u8) {
        match (self.value.get(at), self.known.get(at)) {
            (Some(value), Some(known)) => (*value, *known),
            _ => (0, 0),
        }
    }

    /// The bytes, when all of them are known.
    #[must_use]
    pub fn bytes(&self, at: usize, length: usize) -> Option<&[u8]> {
        let known = self.known.get(at..at + length)?;
        if known.iter().all(|byte| *byte == 0xff) { self.value.get(at..at + length) } else { None }
    }

    /// A big-endian number of two bytes, when it is known.
    #[must_use]
    pub fn port(&self, at: usize) -> Option<u16> {
        self.bytes(at, 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)
    }

    /// A native number of four bytes, when it is known.
    #[must_use]
    pub fn native(&self, at: usize) -> Option<u32> {
        self.bytes(at, 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
    }

    /// The least and the greatest value that the bytes can have.
    #[must_use]
    pub fn bounds(&self, at: usize, length: usize) -> (Vec<u8>, Vec<u8>) {
        (0..length)
            .map(|index| {
                let (value, known) = self.byte(at + index);
                (value, value | !known)
            })
            .unzip()
    }

    /// Whether the bytes equal these.
    #[must_use]
    pub fn equal(&self, at: usize, with: &[u8]) -> Answer {
        let mut answer = Answer::Yes;
        for (index, byte) in with.iter().enumerate() {
            let (value, known) = self.byte(at + index);
            if (value ^ byte) & known != 0 {
                return Answer::No;
            }
            if known != 0xff {
                answer = Answer::Unknown;
            }
        }
        answer
    }

    /// Whether the bytes, as a number of the network, are at least these.
    #[must_use]
    pub fn at_least(&self, at: usize, with: &[u8]) -> Answer {
        let (least, greatest) = self.bounds(at, with.len());
        if least.as_slice() >= with {
            Answer::Yes
        } else if greatest.as_slice() < with {
            Answer::No
        } else {
            Answer::Unknown
        }
    }

    /// Whether the bytes, as a number of the network, are at most these.
    #[must_use]
    pub fn at_most(&self, at: usize, with: &[u8]) -> Answer {
        let (least, greatest) = self.bounds(at, with.len());
        if greatest.as_slice() <= with {
            Answer::Yes
        } else if least.as_slice() > with {
            Answer::No
        } else {
            Answer::Unknown
        }
    }

    /// Whether the bytes are in this range, its ends included.
    #[must_use]
    pub fn within(&self, at: usize, low: &[u8], high: &[u8]) -> Answer {
        self.at_least(at, low).and(self.at_most(at, high))
    }

    /// A comparison as `cmp` makes it.
    #[must_use]
    pub fn compare(&self, at: usize, how: Comparison, with: &[u8]) -> Answer {
        match how {
            Comparison::Equal => self.equal(at, with),
            Comparison::NotEqual => self.equal(at, with).not(),
            Comparison::Less => self.at_least(at, with).not(),
            Comparison::LessOrEqual => self.at_most(at, with),
            Comparison::Greater => self.at_most(at, with).not(),
            Comparison::GreaterOrEqual => self.at_least(at, with),
        }
    }

    /// `(from & mask) ^ xor`, byte by byte; a bit that the mask clears is known.
    pub fn mask(&mut self, from: usize, to: usize, mask: &[u8], xor: &[u8]) {
        let source = *self;
        for (index, (mask, xor)) in mask.iter().zip(xor).enumerate() {
            let (value, known) = source.byte(from + index);
            self.set_masked(to + index, (value & mask) ^ xor, known | !mask);
        }
    }

    /// A native number of four bytes of which some bits may be unknown.
    #[must_use]
    pub fn word(&self, at: usize) -> Word {
        let (mut value, mut known) = ([0; 4], [0; 4]);
        for index in 0..4 {
            (value[index], known[index]) = self.byte(at + index);
        }
        Word { value: u32::from_ne_bytes(value), known: u32::from_ne_bytes(known) }
    }

    /// Writes such a number.
    pub fn set_word(&mut self, at: usize, word: Word) {
        let (value, known) = (word.value.to_ne_bytes(), word.known.to_ne_bytes());
        for index in 0..4 {
            self.set_masked(at + index, value[index], known[index]);
        }
    }
}

/// A number of 32 bits of which some may be unknown, such as a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// The known bits; unknown ones are zero.
    pub value: u32,
    /// Which bits are known.
    pub known: u32,
}

impl Word {
    /// Nothing is known.
    pub const UNKNOWN: Word = Word { value: 0, known: 0 };

    /// A known number.
    #[must_use]
    pub fn new(value: u32) -> Word {
        Word { value, known: u32::MAX }
    }

    /// `(self & mask) ^ xor`.
    #[must_use]
    pub fn mask(self, mask: u32, xor: u32) -> Word {
        let known = self.known | !mask;
        Word { value: ((self.value & mask) ^ xor) & known, known }
    }

    /// Exclusive or of two.
    #[must_use]
    pub fn xor(self, other: Word) -> Word {
        let known = self.known & other.known;
        Word { value: (self.value ^ other.value) & known, known }
    }

    /// Whether `self & mask` equals this.
    #[must_use]
    pub fn equals(self, mask: u32, with: u32) -> Answer {
        if with & !mask != 0 || (self.value ^ with) & self.known & mask != 0 {
            Answer::No
        } else if mask & !self.known != 0 {
            Answer::Unknown
        } else {
            Answer::Yes
        }
    }

    /// Whether one of these bits is set.
    #[must_use]
    pub fn any(self, bits: u32) -> Answer {
        self.equals(bits, 0).not()
    }

    /// The number, when all of it is known.
    #[must_use]
    pub fn get(self) -> Option<u32> {
        (self.known == u32::MAX).then_some(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_certain_as_far_as_bits_are_known() {
        let mut bits = Bits::UNKNOWN;
        bits.set(0, &[10]);
        assert_eq!(bits.equal(0, &[10, 1]), Answer::Unknown);
        assert_eq!(bits.equal(0, &[11, 1]), Answer::No);
        assert_eq!(bits.compare(0, Comparison::Less, &[11, 0]), Answer::Yes);
        assert_eq!(bits.compare(0, Comparison::Greater, &[9, 255]), Answer::Yes);
        assert_eq!(bits.compare(0, Comparison::Greater, &[10, 255]), Answer::No);
        assert_eq!(bits.within(0, &[10, 0], &[10, 255]), Answer::Yes);
        assert_eq!(bits.within(0, &[10, 0], &[10, 254]), Answer::Unknown);
        bits.mask(0, 4, &[0xff, 0], &[0, 3]);
        assert_eq!(bits.equal(4, &[10, 3]), Answer::Yes);
    }

    #[test]
    fn words_keep_unknown_bits_apart() {
        let word = Word { value: 2, known: 0xf };
        assert_eq!(word.equals(0xf, 2), Answer::Yes);
        assert_eq!(word.equals(0x1f, 2), Answer::Unknown);
        assert_eq!(word.equals(0x1f, 3), Answer::No);
        assert_eq!(word.any(0x12), Answer::Yes);
        assert_eq!(word.any(0x11), Answer::Unknown);
        assert_eq!(word.equals(0xf, 0x12), Answer::No);
    }
}
