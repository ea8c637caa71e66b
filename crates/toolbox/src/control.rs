//! The operations that the daemon needs from the control plane.

use std::pin::Pin;

use waypost_toolbox_proto::message::{InstanceSecrets, ToolboxEvent};

/// The connection to the control plane, as the supervisor sees it. Implemented by the link; tests replace it.
pub trait Control: Send + Sync + 'static {
    /// Reports an event. It is stored on disk and sent as soon as the link is up, in order.
    fn report(&self, event: ToolboxEvent);

    /// Requests the secrets for the container of an instance with the key `key`. Waits while the link is down; the
    /// caller must apply a timeout. Returns `None` if the control plane does not know the instance, or if the value of
    /// a secret of the organisation is missing. Personal secrets without a value are absent.
    fn secrets(
        &self,
        instance_id: &str,
        generation: u64,
        key: Option<&str>,
    ) -> Pin<Box<dyn Future<Output = Option<InstanceSecrets>> + Send + '_>>;
}
