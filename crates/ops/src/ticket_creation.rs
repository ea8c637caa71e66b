//! Creation of tickets by end users, with the tool `get_support` of a hosted server.

use waypost_content::markdown::{clean_line, clean_plain};
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{EndUserId, TicketId};
use waypost_core::progress::{Attempt, AttemptState};
use waypost_core::server::{Server, Support};
use waypost_core::ticket::{MAX_TEXT, MAX_TITLE, Priority, Ticket, TicketOrigin, TicketStatus, TicketStep};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::ticket::{self as store, Opener, TicketDetails};
use waypost_store::{Conn, Tx, end_user, progress, ticket_digest};

use crate::audit::record;
use crate::call_records::CallOutcome;
use crate::hosting::Hosting;
use crate::identity::{self, Credentials};
use crate::notifications::DIGEST_EVERY_MS;
use crate::progress::{PlayRequest, ensure_signed_in};
use crate::tickets::limits::{self, LimitCheck};
use crate::tickets::{TicketEmail, add_email, events, opened_entry};

/// The time within which an identical call by an unknown user counts as a repetition.
const REPEAT_MS: i64 = 3_600_000;

/// A ticket to create.
#[derive(Debug, Clone)]
pub struct NewTicket {
    /// The title, on one line.
    pub title: String,
    /// The problem.
    pub problem: String,
    /// Additional context.
    pub context: Option<String>,
}

/// Creates a ticket. If an earlier identical call created a ticket that still needs an email address, no other ticket
/// is created, and the email address of this call, if any, is added to the existing ticket.
///
/// # Errors
/// `walkthrough_not_found` on a server without support; `forbidden` for a test from the console; `invalid_arguments`,
/// `sign_in_required`, `handle_unknown`; `rate_limited` if a limit of the user, the client address or the server is
/// reached; `unavailable`.
pub async fn create(cx: &Ctx, hosting: &Hosting, play: &PlayRequest<'_>, new: NewTicket) -> Result<Ticket> {
    let server = &play.offers.server;
    check_support(cx, server)?;
    let new = clean_input(new)?;
    if play.call.is_test {
        let message = "This is a test from the console, so no ticket was created. Only end users can create tickets.";
        return Err(Error::new(Code::Forbidden, message));
    }
    let is_authenticated = matches!(play.credentials, Credentials::Subject(..));
    let client = (!is_authenticated).then(|| limits::hash_network(hosting.secret(), play.call.address));
    let counted = LimitCheck { server, client: client.as_deref(), limits: hosting.ticket_limits, now: cx.now() };
    check_early(hosting, &counted, &new).await?;
    ensure_signed_in(cx, hosting, play).await?;
    let mut identity = identity::resolve(cx, hosting, server, &play.credentials).await?;
    let origin = match &identity.end_user_id {
        Some(end_user) => find_origin(hosting, server, end_user).await?,
        None => None,
    };
    let mut tx = hosting.ops.store.begin().await?;
    let end_user = match (identity.end_user_id, &play.credentials) {
        (None, Credentials::Tracking(tracking_id)) => {
            Some(get_or_create_tracked(cx, &mut tx, server, tracking_id).await?)
        }
        (known, _) => known,
    };
    let email = find_email(&mut tx, play, end_user.as_ref()).await?;
    let ticket = match find_repeated(cx, &mut tx, server, end_user.as_ref(), email.as_ref(), &new).await? {
        Some(ticket) => ticket,
        None => {
            let input = TicketInput { new, end_user: end_user.clone(), origin, email };
            let details = insert(cx, &mut tx, &counted, input).await?;
            if hosting.ops.notifier.is_enabled() {
                let (organization, ticket) = (&server.organization_id, &details.ticket.id);
                ticket_digest::schedule(&mut tx, organization, &server.id, ticket, cx.now(), DIGEST_EVERY_MS).await?;
            }
            details.ticket
        }
    };
    tx.commit().await?;
    identity.end_user_id = end_user;
    play.call.record(cx, hosting, server, Some(&identity), CallOutcome::Read).await;
    Ok(ticket)
}

/// Checks that the caller may use support on this server, and that it is enabled.
pub(crate) fn check_support(cx: &Ctx, server: &Server) -> Result<()> {
    authorize(&cx.caller, Operation::TicketOpen, &server.organization_id)?;
    if matches!(&cx.caller, Caller::Client { server_id, .. } if *server_id != server.id) {
        return Err(Error::not_found("server"));
    }
    if server.support != Support::Tickets {
        let message = "Support tickets are disabled on this server. List the tools again.";
        return Err(Error::new(Code::WalkthroughNotFound, message));
    }
    Ok(())
}

/// Rejects a ticket beyond the limits before anything is written or locked. A call that repeats another one passes,
/// because it might not create a ticket.
async fn check_early(hosting: &Hosting, counted: &LimitCheck<'_>, new: &NewTicket) -> Result<()> {
    let mut conn = hosting.read().await?;
    let Err(error) = counted.peek(&mut conn).await else { return Ok(()) };
    let (server, since) = (counted.server, Timestamp(0));
    let (title, problem) = (new.title.as_str(), new.problem.as_str());
    if store::is_duplicate(&mut conn, &server.organization_id, &server.id, title, problem, since).await? {
        return Ok(());
    }
    Err(error)
}

struct TicketInput {
    new: NewTicket,
    end_user: Option<EndUserId>,
    origin: Option<TicketOrigin>,
    email: Option<TicketEmail>,
}

fn clean_input(new: NewTicket) -> Result<NewTicket> {
    let text = |field, text: &str| -> Result<String> {
        Ok(check_length(field, clean_plain(text).trim(), MAX_TEXT)?.to_owned())
    };
    let title = check_length("title", &clean_line(&new.title), MAX_TITLE)?.to_owned();
    let context = new.context.filter(|context| !clean_plain(context).trim().is_empty());
    Ok(NewTicket {
        title,
        problem: text("problem", &new.problem)?,
        context: context.map(|context| text("context", &context)).transpose()?,
    })
}

fn check_length<'a>(field: &str, text: &'a str, limit: usize) -> Result<&'a str> {
    match text.chars().count() {
        0 => Err(Error::invalid(field, format!("`{field}` must not be empty."))),
        count if count > limit => {
            Err(Error::invalid(field, format!("`{field}` has {count} characters; the limit is {limit}.")))
        }
        _ => Ok(text),
    }
}

/// Returns the user's current step in the most recently active attempt on this server. Returns `None` if there is no
/// such attempt, or if it is ambiguous.
async fn find_origin(hosting: &Hosting, server: &Server, end_user: &EndUserId) -> Result<Option<TicketOrigin>> {
    let organization = &server.organization_id;
    let open = progress::list_open(&mut hosting.read().await?, organization, end_user, &server.id).await?;
    let mut active: Vec<_> =
        open.into_iter().filter(|(_, attempt)| attempt.state == AttemptState::InProgress).collect();
    active.sort_by_key(|(_, attempt)| std::cmp::Reverse(attempt.last_activity_at));
    let latest = match active.as_slice() {
        [] => return Ok(None),
        [(_, one), (_, other), ..] if one.last_activity_at == other.last_activity_at => return Ok(None),
        [latest, ..] => latest,
    };
    let (walkthrough_id, attempt) = latest;
    let version = hosting.version(organization, &attempt.version_id).await?;
    Ok(Some(TicketOrigin {
        walkthrough_id: Some(walkthrough_id.clone()),
        title: version.title.clone(),
        version: version.number,
        step: current(&version, attempt),
    }))
}

fn current(version: &waypost_core::version::Version, attempt: &Attempt) -> Option<TicketStep> {
    let index = version.steps().iter().position(|step| !attempt.completed.contains(step.ordinal))?;
    let step = version.steps().get(index)?;
    let position = u32::try_from(index + 1).ok()?;
    Some(TicketStep { id: step.id.to_string(), title: step.content.title.clone(), position })
}

/// Returns the end user with this tracking ID. Creates the user if necessary.
async fn get_or_create_tracked(cx: &Ctx, tx: &mut Tx, server: &Server, tracking_id: &str) -> Result<EndUserId> {
    let (organization, now) = (&server.organization_id, cx.now());
    let id = EndUserId::new(now, &*cx.random);
    end_user::insert_tracked(tx, organization, &id, tracking_id, now).await?;
    Ok(end_user::find_by_tracking_id(tx, organization, tracking_id).await?.unwrap_or(id))
}

/// Returns the email address to reply to: the address in the call, or else the known address of the user.
async fn find_email(
    conn: &mut Conn,
    play: &PlayRequest<'_>,
    end_user: Option<&EndUserId>,
) -> Result<Option<TicketEmail>> {
    let organization = &play.offers.server.organization_id;
    let Some(end_user) = end_user else {
        return Ok(play.email.as_ref().map(|email| TicketEmail { address: email.address.clone(), verified: false }));
    };
    let verified = end_user::find_profile(conn, organization, end_user).await?.and_then(|profile| profile.email);
    if let Some(email) = &play.email {
        let is_verified = verified.is_some_and(|verified| waypost_core::email::key(&verified) == email.key);
        return Ok(Some(TicketEmail { address: email.address.clone(), verified: is_verified }));
    }
    if let Some(address) = verified {
        return Ok(Some(TicketEmail { address, verified: true }));
    }
    let claimed = end_user::find_claimed_email(conn, organization, end_user).await?;
    Ok(claimed.map(|address| TicketEmail { address, verified: false }))
}

/// Returns the ticket that an earlier identical call created, if it still needs an email address. Adds `email` to it
/// and to the user's other tickets without an address.
async fn find_repeated(
    cx: &Ctx,
    tx: &mut Tx,
    server: &Server,
    end_user: Option<&EndUserId>,
    email: Option<&TicketEmail>,
    new: &NewTicket,
) -> Result<Option<Ticket>> {
    let (opener, since) = match end_user {
        Some(id) => (Opener::EndUser(id), Timestamp(0)),
        None => (Opener::Unidentified(&server.id), cx.now().plus(-REPEAT_MS)),
    };
    let mut same = None;
    for details in store::list_without_email(tx, &server.organization_id, opener, since).await? {
        let ticket = &details.ticket;
        let is_same = ticket.server_id.as_ref() == Some(&server.id)
            && (&ticket.title, &ticket.problem, &ticket.context) == (&new.title, &new.problem, &new.context);
        let details = match email {
            Some(email) if is_same || end_user.is_some() => add_email(cx, tx, details, email).await?,
            _ => details,
        };
        if is_same {
            same = Some(details.ticket);
        }
    }
    Ok(same)
}

async fn insert(cx: &Ctx, tx: &mut Tx, counted: &LimitCheck<'_>, input: TicketInput) -> Result<TicketDetails> {
    let (server, now) = (counted.server, cx.now());
    let organization = &server.organization_id;
    // Lock the counter first, so that concurrent calls cannot exceed the limits.
    let number = store::next_number(tx, organization).await?;
    counted.check(tx, input.end_user.as_ref()).await?;
    let status = if input.email.is_some() { TicketStatus::Pending } else { TicketStatus::NeedsEmail };
    let (email, email_verified) = input.email.map_or((None, false), |email| (Some(email.address), email.verified));
    let ticket = Ticket {
        id: TicketId::new(now, &*cx.random),
        organization_id: organization.clone(),
        number,
        server_id: Some(server.id.clone()),
        end_user_id: input.end_user,
        origin: input.origin,
        title: input.new.title,
        problem: input.new.problem,
        context: input.new.context,
        email,
        email_verified,
        status,
        priority: Priority::Normal,
        assignee_id: None,
        revision: 1,
        created_at: now,
        updated_at: now,
        resolved_at: None,
    };
    store::insert(tx, &ticket).await?;
    if let Some(client) = counted.client {
        store::set_client_network(tx, organization, &ticket.id, client).await?;
    }
    record(cx, tx, organization, opened_entry(&ticket)).await?;
    let server = Some(server.name.clone());
    let details = TicketDetails {
        ticket,
        server,
        end_user: None,
        assignee: None,
        assignee_email: None,
        is_walkthrough_deleted: false,
    };
    events::created(cx, tx, &details).await?;
    Ok(details)
}
