//! Schemas shared by several request and response bodies.

use utoipa::openapi::{ArrayBuilder, ObjectBuilder, RefOr, Schema, Type};
use waypost_core::oauth_config::TokenAuthMethod;
use waypost_core::server::{AuthType, SignInPolicy, Support, Toolset};
use waypost_core::ticket::{Priority, TicketStatus};
use waypost_core::webhook::{DeliveryStatus, WebhookEvent};

fn one_of(names: impl Iterator<Item = &'static str>) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build().into()
}

/// The schema of [`AuthType`].
pub(super) fn auth_type() -> Schema {
    one_of(AuthType::ALL.iter().map(|it| it.as_str()))
}

/// The schema of [`SignInPolicy`].
pub(super) fn sign_in() -> Schema {
    one_of(SignInPolicy::ALL.iter().map(|it| it.as_str()))
}

/// The schema of [`Toolset`].
pub(super) fn toolset() -> Schema {
    one_of(Toolset::ALL.iter().map(|it| it.as_str()))
}

/// The schema of [`Support`].
pub(super) fn support() -> Schema {
    one_of(Support::ALL.iter().map(|it| it.as_str()))
}

/// The schema of [`TokenAuthMethod`].
pub(super) fn token_auth_method() -> Schema {
    one_of(TokenAuthMethod::ALL.iter().map(|it| it.as_str()))
}

/// The schema of [`TicketStatus`].
pub(super) fn ticket_status() -> Schema {
    one_of(TicketStatus::ALL.iter().map(|it| it.as_str()))
}

/// The schema of [`Priority`].
pub(super) fn priority() -> Schema {
    one_of(Priority::ALL.iter().map(|it| it.as_str()))
}

/// The schema of [`WebhookEvent`], including the test event, which cannot be subscribed to.
pub(super) fn webhook_event() -> Schema {
    one_of(WebhookEvent::ALL.iter().map(|it| it.as_str()))
}

/// The schema of a list of [`WebhookEvent::SUBSCRIBABLE`].
pub(super) fn webhook_events() -> Schema {
    let event = one_of(WebhookEvent::SUBSCRIBABLE.iter().map(|it| it.as_str()));
    ArrayBuilder::new()
        .items(RefOr::T(event))
        .min_items(Some(1))
        .max_items(Some(WebhookEvent::SUBSCRIBABLE.len()))
        .build()
        .into()
}

/// The schema of [`DeliveryStatus`].
pub(super) fn delivery_status() -> Schema {
    one_of(DeliveryStatus::ALL.iter().map(|it| it.as_str()))
}
