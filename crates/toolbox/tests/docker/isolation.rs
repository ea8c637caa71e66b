use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bollard::Docker;
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use waypost_toolbox::engine::Engine;
use waypost_toolbox_proto::{Transport, Volume};

use super::support::{Bed, read_all, read_until, run, secret_values, spec, with_everything};

/// Compares the configuration that the engine reports with the isolation list in the documentation.
fn check_isolation(inspected: &Value, instance: &str, toolbox: &str, is_stdio: bool) {
    let network = format!("waypost-{instance}");
    let host = &inspected["HostConfig"];
    let expected = json!({
        "CapAdd": [], "CapDrop": ["ALL"], "Privileged": false, "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": true,
        "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=64m"}, "PidsLimit": 256, "Memory": 536_870_912,
        "MemorySwap": 536_870_912, "NanoCpus": 500_000_000, "CgroupnsMode": "private", "IpcMode": "private", "PidMode": "",
        "UTSMode": "", "UsernsMode": "", "NetworkMode": network, "Dns": ["127.0.0.1"], "ExtraHosts": [], "Devices": [], "DeviceRequests": [],
        "DeviceCgroupRules": [], "GroupAdd": [], "PortBindings": {}, "PublishAllPorts": false, "Binds": [],
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false,
    });
    for (name, value) in expected.as_object().unwrap() {
        let actual = &host[name];
        let is_empty = |value: &Value| match value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            _ => false,
        };
        assert!(actual == value || is_empty(actual) && is_empty(value), "{name}: {actual} instead of {value}");
    }
    let log = if is_stdio {
        json!({"Type": "none", "Config": {}})
    } else {
        json!({"Type": "local", "Config": {"max-size": "10m", "max-file": "1", "compress": "false"}})
    };
    assert_eq!(host["LogConfig"], log);
    // The engine's lists, which a privileged container does not have.
    for (list, path) in [("MaskedPaths", "/proc/kcore"), ("ReadonlyPaths", "/proc/sys")] {
        assert!(host[list].as_array().unwrap().contains(&path.into()), "{list}");
    }
    let config = &inspected["Config"];
    assert_eq!(config["User"], "65534:65534");
    assert_eq!(config["Tty"], false);
    assert_eq!(config["OpenStdin"], is_stdio);
    assert_eq!(config["Healthcheck"], json!({"Test": ["NONE"]}));
    assert_eq!(config["Labels"]["dev.waypost.toolbox"], toolbox);
    assert_eq!(config["Labels"]["dev.waypost.instance"], instance);
    assert_eq!(config["Labels"]["dev.waypost.generation"], "1");
    assert!(!config["Labels"].to_string().contains("hunter2"));
    assert!(!inspected["Args"].to_string().contains("hunter2"));
    let networks: Vec<_> = inspected["NetworkSettings"]["Networks"].as_object().unwrap().keys().collect();
    assert_eq!(networks, [&network]);
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_inspect_shows_the_isolation_list() {
        run(|bed| async {
            // The image contradicts the list where it can.
            let image = bed
                .image(
                    "inspect",
                    &[
                        "EXPOSE 80",
                        "ENV A=1",
                        "LABEL dev.waypost.toolbox=tbx_other",
                        "LABEL dev.waypost.key=spoofed",
                        "HEALTHCHECK CMD true",
                    ],
                )
                .await;
            bed.engine.pull(&image, None).await.unwrap();
            for (name, transport) in [("stdio", Transport::Stdio), ("http", Transport::StreamableHttp)] {
                let mut spec = with_everything(spec(&image, transport, &["wait"]));
                spec.environment.insert("PRIVILEGED".into(), "true".into());
                spec.extra = json!({"privileged": true, "HostConfig": {"Privileged": true}, "cap_add": ["ALL"], "network_mode": "host"})
                    .as_object()
                    .cloned()
                    .unwrap();
                let request = bed.request(name, spec);
                let started = bed.engine.start(&request, &secret_values()).await.unwrap();
                let inspected = serde_json::to_value(bed.inspect(&started.container.id).await).unwrap();
                check_isolation(&inspected, &request.instance_id, &bed.options.toolbox_id, transport == Transport::Stdio);
                let mounts = inspected["Mounts"].as_array().unwrap();
                let of = |kind: &str| mounts.iter().filter(|mount| mount["Type"] == kind).collect::<Vec<_>>();
                let (binds, volumes) = (of("bind"), of("volume"));
                assert_eq!((mounts.len(), binds.len(), volumes.len()), (2, 1, 1), "{mounts:?}");
                assert_eq!((&binds[0]["Destination"], &binds[0]["RW"]), (&json!("/run/secrets"), &json!(false)));
                assert!(binds[0]["Source"].as_str().unwrap().starts_with(bed.secrets().to_str().unwrap()));
                assert_eq!(volumes[0]["Name"], format!("waypost-{}-data", request.instance_id));
                assert_eq!(started.container.key, None);
            }
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_entries_cannot_mount_paths_of_the_machine() {
        run(|bed| async {
            let image = bed.image("mounts", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            for (name, path) in
                [("/", "/data"), ("../..", "/data"), ("a:/b", "/data"), ("data", "/proc"), ("data", "/run/secrets")]
            {
                let mut spec = spec(&image, Transport::Stdio, &["wait"]);
                spec.volumes = vec![Volume { name: name.into(), path: path.into() }];
                let request = bed.request("a", spec);
                assert_eq!(bed.engine.prepare(&request).await.unwrap_err().code.as_str(), "config_invalid");
                assert_eq!(
                    bed.engine.start(&request, &BTreeMap::new()).await.err().unwrap().code.as_str(),
                    "config_invalid"
                );
            }
            let ids = ["", "..", "a/b", "../x", "ins 1"];
            for id in ids {
                let mut request = bed.request("a", spec(&image, Transport::Stdio, &["wait"]));
                request.instance_id = id.into();
                assert!(bed.engine.start(&request, &BTreeMap::new()).await.is_err());
                assert!(bed.engine.remove_instance(id, true).await.is_err());
            }
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_processes_have_no_privileges() {
        run(|bed| async {
            let image = bed.image("facts", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let request = bed.request("a", with_everything(spec(&image, Transport::Stdio, &["facts"])));
            let started = bed.engine.start(&request, &secret_values()).await.unwrap();
            let text = read_all(started.attached.unwrap().output).await;
            let value = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
                line.unwrap_or_else(|| panic!("{name} is missing in {text}")).to_owned()
            };
            assert_eq!(value("Uid"), "65534 65534 65534 65534");
            assert_eq!(value("Gid"), "65534 65534 65534 65534");
            assert!(["", "65534"].contains(&value("Groups").as_str()), "{text}");
            for set in ["CapEff", "CapBnd", "CapPrm", "CapAmb"] {
                assert_eq!(value(set), "0000000000000000");
            }
            assert_eq!(value("NoNewPrivs"), "1");
            assert_eq!(value("Seccomp"), "2");
            let has = |mount: &str, options: &[&str]| {
                let found = value(mount);
                let found: Vec<_> = found.split([' ', ',']).collect();
                assert!(options.iter().all(|option| found.contains(option)), "{mount}: {found:?}");
            };
            has("mount /", &["ro"]);
            has("mount /tmp", &["tmpfs", "rw", "nosuid", "nodev", "noexec", "size=65536k"]);
            has("mount /run/secrets", &["tmpfs", "ro"]);
            assert_eq!(value("stat /tmp"), "0:0 1777");
        });
    }
}

/// Returns the first address of a network, which is the machine's by default.
async fn gateway_of(docker: &Docker, network: &str) -> Ipv4Addr {
    let network = docker.inspect_network(network, None).await.unwrap();
    let config = network.ipam.unwrap().config.unwrap().remove(0);
    let subnet: Ipv4Net = config.subnet.unwrap().parse().unwrap();
    subnet.hosts().next().unwrap()
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_escapes_from_a_container_fail() {
        run(|bed| async {
            let image = bed.image("escape", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let neighbour = bed.request("neighbour", spec(&image, Transport::StreamableHttp, &["wait"]));
            let neighbour = bed.engine.start(&neighbour, &BTreeMap::new()).await.unwrap().container.id;
            let address = |inspected: &Value| {
                let networks = inspected["NetworkSettings"]["Networks"].as_object().unwrap();
                networks.values().next().unwrap()["IPAddress"].as_str().unwrap().to_owned()
            };
            let neighbour_address = address(&serde_json::to_value(bed.inspect(&neighbour).await).unwrap());
            let neighbour_namespace = bed.engine.network_namespace(&neighbour).await.unwrap();
            let any = "0.0.0.0:8080".parse().unwrap();
            let _neighbour = neighbour_namespace.tcp_listen(any).await.unwrap();

            let own = bed.request("own", with_everything(spec(&image, Transport::Stdio, &["echo"])));
            bed.engine.prepare(&own).await.unwrap();
            let network = format!("waypost-{}", own.instance_id);
            let gateway = gateway_of(&bed.docker, &network).await;
            // Services on the machine listen on all its addresses.
            let host = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
            let port = host.local_addr().unwrap().port();
            let bridge = gateway_of(&bed.docker, "bridge").await;
            // The address of the machine in its own network. Nothing is sent.
            let outside = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            let machine =
                outside.connect("192.0.2.1:9").and_then(|()| outside.local_addr()).map_or(bridge.into(), |own| own.ip());
            let addresses = [
                format!("{gateway}:{port}"),
                format!("127.0.0.1:{port}"),
                format!("{bridge}:{port}"),
                format!("{machine}:{port}"),
                format!("{neighbour_address}:8080"),
                "169.254.169.254:80".into(),
                "1.1.1.1:443".into(),
            ];
            let mut args = vec!["escape"];
            args.extend(addresses.iter().map(String::as_str));
            // A container of the same instance, for another agent.
            let mut sibling = bed.request("own", spec(&image, Transport::StreamableHttp, &["wait"]));
            sibling.key = Some("agt_2".into());
            let sibling = bed.engine.start(&sibling, &BTreeMap::new()).await.unwrap().container;
            assert_eq!(sibling.key.as_deref(), Some("agt_2"));
            let sibling_address = address(&serde_json::to_value(bed.inspect(&sibling.id).await).unwrap());
            let sibling_namespace = bed.engine.network_namespace(&sibling.id).await.unwrap();
            let _sibling = sibling_namespace.tcp_listen(any).await.unwrap();
            let sibling_address = format!("{sibling_address}:8080");
            // The sibling is listening, so the attempts below fail because of the network.
            let timeout = std::time::Duration::from_secs(5);
            sibling_namespace.tcp_connect(sibling_address.parse().unwrap(), timeout).await.unwrap();
            args.push(&sibling_address);
            let attempt = bed.request("own", with_everything(spec(&image, Transport::Stdio, &args)));
            let started = bed.engine.start(&attempt, &secret_values()).await.unwrap();
            let text = read_until(&mut started.attached.unwrap().output, "done=").await;
            let attempts: Vec<_> = text.lines().filter(|line| *line != "done=").collect();
            assert!(attempts.len() >= 24 + addresses.len(), "{text}");
            for attempt in attempts {
                assert!(!attempt.ends_with("=ok"), "{attempt}\n{text}");
            }
        });
    }
}

/// Starts a container for an agent. Returns its ID, the name of its network and its address.
async fn start_for(bed: &Bed, agent: &str, image: &str) -> (String, String, Ipv4Addr) {
    let mut request = bed.request("a", spec(image, Transport::StreamableHttp, &["wait"]));
    request.key = Some(agent.into());
    bed.engine.prepare(&request).await.unwrap();
    let id = bed.engine.start(&request, &BTreeMap::new()).await.unwrap().container.id;
    let settings = bed.inspect(&id).await.network_settings.unwrap();
    let (network, endpoint) = settings.networks.unwrap().into_iter().next().unwrap();
    (id, network, endpoint.ip_address.unwrap().parse().unwrap())
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_containers_of_two_agents_cannot_connect_to_each_other() {
        run(|bed| async {
            let image = bed.image("agents", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let (first, first_network, _) = start_for(bed, "agt_1", &image).await;
            let (second, second_network, second_address) = start_for(bed, "agt_2", &image).await;
            // The separation must not depend on a firewall rule in a common network, because the firewall of an engine
            // may be disabled.
            assert_ne!(first_network, second_network);
            assert_eq!(bed.counts().await, (2, 2, 0, 0));
            let second_namespace = bed.engine.network_namespace(&second).await.unwrap();
            let address = std::net::SocketAddr::from((second_address, 8080));
            let _server = second_namespace.tcp_listen("0.0.0.0:8080".parse().unwrap()).await.unwrap();
            let timeout = std::time::Duration::from_secs(2);
            // The daemon reaches the server, as it does for a call. Processes in the other container do not.
            second_namespace.tcp_connect(address, timeout).await.unwrap();
            let first_namespace = bed.engine.network_namespace(&first).await.unwrap();
            assert!(first_namespace.tcp_connect(address, timeout).await.is_err());
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_names_are_resolved_by_the_daemon_only() {
        run(|bed| async {
            let image = bed.image("resolve", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let request = bed.request("a", spec(&image, Transport::Stdio, &["facts"]));
            let started = bed.engine.start(&request, &BTreeMap::new()).await.unwrap();
            let text = read_all(started.attached.unwrap().output).await;
            let resolv = text.lines().find_map(|line| line.strip_prefix("resolv=")).unwrap();
            let servers: Vec<_> = resolv.split('|').filter_map(|line| line.strip_prefix("nameserver ")).collect();
            // The engine's own server in the namespace of the container, which forwards to 127.0.0.1 there.
            assert!(servers == ["127.0.0.11"] || servers == ["127.0.0.1"], "{resolv}");
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_allowed_names_resolve_without_the_engine() {
        run(|bed| async {
            let image = bed.image("hosts", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let mut spec = spec(&image, Transport::Stdio, &["facts"]);
            spec.egress = ["db.example:5432", "api.example:443"].map(|text| text.parse().unwrap()).into();
            let request = bed.request("a", spec);
            let started = bed.engine.start(&request, &BTreeMap::new()).await.unwrap();
            let text = read_all(started.attached.unwrap().output).await;
            let hosts = text.lines().find_map(|line| line.strip_prefix("hosts=")).unwrap();
            let own: Vec<_> = hosts
                .split('|')
                .filter(|line| line.starts_with("127.64."))
                .map(|l| l.split_whitespace().collect::<Vec<_>>())
                .collect();
            assert_eq!(own, [["127.64.0.1", "api.example"], ["127.64.0.2", "db.example"]], "{hosts}");
        });
    }
}
