//! Scopes: the permissions of a token (RFC 6749, section 3.3).

use std::fmt;

use crate::walkthrough::names;

names! {
    /// A permission of a token.
    Scope {
        /// Use the gateway as the agent of the signed-in person.
        Gateway = "gateway",
        /// Full access: play walkthroughs and read progress.
        Walk = "walk",
        /// Read progress.
        WalkRead = "walk:read",
    }
}

impl Scope {
    /// The scopes of a hosted server. The first one is the default.
    pub const SERVER: &[Self] = &[Self::Walk, Self::WalkRead];
    /// The scopes of the gateway. The first one is the default.
    pub const GATEWAY: &[Self] = &[Self::Gateway];

    /// Whether `self` includes `other`: `walk` includes `walk:read`.
    #[must_use]
    pub fn includes(self, other: Self) -> bool {
        self == other || self == Self::Walk && other == Self::WalkRead
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A non-empty set of requested or granted scopes. `Display` writes the format of RFC 6749: sorted and separated by
/// spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

/// A scope that does not exist (`invalid_scope` of RFC 6749, section 4.1.2.1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope `{name}`; supported: {}", names_of(supported))]
pub struct UnknownScope {
    /// The requested scope, shortened.
    pub name: String,
    /// The scopes that the issuer supports.
    pub supported: &'static [Scope],
}

fn names_of(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| format!("`{scope}`")).collect::<Vec<_>>().join(", ")
}

/// Maximum number of characters of an unknown scope in an error.
const MAX_SHOWN: usize = 64;

impl Scopes {
    /// Parses scopes of a hosted server, separated by spaces. An empty text means the default scope.
    ///
    /// # Errors
    /// [`UnknownScope`] with the first scope that a server does not support.
    pub fn parse(text: &str) -> Result<Self, UnknownScope> {
        Self::parse_supported(text, Scope::SERVER)
    }

    /// Parses scopes separated by spaces, all of which must be in `supported`. An empty text means the first supported
    /// scope.
    ///
    /// # Errors
    /// [`UnknownScope`] with the first scope that is not supported.
    pub fn parse_supported(text: &str, supported: &'static [Scope]) -> Result<Self, UnknownScope> {
        let mut bits = 0;
        for name in text.split(' ').filter(|name| !name.is_empty()) {
            let shown = || name.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
            let scope = name.parse().ok().filter(|scope| supported.contains(scope));
            bits |= scope.ok_or_else(|| UnknownScope { name: shown(), supported })?.bit();
        }
        Ok(if bits == 0 { supported.first().map(|scope| Self::from(*scope)).unwrap_or_default() } else { Self(bits) })
    }

    /// Whether the set contains `scope` or a scope that includes it.
    #[must_use]
    pub fn includes(&self, scope: Scope) -> bool {
        self.iter().any(|own| own.includes(scope))
    }

    /// Whether the set includes all of `others`.
    #[must_use]
    pub fn covers(&self, others: &Self) -> bool {
        others.iter().all(|scope| self.includes(scope))
    }

    /// Returns the union of both sets.
    #[must_use]
    pub fn union(&self, others: &Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Iterates over the scopes, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = Scope> + use<> {
        let bits = self.0;
        // `Scope::ALL` is sorted by name, which a test verifies.
        Scope::ALL.iter().copied().filter(move |scope| bits & scope.bit() != 0)
    }
}

impl Default for Scopes {
    /// Returns `walk`.
    fn default() -> Self {
        Scope::Walk.into()
    }
}

impl From<Scope> for Scopes {
    fn from(scope: Scope) -> Self {
        Self(scope.bit())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            write!(f, "{}{scope}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_scopes() -> impl Strategy<Value = Scopes> {
        prop::sample::subsequence(Scope::SERVER, 1..=Scope::SERVER.len())
            .prop_map(|scopes| scopes.into_iter().map(Scopes::from).reduce(|a, b| a.union(&b)).unwrap())
    }

    #[test]
    fn parses_scope_lists() {
        assert_eq!(Scopes::parse(""), Ok(Scopes::default()));
        assert_eq!(Scopes::parse("  "), Ok(Scopes::default()));
        assert_eq!(Scopes::parse("walk:read  walk walk").unwrap().to_string(), "walk walk:read");
        for (text, unknown) in
            [("walk admin", "admin"), ("Walk", "Walk"), ("walk\twalk:read", "walkwalk:read"), ("walk:", "walk:")]
        {
            let expected = UnknownScope { name: unknown.to_owned(), supported: Scope::SERVER };
            assert_eq!(Scopes::parse(text), Err(expected), "{text:?}");
        }
        assert_eq!(Scopes::parse(&"x".repeat(100_000)).unwrap_err().name.len(), MAX_SHOWN);
    }

    #[test]
    fn the_gateway_has_its_own_scope() {
        let gateway = Scopes::from(Scope::Gateway);
        assert_eq!(Scopes::parse_supported("", Scope::GATEWAY), Ok(gateway));
        assert_eq!(Scopes::parse_supported("gateway", Scope::GATEWAY), Ok(gateway));
        let error = Scopes::parse_supported("walk", Scope::GATEWAY).unwrap_err();
        assert_eq!(error.to_string(), "unknown scope `walk`; supported: `gateway`");
        assert_eq!(Scopes::parse("gateway").unwrap_err().supported, Scope::SERVER);
        let walk = Scopes::default();
        assert!(!walk.includes(Scope::Gateway) && !gateway.includes(Scope::WalkRead));
        assert!(!walk.covers(&gateway) && !gateway.covers(&walk));
    }

    #[test]
    fn walk_includes_walk_read_but_not_vice_versa() {
        let (walk, read) = (Scopes::default(), Scopes::from(Scope::WalkRead));
        assert!(walk.includes(Scope::WalkRead) && walk.covers(&read));
        assert!(!read.includes(Scope::Walk) && !read.covers(&walk));
    }

    #[test]
    fn a_union_has_the_scopes_of_both_sets_and_no_others() {
        let (walk, read) = (Scopes::default(), Scopes::from(Scope::WalkRead));
        assert_eq!(read.union(&read), read);
        assert_eq!(walk.union(&read).to_string(), "walk walk:read");
    }

    proptest! {
        #[test]
        fn formatting_and_parsing_round_trip(scopes in any_scopes()) {
            let text = scopes.to_string();
            prop_assert_eq!(Scopes::parse(&text), Ok(scopes));
            let names: Vec<&str> = text.split(' ').collect();
            prop_assert!(names.is_sorted());
        }

        #[test]
        fn covers_is_a_partial_order(a in any_scopes(), b in any_scopes(), c in any_scopes()) {
            prop_assert!(a.covers(&a));
            prop_assert!(a.union(&b).covers(&a) && a.union(&b).covers(&b));
            prop_assert_eq!(a.union(&b), b.union(&a));
            prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c));
            prop_assert_eq!(a.covers(&b), b.iter().all(|scope| a.includes(scope)));
        }

        #[test]
        fn parsing_never_panics(text in any::<String>()) {
            let _ = Scopes::parse(&text);
        }
    }
}
