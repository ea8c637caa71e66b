//! Tests of the harness itself, on which the other tests rely.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use http::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine::{Engine, Scratch};
use crate::image::{Image, host_architecture};
use crate::leak::{assert_nothing_left, leftovers};
use crate::netns::in_network_of;
use crate::own_engine::OwnEngine;
use crate::registry::{CREDENTIALS, Options, Registry, Trust};
use crate::waypost::Waypost;

/// Returns the request for a container with open standard input and no network.
fn stdio_container(image: &str) -> Value {
    json!({ "Image": image, "OpenStdin": true, "StdinOnce": false, "HostConfig": { "NetworkMode": "none" } })
}

/// Returns the text of the result of a tool call.
fn text_of(response: &Value) -> &str {
    response["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {response}"))
}

fn echo(text: &str) -> Value {
    json!({ "name": "echo", "arguments": { "text": text } })
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_is_pulled_by_digest_and_serves_mcp_over_stdio_docker() {
        let (engine, registry) = (Engine::shared(), Registry::start().await);
        let image = registry.push("stdio", &Image::new(&["noise"]).label("dev.waypost.test", "noise")).await;
        engine.pull(&image, None).unwrap();
        let pulled = engine.inspect_image(&image);
        assert_eq!(pulled["RepoDigests"], json!([image]));
        assert_eq!(pulled["Config"]["Labels"]["dev.waypost.test"], "noise");
        assert_eq!(pulled["Architecture"], host_architecture());
        let scratch = Scratch::new(&engine);
        let container = scratch.container(stdio_container(&image));
        let mut attached = engine.attach(&container);
        engine.start(&container);
        assert_eq!([attached.line(), attached.line(), attached.line()], ["Starting…\n", "{\"level\":\"info\"}\n", "\n"]);
        let initialized = attached.request(1, "initialize", json!({ "protocolVersion": "2025-06-18" }));
        assert_eq!(initialized["result"]["protocolVersion"], "2025-06-18");
        assert_eq!(text_of(&attached.request(2, "tools/call", echo("over stdio"))), "over stdio");
        assert_eq!(engine.inspect(&container)["Config"]["User"], "65534:65534");
        engine.kill(&container);
        assert_eq!(engine.wait(&container), 137);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_without_gateway_serves_mcp_in_its_network_namespace_docker() {
        let (engine, registry) = (Engine::shared(), Registry::start().await);
        let image = registry.push("http", &Image::http().in_index()).await;
        engine.pull(&image, None).unwrap();
        let scratch = Scratch::new(&engine);
        let options = json!({ "com.docker.network.bridge.inhibit_ipv4": "true" });
        let network = scratch.network(json!({ "Internal": true, "Options": options }));
        let container = scratch.container(json!({ "Image": image, "HostConfig": { "NetworkMode": network } }));
        engine.start(&container);
        let pid = engine.inspect(&container)["State"]["Pid"].as_i64().unwrap();
        let response = in_network_of(pid, || post(8080, "tools/call", &echo("over HTTP")));
        assert_eq!(text_of(&response), "over HTTP");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn images_have_the_users_of_their_configuration_docker() {
        let (engine, registry) = (Engine::shared(), Registry::start().await);
        let scratch = Scratch::new(&engine);
        let images = [
            (Image::stdio(), "65534:65534"),
            (Image::stdio().user("1000:1000"), "1000:1000"),
            (Image::stdio().user("0"), "0"),
            (Image::stdio().user(""), ""),
            (Image::stdio().named_user("root", 0), "root"),
            (Image::stdio().named_user("app", 1001), "app"),
        ];
        for (image, user) in images {
            let image = registry.push("user", &image).await;
            engine.pull(&image, None).unwrap();
            assert_eq!(engine.inspect_image(&image)["Config"]["User"], user);
            let container = scratch.container(stdio_container(&image));
            let mut attached = engine.attach(&container);
            // A name exists only if the engine finds `/etc/passwd` in the image.
            engine.start(&container);
            assert_eq!(text_of(&attached.request(1, "tools/call", echo(user))), user);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn images_that_cannot_run_fail_with_the_errors_of_the_engine_docker() {
        let (engine, registry) = (Engine::shared(), Registry::start().await);
        let missing = engine.pull(&registry.missing("missing"), None).unwrap_err();
        assert!(missing.status == 404 && missing.message.contains("not found"), "{missing:?}");
        let foreign = Image::stdio().architecture("s390x");
        let index = registry.push("foreign", &foreign.clone().in_index()).await;
        let refused = engine.pull(&index, None).unwrap_err();
        assert!(refused.message.contains("no matching manifest"), "{refused:?}");
        let image = registry.push("foreign", &foreign).await;
        engine.pull(&image, None).expect("the engine does not check the architecture of an image without index");
        assert_eq!(engine.inspect_image(&image)["Architecture"], "s390x");
        let image = registry.push("no-program", &Image::stdio().entrypoint(&["/missing"])).await;
        engine.pull(&image, None).unwrap();
        let scratch = Scratch::new(&engine);
        let container = scratch.container(stdio_container(&image));
        let start = format!("/containers/{container}/start");
        let refused = engine.try_call("POST", &start, &Value::Null).unwrap_err();
        assert!(refused.message.contains("/missing"), "{refused:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_registry_with_credentials_rejects_requests_without_them_docker() {
        let engine = Engine::shared();
        let registry = Registry::start_with(Options { with_credentials: true, ..Options::default() }).await;
        let image = registry.push("private", &Image::stdio()).await;
        let refused = engine.pull(&image, None).unwrap_err();
        assert!(refused.message.contains("no basic auth credentials"), "{refused:?}");
        engine.pull(&image, Some((CREDENTIALS.0, "wrong"))).unwrap_err();
        engine.pull(&image, Some(CREDENTIALS)).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_engine_must_trust_the_authority_of_a_registry_with_tls_docker() {
        let engine = Engine::shared();
        let scratch = Scratch::new(&engine);
        let address = engine.host_address(&scratch.network(json!({}))).parse().unwrap();
        let registry = Registry::start_with(Options { address, with_tls: true, ..Options::default() }).await;
        let image = registry.push("tls", &Image::stdio()).await;
        let refused = engine.pull(&image, None).unwrap_err();
        assert!(refused.message.contains("certificate"), "{refused:?}");
        let _trust = Trust::of(&registry);
        engine.pull(&image, None).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn leftovers_are_found_docker() {
        let (engine, registry) = (Engine::shared(), Registry::start().await);
        let image = registry.push("leak", &Image::stdio()).await;
        engine.pull(&image, None).unwrap();
        let (secrets, toolbox) = (waypost_testkit::folder(), format!("tbx_test{}", std::process::id()));
        let labels = json!({ "dev.waypost.toolbox": toolbox });
        {
            let scratch = Scratch::new(&engine);
            let mut container = stdio_container(&image);
            container["Labels"] = labels.clone();
            let container = scratch.container(container);
            let network = scratch.network(json!({ "Internal": true, "Labels": labels }));
            let volume = scratch.volume(json!({ "Labels": labels }));
            std::fs::create_dir(secrets.path().join("ins_test")).unwrap();
            let file = secrets.path().join("ins_test/token");
            std::fs::write(&file, "secret").unwrap();
            let network = engine.call("GET", &format!("/networks/{network}"), &Value::Null)["Name"].take();
            let expected = [
                format!("container {container}"),
                format!("network {}", network.as_str().unwrap()),
                format!("volume {volume}"),
                format!("file {}", file.display()),
            ];
            assert_eq!(leftovers(&engine, &format!("dev.waypost.toolbox={toolbox}"), secrets.path()), expected);
            std::fs::remove_file(file).unwrap();
        }
        assert_nothing_left(&engine, &toolbox, secrets.path());
    }
}

waypost_testkit::needs_dockerd! {
    #[tokio::test(flavor = "multi_thread")]
    async fn an_engine_can_be_killed_and_started_again_docker() {
        let own = OwnEngine::start();
        let (engine, registry) = (own.engine(), Registry::start().await);
        let image = registry.push("own", &Image::stdio()).await;
        engine.pull(&image, None).unwrap();
        let scratch = Scratch::new(engine);
        let mut container = stdio_container(&image);
        container["StopTimeout"] = json!(1);
        let container = scratch.container(container);
        engine.start(&container);
        let pid = engine.inspect(&container)["State"]["Pid"].as_i64().unwrap();
        own.kill();
        assert!(Path::new(&format!("/proc/{pid}/exe")).exists(), "the container continues to run");
        own.start_again();
        // Without `live-restore`, which is Debian's default, an engine stops the containers of its previous process
        // when it starts.
        assert_eq!(engine.inspect(&container)["State"]["Running"], false);
        own.signal(Signal::STOP);
        let folder = own.folder().to_owned();
        drop(own);
        assert!(!folder.exists(), "everything is removed");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_engine_can_have_a_small_disk_docker() {
        let own = OwnEngine::with_disk("8m");
        let registry = Registry::start().await;
        let noise: Vec<u8> = (0_u32..4_000_000).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let large = Image::stdio().file("large", 0o644, &[noise.as_slice(), &noise, &noise].concat());
        let image = registry.push("large", &large).await;
        let refused = own.engine().pull(&image, None).unwrap_err();
        assert!(refused.message.contains("no space left on device"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_runs_as_a_child_process_and_is_killed() {
    let mut waypost = Waypost::start().await;
    let (status, servers) = waypost.api(Method::GET, "/servers", &Value::Null).await;
    assert_eq!((status, &servers["items"]), (StatusCode::OK, &json!([])), "{servers}");
    waypost.kill().await;
    waypost.start_again().await;
    let (status, _) = waypost.api(Method::GET, "/organizations", &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
}

/// Sends an MCP request to a port on loopback, and returns the response.
fn post(port: u16, method: &str, params: &Value) -> Value {
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut stream = loop {
        // The engine reports that a container runs before its program listens.
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let length = message.len();
    write!(stream, "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{message}").unwrap();
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::from("first"), 0);
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}
