//! The connection to the server of a container.

use std::future::pending;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::{DeploymentStep, ErrorCode, InstanceSpec, Transport};

use super::super::output::ContainerLog;
use super::super::servers::{ConnectContext, ConnectError, ServerSession, Servers, Target};
use super::super::{CHECK_TIMEOUT, Shared};
use super::errors::{error, exited, health_timeout, no_mcp};
use super::unit::End;
use super::work::Failure;
use crate::engine::{Attached, Engine, EngineError, NetworkNamespace, ObservedContainer};

/// The time for which the last output of an exited container is awaited.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// The connection to the server of a container.
pub(super) struct Connection {
    pub(super) container: ObservedContainer,
    pub(super) spec: Arc<InstanceSpec>,
    pub(super) log: Arc<ContainerLog>,
    pub(super) folder: PathBuf,
    /// Whether different callers share the container.
    pub(super) is_shared: bool,
    pub(super) cancel: CancellationToken,
    pub(super) end: watch::Receiver<Option<End>>,
    /// The network namespace of the container. Opened when it is first needed.
    pub(super) namespace: Arc<OnceCell<NetworkNamespace>>,
    /// The error of the last attempt.
    pub(super) last_error: Mutex<Option<String>>,
}

/// The error of an attempt to connect.
enum OpenError {
    /// The engine cannot be reached.
    EngineLost,
    /// Another attempt is pointless.
    NotMcp(String),
    /// Another attempt may succeed.
    Closed(String),
    /// Another attempt may succeed, but only with a new container.
    Restart(String),
}

impl Connection {
    /// Checks a new server: it must complete the handshake and list its tools within [`CHECK_TIMEOUT`].
    pub(super) async fn check<E: Engine, S: Servers>(
        self,
        shared: &Shared<E, S>,
        attached: Option<Attached>,
    ) -> Result<Arc<dyn ServerSession>, Failure> {
        let mut end = self.end.clone();
        let mut work = pin!(timeout(CHECK_TIMEOUT, self.first_session(shared, attached)));
        let (exit_code, out_of_memory) = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(Failure::Cancelled),
            exit = exit(&mut end) => {
                // The connection reads the last output.
                if let Ok(Ok(Err(failure @ Failure::Restart(_)))) = timeout(LAST_OUTPUT, &mut work).await {
                    return Err(failure);
                }
                exit.ok_or(Failure::EngineLost)?
            }
            result = &mut work => match result {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(failure @ Failure::Restart(_))) => return Err(failure),
                Ok(Err(failure)) => {
                    // The cause is probably that the process has exited, which the engine reports next.
                    match timeout(LAST_OUTPUT, exit(&mut end)).await {
                        Ok(exit) => exit.ok_or(Failure::EngineLost)?,
                        Err(_) => return Err(failure),
                    }
                }
                Err(_) => {
                    let cause = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return Err(Failure::Error(health_timeout(cause.as_deref(), &self.log)));
                }
            },
        };
        Err(Failure::Exited { exit_code, out_of_memory, error: exited(exit_code, out_of_memory, &self.log) })
    }

    async fn first_session<E: Engine, S: Servers>(
        &self,
        shared: &Shared<E, S>,
        mut attached: Option<Attached>,
    ) -> Result<Arc<dyn ServerSession>, Failure> {
        match self.open_egress(shared).await {
            Ok(()) => {}
            // The connection reads the last output.
            Err(failure) if failure.code == ErrorCode::Exited => {}
            Err(failure) if failure.code == ErrorCode::EngineUnavailable => return Err(Failure::EngineLost),
            Err(EngineError { code, cause, next_action }) => {
                return Err(Failure::Error(error(DeploymentStep::Starting, code, cause, &next_action)));
            }
        }
        let mut attempt = 0;
        loop {
            let result = match self.open(shared, attached.take()).await {
                Ok(session) => match session.list_tools().await {
                    Ok(_) => return Ok(session),
                    Err(cause) => Err(OpenError::NotMcp(cause)),
                },
                Err(error) => Err::<(), _>(error),
            };
            match result {
                Ok(()) => {}
                Err(OpenError::EngineLost) => return Err(Failure::EngineLost),
                Err(OpenError::NotMcp(cause)) => return Err(Failure::Error(no_mcp(&cause, &self.log))),
                Err(OpenError::Restart(cause)) => return Err(Failure::Restart(no_mcp(&cause, &self.log))),
                Err(OpenError::Closed(cause)) => {
                    *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
                    sleep(shared.pause(attempt)).await;
                    attempt += 1;
                }
            }
        }
    }

    /// Connects to a server that has already been checked, and retries until it succeeds. Returns `None` if the
    /// container is removed or exits.
    pub(super) async fn reconnect<E: Engine, S: Servers>(
        self,
        shared: &Shared<E, S>,
        is_first: bool,
    ) -> Option<Arc<dyn ServerSession>> {
        let work = async {
            if is_first && let Err(error) = self.open_egress(shared).await {
                tracing::warn!(
                    %error,
                    instance = self.container.instance_id,
                    "failed to open the egress of a container"
                );
            }
            let mut attempt = 0;
            loop {
                match timeout(CHECK_TIMEOUT, self.open(shared, None)).await {
                    Ok(Ok(session)) => return session,
                    Ok(Err(OpenError::NotMcp(error) | OpenError::Closed(error) | OpenError::Restart(error))) => {
                        tracing::debug!(error, container = self.container.id, "failed to connect to a server");
                    }
                    Ok(Err(OpenError::EngineLost)) | Err(_) => {}
                }
                sleep(shared.pause(attempt)).await;
                attempt = attempt.saturating_add(1);
            }
        };
        self.cancel.run_until_cancelled(work).await
    }

    /// Returns the network namespace of the container. It is opened only once, because the process ID could later be
    /// reused for another process.
    async fn namespace<E: Engine, S: Servers>(&self, shared: &Shared<E, S>) -> Result<NetworkNamespace, EngineError> {
        let open = || shared.parts.engine.network_namespace(&self.container.id);
        self.namespace.get_or_try_init(open).await.cloned()
    }

    /// Opens the egress of the container if its specification has destinations or learning mode is on.
    async fn open_egress<E: Engine, S: Servers>(&self, shared: &Shared<E, S>) -> Result<(), EngineError> {
        if self.spec.egress.is_empty() && !self.spec.learn_egress {
            return Ok(());
        }
        let namespace = self.namespace(shared).await?;
        let opened = shared.parts.sink.opened(&self.container, &self.spec, namespace).await;
        let next_action = "Read the log of the daemon, and deploy again.";
        opened.map_err(|cause| EngineError::new(ErrorCode::StartFailed, cause, next_action))
    }

    async fn open<E: Engine, S: Servers>(
        &self,
        shared: &Shared<E, S>,
        attached: Option<Attached>,
    ) -> Result<Arc<dyn ServerSession>, OpenError> {
        let failed = |error: EngineError| match error.code {
            ErrorCode::EngineUnavailable => OpenError::EngineLost,
            _ => OpenError::Closed(error.cause),
        };
        let target = match (self.spec.transport, attached) {
            (Transport::Stdio, Some(attached)) => Target::Stdio(attached),
            (Transport::Stdio, None) => {
                Target::Stdio(shared.parts.engine.attach(&self.container.id).await.map_err(failed)?)
            }
            (transport, _) => Target::Http {
                namespace: self.namespace(shared).await.map_err(failed)?,
                port: self.spec.port.unwrap_or_default(),
                path: self.spec.path.clone().unwrap_or_else(|| "/mcp".to_owned()),
                transport,
            },
        };
        let context = ConnectContext {
            instance_id: self.container.instance_id.clone(),
            container_id: self.container.id.clone(),
            folder: self.folder.clone(),
            is_shared: self.is_shared,
            masks: self.log.masks(),
            log: Arc::clone(&self.log) as _,
        };
        shared.parts.servers.connect(target, context).await.map_err(|error| match error {
            ConnectError::NotMcp(cause) => OpenError::NotMcp(cause),
            ConnectError::Closed(cause) => OpenError::Closed(cause),
            ConnectError::Restart(cause) => OpenError::Restart(cause),
        })
    }
}

/// Waits for the end of a container. Returns the exit code and whether it exceeded its memory limit; `None` if it ended
/// together with the engine.
async fn exit(end: &mut watch::Receiver<Option<End>>) -> Option<(i64, bool)> {
    match end.wait_for(Option::is_some).await.map(|end| *end) {
        Ok(Some(End::Exited { exit_code, out_of_memory })) => Some((exit_code, out_of_memory)),
        Ok(Some(End::Lost)) => None,
        _ => pending().await,
    }
}
