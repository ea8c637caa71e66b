//! Verification of the signatures of daemons.

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{ED25519, UnparsedPublicKey};
use waypost_toolbox_proto::handshake::{Challenge, Hello, Rejection, signed_text};

/// Whether `text` has the form of an Ed25519 public key: 32 bytes in base64url without padding.
#[must_use]
pub fn is_public_key(text: &str) -> bool {
    decode::<32>(text).is_some()
}

/// Verifies that the owner of `public_key` answered `challenge` at one of `origins`, which are the origins at which
/// daemons reach this installation, such as `https://waypost.example.com`.
///
/// # Errors
/// Returns [`Rejection::Unauthorized`] if the signature is not valid for this challenge, another origin was signed, or
/// the next public key does not have the form of a key.
pub fn verify(challenge: &Challenge, hello: &Hello, public_key: &str, origins: &[&str]) -> Result<(), Rejection> {
    let next = hello.next_public_key.as_deref();
    let is_known_origin = origins.contains(&hello.origin.as_str());
    let key = decode::<32>(public_key).ok_or(Rejection::Unauthorized)?;
    let signature = decode::<64>(&hello.signature).ok_or(Rejection::Unauthorized)?;
    if !is_known_origin || next.is_some_and(|next| !is_public_key(next)) {
        return Err(Rejection::Unauthorized);
    }
    let text = signed_text(&challenge.nonce, &hello.toolbox_id, &hello.origin, next);
    UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature).map_err(|_| Rejection::Unauthorized)
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use waypost_toolbox_proto::handshake::Versions;

    use super::*;

    const ORIGIN: &str = "https://waypost.example";

    fn key(seed: u8) -> (Ed25519KeyPair, String) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = BASE64URL_NOPAD.encode(pair.public_key().as_ref());
        (pair, public)
    }

    fn challenge(nonce: &str) -> Challenge {
        Challenge { nonce: nonce.to_owned(), protocol: Versions::OWN }
    }

    fn hello(pair: &Ed25519KeyPair, next_public_key: Option<String>) -> Hello {
        let text = signed_text("nonce", "tbx_1", ORIGIN, next_public_key.as_deref());
        Hello {
            toolbox_id: "tbx_1".into(),
            origin: ORIGIN.into(),
            signature: BASE64URL_NOPAD.encode(pair.sign(text.as_bytes()).as_ref()),
            protocol: Versions::OWN,
            version: "0.1.0".into(),
            next_public_key,
        }
    }

    #[test]
    fn accepts_a_valid_signature() {
        let (pair, public) = key(1);
        let accepted = |hello: Hello| verify(&challenge("nonce"), &hello, &public, &["https://other.example", ORIGIN]);
        assert_eq!(accepted(hello(&pair, None)), Ok(()));
        assert_eq!(accepted(hello(&pair, Some(key(2).1))), Ok(()));
    }

    #[test]
    fn rejects_everything_else() {
        let (pair, public) = key(1);
        let valid = hello(&pair, Some(key(2).1));
        let cases = [
            ("another nonce", challenge("other"), valid.clone(), public.clone(), ORIGIN),
            ("another key", challenge("nonce"), valid.clone(), key(3).1, ORIGIN),
            ("no key", challenge("nonce"), valid.clone(), String::new(), ORIGIN),
            ("another installation", challenge("nonce"), valid.clone(), public.clone(), "https://other.example"),
            (
                "another toolbox",
                challenge("nonce"),
                Hello { toolbox_id: "tbx_2".into(), ..valid.clone() },
                public.clone(),
                ORIGIN,
            ),
            (
                "another next key",
                challenge("nonce"),
                Hello { next_public_key: Some(key(3).1), ..valid.clone() },
                public.clone(),
                ORIGIN,
            ),
            (
                "no next key",
                challenge("nonce"),
                Hello { next_public_key: None, ..valid.clone() },
                public.clone(),
                ORIGIN,
            ),
            ("invalid next key", challenge("nonce"), hello(&pair, Some("key".into())), public.clone(), ORIGIN),
            (
                "invalid signature",
                challenge("nonce"),
                Hello { signature: "AA".into(), ..valid.clone() },
                public.clone(),
                ORIGIN,
            ),
        ];
        for (case, challenge, hello, public, origin) in cases {
            assert_eq!(verify(&challenge, &hello, &public, &[origin]), Err(Rejection::Unauthorized), "{case}");
        }
    }
}
