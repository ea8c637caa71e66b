//! The statements of the writer.

use std::sync::Arc;

use waypost_core::SystemRandom;
use waypost_core::progress::operations::{ProgressContext, SelectOptions};
use waypost_store::Db;
use waypost_store::writer::{Decision, ProgressCall, Writer};

use crate::console::delivery;
use crate::fixture::{Fixture, NOW};

/// Runs the writer's statements for an advance and for a new attempt.
pub(crate) async fn play(db: &Db, one: &Fixture) {
    let (writer, _tasks) = Writer::start(db.clone(), Arc::new(SystemRandom));
    for select in [false, true] {
        let (offered, record) = (one.version_offer(), one.tool_call(if select { "tc_a" } else { "tc_b" }));
        let call = ProgressCall {
            key: one.progress_key(&one.end_user),
            new_end_user: None,
            new_session: None,
            client_name: None,
            tool_call: Some(Box::new(move |_| record.clone())),
            deliveries: Some(Box::new(move |_| vec![delivery(if select { "whd_a" } else { "whd_b" })])),
            decide: Box::new(move |attempt| {
                let attempt = attempt.map(|progress| (progress, &offered.latest));
                let view = ProgressContext { attempt, offered: &offered, now: NOW, random: &SystemRandom };
                let restart = SelectOptions { resume: false, confirmed: true, ..SelectOptions::default() };
                Decision::Done(Box::new(if select {
                    view.select(restart).unwrap()
                } else {
                    view.advance(None).unwrap()
                }))
            }),
            now: NOW,
        };
        assert!(matches!(writer.call(call).await, Ok(Decision::Done(_))));
    }
}
