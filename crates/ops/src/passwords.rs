//! Password rules and password hashes. Hashing deliberately costs memory and time, so it is queued
//! ([`crate::fair_queue`]) and runs on blocking threads.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use waypost_core::{Error, Random, Result};
use zxcvbn::Score;

use crate::fair_queue::PermitQueue;
use crate::limits::network;

/// The minimum number of characters.
pub(crate) const MIN_CHARS: usize = 12;
/// The maximum number of characters. Longer input would only waste resources.
pub(crate) const MAX_CHARS: usize = 128;
/// The argon2id parameters of OWASP's Password Storage Cheat Sheet: memory in KiB, passes, lanes.
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// The number of salt bytes (RFC 9106, section 3.1).
const SALT: usize = 16;
/// A hash that no password matches. Verifying against it makes the response time independent of whether the account
/// exists.
const DUMMY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A password that someone has chosen, and the field of the request that contains it.
#[derive(Clone, Copy)]
pub(crate) struct ChosenPassword<'a> {
    pub(crate) field: &'static str,
    pub(crate) password: &'a str,
}

/// Hashes passwords with bounded concurrency.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passwords {
    turns: PermitQueue,
    hashed: Arc<AtomicU64>,
}

impl Passwords {
    /// Returns the number of passwords that were hashed or verified.
    pub(crate) fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    /// Returns the hash of a new password as a PHC string. `about` contains public information about its owner.
    ///
    /// # Errors
    /// `invalid_arguments` with `field` if the password is too short, too long or easy to guess; `rate_limited` if the
    /// queue is full.
    pub(crate) async fn hash(
        &self,
        random: &dyn Random,
        client: IpAddr,
        password: ChosenPassword<'_>,
        about: &[&str],
    ) -> Result<String> {
        self.hash_like(random, client, password, about, None).await
    }

    /// The same as for [`Self::hash`], but with the salt of the hash `like`, if there is one.
    pub(crate) async fn hash_like(
        &self,
        random: &dyn Random,
        client: IpAddr,
        password: ChosenPassword<'_>,
        about: &[&str],
        like: Option<String>,
    ) -> Result<String> {
        let ChosenPassword { field, password } = password;
        check_length(field, password)?;
        let mut salt = vec![0_u8; SALT];
        random.fill(&mut salt);
        if let Some(like) = like
            && let Some(shared) = parse(&like)?.salt
        {
            salt = shared.as_ref().to_vec();
        }
        let (password, about) = (password.to_owned(), about.iter().map(|text| text.to_lowercase()).collect::<Vec<_>>());
        self.work(client, move || {
            check_strength(field, &password, &about)?;
            let hash = argon2()?.hash_password_with_salt(password.as_bytes(), &salt);
            Ok(hash.map_err(|error| Error::internal(error.to_string()))?.to_string())
        })
        .await
    }

    /// Whether `password` matches `hash`. Without a hash, it does not match, but takes the same time.
    ///
    /// # Errors
    /// `rate_limited` if the queue is full.
    pub(crate) async fn verify(&self, client: IpAddr, password: &str, hash: Option<&str>) -> Result<bool> {
        if password.chars().count() > MAX_CHARS {
            return Ok(false);
        }
        let (password, known) = (password.to_owned(), hash.is_some());
        let hash = hash.unwrap_or(DUMMY_HASH).to_owned();
        self.work(client, move || Ok(argon2()?.verify_password(password.as_bytes(), &parse(&hash)?).is_ok() && known))
            .await
    }

    /// Returns the hashes in `hashes` that match `password`. The password is hashed once per salt, so several accounts
    /// of one email address cost as much as one. An empty list also costs as much as one.
    ///
    /// # Errors
    /// `rate_limited` if the queue is full.
    pub(crate) async fn find_matching(
        &self,
        client: IpAddr,
        password: &str,
        hashes: Vec<String>,
    ) -> Result<Vec<String>> {
        if password.chars().count() > MAX_CHARS {
            return Ok(Vec::new());
        }
        let password = password.to_owned();
        self.work(client, move || {
            if hashes.is_empty() {
                let _ = argon2()?.verify_password(password.as_bytes(), &parse(DUMMY_HASH)?);
                return Ok(Vec::new());
            }
            let mut computed: BTreeMap<Vec<u8>, String> = BTreeMap::new();
            let mut matching = Vec::new();
            for stored in hashes {
                let Some(salt) = parse(&stored)?.salt else { continue };
                let hash = match computed.entry(salt.as_ref().to_vec()) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => {
                        let hash = argon2()?.hash_password_with_salt(password.as_bytes(), &salt);
                        entry.insert(hash.map_err(|error| Error::internal(error.to_string()))?.to_string())
                    }
                };
                // The outputs are compared in constant time.
                if parse(hash)? == parse(&stored)? {
                    matching.push(stored);
                }
            }
            Ok(matching)
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        client: IpAddr,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.turns.acquire(network(client)).await?;
        self.hashed.fetch_add(1, Ordering::Relaxed);
        let task = tokio::task::spawn_blocking(move || {
            // Held until the work is done, even if the caller is cancelled.
            let _turn = turn;
            work()
        });
        task.await.map_err(Error::internal)?
    }
}

fn parse(hash: &str) -> Result<PasswordHash> {
    PasswordHash::new(hash).map_err(|error| Error::internal(error.to_string()))
}

fn argon2() -> Result<Argon2<'static>> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|error| Error::internal(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn check_length(field: &str, password: &str) -> Result<()> {
    let reason = match password.chars().count() {
        count if count < MIN_CHARS => format!("The password must have at least {MIN_CHARS} characters."),
        count if count > MAX_CHARS => format!("The password must have at most {MAX_CHARS} characters."),
        _ => return Ok(()),
    };
    Err(Error::invalid(field, reason))
}

/// Rejects passwords that are among the first million guesses: common passwords, names, dates, keyboard rows, and
/// public information about the owner.
fn check_strength(field: &str, password: &str, about: &[String]) -> Result<()> {
    let about: Vec<&str> = about.iter().map(String::as_str).collect();
    let entropy = zxcvbn::zxcvbn(password, &about);
    if entropy.score() >= Score::Two {
        return Ok(());
    }
    let warning = entropy.feedback().and_then(|feedback| feedback.warning()).map(|warning| format!(" {warning}"));
    let warning = warning.unwrap_or_default();
    Err(Error::invalid(
        field,
        format!("This password is easy to guess.{warning} Four unrelated words are harder to guess."),
    ))
}

#[cfg(test)]
mod tests {
    use waypost_core::random::SeededRandom;

    use super::*;

    const PASSWORD: &str = "quartz-banjo-umbrella-42";
    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn a_password_is_verified_against_its_hash() {
        let (passwords, random) = (Passwords::default(), SeededRandom::new(1));
        let hash = passwords
            .hash(&random, CLIENT, ChosenPassword { field: "password", password: PASSWORD }, &[])
            .await
            .unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(
            hash,
            passwords
                .hash(&random, CLIENT, ChosenPassword { field: "password", password: PASSWORD }, &[])
                .await
                .unwrap(),
            "each has its own salt"
        );
        assert!(passwords.verify(CLIENT, PASSWORD, Some(&hash)).await.unwrap());
        assert!(!passwords.verify(CLIENT, "quartz-banjo-umbrella-43", Some(&hash)).await.unwrap());
        assert!(!passwords.verify(CLIENT, PASSWORD, None).await.unwrap());
        assert!(!passwords.verify(CLIENT, &"a".repeat(129), Some(&hash)).await.unwrap());
        let dummy = PasswordHash::new(DUMMY_HASH).unwrap();
        assert!(dummy.hash.is_some() && dummy.salt.is_some(), "an unknown account costs the same work");
        assert_eq!(Params::try_from(&dummy).unwrap().m_cost(), COST.0);
    }

    #[tokio::test]
    async fn weak_passwords_are_rejected_with_a_reason() {
        let (passwords, random) = (Passwords::default(), SeededRandom::new(1));
        for (password, words) in [
            ("short-pass1", "at least 12"),
            (&"ab".repeat(65) as &str, "at most 128"),
            ("passwordpassword", "easy to guess"),
            ("qwertyuiopqwertyuiop", "easy to guess"),
            ("111111111111", "easy to guess"),
            ("Anna@Example.com", "easy to guess"),
            ("acmecorporation", "easy to guess"),
        ] {
            let about = ["anna@example.com", "anna", "Acme", "acmecorporation"];
            let error = passwords
                .hash(&random, CLIENT, ChosenPassword { field: "new_password", password }, &about)
                .await
                .unwrap_err();
            assert!(error.message.contains(words), "{password}: {error}");
            assert_eq!(error.details["field"], "new_password");
            assert!(!error.message.contains(password), "{error}");
        }
        assert!(
            passwords
                .hash(&random, CLIENT, ChosenPassword { field: "password", password: "ümlaut-äpfel-zwölf-böse" }, &[])
                .await
                .is_ok()
        );
    }
}
