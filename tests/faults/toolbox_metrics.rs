//! The metrics of toolboxes, instances and deployments in `/metrics` of the running program.

use serde_json::json;
use tokio::time::timeout;
use waypost_core::caller::Ctx;
use waypost_core::id::ToolboxId;
use waypost_core::seal::SecretText;
use waypost_ops::instances::{self, CatalogServer, NewInstance, NewServer};
use waypost_ops::{Ops, catalog, toolboxes};
use waypost_outbound::unguarded_client;
use waypost_toolbox::control::Control;
use waypost_toolbox::join::{Join, join};
use waypost_toolbox::link::{Link, Status};
use waypost_toolbox_proto::instance::InstanceState;
use waypost_toolbox_proto::message::{DeploymentOutcome, InstanceReport, ToolboxEvent};

use crate::installation::{Installation, TIMEOUT};
use crate::link_client;
use crate::program::{ServeProcess, configure, run_command, waypost_command};

/// Starts the program. Returns it with the URL of its metrics.
async fn start(installation: &Installation) -> (ServeProcess, String) {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_waypost"));
    configure(&mut command, installation, &["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", &address]);
    (ServeProcess::run(command, &installation.data_dir()).await, format!("http://{address}/metrics"))
}

async fn read(metrics: &str) -> String {
    unguarded_client().build().unwrap().get(metrics).send().await.unwrap().text().await.unwrap()
}

/// Waits until the metrics contain all lines.
async fn wait_for(metrics: &str, lines: &[&str]) {
    let mut text = String::new();
    let is_missing = |text: &str, line: &str| text.lines().all(|found| found != line);
    let found = async {
        while lines.iter().any(|line| is_missing(&text, line)) {
            text = read(metrics).await;
        }
    };
    let in_time = timeout(TIMEOUT, found).await;
    assert!(in_time.is_ok(), "{lines:?} are not in:\n{text}");
}

/// Asserts that the metrics contain a line with each of these beginnings.
async fn assert_has(metrics: &str, beginnings: &[&str]) {
    let text = read(metrics).await;
    for beginning in beginnings {
        assert!(text.lines().any(|line| line.starts_with(beginning)), "{beginning} is not in:\n{text}");
    }
}

/// Joins with the token, and opens a link without a container engine.
async fn open_link(url: String, token: &SecretText, folder: &waypost_testkit::TempDir) -> Link {
    let request = Join { url, token: token.expose().to_owned(), data_dir: folder.path().to_owned(), ca_pem: None };
    let identity = join(request).await.unwrap();
    link_client::open(identity, folder.path(), link_client::heartbeat()).await
}

async fn new_instance(cx: &Ctx, ops: &Ops, installation: &Installation, toolbox_id: ToolboxId) -> NewInstance {
    let entry = json!({
        "slug": "search", "name": "Search", "version": "1", "transport": "stdio",
        "source": { "image": format!("registry.example/search@sha256:{}", "ab".repeat(32)) },
    });
    let entry = entry.to_string();
    let imported = catalog::import_text(cx, ops, &installation.organization, "entry.json", &entry);
    NewInstance {
        slug: "search".to_owned(),
        name: None,
        server: NewServer::Catalog(CatalogServer {
            catalog_version_id: imported.await.unwrap().version_id,
            toolbox_id: Some(toolbox_id),
            config: serde_json::Map::new(),
            personal_secrets: Default::default(),
            learn_egress: false,
        }),
        secrets: Default::default(),
        access: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn toolboxes_and_deployments_are_in_the_metrics() {
    let installation = Installation::sqlite().await;
    let (program, metrics) = start(&installation).await;
    wait_for(&metrics, &["waypost_toolboxes{state=\"pending\"} 0", "waypost_instances{state=\"running\"} 0"]).await;
    let (cx, ops, org) = (Ctx::operator(), installation.ops().await, &installation.organization);
    let (toolbox, token) = toolboxes::create(&cx, &ops, org, "rack").await.unwrap();
    let folder = waypost_testkit::folder();
    let link = open_link(program.origin().to_owned(), &token.token, &folder).await;
    let new = new_instance(&cx, &ops, &installation, toolbox.toolbox.id.clone()).await;
    let created = instances::create(&cx, &ops, org, &new).await.unwrap();
    let (id, deployment) = (created.instance.id.to_string(), created.deployment.unwrap());
    let (deployment_id, instance_id) = (deployment.id.to_string(), id.clone());
    link.report(ToolboxEvent::DeploymentEnded { deployment_id, instance_id, outcome: DeploymentOutcome::Complete });
    link.report(ToolboxEvent::Instance(InstanceReport {
        id: id.clone(),
        generation: 1,
        state: InstanceState::Running,
        health: None,
    }));
    let ended = "waypost_deployments_total{outcome=\"complete\",code=\"none\"} 1";
    wait_for(&metrics, &["waypost_toolbox_links 1", ended, "waypost_deployment_seconds_count{outcome=\"complete\"} 1"])
        .await;
    let call = ["instance", "call", "search", "find", "--org", "demo"];
    assert_eq!(run_command(waypost_command(&installation, &call)).await.code, Some(1), "the toolbox has no server");
    let calls = ["waypost_toolbox_requests_total{", "waypost_toolbox_request_seconds_count{"];
    assert_has(&metrics, &calls).await;
    assert_has(&metrics, &["waypost_instance_calls_total{", "waypost_instance_call_seconds_count{"]).await;
    toolboxes::revoke(&cx, &ops, org, &toolbox.toolbox.id).await.unwrap();
    let rejected = async |link: &Link| {
        link.status().wait_for(|status| matches!(status, Status::Unauthorized(_))).await.unwrap();
    };
    timeout(TIMEOUT, rejected(&link)).await.expect("the key is rejected");
    wait_for(&metrics, &["waypost_toolbox_links 0"]).await;
    assert_has(&metrics, &["waypost_toolbox_handshakes_rejected_total{"]).await;
    link.stop().await;
    program.stop().await;
    // The numbers by state are read when the program starts, and then twice a minute.
    let (program, metrics) = start(&installation).await;
    let counts = [
        "waypost_toolboxes{state=\"revoked\"} 1",
        "waypost_toolboxes{state=\"online\"} 0",
        "waypost_instances{state=\"running\"} 1",
        "waypost_instances{state=\"failed\"} 0",
    ];
    wait_for(&metrics, &counts).await;
    program.stop().await;
}
