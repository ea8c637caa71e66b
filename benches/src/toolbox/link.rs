//! The cost of the link and the daemon: the benchmark is the control plane of a real daemon, and calls a server through
//! the link, over the engine's attached streams, and over the pipes of a child process.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use bytes::Bytes;
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use waypost_core::id::{InstanceId, ToolboxId};
use waypost_core::random::SystemRandom;
use waypost_link::{BoxFuture, Directory, Links, verify};
use waypost_toolbox_proto::desired::DesiredState;
use waypost_toolbox_proto::handshake::{Challenge, Hello, JOIN_PATH, JoinRequest, JoinResponse, LINK_PATH, Rejection};
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage};

use crate::installation::{Daemon, poll};
use crate::server_program;
use crate::toolbox::Setup;

/// The number of calls before the measurement.
const WARM_UP: usize = 50;
/// The number of this daemon, after those of the other measurements.
const LINK_DAEMON: u8 = super::MAX_DAEMONS;
/// The maximum size of an answer in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// The durations of calls in seconds.
pub struct Calls {
    /// Through the link and the daemon.
    pub link: Vec<f64>,
    /// Over the streams of a container that the benchmark attached itself.
    pub attached: Vec<f64>,
    /// Over the pipes of a child process.
    pub pipe: Vec<f64>,
}

/// A control plane with one toolbox, which never changes.
struct Plane {
    links: Links,
    toolbox: ToolboxId,
    origin: String,
    desired: DesiredState,
    /// The key with which the daemon joined.
    public_key: Mutex<String>,
}

impl Directory for Plane {
    fn authenticate<'a>(
        &'a self,
        challenge: &'a Challenge,
        hello: &'a Hello,
    ) -> BoxFuture<'a, Result<ToolboxId, Rejection>> {
        Box::pin(async move {
            let mut key = self.public_key.lock().unwrap_or_else(PoisonError::into_inner);
            verify(challenge, hello, &key, &[&self.origin])?;
            if let Some(next) = &hello.next_public_key {
                key.clone_from(next);
            }
            Ok(self.toolbox.clone())
        })
    }

    fn desired_state<'a>(&'a self, _: &'a ToolboxId) -> BoxFuture<'a, waypost_core::Result<Option<DesiredState>>> {
        Box::pin(async { Ok(Some(self.desired.clone())) })
    }

    fn receive<'a>(
        &'a self,
        _: &'a ToolboxId,
        message: DaemonMessage,
    ) -> BoxFuture<'a, waypost_core::Result<Option<ControlMessage>>> {
        Box::pin(async move {
            Ok(match message {
                DaemonMessage::Heartbeat(_) => None,
                DaemonMessage::Event { sequence, .. } => Some(ControlMessage::Acknowledge { sequence }),
                DaemonMessage::SecretRequest { request, .. } => {
                    Some(ControlMessage::Secrets { request, secrets: None })
                }
            })
        })
    }
}

async fn join(State(plane): State<Arc<Plane>>, Json(request): Json<JoinRequest>) -> Json<JoinResponse> {
    *plane.public_key.lock().unwrap_or_else(PoisonError::into_inner) = request.public_key;
    Json(JoinResponse { toolbox_id: plane.toolbox.as_str().to_owned(), name: "benchmark".to_owned() })
}

async fn open_link(State(plane): State<Arc<Plane>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let (Some(upgrade), Some(response)) = (upgrade, waypost_link::upgrade_response(parts)) else {
        return StatusCode::UPGRADE_REQUIRED.into_response();
    };
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            let links = plane.links.clone();
            let _ = links.accept(TokioIo::new(stream), &SystemRandom, plane).await;
        }
    });
    response.map(|()| axum::body::Body::empty())
}

/// Measures `count` calls of each kind, alternately.
pub async fn measure(setup: &Setup<'_>, image: &str, count: usize) -> Result<Calls> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let (toolbox, instance) = (ToolboxId::new(&SystemRandom), InstanceId::new(&SystemRandom));
    let desired = serde_json::from_value(json!({ "revision": 1, "instances": [{
        "id": instance.as_str(), "slug": "link", "generation": 1, "deployment_id": "dep_benchmark", "run": true,
        "spec": { "image": image, "transport": "stdio", "resources": "light", "sharing": "shared" },
    }]}))?;
    let public_key = Mutex::default();
    let plane = Plane { links: Links::new(), toolbox: toolbox.clone(), origin: origin.clone(), desired, public_key };
    let plane = Arc::new(plane);
    let links = plane.links.clone();
    let router = Router::new().route(JOIN_PATH, post(join)).route(LINK_PATH, get(open_link)).with_state(plane);
    // As `waypost serve` does.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let token = format!("wpt_{}", crate::process::random_hex(16)?);
    let place = (toolbox.as_str().to_owned(), origin.as_str(), token.as_str(), LINK_DAEMON);
    let daemon = Daemon::join(setup.program, setup.engine, setup.folder, place).await?;
    let path = format!("/v1/instances/{}/mcp", instance.as_str());
    let call = async |number: usize| -> Result<(u16, Bytes)> {
        let request = http::Request::post(&path).body(Bytes::from(message(number)))?;
        let response = links.request(&toolbox, request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().read_to_end(MAX_BYTES).await?))
    };
    poll("a call through the link", async || Ok(call(0).await?.0 == 200)).await?;
    let mut attached = Attachment::open(setup, image).await?;
    let mut pipe = Pipe::open().await?;
    let mut calls = Calls { link: Vec::new(), attached: Vec::new(), pipe: Vec::new() };
    for number in 1..=WARM_UP + count {
        let started = Instant::now();
        let (status, answer) = call(number).await?;
        let link = started.elapsed().as_secs_f64();
        ensure!(status == 200, "a call through the link: {status} {}", String::from_utf8_lossy(&answer));
        check(&answer, number)?;
        let through_engine = attached.call(number).await?;
        let through_pipe = pipe.call(number).await?;
        if number > WARM_UP {
            calls.link.push(link);
            calls.attached.push(through_engine);
            calls.pipe.push(through_pipe);
        }
    }
    daemon.stop().await?;
    server.abort();
    Ok(calls)
}

fn message(number: usize) -> String {
    let params = json!({ "name": "echo", "arguments": { "text": format!("text {number}") } });
    json!({ "jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params }).to_string()
}

fn check(answer: &[u8], number: usize) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    ensure!(answer["result"]["content"][0]["text"] == format!("text {number}"), "a wrong answer: {answer}");
    Ok(())
}

/// A child process.
struct Pipe {
    _child: tokio::process::Child,
    input: tokio::process::ChildStdin,
    output: BufReader<tokio::process::ChildStdout>,
}

impl Pipe {
    async fn open() -> Result<Self> {
        let mut command = Command::new(server_program::path());
        let command = command.arg("stdio").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take().context("stdin")?, child.stdout.take().context("stdout")?);
        Ok(Self { _child: child, input, output: BufReader::new(output) })
    }

    /// Calls the tool and returns the duration in seconds.
    async fn call(&mut self, number: usize) -> Result<f64> {
        let (mut line, text) = (String::new(), message(number) + "\n");
        let started = Instant::now();
        self.input.write_all(text.as_bytes()).await?;
        self.output.read_line(&mut line).await?;
        let seconds = started.elapsed().as_secs_f64();
        check(line.as_bytes(), number)?;
        Ok(seconds)
    }
}

/// A container whose streams the benchmark uses itself, on a blocking thread.
struct Attachment {
    calls: std::sync::mpsc::Sender<(usize, tokio::sync::oneshot::Sender<(f64, Value)>)>,
}

impl Attachment {
    async fn open(setup: &Setup<'_>, image: &str) -> Result<Self> {
        let (engine, image) = (setup.engine.clone(), image.to_owned());
        let (calls, received) = std::sync::mpsc::channel::<(usize, tokio::sync::oneshot::Sender<(f64, Value)>)>();
        std::thread::spawn(move || {
            let scratch = crate::engine::Scratch::new(&engine);
            let container = scratch.container(super::bare_container(&image));
            let mut attached = engine.attach(&container);
            engine.start(&container);
            for (number, done) in received {
                let params = json!({ "name": "echo", "arguments": { "text": format!("text {number}") } });
                let id = u32::try_from(number).unwrap_or(u32::MAX);
                let started = Instant::now();
                let answer = attached.request(id, "tools/call", params);
                let _ = done.send((started.elapsed().as_secs_f64(), answer));
            }
        });
        Ok(Self { calls })
    }

    async fn call(&mut self, number: usize) -> Result<f64> {
        let (done, answer) = tokio::sync::oneshot::channel();
        self.calls.send((number, done)).map_err(|_| anyhow::anyhow!("the attached container failed"))?;
        let (seconds, answer) = answer.await.context("the attached container failed")?;
        check(answer.to_string().as_bytes(), number)?;
        Ok(seconds)
    }
}
