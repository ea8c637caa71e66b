use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;
use waypost_core::error::{Code, Error};
use waypost_core::id::ToolboxId;
use waypost_link::{BoxFuture, Directory, verify};
use waypost_toolbox_proto::desired::DesiredState;
use waypost_toolbox_proto::handshake::{Challenge, Hello, Rejection};
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage};

use crate::{ORIGIN, daemon};

/// An in-memory directory.
pub struct TestDirectory {
    state: Mutex<State>,
    received: watch::Sender<usize>,
}

pub struct State {
    pub public_key: String,
    pub versions: Vec<String>,
    pub desired: Option<DesiredState>,
    pub received: Vec<DaemonMessage>,
    /// Whether this process is recorded as the one that holds the link.
    pub is_claimed: bool,
    pub claim_fails: bool,
    /// The number of calls that fail from now on.
    pub remaining_failures: usize,
}

impl TestDirectory {
    pub fn new() -> Self {
        let (_, public_key) = daemon::key(1);
        let desired = Some(DesiredState { revision: 1, instances: vec![] });
        let state = State {
            public_key,
            versions: vec![],
            desired,
            received: vec![],
            is_claimed: false,
            claim_fails: false,
            remaining_failures: 0,
        };
        Self { state: Mutex::new(state), received: watch::channel(0).0 }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until `count` messages have been stored.
    pub async fn wait_for(&self, count: usize) -> Vec<DaemonMessage> {
        self.received.subscribe().wait_for(|received| *received >= count).await.unwrap();
        self.state().received.clone()
    }

    fn check(&self) -> waypost_core::Result<()> {
        let mut state = self.state();
        if state.remaining_failures > 0 {
            state.remaining_failures -= 1;
            return Err(Error::new(Code::Unavailable, "The database is not available."));
        }
        Ok(())
    }
}

impl Directory for TestDirectory {
    fn authenticate<'a>(
        &'a self,
        challenge: &'a Challenge,
        hello: &'a Hello,
    ) -> BoxFuture<'a, Result<ToolboxId, Rejection>> {
        Box::pin(async move {
            self.check().map_err(|_| Rejection::Unavailable)?;
            let mut state = self.state();
            if hello.toolbox_id != "tbx_1" {
                return Err(Rejection::Unauthorized);
            }
            verify(challenge, hello, &state.public_key, &[ORIGIN])?;
            state.versions.push(hello.version.clone());
            if let Some(next) = &hello.next_public_key {
                state.public_key.clone_from(next);
            }
            Ok(ToolboxId::from_store(hello.toolbox_id.clone()))
        })
    }

    fn claim<'a>(&'a self, _toolbox: &'a ToolboxId) -> BoxFuture<'a, waypost_core::Result<()>> {
        Box::pin(async move {
            let mut state = self.state();
            if state.claim_fails {
                return Err(Error::new(Code::Unavailable, "The database is not available."));
            }
            state.is_claimed = true;
            Ok(())
        })
    }

    fn release<'a>(&'a self, _toolbox: &'a ToolboxId) -> BoxFuture<'a, waypost_core::Result<()>> {
        Box::pin(async move {
            self.state().is_claimed = false;
            Ok(())
        })
    }

    fn desired_state<'a>(
        &'a self,
        _toolbox: &'a ToolboxId,
    ) -> BoxFuture<'a, waypost_core::Result<Option<DesiredState>>> {
        Box::pin(async move { self.check().map(|()| self.state().desired.clone()) })
    }

    fn receive<'a>(
        &'a self,
        toolbox: &'a ToolboxId,
        message: DaemonMessage,
    ) -> BoxFuture<'a, waypost_core::Result<Option<ControlMessage>>> {
        Box::pin(async move {
            assert_eq!(toolbox.as_str(), "tbx_1");
            self.check()?;
            let answer = match &message {
                DaemonMessage::Heartbeat(_) => None,
                DaemonMessage::Event { sequence, .. } => Some(ControlMessage::Acknowledge { sequence: *sequence }),
                DaemonMessage::SecretRequest { request, .. } => {
                    Some(ControlMessage::Secrets { request: *request, secrets: None })
                }
            };
            let mut state = self.state();
            state.received.push(message);
            self.received.send_replace(state.received.len());
            Ok(answer)
        })
    }
}
