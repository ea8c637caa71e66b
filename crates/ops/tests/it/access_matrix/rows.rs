//! The rows of the access matrix: one call of each operation, with the callers that may perform it. `content.rs`
//! contains the rows of walkthroughs, `tool_servers.rs` those of toolboxes and instances.

use std::net::{IpAddr, Ipv4Addr};

use waypost_core::account::CodePurpose;
use waypost_core::analytics::TimeRange;
use waypost_core::authorization::ProgressClaim;
use waypost_core::caller::Ctx;
use waypost_core::id::{
    AssignmentId, CatalogEntryId, IdentityId, OauthConfigId, OauthGrantId, StepId, TicketCommentId, TicketId,
    ToolSecretId, UserSessionId, WebhookDeliveryId, WebhookId,
};
use waypost_core::oauth_config::{OauthConfig, ProviderKind, TokenAuthMethod};
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_core::progress::operations::SelectOptions;
use waypost_core::scope::Scopes;
use waypost_core::seal::{Keyring, SecretText};
use waypost_core::secret::SecretKey;
use waypost_core::webhook::{Delivery, DeliveryStatus, WebhookEvent};
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::accounts::{CodeEntry, CodeRequest, PasswordSignIn, SignInClient};
use waypost_ops::analytics::{AnalyticsQuery, ReportParts};
use waypost_ops::assignments::AssignmentPatch;
use waypost_ops::audit_events::AuditFilter;
use waypost_ops::audit_export::AuditExportFormat;
use waypost_ops::end_users::{EndUserSearch, TimelineKinds};
use waypost_ops::hosting::Hosting;
use waypost_ops::identities::{Claims, EndUserIdentity};
use waypost_ops::identity::{Credentials, Subject};
use waypost_ops::identity_provider::LoginRequest;
use waypost_ops::login::{FinishedLogin, ProviderTokens};
use waypost_ops::oauth_clients::ClientRegistration;
use waypost_ops::oauth_configs::OauthConfigSettings;
use waypost_ops::organizations::OrganizationPatch;
use waypost_ops::progress::PlayRequest;
use waypost_ops::public_url::PublicUrl;
use waypost_ops::servers::{ServerSearch, ServerSettings};
use waypost_ops::ticket_comments::NewComment;
use waypost_ops::ticket_creation::NewTicket;
use waypost_ops::tickets::{TicketFilter, TicketListQuery, TicketPatch};
use waypost_ops::user_sessions::Browser;
use waypost_ops::webhooks::{NewWebhook, WebhookPatch};
use waypost_ops::{
    Ops, accounts, activity, analytics, api_keys, assignments, audit_events, audit_export, browser_sessions, catalog,
    claim_links, end_users, identities, identity_provider, invitation_emails, invitations, joins, logos, notifications,
    oauth_clients, oauth_configs, oauth_grants, organizations, overview, progress, search, secret_key, servers,
    ticket_comments, ticket_creation, ticket_replies, tickets, tool_secrets, try_it, user_accounts, user_sessions,
    users, walkthroughs, webhook_deliveries, webhooks,
};

use super::Access;
use super::content::{drafts, target, versions, walkthroughs};
use super::tool_servers::tool_servers;
use crate::account_test::authorization_request;
use crate::catalog::entry_file;
use crate::fixture::{Tenant, plain_key};
use crate::hosted;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// The arguments of the rows.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The context of the caller.
    pub cx: &'a Ctx,
    /// The context of the operator, for reading arguments.
    pub operator: &'a Ctx,
    pub ops: &'a Ops,
    pub hosting: &'a Hosting,
    /// The organisation that is accessed.
    pub tenant: &'a Tenant,
    /// A prefix for new names.
    pub new: &'a str,
}

/// The result of one call.
pub struct Row {
    pub access: Access,
    /// The operation's path.
    pub name: String,
    pub error: Option<Error>,
}

/// Creates the row of the operation at `path`.
pub fn row<T>(access: Access, path: &[&str], result: Result<T>) -> Row {
    Row { access, name: path.join("::"), error: result.err() }
}

/// Calls every operation, destructive operations last.
pub async fn call_all(call: Call<'_>) -> Vec<Row> {
    let mut rows = play(call).await;
    rows.extend(sign_in(call).await);
    rows.extend(sign_in_with_provider(call).await);
    rows.extend(own_account(call).await);
    rows.extend(operator(call).await);
    rows.extend(members(call).await);
    rows.extend(organization(call).await);
    rows.extend(reports(call).await);
    rows.extend(webhooks(call).await);
    rows.extend(catalog_and_secrets(call).await);
    rows.extend(support(call).await);
    rows.extend(tool_servers(call).await);
    rows.extend(drafts(call).await);
    rows.extend(walkthroughs(call).await);
    rows.extend(versions(call).await);
    rows.extend(servers(call).await);
    rows.extend(removals(call).await);
    rows
}

async fn play(call: Call<'_>) -> Vec<Row> {
    let Call { cx, hosting, tenant: t, .. } = call;
    let (server, text) = (&t.server, t.walkthrough.as_str());
    let offers = &hosting.offer_cache().refresh(&server.slug).await.unwrap();
    let context = hosted::call();
    let play = &PlayRequest { offers, credentials: Credentials::Nothing, email: None, call: &context };
    let grant_id = OauthGrantId::from_store("ogr_0".into());
    let subject = &Subject { end_user_id: t.end_user.clone(), grant_id, scopes: Scopes::default() };
    let claim = &ProgressClaim { tracking_id: "ann".into(), issued_at: None };
    let step = StepId::from_store("ws_0".into());
    let ticket = NewTicket { title: "T".into(), problem: "P".into(), context: None };
    rows! {
        Play progress::select(cx, hosting, play, text, SelectOptions::default());
        Play progress::advance(cx, hosting, play, Some(text), None);
        Play progress::advance(cx, hosting, play, None, None);
        Play progress::complete_step(cx, hosting, play, text, step);
        Play progress::reset(cx, hosting, play, text);
        Play progress::move_to_latest(cx, hosting, play, text);
        Play progress::get_status(cx, hosting, play, text);
        Play progress::list(cx, hosting, play);
        Play progress::get_latest_version(cx, hosting, offers, text);
        Play search::rank_offers(cx, hosting, offers, "docker");
        Play joins::join(cx, hosting, server, subject, &Credentials::Nothing);
        Play joins::verify_claim(cx, hosting, server, "ann");
        Play joins::is_claimable(cx, hosting, server, claim);
        Play joins::claim_progress(cx, hosting, server, &t.end_user, claim);
        Play ticket_creation::create(cx, hosting, play, ticket);
        Play ticket_replies::list_replies(cx, hosting, play, text);
    }
}

async fn sign_in(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, request) = (&t.organization.id, &authorization_request(cx, t));
    let accounts = &accounts::Accounts::new(ops.clone(), SecretKey::new([7; 32]));
    let client = SignInClient { address: ADDRESS, device: "" };
    let new_code = CodeRequest { email: "ann@x.de", purpose: CodePurpose::SignIn, password: None };
    let entry = CodeEntry { id: "ecd_0", code: "12345678", new_password: None };
    let password = PasswordSignIn { email: "ann@x.de", password: "quartz-banjo-umbrella-42" };
    let mut rows = rows! {
        Client accounts::Accounts::create_code(accounts, cx, request, new_code, client);
        Client accounts::Accounts::get_code(accounts, cx, request, entry.id);
        Client accounts::Accounts::sign_in_with_code(accounts, cx, request, entry, ADDRESS);
        Client accounts::Accounts::sign_in_with_password(accounts, cx, org, password, client);
        Client browser_sessions::find(cx, ops, org, "token");
        Client browser_sessions::delete(cx, ops, org, "token");
        Client oauth_grants::issue_code(cx, ops, request, "browser", &t.end_user);
        Client oauth_grants::deny(cx, ops, request, "browser", None);
        Client logos::find_public(cx, ops, org);
        Client logos::get_branding(cx, ops, org);
    };
    let registered = oauth_clients::register(cx, ops, &t.server, "network", &ClientRegistration::default()).await;
    let registered =
        registered.map_err(|error| error.cause.unwrap_or_else(|| Error::invalid("registration", error.description)));
    rows.push(row(Access::Client, &["oauth_clients", "register"], registered));
    // Rolled back.
    let mut tx = ops.store().begin().await.unwrap();
    let signed_in = identities::sign_in(cx, &mut tx, org, &Claims::default(), false).await;
    rows.push(row(Access::Client, &["identities", "sign_in"], signed_in));
    drop(tx);
    let mut tx = ops.store().begin().await.unwrap();
    let identity =
        EndUserIdentity { end_user_id: t.end_user.clone(), identity_id: IdentityId::from_store("idn_0".into()) };
    let created = browser_sessions::create(cx, &mut tx, org, &identity).await;
    rows.push(row(Access::Client, &["browser_sessions", "create"], created));
    rows
}

async fn sign_in_with_provider(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, config) = (&t.organization.id, &oauth_config(t));
    let mut request = authorization_request(cx, t);
    request.consented_at = Some(request.created_at);
    let access_token = SecretText::new("secret");
    let tokens = ProviderTokens { access_token, refresh_token: None, scope: String::new(), expires_at: None };
    let finished = FinishedLogin { claims: Claims::default(), tokens };
    let redirect_uri = "https://waypost.example/oauth/callback";
    let login = LoginRequest { server: &t.server, request: &request, redirect_uri };
    let settings = &OauthConfigSettings::default();
    rows! {
        Client identity_provider::begin_login(cx, ops, login);
        Client identity_provider::finish_login(cx, ops, &t.server, "state", "browser");
        Client identity_provider::sign_in(cx, ops, config, &finished);
        Admin oauth_configs::create(cx, ops, org, settings);
        Member oauth_configs::list(cx, ops, org);
        Member oauth_configs::resolve(cx, ops, org, "name");
        Member oauth_configs::get(cx, ops, org, &config.id);
        Member oauth_configs::list_servers(cx, ops, org, &config.id);
        Admin oauth_configs::update(cx, ops, config, settings);
        Admin oauth_configs::check(cx, ops, config);
        Admin oauth_configs::delete(cx, ops, org, &config.id);
    }
}

fn oauth_config(t: &Tenant) -> OauthConfig {
    OauthConfig {
        id: OauthConfigId::from_store("oac_0".into()),
        organization_id: t.organization.id.clone(),
        name: "Provider".into(),
        kind: ProviderKind::Oauth,
        issuer: String::new(),
        authorization_endpoint: "https://idp.example/authorize".into(),
        token_endpoint: "https://idp.example/token".into(),
        userinfo_endpoint: None,
        jwks_uri: None,
        client_id: "client".into(),
        client_secret: None,
        token_auth_method: TokenAuthMethod::None,
        scopes: Vec::new(),
        subject_claim: "sub".into(),
        link_verified_email: false,
        created_at: Timestamp(1),
        updated_at: Timestamp(1),
    }
}

async fn own_account(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, new, .. } = call;
    let accounts = &user_accounts::UserAccounts::new(ops.clone(), SecretKey::new([7; 32]), SignUpPolicy::Open);
    let session = &UserSessionId::from_store("uss_0".into());
    let browser = Browser { user_agent: "", address: ADDRESS, device: "" };
    rows! {
        User organizations::check_slug(cx, ops, new);
        User organizations::suggest_slug(cx, ops, new);
        User user_sessions::list(cx, ops);
        User user_sessions::delete(cx, ops, session);
        User user_sessions::delete_others(cx, ops, None);
        User user_sessions::get_user(cx, ops);
        User user_sessions::list_memberships(cx, ops);
        User user_accounts::set_name(cx, ops, "Ann");
        User user_accounts::UserAccounts::has_password(accounts, cx);
        User user_accounts::UserAccounts::change_password(accounts, cx, "", "short", session, browser);
        User user_accounts::UserAccounts::accept_invitation(accounts, cx, "token");
        User user_accounts::leave_organization(cx, ops, &t.organization.id);
    }
}

async fn operator(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, user) = (&t.organization.id, &t.member.user_id);
    let keyring = Keyring::new(&SecretKey::new([7; 32]), None);
    let delivery = Delivery {
        id: WebhookDeliveryId::from_store("whd_0".into()),
        organization_id: org.clone(),
        webhook_id: WebhookId::from_store("whk_0".into()),
        event: WebhookEvent::Test,
        payload: "{}".into(),
        status: DeliveryStatus::Pending,
        attempts: 0,
        next_attempt_at: None,
        last_attempt_at: None,
        response_status: None,
        response_body: None,
        error: None,
        duration_ms: None,
        created_at: Timestamp(1),
        delivered_at: None,
    };
    rows! {
        Operator notifications::send_due(cx, ops);
        Operator secret_key::reseal(cx, ops, &keyring);
        Operator identity_provider::refresh_due_tokens(cx, ops);
        Operator webhook_deliveries::claim(cx, ops, 1);
        Operator webhook_deliveries::attempt(cx, ops, delivery);
        Operator user_accounts::create_account_link(cx, ops, org, user);
        Operator user_accounts::create_first_account_link(cx, ops, org, user);
    }
}

async fn members(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, new, .. } = call;
    let (org, user, key, invitation) = (&t.organization.id, &t.member.user_id, &t.key.id, &t.invitation);
    let email = |name: &str| format!("{new}-{name}@x.de");
    let rename = api_keys::ApiKeyPatch { name: Some(format!("{new}-renamed")), ..Default::default() };
    let public_url = PublicUrl::new("https://waypost.example".parse().unwrap());
    rows! {
        Admin users::create(cx, ops, org, &email("a"), Role::Member);
        Owner users::create(cx, ops, org, &email("b"), Role::Owner);
        Member users::list(cx, ops, org);
        Member users::resolve(cx, ops, org, &t.member.email);
        Owner users::update(cx, ops, org, user, Role::Owner);
        Admin users::update(cx, ops, org, user, Role::Admin);
        Admin api_keys::create(cx, ops, org, plain_key(new, Role::Admin));
        Owner api_keys::create(cx, ops, org, plain_key(&format!("{new}-owner"), Role::Owner));
        Admin api_keys::get(cx, ops, org, key);
        Admin api_keys::list(cx, ops, org);
        Admin api_keys::resolve(cx, ops, org, "first");
        Admin api_keys::update(cx, ops, org, key, &rename);
        Admin api_keys::delete(cx, ops, org, key);
        Admin invitations::create(cx, ops, org, &email("i"), Role::Member);
        Owner invitations::create(cx, ops, org, &email("j"), Role::Owner);
        Admin invitations::list(cx, ops, org, None, 10);
        Admin invitations::get(cx, ops, org, invitation);
        Admin invitations::mark_emailed(cx, ops, &t.invited);
        Admin invitation_emails::send(cx, ops, &t.invited, &public_url, None);
        Admin invitations::resend(cx, ops, org, invitation);
        Admin invitations::revoke(cx, ops, org, invitation);
    }
}

async fn organization(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, new, .. } = call;
    let org = &t.organization.id;
    let rename = OrganizationPatch { name: Some(new.to_owned()), slug: None };
    let filter = &AuditFilter::default();
    let key = SecretKey::new([1; 32]);
    rows! {
        Member organizations::resolve(cx, ops, &t.organization.slug);
        Member organizations::get(cx, ops, org);
        Admin organizations::update(cx, ops, org, &rename);
        Member overview::get(cx, ops, org);
        Owner overview::get_contents(cx, ops, org);
        Admin audit_events::list(cx, ops, org, filter, None, 10);
        Admin audit_events::export(cx, ops, org, filter, "csv");
        Admin audit_export::render(cx, ops, org, filter, AuditExportFormat::Csv);
        Member logos::find(cx, ops, org);
        Member logos::find_updated_at(cx, ops, org);
        Admin logos::set(cx, ops, org, Vec::new());
        Admin logos::delete(cx, ops, org);
        Admin joins::list(cx, ops, org);
        Admin joins::list_page(cx, ops, org, None, 1);
        Admin joins::count_recent_claims(cx, ops, org);
        Admin joins::get(cx, ops, org, &t.join);
        Admin joins::undo(cx, ops, org, &t.join);
        Admin claim_links::create(cx, ops, &key, org, &t.server.id, "ann", 1);
        Member try_it::reset(cx, ops, org);
    }
}

async fn reports(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, user) = (&t.organization.id, &t.end_user);
    let range = TimeRange { from: Timestamp(0), to: Timestamp(1) };
    let filter = &activity::ActivityFilter {
        server_id: None,
        end_user_id: None,
        walkthrough_id: None,
        range,
        after: None,
        oldest_first: true,
        limit: 1,
    };
    let query = &AnalyticsQuery { range, server_id: None, walkthrough_id: None, version: None, client: None };
    let parts = ReportParts { events: true, calls: true, previous: true };
    let kinds = TimelineKinds { sessions: true, events: true, calls: true, tickets: true };
    let search = &EndUserSearch { limit: 1, ..EndUserSearch::default() };
    rows! {
        Member activity::list_events(cx, ops, org, filter);
        Member activity::list_calls(cx, ops, org, filter);
        Member activity::list_sessions(cx, ops, org, filter);
        Member analytics::run(cx, ops, org, query, parts, |report| report.overview());
        Member analytics::export::export(cx, ops, org, query, "overview", true);
        Member end_users::list(cx, ops, org, search);
        Member end_users::get(cx, ops, org, user);
        Member end_users::list_progress(cx, ops, org, user);
        Member end_users::count_data(cx, ops, org, user);
        Member end_users::get_timeline(cx, ops, org, user, kinds, None, 1);
        Admin end_users::resolve(cx, ops, org, "tracked");
        Admin end_users::export(cx, ops, org, user);
    }
}

async fn webhooks(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let org = &t.organization.id;
    let (id, delivery) = (&WebhookId::from_store("whk_0".into()), &WebhookDeliveryId::from_store("whd_0".into()));
    let new = NewWebhook { url: "https://hook.example".into(), description: String::new(), events: Vec::new() };
    rows! {
        Admin webhooks::create(cx, ops, org, &new);
        Admin webhooks::list(cx, ops, org);
        Admin webhooks::get(cx, ops, org, id);
        Admin webhooks::update(cx, ops, org, id, &WebhookPatch::default());
        Admin webhooks::rotate_secret(cx, ops, org, id);
        Admin webhooks::send_test(cx, ops, org, id);
        Admin webhooks::delete(cx, ops, org, id);
        Admin webhook_deliveries::list(cx, ops, org, id, None, None);
        Admin webhook_deliveries::get(cx, ops, org, delivery);
        Admin webhook_deliveries::replay(cx, ops, org, delivery);
    }
}

async fn catalog_and_secrets(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let org = &t.organization.id;
    let (entry, secret) = (&CatalogEntryId::from_store("cat_0".into()), &ToolSecretId::from_store("sec_0".into()));
    let (file, value) = (&entry_file("search", "1", ""), &SecretText::new("value"));
    rows! {
        Admin catalog::import(cx, ops, org, file);
        Admin catalog::import_text(cx, ops, org, "entry.json", "{}");
        Member catalog::list(cx, ops, org, 1, None);
        Member catalog::get(cx, ops, org, entry);
        Member catalog::resolve(cx, ops, org, "search");
        Admin catalog::delete(cx, ops, org, entry);
        Admin tool_secrets::create(cx, ops, org, "TOKEN", value);
        Admin tool_secrets::list(cx, ops, org, 1, None);
        Admin tool_secrets::get(cx, ops, org, secret);
        Admin tool_secrets::resolve(cx, ops, org, "TOKEN");
        Admin tool_secrets::rotate(cx, ops, org, secret, value);
        Admin tool_secrets::delete(cx, ops, org, secret);
    }
}

async fn support(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let org = &t.organization.id;
    let (ticket, comment) = (&TicketId::from_store("tkt_0".into()), &TicketCommentId::from_store("tkc_0".into()));
    let (patch, ids) = (&TicketPatch::default(), [ticket.to_string()]);
    let new = NewComment { body: "B".into(), internal: true, resolve: false };
    rows! {
        Member tickets::list(cx, ops, org, TicketListQuery::default());
        Member tickets::count_by_status(cx, ops, org, &TicketFilter::default());
        Member tickets::list_for_end_user(cx, ops, org, &t.end_user);
        Member tickets::get(cx, ops, org, ticket);
        Member tickets::list_assignees(cx, ops, org);
        Member tickets::update(cx, ops, org, ticket, None, patch);
        Member tickets::update_many(cx, ops, org, &ids, patch);
        Member ticket_comments::list(cx, ops, org, ticket);
        Member ticket_comments::create(cx, ops, org, ticket, &new);
        Member ticket_comments::update(cx, ops, org, ticket, comment, "B");
        Member ticket_comments::delete(cx, ops, org, ticket, comment);
    }
}

async fn servers(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, new, .. } = call;
    let (org, server, walkthrough) = (&t.organization.id, &t.server.id, &t.walkthrough);
    let patch = AssignmentPatch { display_order: Some(9), enabled: Some(false) };
    let assignment = &AssignmentId::from_store("msw_0".into());
    let search = &ServerSearch { limit: 1, ..ServerSearch::default() };
    let rename = ServerSettings { slug: Some(format!("{new}-moved")), ..ServerSettings::default() };
    rows! {
        Member assignments::assign(cx, ops, org, server, walkthrough, patch);
        Member assignments::get(cx, ops, org, assignment);
        Member assignments::update(cx, ops, org, assignment, patch);
        Member assignments::reorder(cx, ops, org, server, &[]);
        Member assignments::list(cx, ops, org, server);
        Member assignments::list_for_walkthrough(cx, ops, org, walkthrough);
        Member assignments::list_candidates(cx, ops, org, server, "", 1);
        Member assignments::unassign(cx, ops, org, server, walkthrough);
        Member assignments::delete(cx, ops, org, assignment);
        Admin servers::create(cx, ops, org, &format!("{new}-server"), &ServerSettings::default());
        Member servers::list(cx, ops, org);
        Member servers::search(cx, ops, org, search);
        Member servers::list_usage(cx, ops, org, &[server]);
        Member servers::count_contents(cx, ops, org, server);
        Member servers::count_signed_in(cx, ops, org, server);
        Admin servers::suggest_slug(cx, ops, org, new);
        Admin servers::find_slug_problem(cx, ops, org, new, None);
        Member servers::resolve(cx, ops, &t.server.slug);
        Member servers::get(cx, ops, org, server);
        Admin servers::update(cx, ops, org, server, &rename);
        Member servers::list_former_slugs(cx, ops, org, server);
        Admin servers::release_slug(cx, ops, org, server, &t.server.slug);
    }
}

async fn removals(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, id) = (&t.organization.id, &t.walkthrough);
    rows! {
        Member walkthroughs::trash::delete(cx, ops, target(t));
        Member walkthroughs::trash::list_deleted(cx, ops, org);
        Member walkthroughs::trash::restore(cx, ops, org, id);
        Admin walkthroughs::trash::purge(cx, ops, org, id);
        Admin end_users::delete_confirmed(cx, ops, org, &t.end_user, "no");
        Admin end_users::delete(cx, ops, org, &t.end_user);
        Admin users::delete(cx, ops, org, &t.member.user_id);
        Owner users::delete(cx, ops, org, &t.owner.user_id);
        Admin servers::delete(cx, ops, org, &t.server.id);
        Owner organizations::delete(cx, ops, org);
    }
}
