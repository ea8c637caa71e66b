//! Access tokens of seeded users.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Access tokens of seeded users. The load generator and the seeding derive the same tokens independently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    run: String,
    first: u32,
    end: u32,
}

impl Tokens {
    /// Creates the tokens of `n` users of a run.
    pub fn new(run: &str, n: u32) -> Self {
        Self { run: run.to_owned(), first: 0, end: n }
    }

    /// Takes the next `n` tokens, for a leg whose users have not been used yet. Returns an error if there are too few.
    pub fn take(&mut self, n: u32) -> Result<Self> {
        let taken = Self { run: self.run.clone(), first: self.first, end: self.first + n };
        ensure!(taken.end <= self.end, "not enough signed-in users were seeded");
        self.first = taken.end;
        Ok(taken)
    }

    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        (self.end - self.first) as usize
    }

    /// Returns the token of the user with the given number, with the same length as Waypost's tokens.
    pub fn get(&self, number: usize) -> Result<String> {
        ensure!(number < self.len(), "not enough signed-in users were seeded for this leg");
        let number = self.first + u32::try_from(number)?;
        Ok(format!("wpt_{}", &hash(&format!("{} {number}", self.run))[..52]))
    }
}

/// Returns the SHA-256 digest as hexadecimal digits, as stored by Waypost.
pub fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leg_has_separate_users() {
        let all = Tokens::new("run", 5);
        let mut remaining = all.clone();
        let (one, two) = (remaining.take(2).unwrap(), remaining.take(2).unwrap());
        let tokens: Vec<_> = (0..4).map(|number| all.get(number).unwrap()).collect();
        assert_eq!(tokens, [one.get(0), one.get(1), two.get(0), two.get(1)].map(Result::unwrap));
        assert_eq!(tokens[0].len(), "wpt_".len() + 52);
        assert_ne!(tokens[0], Tokens::new("another run", 5).get(0).unwrap());
        assert!(one.get(2).is_err() && remaining.take(2).is_err());
    }

    #[test]
    fn the_hash_matches_the_store() {
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
