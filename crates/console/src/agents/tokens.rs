//! The tokens of an agent.

use axum::extract::{Path, State};
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::id::AgentTokenId;
use waypost_ops::agent_tokens::{self, CreateAgentToken};

use super::AgentContext;
use super::connect::{ConnectPage, CreatedToken};
use super::show::AgentPage;
use crate::Console;
use crate::form::{Form, end_of_day, locate_expiry};
use crate::view::{self, FormError, PageResult};

/// The form for a new token.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct NewToken {
    token_name: String,
    expires_on: String,
    /// The slug of the tool set whose URL the snippets contain, or empty.
    set: String,
}

pub(super) async fn create(
    State(console): State<Console>,
    at: AgentContext,
    Form(NewToken { token_name, expires_on, set }): Form<NewToken>,
) -> PageResult {
    let created = match end_of_day(&expires_on) {
        Ok(expires_at) => {
            let new = CreateAgentToken { name: &token_name, expires_at };
            agent_tokens::create(&at.cx, console.ops(), &at.organization_id, at.id(), new).await
        }
        Err(error) => Err(error),
    };
    match created {
        // Rendered without a redirect because the secret is only available in this response.
        Ok((token, secret)) => {
            let created = CreatedToken { id: token.id, name: token.name, secret: secret.expose().to_owned() };
            Ok(view::page(&ConnectPage::load(&console, &at, &set, Some(created)).await?))
        }
        Err(error) => {
            let (status, form_error) = FormError::from_error(locate(error)).map_err(|error| at.page_error(error))?;
            let page = AgentPage::load(&console, &at).await?;
            Ok(view::html(status, &page.with_token_error(form_error, token_name, expires_on)))
        }
    }
}

/// Moves an error about `name` to the form field `token_name`: the page has another form with a field `name`.
fn locate(mut error: Error) -> Error {
    if error.details.get("field").is_none_or(|field| field != "name") {
        return locate_expiry(error);
    }
    error.message = error.message.replace("`name`", "Name");
    error.with("field", "token_name")
}

pub(super) async fn revoke(
    State(console): State<Console>,
    at: AgentContext,
    Path((_, _, token)): Path<(String, String, String)>,
) -> PageResult {
    let revoked = async {
        let id: AgentTokenId = token.parse().map_err(|_| Error::not_found("token"))?;
        agent_tokens::revoke(&at.cx, console.ops(), &at.organization_id, at.id(), &id).await
    };
    match revoked.await {
        Ok(()) => Ok(view::redirect_with_flash(&at.path(""), "Token revoked.")),
        Err(error) => Err(at.page_error(error)),
    }
}
