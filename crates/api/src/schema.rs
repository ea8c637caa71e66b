//! Schemas shared by several request and response bodies.

use utoipa::openapi::{ArrayBuilder, ObjectBuilder, RefOr, Schema, Type};
use waypost_core::call::CallMethod;
use waypost_core::oauth_config::TokenAuthMethod;
use waypost_core::server::{AuthType, SignInPolicy, Support, Toolset};
use waypost_core::ticket::{Priority, TicketStatus};
use waypost_core::webhook::{DeliveryStatus, WebhookEvent};

fn one_of(names: impl Iterator<Item = &'static str>, description: &str) -> Schema {
    let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
    schema.description(Some(description)).build().into()
}

/// The schema of [`CallMethod`], whose names are not in snake case.
pub(super) fn call_method() -> Schema {
    one_of(CallMethod::ALL.iter().map(|method| method.as_str()), "The method of the call.")
}

/// The schema of [`AuthType`].
pub(super) fn auth_type() -> Schema {
    one_of(
        AuthType::ALL.iter().map(|auth_type| auth_type.as_str()),
        "How end users are identified. `none`: anonymously. `collect_email`: anonymously, with an email that they enter. \
         `platform_oauth`: they sign in with Waypost. `custom_oauth`: they sign in with the organisation's identity \
         provider. A change signs every end user out. Defaults to `none`.",
    )
}

/// The schema of [`SignInPolicy`].
pub(super) fn sign_in() -> Schema {
    one_of(
        SignInPolicy::ALL.iter().map(|policy| policy.as_str()),
        "When end users are asked to sign in, on a server with OAuth. `auto`: clients that are known to fail if asked \
         during a session are asked when they connect, others when a call needs it. Defaults to `auto`.",
    )
}

/// The schema of [`Toolset`].
pub(super) fn toolset() -> Schema {
    one_of(
        Toolset::ALL.iter().map(|toolset| toolset.as_str()),
        "Which walkthrough tools are listed. Defaults to `guided`.",
    )
}

/// The schema of [`Support`].
pub(super) fn support() -> Schema {
    one_of(
        Support::ALL.iter().map(|support| support.as_str()),
        "Whether end users can open support tickets. Defaults to `off`.",
    )
}

/// The schema of [`TokenAuthMethod`].
pub(super) fn token_auth_method() -> Schema {
    one_of(
        TokenAuthMethod::ALL.iter().map(|method| method.as_str()),
        "The client authentication method at the token endpoint. Defaults to the method in the provider's metadata.",
    )
}

/// The schema of [`TicketStatus`].
pub(super) fn ticket_status() -> Schema {
    one_of(
        TicketStatus::ALL.iter().map(|status| status.as_str()),
        "The status of a ticket. `needs_email` means that there is no email to reply to.",
    )
}

/// The schema of [`Priority`].
pub(super) fn priority() -> Schema {
    one_of(Priority::ALL.iter().map(|priority| priority.as_str()), "The priority of a ticket.")
}

/// The schema of [`WebhookEvent`], including the test event, which cannot be subscribed to.
pub(super) fn webhook_event() -> Schema {
    one_of(WebhookEvent::ALL.iter().map(|event| event.as_str()), "The event of a message.")
}

/// The schema of a list of [`WebhookEvent::SUBSCRIBABLE`].
pub(super) fn webhook_events() -> Schema {
    let event = one_of(WebhookEvent::SUBSCRIBABLE.iter().map(|event| event.as_str()), "An event.");
    ArrayBuilder::new()
        .items(RefOr::T(event))
        .description(Some("The events that are sent."))
        .min_items(Some(1))
        .max_items(Some(WebhookEvent::SUBSCRIBABLE.len()))
        .build()
        .into()
}

/// The schema of [`DeliveryStatus`].
pub(super) fn delivery_status() -> Schema {
    one_of(DeliveryStatus::ALL.iter().map(|status| status.as_str()), "The status of a delivery.")
}
