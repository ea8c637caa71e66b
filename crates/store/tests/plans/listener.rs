//! Captures the statements from the logs of the driver and of the writer's thread.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Mutex, OnceLock};

use tracing_subscriber::layer::{Context, Layer};

pub(crate) fn statements_log() -> &'static Mutex<BTreeSet<String>> {
    static LOG: OnceLock<Mutex<BTreeSet<String>>> = OnceLock::new();
    LOG.get_or_init(Mutex::default)
}

/// Records every statement that is logged.
pub(crate) struct Listener;

#[derive(Default)]
struct Fields {
    summary: String,
    statement: String,
}

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn Debug) {}

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" | "statement" => value.clone_into(&mut self.statement),
            _ => {}
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if matches!(event.metadata().target(), "sqlx::query" | "waypost_store::sqlite") {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let text = if fields.statement.is_empty() { fields.summary } else { fields.statement };
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            statements_log().lock().unwrap().insert(text);
        }
    }
}
