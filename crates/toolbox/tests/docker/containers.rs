use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptions, StartContainerOptions};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use waypost_toolbox::engine::docker::{DockerEngine, diagnose};
use waypost_toolbox::engine::{ContainerRequest, Engine, OutputChunk};
use waypost_toolbox_proto::{Transport, Volume};

use super::support::{read_all, read_until, run, secret_values, spec, with_everything};

waypost_testkit::needs_docker! {
    #[test]
    fn docker_stdio_is_attached_before_the_start_and_can_be_reattached() {
        run(|bed| async {
            let image = bed.image("stdio", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let request = bed.request("a", spec(&image, Transport::Stdio, &["echo"]));
            let mut exits = bed.engine.exits().await.unwrap();
            let started = bed.engine.start(&request, &BTreeMap::new()).await.unwrap();
            let id = started.container.id.clone();
            let mut attached = started.attached.unwrap();
            assert_eq!(attached.output.next().await, Some(Ok(OutputChunk::Stderr("ready\n".into()))));
            attached.stdin.write_all(b"one\n").await.unwrap();
            read_until(&mut attached.output, "echo one").await;

            // The connection is lost, as when the daemon is killed. The server's standard input stays open.
            drop(attached);
            let mut attached = bed.engine.attach(&id).await.unwrap();
            attached.stdin.write_all(b"two\n").await.unwrap();
            read_until(&mut attached.output, "echo two").await;

            let observed = bed.engine.containers().await.unwrap();
            assert_eq!(observed, std::slice::from_ref(&started.container));
            let container = &observed[0];
            assert!(container.running && container.pid.is_some() && container.started_at.is_some(), "{container:?}");
            assert_eq!((container.generation, container.exit_code, container.out_of_memory), (1, None, false));
            assert!(bed.engine.usage(&id).await.unwrap().pids >= 1);

            bed.engine.stop(&id, Duration::from_secs(0)).await.unwrap();
            let exit = exits.next().await.unwrap();
            assert_eq!((exit.container, exit.exit_code), (id.clone(), 137));
            assert_eq!(read_all(attached.output).await, "");
            let stopped = bed.engine.containers().await.unwrap().remove(0);
            assert_eq!((stopped.running, stopped.pid, stopped.exit_code), (false, None, Some(137)));

            // Stopping and removing are idempotent.
            bed.engine.stop(&id, Duration::from_secs(1)).await.unwrap();
            for _ in 0..2 {
                bed.engine.remove(&id).await.unwrap();
                bed.engine.remove_instance(&request.instance_id, true).await.unwrap();
                bed.engine.stop(&id, Duration::from_secs(1)).await.unwrap();
            }
            assert_eq!(bed.counts().await, (0, 0, 0, 0));
            assert!(bed.engine.instances().await.unwrap().is_empty());
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_containers_that_exit_at_once_are_returned() {
        run(|bed| async {
            let image = bed.image("exit", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let mut exits = bed.engine.exits().await.unwrap();
            let request = bed.request("a", spec(&image, Transport::StreamableHttp, &["exit", "3"]));
            let started = bed.engine.start(&request, &BTreeMap::new()).await.unwrap();
            let exit = exits.next().await.unwrap();
            assert_eq!(
                (&exit.container, exit.exit_code, &exit.instance_id),
                (&started.container.id, 3, &request.instance_id)
            );
            assert_eq!(bed.engine.containers().await.unwrap()[0].exit_code, Some(3));
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_failed_starts_leave_no_containers_or_secret_files() {
        run(|bed| async {
            let image = bed.image("failed", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let mut spec = with_everything(spec(&image, Transport::Stdio, &[]));
            spec.command = Some(vec!["/does-not-exist".into()]);
            let request = bed.request("a", spec);
            bed.engine.prepare(&request).await.unwrap();
            let error = bed.engine.start(&request, &secret_values()).await.err().unwrap();
            assert_eq!(error.code.as_str(), "start_failed");
            assert!(error.cause.contains("/does-not-exist"), "{error:?}");
            assert!(!error.cause.contains("docker/data") && !error.cause.contains("hunter2"), "{error:?}");
            assert_eq!(bed.counts().await, (0, 1, 1, 0));

            let error = bed.engine.start(&request, &BTreeMap::new()).await.err().unwrap();
            assert_eq!(error.code.as_str(), "secret_missing");
            assert_eq!(bed.counts().await, (0, 1, 1, 0));
            bed.engine.remove_instance(&request.instance_id, false).await.unwrap();
            assert_eq!(bed.counts().await, (0, 0, 1, 0));
            assert_eq!(bed.engine.instances().await.unwrap(), std::slice::from_ref(&request.instance_id));
            bed.engine.remove_instance(&request.instance_id, true).await.unwrap();
            assert_eq!(bed.counts().await, (0, 0, 0, 0));
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_networks_of_agents_are_removed_with_their_containers() {
        run(|bed| async {
            let image = bed.image("agents", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let for_agent = |agent: &str, command: Option<&str>| {
                let mut spec = spec(&image, Transport::Stdio, &["wait"]);
                spec.command = command.map(|command| vec![command.into()]);
                ContainerRequest { key: Some(agent.into()), ..bed.request("a", spec) }
            };
            let mut ids = Vec::new();
            for agent in ["agt_1", "agt_2", "agt_3"] {
                let request = for_agent(agent, None);
                bed.engine.prepare(&request).await.unwrap();
                ids.push(bed.engine.start(&request, &BTreeMap::new()).await.unwrap().container.id);
            }
            assert_eq!(bed.counts().await, (3, 3, 0, 0));
            let failing = for_agent("agt_4", Some("/does-not-exist"));
            let error = bed.engine.start(&failing, &BTreeMap::new()).await.err().unwrap();
            assert_eq!((error.code.as_str(), bed.counts().await), ("start_failed", (3, 3, 0, 0)));
            bed.engine.remove(&ids[0]).await.unwrap();
            assert_eq!(bed.counts().await, (2, 2, 0, 0));
            // A container is removed by someone other than the daemon.
            let options = RemoveContainerOptions { force: true, v: true, link: false };
            bed.docker.remove_container(&ids[1], Some(options)).await.unwrap();
            assert_eq!(bed.counts().await, (1, 2, 0, 0));
            let second = DockerEngine::connect(bed.options.clone()).await.unwrap();
            assert_eq!(bed.counts().await, (1, 1, 0, 0));
            second.remove_instance(&failing.instance_id, true).await.unwrap();
            assert_eq!(bed.counts().await, (0, 0, 0, 0));
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_volumes_of_a_generation_are_removed() {
        run(|bed| async {
            let image = bed.image("volumes", &[]).await;
            let volume = |name: &str| Volume { name: name.into(), path: format!("/{name}") };
            let with = |generation, names: &[&str]| {
                let mut spec = spec(&image, Transport::Stdio, &["wait"]);
                spec.volumes = names.iter().map(|name| volume(name)).collect();
                ContainerRequest { generation, ..bed.request("a", spec) }
            };
            bed.engine.prepare(&with(1, &["one"])).await.unwrap();
            bed.engine.prepare(&with(2, &["one", "two", "kept"])).await.unwrap();
            let id = &with(2, &[]).instance_id;
            assert_eq!(bed.counts().await.2, 3);
            bed.engine.remove_volumes(id, 3, &[]).await.unwrap();
            bed.engine.remove_volumes("ins_other", 2, &[]).await.unwrap();
            assert_eq!(bed.counts().await.2, 3);
            for _ in 0..2 {
                bed.engine.remove_volumes(id, 2, &["kept".to_owned()]).await.unwrap();
                assert_eq!(bed.counts().await.2, 2, "`one` was created by generation 1, and `kept` is excluded");
            }
            bed.engine.remove_instance(id, true).await.unwrap();
            assert_eq!(bed.counts().await.2, 0);
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_http_servers_are_reached_in_their_network_namespace() {
        run(|bed| async {
            let image = bed.image("http", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let request = bed.request("a", spec(&image, Transport::StreamableHttp, &["serve", "8080"]));
            let started = bed.engine.start(&request, &BTreeMap::new()).await.unwrap();
            assert!(started.attached.is_none());
            let id = started.container.id;
            let namespace = bed.engine.network_namespace(&id).await.unwrap();
            let address = "127.0.0.1:8080".parse().unwrap();
            let mut stream = loop {
                if let Ok(stream) = namespace.tcp_connect(address, Duration::from_secs(5)).await {
                    break stream;
                }
            };
            stream.write_all(b"hello").await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"pong");
            let mut logs = bed.engine.logs(&id).await.unwrap();
            assert_eq!(logs.next().await, Some(Ok(OutputChunk::Stdout("listening\n".into()))));
            assert_eq!(logs.next().await, Some(Ok(OutputChunk::Stderr("received hello\n".into()))));
            let later = bed.engine.logs(&id).await.unwrap();
            bed.engine.stop(&id, Duration::ZERO).await.unwrap();
            assert_eq!((read_all(logs).await, read_all(later).await), (String::new(), String::new()));
            // Nothing listens on this address outside the container.
            assert!(tokio::net::TcpStream::connect(address).await.is_err());
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_containers_reach_the_sockets_of_the_daemon() {
        run(|bed| async {
            let image = bed.image("sockets", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let request = bed.request("a", spec(&image, Transport::Stdio, &["daemon-sockets"]));
            let started = bed.engine.start(&request, &BTreeMap::new()).await.unwrap();
            let id = started.container.id;
            let mut attached = started.attached.unwrap();
            let namespace = bed.engine.network_namespace(&id).await.unwrap();
            let proxy = namespace.tcp_listen("127.0.0.1:3128".parse().unwrap()).await.unwrap();
            let dns = namespace.udp_bind("127.0.0.1:53".parse().unwrap()).await.unwrap();
            attached.stdin.write_all(b"go\n").await.unwrap();
            let mut buffer = [0; 512];
            proxy.accept().await.unwrap().0.read_exact(&mut buffer[..5]).await.unwrap();
            assert_eq!(&buffer[..5], b"hello");
            // The query for `api.example` arrives through the engine's own DNS server. The answer is 127.0.0.9.
            let (length, client) = dns.recv_from(&mut buffer).await.unwrap();
            let mut answer = buffer[..length].to_vec();
            assert!(answer.windows(12).any(|part| part == b"\x03api\x07example"), "{answer:?}");
            answer.truncate(12 + 13 + 4);
            answer[2..12].copy_from_slice(b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00");
            answer.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x09");
            dns.send_to(&answer, client).await.unwrap();
            assert_eq!(read_until(&mut attached.output, "answer=").await, "proxy=ok\nanswer=[127, 0, 0, 9]\n");
            // An open namespace does not prevent the removal of its container. Connections in it fail.
            bed.engine.remove(&id).await.unwrap();
            assert!(bed.engine.network_namespace(&id).await.is_err());
            assert!(namespace.tcp_connect("127.0.0.1:9".parse().unwrap(), Duration::from_secs(5)).await.is_err());
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_foreign_containers_are_neither_listed_nor_changed() {
        run(|bed| async {
            let image = bed.image("others", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let own = &bed.options.toolbox_id;
            let cases: [&[(&str, &str)]; 3] = [
                &[("dev.waypost.toolbox", own)],
                &[("dev.waypost.toolbox", own), ("dev.waypost.instance", "ins_1"), ("dev.waypost.generation", "1")],
                &[("dev.waypost.toolbox", "tbx_other"), ("dev.waypost.instance", "ins_1"), ("dev.waypost.generation", "1")],
            ];
            let mut ids = Vec::new();
            for labels in cases {
                let labels: HashMap<_, _> =
                    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                let body = ContainerCreateBody {
                    image: Some(image.clone()),
                    cmd: Some(vec!["wait".into()]),
                    labels: Some(labels),
                    host_config: Some(HostConfig { network_mode: Some("none".into()), ..HostConfig::default() }),
                    ..ContainerCreateBody::default()
                };
                let id = bed.docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
                bed.docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
                ids.push(id);
            }
            let second = DockerEngine::connect(bed.options.clone()).await.unwrap();
            assert!(second.containers().await.unwrap().is_empty());
            second.remove_instance("ins_1", true).await.unwrap();
            for id in &ids {
                second.remove(id).await.unwrap();
                second.stop(id, Duration::ZERO).await.unwrap();
                assert!(second.usage(id).await.is_err() && second.logs(id).await.is_err());
                assert!(second.attach(id).await.is_err() && second.network_namespace(id).await.is_err());
                assert_eq!(bed.inspect(id).await.state.unwrap().running, Some(true));
            }
            for id in &ids {
                let options = RemoveContainerOptions { force: true, v: true, link: false };
                bed.docker.remove_container(id, Some(options)).await.unwrap();
            }
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_foreign_networks_and_volumes_are_not_used() {
        run(|bed| async {
            let image = bed.image("names", &[]).await;
            let request = bed.request("names", with_everything(spec(&image, Transport::Stdio, &["wait"])));
            let name = format!("waypost-{}", request.instance_id);
            let network =
                NetworkCreateRequest { name: name.clone(), internal: Some(true), ..NetworkCreateRequest::default() };
            bed.docker.create_network(network).await.unwrap();
            let error = bed.engine.prepare(&request).await.unwrap_err();
            bed.docker.remove_network(&name).await.unwrap();
            assert!(error.cause.contains(&name), "{error:?}");

            let volume = format!("{name}-data");
            let config = VolumeCreateRequest { name: Some(volume.clone()), ..VolumeCreateRequest::default() };
            bed.docker.create_volume(config).await.unwrap();
            let error = bed.engine.prepare(&request).await.unwrap_err();
            bed.engine.remove_instance(&request.instance_id, true).await.unwrap();
            bed.docker.remove_volume(&volume, None::<bollard::query_parameters::RemoveVolumeOptions>).await.unwrap();
            assert!(error.cause.contains(&volume), "{error:?}");
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_leftovers_are_removed_when_the_daemon_starts() {
        run(|bed| async {
            let image = bed.image("leftovers", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let request = bed.request("a", with_everything(spec(&image, Transport::Stdio, &["wait"])));
            let started = bed.engine.start(&request, &secret_values()).await.unwrap();
            let orphan = bed.secrets().join("ins_gone/waypost-gone-1");
            fs::create_dir_all(&orphan).unwrap();
            fs::write(orphan.join("TOKEN"), "hunter2").unwrap();
            let body = ContainerCreateBody {
                image: Some(image),
                labels: Some(HashMap::from([
                    ("dev.waypost.toolbox".into(), bed.options.toolbox_id.clone()),
                    ("dev.waypost.probe".into(), "true".into()),
                ])),
                ..ContainerCreateBody::default()
            };
            bed.docker.create_container(None::<CreateContainerOptions>, body).await.unwrap();
            assert_eq!(bed.counts().await, (2, 1, 1, 2));
            let second = DockerEngine::connect(bed.options.clone()).await.unwrap();
            assert_eq!(bed.counts().await, (1, 1, 1, 1));
            assert_eq!(second.containers().await.unwrap(), [started.container]);
            assert!(!bed.secrets().join("ins_gone").exists());
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_diagnosis_says_what_is_missing() {
        run(|bed| async {
            assert_eq!(diagnose(&bed.options).await, None);
            let mut options = bed.options.clone();
            options.docker_host = Some("unix:///does/not/exist.sock".into());
            let text = diagnose(&options).await.unwrap();
            assert!(text.starts_with("There is no container engine at /does/not/exist.sock. Install Docker"), "{text}");
            options.docker_host = Some("tcp://127.0.0.1:2375".into());
            assert!(diagnose(&options).await.unwrap().contains("--docker-host"));
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let options =
                waypost_toolbox::engine::EngineOptions { secrets_dir: folder.path().into(), ..bed.options.clone() };
            let text = diagnose(&options).await.unwrap();
            assert!(text.contains("not on a tmpfs") && text.contains("mount -t tmpfs"), "{text}");

            let info = bed.engine.info().await.unwrap();
            assert!(info.engine.runtime.starts_with("runc ") && info.engine.os == "linux", "{info:?}");
            assert!(info.capacity.cpus >= 1.0 && info.capacity.disk_free_bytes > 0 && info.capacity.memory_bytes > 0);
        });
    }
}
