//! Hosted MCP servers.

use serde_json::{Value, json};
use waypost_content::name;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId};
use waypost_core::server::{AuthType, Server, SignInPolicy, Support, Toolset};
use waypost_core::{Code, Error, Result, Timestamp, slug};
pub use waypost_store::server::{MAX_CALLS, ServerContents, ServerUsage};
use waypost_store::{Tx, oauth_config, oauth_grant, organization, server as store, system};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::{conflict_if_taken, hide_organization};
use crate::{oauth_configs, origins};

/// The values of `support` that this release implements.
pub const AVAILABLE_SUPPORT: &[Support] = &[Support::Off, Support::Tickets];
/// The maximum number of slugs that are tried for a name.
const MAX_SUGGESTIONS: u32 = 20;
/// A week in milliseconds.
const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// The settings of a server. A field that is `None` stays unchanged, or gets its default in a new server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// The slug, which is also its host name label.
    pub slug: Option<String>,
    /// The display name. By default the slug.
    pub name: Option<String>,
    /// The name of the product. By default the name.
    pub product_name: Option<String>,
    /// The method by which end users are identified.
    pub auth_type: Option<AuthType>,
    /// The policy for when end users are asked to sign in.
    pub sign_in: Option<SignInPolicy>,
    /// The identity provider, by name or ID; `none` removes it. With `custom_oauth`, the organisation's only provider
    /// is the default.
    pub oauth_config: Option<String>,
    /// Whether the walkthrough tools are offered.
    pub walkthrough_tools_enabled: Option<bool>,
    /// The set of walkthrough tools.
    pub toolset: Option<Toolset>,
    /// The kind of support that is offered.
    pub support: Option<Support>,
    /// The complete list of additional origins from which browsers may call the server.
    pub allowed_origins: Option<Vec<String>>,
    /// Whether the public page is served.
    pub public_page: Option<bool>,
    /// Whether search engines may index the public page.
    pub public_page_indexed: Option<bool>,
}

/// Creates a server with `slug`. Ignores the slug in `settings`.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin; `invalid_arguments`;
/// `conflict` if the slug is taken.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    slug: &str,
    settings: &ServerSettings,
) -> Result<Server> {
    authorize(&cx.caller, Operation::ServerWrite, organization)?;
    slug::check_server_slug(slug)?;
    let now = cx.now();
    let name = name::check("name", settings.name.as_deref().unwrap_or(slug))?;
    let defaults = Server {
        id: ServerId::new(&*cx.random),
        organization_id: organization.clone(),
        slug: slug.to_owned(),
        product_name: name.clone(),
        name,
        auth_type: AuthType::None,
        sign_in: SignInPolicy::Auto,
        oauth_config_id: None,
        walkthrough_tools_enabled: true,
        toolset: Toolset::Guided,
        support: Support::Off,
        allowed_origins: Vec::new(),
        public_page: true,
        public_page_indexed: false,
        created_at: now,
        updated_at: now,
    };
    let mut server = with_settings(&defaults, &ServerSettings { slug: None, ..settings.clone() })?;
    let mut tx = ops.store.begin().await?;
    if organization::find(&mut tx, organization).await?.is_none() {
        return Err(Error::not_found("organisation"));
    }
    choose_provider(&mut tx, &mut server, settings).await?;
    store::insert(&mut tx, &server).await.map_err(|error| conflict_if_slug_taken(error, slug))?;
    let entry = Entry { action: "server.create", target: server.id.as_str(), detail: audit_detail(&server) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok(server)
}

/// Returns the servers of an organisation, sorted by slug.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<Server>> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    Ok(store::list(&mut ops.store.read().await?, organization).await?)
}

/// The filter and the page of a search for servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerSearch {
    /// A part of the name, the product name or the slug.
    pub text: Option<String>,
    /// The slug after which the page begins.
    pub after: Option<String>,
    /// The page size.
    pub limit: u32,
}

/// Returns a page of an organisation's servers, sorted by slug, and whether there are more.
///
/// # Errors
/// The same as for [`list`].
pub async fn search(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    search: &ServerSearch,
) -> Result<(Vec<Server>, bool)> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    let (text, after) = (search.text.as_deref().map(name::clean), search.after.as_deref().map(name::clean));
    let query =
        store::ServerSearch { text: text.as_deref(), after: after.as_deref(), limit: search.limit.saturating_add(1) };
    let mut servers = store::search(&mut ops.store.read().await?, organization, query).await?;
    let limit = usize::try_from(search.limit).unwrap_or(usize::MAX);
    let more = servers.len() > limit;
    servers.truncate(limit);
    Ok((servers, more))
}

/// Returns the usage of servers in the last seven days, in the order of `servers`.
///
/// # Errors
/// The same as for [`list`].
pub async fn list_usage(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    servers: &[&ServerId],
) -> Result<Vec<ServerUsage>> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    let since = Timestamp(cx.now().0 - WEEK_MS);
    let mut conn = ops.store.read().await?;
    let mut usages = Vec::with_capacity(servers.len());
    for id in servers {
        usages.push(store::usage(&mut conn, organization, id, since).await?);
    }
    Ok(usages)
}

/// Returns the number of objects that [`delete`] would delete with a server, and the number of end users who would have
/// to sign in again after a change to its sign-in.
///
/// # Errors
/// The same as for [`get`].
pub async fn count_contents(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ServerId,
) -> Result<ServerContents> {
    get(cx, ops, organization, id).await?;
    Ok(store::count_contents(&mut ops.store.read().await?, organization, id, cx.now()).await?)
}

/// Returns the number of end users who are signed in on a server and would have to sign in again after a change to its
/// sign-in. Returns 0 if the server does not exist.
///
/// # Errors
/// The same as for [`list`].
pub async fn count_signed_in(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ServerId) -> Result<i64> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    Ok(store::count_signed_in(&mut ops.store.read().await?, organization, id, cx.now()).await?)
}

/// Suggests a free slug for a new server with this name. If 20 candidates are taken, returns the first of them.
///
/// # Errors
/// The same as for [`create`], except for an invalid name.
pub async fn suggest_slug(cx: &Ctx, ops: &Ops, organization: &OrganizationId, name: &str) -> Result<String> {
    let base = waypost_content::slug::suggest_server_slug(name);
    for n in 1..=MAX_SUGGESTIONS {
        let slug = if n == 1 { base.clone() } else { format!("{base}-{n}") };
        if find_slug_problem(cx, ops, organization, &slug, None).await?.is_none() {
            return Ok(slug);
        }
    }
    Ok(base)
}

/// Returns the reason why `slug` cannot be the slug of a new server, or of the server `own`. Returns `None` if it can.
///
/// # Errors
/// The same as for [`create`], except for an invalid slug.
pub async fn find_slug_problem(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    slug: &str,
    own: Option<&ServerId>,
) -> Result<Option<String>> {
    authorize(&cx.caller, Operation::ServerWrite, organization)?;
    if let Err(error) = slug::check_server_slug(slug) {
        return Ok(Some(error.message));
    }
    let found = system::find_server_by_slug(&mut ops.store.read().await?, slug).await?;
    // A server may reuse its own former slug.
    let is_free = found.is_none_or(|(server, _)| Some(&server.id) == own && server.organization_id == *organization);
    Ok((!is_free).then(|| slug_taken_message(slug)))
}

/// Returns the server with this slug, unreleased former slug, or ID.
///
/// # Errors
/// `not_found` if the server does not exist or the caller cannot access it.
pub async fn resolve(cx: &Ctx, ops: &Ops, text: &str) -> Result<Server> {
    let mut conn = ops.store.read().await?;
    let found = match text.parse::<ServerId>() {
        Ok(id) => system::find_server_by_id(&mut conn, &id).await?,
        Err(_) => system::find_server_by_slug(&mut conn, text).await?.map(|(server, _)| server),
    };
    let server = found.ok_or_else(not_found)?;
    hide_organization(authorize(&cx.caller, Operation::ServerRead, &server.organization_id), "server")?;
    Ok(server)
}

/// Returns a server.
///
/// # Errors
/// `not_found` if the server does not exist or the caller cannot access it.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ServerId) -> Result<Server> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Changes the settings of a server. A former slug remains in service until it is released with [`release_slug`].
///
/// # Errors
/// The same as for [`create`]; `not_found` if the server does not exist.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ServerId,
    settings: &ServerSettings,
) -> Result<Server> {
    authorize(&cx.caller, Operation::ServerWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let old = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let mut new = with_settings(&old, settings)?;
    choose_provider(&mut tx, &mut new, settings).await?;
    if new == old {
        return Ok(old);
    }
    new.updated_at = cx.now();
    store::update(&mut tx, &new).await.map_err(|error| conflict_if_slug_taken(error, &new.slug))?;
    if (new.auth_type, &new.oauth_config_id) != (old.auth_type, &old.oauth_config_id) {
        // End users who signed in with the previous settings have to sign in again.
        oauth_grant::revoke_for_server(&mut tx, organization, id, "sign_in_changed", cx.now()).await?;
    }
    let entry = Entry { action: "server.update", target: id.as_str(), detail: audit_detail(&new) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok(new)
}

/// Returns the former slugs of a server that are still in service.
///
/// # Errors
/// The same as for [`get`].
pub async fn list_former_slugs(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ServerId,
) -> Result<Vec<String>> {
    get(cx, ops, organization, id).await?;
    Ok(store::list_aliases(&mut ops.store.read().await?, organization, id).await?)
}

/// Releases a former slug: the server no longer responds to it, and another server may use it.
///
/// # Errors
/// The same as for [`update`]; `not_found` if it is not a former slug of this server.
pub async fn release_slug(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ServerId, slug: &str) -> Result<()> {
    authorize(&cx.caller, Operation::ServerWrite, organization)?;
    // An invalid slug cannot belong to any server.
    let not_found = || Error::not_found("former slug of this server");
    slug::check_server_slug(slug).map_err(|_| not_found())?;
    let mut tx = ops.store.begin().await?;
    if !store::release_alias(&mut tx, organization, id, slug).await? {
        return Err(not_found());
    }
    let detail = json!({ "slug": slug });
    record(cx, &mut tx, organization, Entry { action: "server.release_slug", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(())
}

/// Deletes a server with its assignments and all data about its use. The walkthroughs are kept.
///
/// # Errors
/// The same as for [`update`].
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ServerId) -> Result<()> {
    authorize(&cx.caller, Operation::ServerWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let server = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    store::delete(&mut tx, organization, id).await?;
    let entry = Entry { action: "server.delete", target: id.as_str(), detail: audit_detail(&server) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok(())
}

/// Returns `server` with `settings` applied, after checking them.
fn with_settings(server: &Server, settings: &ServerSettings) -> Result<Server> {
    let mut new = server.clone();
    if let Some(slug) = settings.slug.as_ref().filter(|slug| **slug != server.slug) {
        slug::check_server_slug(slug)?;
        new.slug.clone_from(slug);
    }
    if let Some(text) = &settings.name {
        new.name = name::check("name", text)?;
    }
    if let Some(text) = &settings.product_name {
        new.product_name = name::check("product_name", text)?;
    }
    if let Some(auth_type) = settings.auth_type {
        new.auth_type = auth_type;
    }
    if let Some(support) = settings.support {
        let is_available = AVAILABLE_SUPPORT.contains(&support);
        check_available(is_available, "support", support.as_str(), AVAILABLE_SUPPORT.iter().map(|s| s.as_str()))?;
        new.support = support;
    }
    if let Some(texts) = &settings.allowed_origins {
        new.allowed_origins = origins::parse(texts)?;
    }
    new.sign_in = settings.sign_in.unwrap_or(server.sign_in);
    new.toolset = settings.toolset.unwrap_or(server.toolset);
    new.walkthrough_tools_enabled = settings.walkthrough_tools_enabled.unwrap_or(server.walkthrough_tools_enabled);
    new.public_page = settings.public_page.unwrap_or(server.public_page);
    new.public_page_indexed = settings.public_page_indexed.unwrap_or(server.public_page_indexed);
    Ok(new)
}

/// Sets the identity provider from `settings`. Fails if `custom_oauth` has none.
async fn choose_provider(tx: &mut Tx, server: &mut Server, settings: &ServerSettings) -> Result<()> {
    let organization = &server.organization_id;
    match settings.oauth_config.as_deref() {
        None => {}
        Some("none") => server.oauth_config_id = None,
        Some(text) => {
            let found = oauth_configs::find_by_id_or_name(tx, organization, text).await?;
            let Some(config) = found else {
                let message = format!(
                    "`oauth_config`: there is no identity provider `{}` in this organisation.",
                    name::clean(text)
                );
                return Err(Error::invalid("oauth_config", message));
            };
            server.oauth_config_id = Some(config.id);
        }
    }
    if server.auth_type != AuthType::CustomOauth || server.oauth_config_id.is_some() {
        return Ok(());
    }
    let mut all = oauth_config::list(tx, organization).await?;
    let hint = match all.len() {
        0 => "create one with `waypost oauth-config create`.".to_owned(),
        1 if settings.oauth_config.is_none() => {
            server.oauth_config_id = all.pop().map(|config| config.id);
            return Ok(());
        }
        _ => {
            let names: Vec<_> = all.iter().map(|config| format!("`{}`", config.name)).collect();
            format!("choose one of {}.", names.join(", "))
        }
    };
    Err(Error::invalid("oauth_config", format!("`custom_oauth` needs an identity provider: {hint}")))
}

fn check_available(
    is_available: bool,
    field: &str,
    value: &str,
    values: impl Iterator<Item = &'static str>,
) -> Result<()> {
    if is_available {
        return Ok(());
    }
    let values: Vec<_> = values.map(|value| format!("`{value}`")).collect();
    let message = format!("`{field}`: `{value}` is not available in this release; available: {}.", values.join(", "));
    Err(Error::invalid(field, message))
}

fn audit_detail(server: &Server) -> Value {
    json!({
        "slug": server.slug,
        "name": server.name,
        "product_name": server.product_name,
        "auth_type": server.auth_type.as_str(),
        "sign_in": server.sign_in.as_str(),
        "oauth_config_id": server.oauth_config_id,
        "walkthrough_tools_enabled": server.walkthrough_tools_enabled,
        "toolset": server.toolset.as_str(),
        "support": server.support.as_str(),
        "allowed_origins": server.allowed_origins,
        "public_page": server.public_page,
        "public_page_indexed": server.public_page_indexed,
    })
}

fn not_found() -> Error {
    Error::not_found("server")
}

fn conflict_if_slug_taken(error: waypost_store::Error, slug: &str) -> Error {
    let error = conflict_if_taken(error, || slug_taken_message(slug));
    if error.code == Code::Conflict { error.with("field", "slug") } else { error }
}

fn slug_taken_message(slug: &str) -> String {
    format!(
        "The slug `{slug}` is taken by a server or is a former slug of one. Choose another slug, or release it on that \
         server."
    )
}
