//! Creation, joining, listing, revocation and deletion of toolboxes.

use waypost_core::Code;
use waypost_core::id::ToolboxId;
use waypost_core::seal::SecretText;
use waypost_core::toolbox::{MAX_TOOLBOXES, ToolboxState};
use waypost_ops::public_url::PublicUrl;
use waypost_ops::toolboxes::{self, JoinToken, ToolboxPatch};
use waypost_ops::{deployments, instances};
use waypost_store::toolbox as store;
use waypost_toolbox_proto::handshake::Versions;
use waypost_toolbox_proto::message::ControlMessage;

use crate::fixture::{Fixture, MINUTE, challenge, code, heartbeat, hello, join_request, new_key, public_key, set_up};

waypost_testkit::both!(set_up =>
    a_token_admits_one_of_parallel_machines,
    parallel_joins_of_one_machine_succeed,
    the_limit_of_toolboxes_is_exact,
);

waypost_testkit::both!(extended set_up =>
    a_machine_joins_with_a_token,
    a_machine_repeats_its_join_until_it_has_connected,
    a_repeated_join_ends_with_the_token,
    a_token_is_renewed_while_the_toolbox_is_pending,
    a_renewed_token_cuts_off_the_earlier_machine,
    invalid_requests_do_not_use_the_token,
    toolboxes_are_listed_and_renamed,
    a_toolbox_with_instances_is_deleted_only_if_revoked,
    a_revoked_toolbox_is_cut_off,
    an_outage_is_reported_once,
    heartbeats_change_nothing_else,
);

async fn a_machine_joins_with_a_token(fixture: Fixture) {
    let Fixture { ops, cx, org, clock, .. } = &fixture;
    let (created, token) = toolboxes::create(cx, ops, org, " rack ").await.unwrap();
    let text = token.token.expose();
    assert!(text.starts_with("wpt_") && text.len() >= 4 + 22, "{} characters", text.len());
    assert_eq!(token.expires_at.since(cx.now()), 15 * MINUTE);
    assert_eq!((created.toolbox.name.as_str(), created.state), ("rack", ToolboxState::Pending));
    let stored = created.toolbox.join_token_hash.as_deref().unwrap();
    assert!(stored.len() == 64 && !stored.contains(&text[4..]), "a SHA-256");
    let key = new_key();
    let joined = toolboxes::join(cx, ops, &join_request(text, &key)).await.unwrap();
    assert_eq!((joined.toolbox_id.as_str(), joined.name.as_str()), (created.toolbox.id.as_str(), "rack"));
    let found = toolboxes::get(cx, ops, org, &created.toolbox.id).await.unwrap();
    assert_eq!((found.state, found.toolbox.public_key), (ToolboxState::Pending, Some(public_key(&key))));
    let (_, late) = toolboxes::create(cx, ops, org, "late").await.unwrap();
    clock.advance(15 * MINUTE);
    let mut messages = Vec::new();
    for token in [text, late.token.expose(), "wpt_unknown", "", "other"] {
        let error = toolboxes::join(cx, ops, &join_request(token, &new_key())).await.unwrap_err();
        assert_eq!(error.code, Code::Forbidden);
        messages.push(error.message);
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "used, expired and unknown tokens are not distinguished");
    let actions = "SELECT count(*) FROM audit_events WHERE act IN ('toolbox.create', 'toolbox.join')";
    assert_eq!(fixture.count(actions).await, 3);
    let secret = format!("SELECT count(*) FROM audit_events WHERE detail LIKE '%{}%'", &text[4..]);
    assert_eq!(fixture.count(&secret).await, 0);
}

async fn a_machine_repeats_its_join_until_it_has_connected(fixture: Fixture) {
    use waypost_link::Directory;
    let Fixture { ops, cx, org, directory, .. } = &fixture;
    let (created, token) = toolboxes::create(cx, ops, org, "rack").await.unwrap();
    let key = new_key();
    let request = join_request(token.token.expose(), &key);
    let first = toolboxes::join(cx, ops, &request).await.unwrap();
    let before = toolboxes::get(cx, ops, org, &created.toolbox.id).await.unwrap();
    assert_eq!(toolboxes::join(cx, ops, &request).await.unwrap(), first);
    assert_eq!(toolboxes::get(cx, ops, org, &created.toolbox.id).await.unwrap(), before, "nothing changes");
    let other = join_request(token.token.expose(), &new_key());
    let rejected = toolboxes::join(cx, ops, &other).await.unwrap_err();
    let unknown = toolboxes::join(cx, ops, &join_request("wpt_unknown", &key)).await.unwrap_err();
    assert_eq!((rejected.code, &rejected.message), (Code::Forbidden, &unknown.message));
    // Anyone who repeats the request with the public key still needs the private key.
    let challenge = challenge();
    let thief = hello(&challenge, &created.toolbox.id, &new_key(), None);
    directory.authenticate(&challenge, &thief).await.unwrap_err();
    toolboxes::join(cx, ops, &request).await.unwrap();
    let own = hello(&challenge, &created.toolbox.id, &key, None);
    directory.authenticate(&challenge, &own).await.unwrap();
    let found = toolboxes::get(cx, ops, org, &created.toolbox.id).await.unwrap().toolbox;
    assert_eq!((found.join_token_hash, found.join_expires_at), (None, None));
    assert_eq!(code(toolboxes::join(cx, ops, &request).await), Code::Forbidden);
    assert_eq!(fixture.count("SELECT count(*) FROM audit_events WHERE act = 'toolbox.join'").await, 1);
}

async fn a_repeated_join_ends_with_the_token(fixture: Fixture) {
    let Fixture { ops, cx, org, clock, .. } = &fixture;
    let (revoked, token) = toolboxes::create(cx, ops, org, "revoked").await.unwrap();
    let request = join_request(token.token.expose(), &new_key());
    toolboxes::join(cx, ops, &request).await.unwrap();
    toolboxes::revoke(cx, ops, org, &revoked.toolbox.id).await.unwrap();
    assert_eq!(code(toolboxes::join(cx, ops, &request).await), Code::Forbidden);
    let (expired, token) = toolboxes::create(cx, ops, org, "expired").await.unwrap();
    let request = join_request(token.token.expose(), &new_key());
    toolboxes::join(cx, ops, &request).await.unwrap();
    clock.advance(15 * MINUTE - 1);
    toolboxes::join(cx, ops, &request).await.unwrap();
    assert_eq!(toolboxes::delete_expired_tokens(cx, ops).await.unwrap(), 0);
    clock.advance(1);
    assert_eq!(code(toolboxes::join(cx, ops, &request).await), Code::Forbidden);
    assert_eq!(toolboxes::delete_expired_tokens(cx, ops).await.unwrap(), 1);
    let found = toolboxes::get(cx, ops, org, &expired.toolbox.id).await.unwrap().toolbox;
    assert!(found.join_token_hash.is_none() && found.can_connect(), "the machine can still connect");
}

async fn parallel_joins_of_one_machine_succeed(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let (created, token) = toolboxes::create(cx, ops, org, "rack").await.unwrap();
    let request = join_request(token.token.expose(), &new_key());
    let join = |_| {
        let (cx, ops, request) = (cx.clone(), ops.clone(), request.clone());
        tokio::spawn(async move { toolboxes::join(&cx, &ops, &request).await })
    };
    for task in (0..12).map(join).collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap().unwrap().toolbox_id, created.toolbox.id.as_str());
    }
    assert_eq!(fixture.count("SELECT count(*) FROM audit_events WHERE act = 'toolbox.join'").await, 1);
}

async fn a_token_is_renewed_while_the_toolbox_is_pending(fixture: Fixture) {
    let Fixture { ops, cx, org, clock, .. } = &fixture;
    let (created, first) = toolboxes::create(cx, ops, org, "rack").await.unwrap();
    let id = &created.toolbox.id;
    let (_, second) = toolboxes::renew_token(cx, ops, org, id).await.unwrap();
    let join =
        async |token: &JoinToken| toolboxes::join(cx, ops, &join_request(token.token.expose(), &new_key())).await;
    assert_eq!(code(join(&first).await), Code::Forbidden, "the earlier token is invalid");
    clock.advance(15 * MINUTE);
    toolboxes::delete_expired_tokens(cx, ops).await.unwrap();
    assert_eq!(code(join(&second).await), Code::Forbidden);
    let (view, third) = toolboxes::renew_token(cx, ops, org, id).await.unwrap();
    assert_eq!((view.toolbox.id.clone(), view.state), (id.clone(), ToolboxState::Pending));
    assert_eq!(view.toolbox.join_expires_at, Some(third.expires_at));
    assert_eq!(third.expires_at.since(cx.now()), 15 * MINUTE);
    assert_eq!(join(&third).await.unwrap().toolbox_id, id.as_str());
    assert_eq!(code(toolboxes::renew_token(cx, ops, &fixture.other, id).await), Code::NotFound);
    assert_eq!(fixture.count("SELECT count(*) FROM audit_events WHERE act = 'toolbox.renew_token'").await, 2);
    let daemon = fixture.daemon(org, "online").await;
    assert_eq!(code(toolboxes::renew_token(cx, ops, org, &daemon.id).await), Code::Conflict);
    clock.advance(60 * MINUTE);
    assert_eq!(code(toolboxes::renew_token(cx, ops, org, &daemon.id).await), Code::Conflict, "unresponsive");
    toolboxes::revoke(cx, ops, org, id).await.unwrap();
    assert_eq!(code(toolboxes::renew_token(cx, ops, org, id).await), Code::Conflict);
}

async fn a_renewed_token_cuts_off_the_earlier_machine(fixture: Fixture) {
    use waypost_link::Directory;
    let Fixture { ops, cx, org, directory, .. } = &fixture;
    let (created, first) = toolboxes::create(cx, ops, org, "rack").await.unwrap();
    let (id, key) = (&created.toolbox.id, new_key());
    toolboxes::join(cx, ops, &join_request(first.token.expose(), &key)).await.unwrap();
    let challenge = challenge();
    let earlier = hello(&challenge, id, &key, None);
    directory.authenticate(&challenge, &earlier).await.unwrap();
    // The daemon has connected, but its first heartbeat has not arrived.
    let (renewed, second) = toolboxes::renew_token(cx, ops, org, id).await.unwrap();
    assert!(!renewed.toolbox.can_connect() && renewed.toolbox.joined_at.is_none());
    directory.authenticate(&challenge, &earlier).await.unwrap_err();
    assert_eq!(directory.desired_state(id).await.unwrap(), None, "an open link is closed");
    assert_eq!(directory.list_revisions(&[id]).await.unwrap(), [(id.clone(), None)]);
    let message = waypost_toolbox_proto::message::DaemonMessage::Heartbeat(heartbeat(Vec::new()));
    assert_eq!(code(directory.receive(id, message).await.map(|_| ())), Code::NotFound);
    let next = new_key();
    toolboxes::join(cx, ops, &join_request(second.token.expose(), &next)).await.unwrap();
    directory.authenticate(&challenge, &hello(&challenge, id, &next, None)).await.unwrap();
    directory.authenticate(&challenge, &earlier).await.unwrap_err();
}

#[test]
fn the_command_passes_the_token_on_standard_input() {
    let url = PublicUrl::new("https://waypost.example/".parse().unwrap());
    let command = toolboxes::join_command(&url, &SecretText::new("wpt_x"));
    assert_eq!(command, "echo wpt_x | waypost toolbox join --url https://waypost.example --token-file -");
}

async fn invalid_requests_do_not_use_the_token(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let (_, token) = toolboxes::create(cx, ops, org, "rack").await.unwrap();
    let valid = join_request(token.token.expose(), &new_key());
    for key in ["", "AA", "not base64", &format!("{}AA", valid.public_key)] {
        let mut request = valid.clone();
        request.public_key = key.to_owned();
        let error = toolboxes::join(cx, ops, &request).await.unwrap_err();
        assert_eq!(error.details["field"], "public_key", "{key}");
    }
    let mut request = valid.clone();
    request.protocol = Versions { oldest: 100, newest: 100 };
    let error = toolboxes::join(cx, ops, &request).await.unwrap_err();
    assert!(error.code == Code::Conflict && error.message.contains("Upgrade the control plane."), "{error}");
    toolboxes::join(cx, ops, &valid).await.unwrap();
}

async fn a_token_admits_one_of_parallel_machines(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let (created, token) = toolboxes::create(cx, ops, org, "rack").await.unwrap();
    let requests: Vec<_> = (0..12).map(|_| join_request(token.token.expose(), &new_key())).collect();
    let tasks: Vec<_> = requests
        .iter()
        .map(|request| {
            let (cx, ops, request) = (cx.clone(), ops.clone(), request.clone());
            tokio::spawn(async move { toolboxes::join(&cx, &ops, &request).await })
        })
        .collect();
    let mut joined = Vec::new();
    for (task, request) in tasks.into_iter().zip(requests) {
        match task.await.unwrap() {
            Ok(_) => joined.push(request.public_key),
            Err(error) => assert_eq!(error.code, Code::Forbidden),
        }
    }
    let found = toolboxes::get(cx, ops, org, &created.toolbox.id).await.unwrap().toolbox;
    assert_eq!(joined, [found.public_key.unwrap()]);
}

async fn the_limit_of_toolboxes_is_exact(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let (first, _) = toolboxes::create(cx, ops, org, "first").await.unwrap();
    let mut tx = ops.store().begin().await.unwrap();
    for n in 1..MAX_TOOLBOXES - 3 {
        let (id, name) = (ToolboxId::new(&*cx.random), format!("filler {n}"));
        let filler = waypost_core::toolbox::Toolbox { id, name, join_token_hash: None, ..first.toolbox.clone() };
        store::insert(&mut tx, &filler).await.unwrap();
    }
    tx.commit().await.unwrap();
    let create = |n: usize| {
        let (cx, ops, org) = (cx.clone(), ops.clone(), org.clone());
        tokio::spawn(async move { toolboxes::create(&cx, &ops, &org, &format!("new {n}")).await.map(|_| ()) })
    };
    let tasks: Vec<_> = (0..9).map(create).collect();
    let mut created = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => created += 1,
            Err(error) => assert_eq!(error.code, Code::Conflict),
        }
    }
    assert_eq!(created, 3);
    assert_eq!(fixture.count("SELECT count(*) FROM toolboxes").await, MAX_TOOLBOXES as i64);
    toolboxes::create(cx, ops, &fixture.other, "first").await.unwrap();
}

async fn toolboxes_are_listed_and_renamed(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    for name in ["b", "a", "c"] {
        toolboxes::create(cx, ops, org, name).await.unwrap();
    }
    assert_eq!(code(toolboxes::create(cx, ops, org, "a").await), Code::Conflict);
    assert_eq!(code(toolboxes::create(cx, ops, org, " ").await), Code::InvalidArguments);
    let names = async |after, limit| -> Vec<String> {
        let found = toolboxes::list(cx, ops, org, after, limit).await.unwrap();
        found.into_iter().map(|view| view.toolbox.name).collect()
    };
    assert_eq!(names(None, 9).await, ["a", "b", "c"]);
    assert_eq!(names(Some("a"), 1).await, ["b"]);
    let a = toolboxes::resolve(cx, ops, org, "a").await.unwrap().toolbox.id;
    assert_eq!(toolboxes::resolve(cx, ops, org, a.as_str()).await.unwrap().toolbox.name, "a");
    assert_eq!(code(toolboxes::resolve(cx, ops, &fixture.other, a.as_str()).await), Code::NotFound);
    let rename = |name: &str| ToolboxPatch { name: Some(name.to_owned()) };
    assert_eq!(code(toolboxes::update(cx, ops, org, &a, &rename("b")).await), Code::Conflict);
    assert_eq!(toolboxes::update(cx, ops, org, &a, &rename("z")).await.unwrap().toolbox.name, "z");
    toolboxes::update(cx, ops, org, &a, &rename("z")).await.unwrap();
    toolboxes::update(cx, ops, org, &a, &ToolboxPatch::default()).await.unwrap();
    let updates = "SELECT count(*) FROM audit_events WHERE act = 'toolbox.update'";
    assert_eq!(fixture.count(updates).await, 1, "a rename to the same name is none");
}

async fn a_toolbox_with_instances_is_deleted_only_if_revoked(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let instance = fixture.create("search").await.instance;
    let error = toolboxes::delete(cx, ops, org, &daemon.id).await.unwrap_err();
    assert!(error.code == Code::Conflict && error.message.contains("`search`"), "{error}");
    let view = toolboxes::get(cx, ops, org, &daemon.id).await.unwrap();
    assert_eq!((view.allocated.instances, view.allocated.millicpus), (1, 500));
    toolboxes::revoke(cx, ops, org, &daemon.id).await.unwrap();
    toolboxes::delete(cx, ops, org, &daemon.id).await.unwrap();
    assert_eq!(code(toolboxes::get(cx, ops, org, &daemon.id).await), Code::NotFound);
    assert_eq!(code(instances::get(cx, ops, org, &instance.id).await), Code::NotFound);
    assert_eq!(code(toolboxes::delete(cx, ops, org, &daemon.id).await), Code::NotFound);
    let audited = "SELECT count(*) FROM audit_events WHERE act IN ('toolbox.delete', 'instance.delete')";
    assert_eq!(fixture.count(audited).await, 2);
}

async fn a_revoked_toolbox_is_cut_off(fixture: Fixture) {
    use waypost_link::Directory;
    let Fixture { ops, cx, org, directory, .. } = &fixture;
    fixture.subscribe().await;
    let daemon = fixture.daemon(org, "rack").await;
    let served = fixture.create("served").await.instance.id;
    daemon.complete(&served).await;
    let instance = fixture.create("search").await.instance;
    assert!(directory.desired_state(&daemon.id).await.unwrap().is_some());
    let revisions = directory.list_revisions(&[&daemon.id]).await.unwrap();
    assert_eq!(revisions, [(daemon.id.clone(), Some(3))]);
    let revoked = toolboxes::revoke(cx, ops, org, &daemon.id).await.unwrap();
    assert_eq!(revoked.state, ToolboxState::Revoked);
    let again = toolboxes::revoke(cx, ops, org, &daemon.id).await.unwrap();
    assert_eq!(again.toolbox.revoked_at, revoked.toolbox.revoked_at);
    assert!(directory.desired_state(&daemon.id).await.unwrap().is_none());
    assert_eq!(directory.list_revisions(&[&daemon.id]).await.unwrap(), [(daemon.id.clone(), None)]);
    let message = waypost_toolbox_proto::message::DaemonMessage::Heartbeat(heartbeat(Vec::new()));
    assert_eq!(code(directory.receive(&daemon.id, message).await.map(|_| ())), Code::NotFound);
    daemon.authenticate(&daemon.key, None).await.unwrap_err();
    assert_eq!(daemon.secrets(&instance.id, 1).await, None);
    let ended = deployments::list(cx, ops, org, &instance.id, None, 1).await.unwrap();
    assert_eq!(ended[0].error.as_ref().unwrap().code.as_str(), "toolbox_offline");
    // An instance that an earlier container serves keeps its state. The others fail.
    assert_eq!(fixture.instance(&instance.id).await.state.as_str(), "failed");
    let served = fixture.instance(&served).await;
    assert_eq!((served.state.as_str(), served.observed_generation), ("running", 1));
    assert_eq!(fixture.webhook_events().await, ["deployment.complete", "instance.failed"]);
    assert_eq!(code(toolboxes::rotate_key(cx, ops, org, &daemon.id).await), Code::Conflict);
    // A pending toolbox can be revoked as well; its token is then useless.
    let (pending, token) = toolboxes::create(cx, ops, org, "pending").await.unwrap();
    assert_eq!(code(toolboxes::rotate_key(cx, ops, org, &pending.toolbox.id).await), Code::Conflict);
    toolboxes::revoke(cx, ops, org, &pending.toolbox.id).await.unwrap();
    let request = join_request(token.token.expose(), &new_key());
    assert_eq!(code(toolboxes::join(cx, ops, &request).await), Code::Forbidden);
}

async fn an_outage_is_reported_once(fixture: Fixture) {
    let Fixture { ops, cx, org, clock, .. } = &fixture;
    fixture.subscribe().await;
    let daemon = fixture.daemon(org, "rack").await;
    toolboxes::create(cx, ops, org, "pending").await.unwrap();
    clock.advance(3 * MINUTE);
    assert_eq!(toolboxes::report_unresponsive(cx, ops).await.unwrap(), 0, "in time");
    clock.advance(1);
    assert_eq!(toolboxes::get(cx, ops, org, &daemon.id).await.unwrap().state, ToolboxState::Unresponsive);
    assert_eq!(toolboxes::report_unresponsive(cx, ops).await.unwrap(), 1);
    clock.advance(60 * MINUTE);
    assert_eq!(toolboxes::report_unresponsive(cx, ops).await.unwrap(), 0, "the same outage");
    assert_eq!(fixture.webhook_events().await, ["toolbox.unresponsive"]);
    daemon.heartbeat(Vec::new()).await;
    assert_eq!(toolboxes::get(cx, ops, org, &daemon.id).await.unwrap().state, ToolboxState::Online);
    clock.advance(4 * MINUTE);
    assert_eq!(toolboxes::report_unresponsive(cx, ops).await.unwrap(), 1, "another outage");
    toolboxes::revoke(cx, ops, org, &daemon.id).await.unwrap();
    clock.advance(60 * MINUTE);
    assert_eq!(toolboxes::report_unresponsive(cx, ops).await.unwrap(), 0);
}

async fn heartbeats_change_nothing_else(fixture: Fixture) {
    let Fixture { ops, cx, org, clock, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let audited = fixture.count("SELECT count(*) FROM audit_events").await;
    let version = fixture.count("SELECT version FROM config_version").await;
    let before = toolboxes::get(cx, ops, org, &daemon.id).await.unwrap().toolbox;
    clock.advance(MINUTE);
    assert_eq!(daemon.heartbeat(Vec::new()).await, None::<ControlMessage>);
    let after = toolboxes::get(cx, ops, org, &daemon.id).await.unwrap().toolbox;
    assert_eq!(after.last_seen_at, Some(cx.now()));
    assert_eq!(after.capacity.unwrap().cpus, 8.0);
    assert_eq!((after.updated_at, after.desired_revision), (before.updated_at, before.desired_revision));
    assert_eq!(fixture.count("SELECT count(*) FROM audit_events").await, audited);
    assert_eq!(fixture.count("SELECT version FROM config_version").await, version);
    // After a backup was restored, the daemon has seen a higher number.
    let ahead = waypost_toolbox_proto::message::Heartbeat { desired_revision: 41, ..heartbeat(Vec::new()) };
    daemon.receive(waypost_toolbox_proto::message::DaemonMessage::Heartbeat(ahead)).await;
    let after = toolboxes::get(cx, ops, org, &daemon.id).await.unwrap().toolbox;
    assert_eq!(after.desired_revision, 42);
}
