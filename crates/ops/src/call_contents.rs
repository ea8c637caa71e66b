//! The contents of calls through the gateway: arguments and results, which are recorded only for instances for which an
//! admin has switched recording on.
//!
//! Invariants (tests in `tests/it/gateway/call_contents.rs`):
//! 1. Nothing is copied from a call to any other instance.
//! 2. A call never waits: texts are copied up to [`MAX_READ`](waypost_mcp_wire::excerpt::MAX_READ) bytes, masked and
//!    sealed in the background. If too many are waiting, the call is recorded without contents.
//! 3. Contents are stored only if all secrets that they could contain were opened: those of the instance, those of the calling
//!    agent, its OAuth connection, and the URL of a remote server. Otherwise the call is recorded without contents.
//! 4. Every call is recorded once, whatever happens to its contents.
//!
//! A replaced value of a secret is masked as long as it is stored: while a deployment uses it, and for at least ten
//! minutes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use waypost_core::call::{Call, CallContents, ContentText};
use waypost_core::caller::Ctx;
use waypost_core::id::{CallId, InstanceId};
use waypost_core::instance::{Backend, Instance};
use waypost_core::seal::{SealLocation, SecretText};
use waypost_core::{Error, Result};
use waypost_jobs::{Job, Jobs, WorkerHandle};
use waypost_mcp_wire::excerpt::{SecretMask, readable};
use waypost_store::call_contents::SealedContents;
use waypost_store::recorder::{Recorder, RecorderEntry};
use waypost_store::{Conn, agent_secret, deployment, instance, instance_source, replaced_secret};

use crate::remote_servers::read_url;
use crate::tool_secrets::replaced_location;
use crate::{Ops, agent_secrets, remote_tokens};

/// The capacity of the queue, which bounds memory: each entry has at most two texts of [`MAX_READ`] bytes.
///
/// [`MAX_READ`]: waypost_mcp_wire::excerpt::MAX_READ
const QUEUE: usize = 256;
/// The time limit for reading the secrets of a call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time after which the processing of a call counts as stuck.
const LATE_AFTER: Duration = Duration::from_secs(60);
/// The minimum size of a part of a URL that counts as a secret.
const MIN_URL_PART: usize = 8;

/// The beginning of a text of a call.
#[derive(Clone)]
pub struct CapturedText {
    text: String,
    is_cut: bool,
}

impl CapturedText {
    /// Copies the beginning of a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let (text, is_cut) = readable(text);
        Self { text: text.to_owned(), is_cut }
    }
}

/// The contents of a call, as they were sent. `Debug` hides them.
#[derive(Clone, Default)]
pub struct CapturedContents {
    /// The arguments.
    pub arguments: Option<CapturedText>,
    /// The result.
    pub result: Option<CapturedText>,
    /// The error.
    pub error: Option<CapturedText>,
}

impl std::fmt::Debug for CapturedContents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CapturedContents(…)")
    }
}

/// Calls with contents that wait to be masked. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ContentsQueue(mpsc::Sender<Pending>);

/// A call with contents. If it is dropped before it was recorded, it is recorded without contents.
#[derive(Debug)]
struct Pending {
    call: Option<Box<Call>>,
    contents: CapturedContents,
    recorder: Recorder,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.recorder.record_or_drop(RecorderEntry::GatewayCall(call));
        }
    }
}

impl ContentsQueue {
    /// Starts the worker that masks and seals contents. It ends when all clones of the queue have been dropped.
    pub(crate) fn start(jobs: &Jobs, ops: Ops, cx: Ctx) -> Self {
        let (queue, pending) = mpsc::channel(QUEUE);
        let (pending, worker) = (Arc::new(Mutex::new(pending)), Arc::new((ops, cx)));
        let job = Job { late_after: LATE_AFTER, ..Job::new("call-contents", Duration::ZERO) };
        drop(jobs.start_worker(job, move |handle| run(Arc::clone(&worker), Arc::clone(&pending), handle)));
        Self(queue)
    }

    /// Enqueues a call with its contents. Never waits: if the queue is full, the call is recorded without them.
    pub(crate) fn add(&self, recorder: &Recorder, call: Call, contents: CapturedContents) {
        let pending = Pending { call: Some(Box::new(call)), contents, recorder: recorder.clone() };
        if self.0.try_send(pending).is_err() {
            count_lost();
        }
    }
}

fn count_lost() {
    metrics::counter!("waypost_call_contents_lost_total").increment(1);
}

async fn run(worker: Arc<(Ops, Ctx)>, queue: Arc<Mutex<mpsc::Receiver<Pending>>>, handle: WorkerHandle) {
    let (ops, cx) = &*worker;
    let mut queue = queue.lock().await;
    while let Some(mut pending) = queue.recv().await {
        let _busy = handle.begin_item();
        let Some(call) = &pending.call else { continue };
        if !pending.recorder.has_room_for_contents() {
            count_lost();
            continue;
        }
        match mask_and_seal(ops, cx, call, &pending.contents).await {
            Ok(Some(sealed)) => {
                if let Some(call) = pending.call.take() {
                    let entry = RecorderEntry::GatewayCallWithContents(Box::new((*call, sealed)));
                    pending.recorder.record_or_drop(entry);
                }
            }
            Ok(None) => {}
            Err(error) => {
                count_lost();
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, call = call.id.as_str(), "failed to mask the contents of a call");
            }
        }
    }
}

/// Returns the sealed contents of a call. `None` if contents are no longer recorded for its instance.
async fn mask_and_seal(
    ops: &Ops,
    cx: &Ctx,
    call: &Call,
    captured: &CapturedContents,
) -> Result<Option<SealedContents>> {
    let Some(instance_id) = &call.instance_id else { return Ok(None) };
    let secrets = tokio::time::timeout(TIMEOUT, list_secrets(ops, call, instance_id)).await;
    let Some(secrets) = secrets.map_err(Error::internal)?? else { return Ok(None) };
    let mask = SecretMask::new(secrets.iter().map(SecretText::expose));
    let text = |captured: &Option<CapturedText>| {
        let excerpt = captured.as_ref().map(|captured| mask.excerpt(&captured.text, captured.is_cut));
        excerpt.map(|excerpt| ContentText { text: excerpt.text, is_truncated: excerpt.is_truncated })
    };
    let contents = CallContents {
        arguments: text(&captured.arguments),
        result: text(&captured.result),
        error: text(&captured.error),
    };
    let contents = serde_json::to_vec(&contents).map_err(|_| Error::internal("contents cannot be written as JSON"))?;
    Ok(Some(SealedContents {
        contents: ops.keyring()?.seal(&location(&call.id), &contents, &*cx.random),
        call_id: call.id.clone(),
        organization_id: call.organization_id.clone(),
        agent_id: call.agent_id.clone(),
        instance_id: instance_id.clone(),
    }))
}

/// Opens the contents of a call.
///
/// # Errors
/// `internal` if no key of the installation opens them.
pub(crate) fn open(ops: &Ops, call: &CallId, sealed: &str) -> Result<CallContents> {
    let broken = || Error::internal(format!("the contents of the call {call} cannot be opened"));
    let text = ops.keyring()?.open_text(&location(call), sealed).map_err(|_| broken())?;
    // The error of the parser could contain a part of the text.
    serde_json::from_str(text.expose()).map_err(|_| broken())
}

fn location(call: &CallId) -> SealLocation<'_> {
    SealLocation { table: "call_contents", column: "contents", row: call.as_str() }
}

/// Returns all secrets that the server of a call may have received from Waypost. `None` if the instance does not record
/// contents, or does not exist.
///
/// # Errors
/// `internal` if a secret cannot be opened; any error of the store.
async fn list_secrets(ops: &Ops, call: &Call, id: &InstanceId) -> Result<Option<Vec<SecretText>>> {
    let organization = &call.organization_id;
    let mut conn = ops.store.read().await?;
    let found = instance::find(&mut conn, organization, id).await?;
    let Some(instance) = found.filter(|instance| instance.record_contents) else { return Ok(None) };
    let mut secrets = list_shared(ops, &mut conn, &instance).await?;
    for (secret, sealed) in agent_secret::list_values(&mut conn, organization, &call.agent_id, id).await? {
        secrets.push(open_at(ops, &agent_secrets::location(&secret), &sealed)?);
    }
    if let Backend::Remote(server) = &instance.backend {
        secrets.extend(list_url_parts(ops, &instance)?);
        if server.is_oauth {
            secrets.extend(remote_tokens::list_secrets(ops, &mut conn, &instance, &call.agent_id).await?);
        }
    }
    Ok(Some(secrets))
}

/// Returns the secrets of the organisation that an instance uses, and those of the container that serves calls if it
/// belongs to an earlier generation.
async fn list_shared(ops: &Ops, conn: &mut Conn, instance: &Instance) -> Result<Vec<SecretText>> {
    let serving = match instance.observed_generation == instance.generation {
        true => None,
        false => {
            let (organization, generation) = (&instance.organization_id, instance.observed_generation);
            deployment::find_by_generation(conn, organization, &instance.id, generation).await?
        }
    };
    let earlier = serving.map(|deployment| deployment.secrets).unwrap_or_default();
    let ids: Vec<_> = instance.secrets.iter().chain(&earlier).map(|used| &used.secret_id).collect();
    let sealed = instance_source::list_secrets(conn, &instance.organization_id, &ids).await?;
    if instance.secrets.iter().any(|used| sealed.iter().all(|found| found.id != used.secret_id.as_str())) {
        return Err(Error::internal(format!("a secret of the instance {} does not exist", instance.id)));
    }
    let open = |secret: &instance_source::SealedSecret| {
        open_at(ops, &SealLocation { table: "tool_secrets", column: "value", row: &secret.id }, &secret.value)
    };
    let mut secrets: Vec<_> = sealed.iter().map(open).collect::<Result<_>>()?;
    // The container that serves calls may have been started with an earlier value.
    for replaced in replaced_secret::list(conn, &instance.organization_id, &ids).await? {
        secrets.push(open_at(ops, &replaced_location(&replaced.id), &replaced.value)?);
    }
    Ok(secrets)
}

fn open_at(ops: &Ops, location: &SealLocation<'_>, sealed: &str) -> Result<SecretText> {
    let opened = ops.keyring()?.open_text(location, sealed);
    opened.map_err(|error| Error::internal(format!("the secret {} cannot be opened: {error}", location.row)))
}

/// Returns the URL of a remote server, and the parts of it that can be credentials.
fn list_url_parts(ops: &Ops, instance: &Instance) -> Result<Vec<SecretText>> {
    let url = read_url(ops, instance)?;
    let mut parts = vec![url.as_str().to_owned()];
    parts.extend(url.password().map(str::to_owned));
    parts.extend(url.query_pairs().map(|(_, value)| value.into_owned()).filter(|value| value.len() >= MIN_URL_PART));
    // A segment with digits is more likely to be a key than a word.
    let is_key = |part: &&str| part.len() >= MIN_URL_PART && part.bytes().any(|byte| byte.is_ascii_digit());
    parts.extend(url.path_segments().into_iter().flatten().filter(is_key).map(str::to_owned));
    Ok(parts.into_iter().map(SecretText::new).collect())
}
