//! Sets of steps by ordinal.

use serde::{Deserialize, Serialize};

/// A bit set of step ordinals: 500 steps take 63 bytes, regardless of their IDs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StepSet(Vec<u8>);

impl StepSet {
    /// Adds a step. Returns false if it was already in the set.
    pub fn insert(&mut self, ordinal: u32) -> bool {
        let (byte, bit) = (ordinal as usize / 8, 1_u8 << (ordinal % 8));
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        let is_new = self.0[byte] & bit == 0;
        self.0[byte] |= bit;
        is_new
    }

    /// Whether the step is in the set.
    #[must_use]
    pub fn contains(&self, ordinal: u32) -> bool {
        self.0.get(ordinal as usize / 8).is_some_and(|byte| byte & (1 << (ordinal % 8)) != 0)
    }

    /// Returns the number of steps in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Returns the number of steps that are in both sets.
    #[must_use]
    pub fn common_count(&self, other: &Self) -> usize {
        self.0.iter().zip(&other.0).map(|(a, b)| (a & b).count_ones() as usize).sum()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Returns the union of both sets.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (longer, shorter) = if self.0.len() < other.0.len() { (other, self) } else { (self, other) };
        let mut bytes = longer.0.clone();
        bytes.iter_mut().zip(&shorter.0).for_each(|(byte, more)| *byte |= more);
        Self(bytes)
    }

    /// Returns the steps that are in this set but not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut bytes = self.0.clone();
        bytes.iter_mut().zip(&other.0).for_each(|(byte, less)| *byte &= !less);
        // Equal sets must have equal bytes; `insert` never leaves a trailing zero byte either.
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        Self(bytes)
    }

    /// Encodes the set in lowercase hexadecimal, two digits per eight ordinals, as it is stored.
    #[must_use]
    pub fn to_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// Decodes the output of [`Self::to_hex`]. Returns `None` if the text is not lowercase hexadecimal with an even
    /// number of digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).ok().map(Self)
    }
}

impl From<StepSet> for String {
    fn from(set: StepSet) -> Self {
        set.to_hex()
    }
}

impl TryFrom<String> for StepSet {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::from_hex(&text).ok_or("a set of steps must be hexadecimal")
    }
}

impl FromIterator<u32> for StepSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ordinals: I) -> Self {
        let mut set = Self::default();
        for ordinal in ordinals {
            set.insert(ordinal);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn inserting_reports_whether_the_step_is_new() {
        let mut set = StepSet::default();
        for (ordinal, is_new) in [(9, true), (9, false), (0, true), (9, false), (8, true), (0, false)] {
            assert_eq!(set.insert(ordinal), is_new, "{ordinal}");
        }
        assert_eq!((set.len(), set.to_hex().as_str()), (3, "0103"));
    }

    #[test]
    fn only_a_set_without_steps_is_empty() {
        assert!(StepSet::default().is_empty());
        for ordinals in [vec![0], vec![7, 8], vec![9]] {
            let set: StepSet = ordinals.iter().copied().collect();
            assert!(!set.is_empty(), "{ordinals:?}");
        }
    }

    #[test]
    fn only_hexadecimal_text_is_decoded() {
        assert_eq!(StepSet::from_hex("05"), Some([0, 2].into_iter().collect()));
        assert_eq!((StepSet::from_hex("5"), StepSet::from_hex("zz")), (None, None));
        let set: StepSet = serde_json::from_str("\"05\"").unwrap();
        assert_eq!(serde_json::to_string(&set).unwrap(), "\"05\"");
        assert!(serde_json::from_str::<StepSet>("\"zz\"").is_err());
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(ordinals in prop::collection::vec(0_u32..600, 0..100), probe in 0_u32..700) {
            let set: StepSet = ordinals.iter().copied().collect();
            let model: BTreeSet<u32> = ordinals.into_iter().collect();
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.is_empty(), model.is_empty());
            prop_assert_eq!(set.contains(probe), model.contains(&probe));
            prop_assert_eq!(StepSet::from_hex(&set.to_hex()), Some(set));
        }

        #[test]
        fn set_operations_match_the_model(
            a in prop::collection::btree_set(0_u32..100, 0..40),
            b in prop::collection::btree_set(0_u32..100, 0..40),
        ) {
            let (left, right): (StepSet, StepSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(left.common_count(&right), (&a & &b).len());
            prop_assert_eq!(left.union(&right), (&a | &b).into_iter().collect());
            prop_assert_eq!(left.difference(&right), (&a - &b).into_iter().collect());
        }
    }
}
