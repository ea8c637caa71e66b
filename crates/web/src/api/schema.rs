//! Schemas of values that several bodies have.

use utoipa::openapi::{ObjectBuilder, Schema, Type};
use waypost_core::oauth_config::TokenAuthMethod;
use waypost_core::server::{AuthType, SignIn, Support, Toolset};

fn one_of(names: impl Iterator<Item = &'static str>) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build().into()
}

/// Of [`AuthType`].
pub(super) fn auth_type() -> Schema {
    one_of(AuthType::ALL.iter().map(|it| it.as_str()))
}

/// Of [`SignIn`].
pub(super) fn sign_in() -> Schema {
    one_of(SignIn::ALL.iter().map(|it| it.as_str()))
}

/// Of [`Toolset`].
pub(super) fn toolset() -> Schema {
    one_of(Toolset::ALL.iter().map(|it| it.as_str()))
}

/// Of [`Support`].
pub(super) fn support() -> Schema {
    one_of(Support::ALL.iter().map(|it| it.as_str()))
}

/// Of [`TokenAuthMethod`].
pub(super) fn token_auth_method() -> Schema {
    one_of(TokenAuthMethod::ALL.iter().map(|it| it.as_str()))
}
