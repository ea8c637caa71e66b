//! Implements the supervisor's interface to servers with the bridge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::bridge::{Bridge, Session};
use crate::supervisor::servers::{
    BoxFuture, CallFailure, CallOptions, ConnectContext, ConnectError, Messages, Notifications, ServerSession, Servers,
    Target,
};

impl Servers for Bridge {
    async fn connect(&self, target: Target, context: ConnectContext) -> Result<Arc<dyn ServerSession>, ConnectError> {
        let session: Arc<Session> = Self::connect(self, target, context).await?;
        Ok(session)
    }

    fn respond<'a>(&'a self, instance_id: &'a str, response: &'a [u8]) -> BoxFuture<'a, Result<(), CallFailure>> {
        Box::pin(Self::respond(self, instance_id, response))
    }
}

impl ServerSession for Session {
    fn probe(&self) -> BoxFuture<'_, Result<Duration, String>> {
        Box::pin(Self::probe(self))
    }

    fn list_tools(&self) -> BoxFuture<'_, Result<usize, String>> {
        Box::pin(Self::list_tools(self))
    }

    fn call(&self, message: Bytes, options: CallOptions) -> BoxFuture<'_, Result<Messages, CallFailure>> {
        Box::pin(Self::call(self, message, options))
    }

    fn notifications(
        self: Arc<Self>,
        resources: BTreeSet<String>,
    ) -> BoxFuture<'static, Result<Option<Notifications>, CallFailure>> {
        Box::pin(Self::notifications(self, resources))
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(Self::closed(self))
    }
}
