use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use waypost_toolbox_proto::desired::SecretMount;
use waypost_toolbox_proto::{Destination, ResourceClass, SecretDelivery, Sharing, Volume};

use super::*;

fn image_name() -> String {
    format!("registry.example:5000/a/b@sha256:{}", "0a".repeat(32))
}

fn spec(transport: Transport) -> InstanceSpec {
    InstanceSpec {
        image: image_name(),
        transport,
        command: None,
        args: None,
        port: None,
        path: None,
        environment: BTreeMap::new(),
        secrets: Vec::new(),
        registry_credentials: false,
        resources: ResourceClass::Light,
        egress: Vec::new(),
        learn_egress: false,
        volumes: Vec::new(),
        sharing: Sharing::Shared,
        lazy: false,
        idle_seconds: None,
        max_lifetime_seconds: None,
        extra: Map::new(),
    }
}

fn request(spec: InstanceSpec) -> ContainerRequest {
    ContainerRequest {
        instance_id: "ins_1".into(),
        slug: "time".into(),
        generation: 3,
        key: None,
        digest: "d1".into(),
        personal_version: 0,
        spec,
    }
}

fn image() -> ImageInfo {
    ImageInfo { user: super::super::user::NOBODY, entrypoint: vec!["/server".into()], volumes: Vec::new() }
}

fn placement() -> Placement {
    Placement {
        toolbox_id: "tbx_1".into(),
        network: network_name("ins_1"),
        secrets_folder: None,
        secret_environment: BTreeMap::new(),
    }
}

fn body(spec: InstanceSpec) -> ContainerCreateBody {
    container_config(&request(spec), &image(), &placement()).unwrap()
}

fn to_json(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

/// The parts of a configuration that a specification must not change, except for the mounts and `/etc/hosts`.
fn isolation(body: &ContainerCreateBody) -> (Value, Value) {
    let mut host = to_json(body.host_config.as_ref().unwrap());
    for member in ["Mounts", "ExtraHosts"] {
        host.as_object_mut().unwrap().shift_remove(member);
    }
    let mut other = to_json(body);
    for member in ["HostConfig", "Cmd", "Entrypoint", "Env", "Labels", "Image"] {
        other.as_object_mut().unwrap().shift_remove(member);
    }
    (host, other)
}

#[test]
fn the_configuration_implements_the_isolation_list() {
    let (host, other) = isolation(&body(spec(Transport::Stdio)));
    let expected = json!({
        "Memory": 536_870_912, "Devices": [], "DeviceCgroupRules": [], "DeviceRequests": [], "MemorySwap": 536_870_912,
        "NanoCpus": 500_000_000, "PidsLimit": 256, "Binds": [], "LogConfig": {"Type": "none", "Config": {}},
        "NetworkMode": "waypost-ins_1", "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": false, "CapAdd": [], "CapDrop": ["ALL"], "CgroupnsMode": "private", "Dns": ["127.0.0.1"],
        "GroupAdd": [], "IpcMode": "private", "PidMode": "", "Privileged": false, "PublishAllPorts": false,
        "ReadonlyRootfs": true, "SecurityOpt": ["no-new-privileges"],
        "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=64m"}, "UTSMode": "", "UsernsMode": "",
    });
    assert_eq!(host, expected);
    let expected = json!({
        "User": "65534:65534", "Tty": false, "OpenStdin": true, "StdinOnce": false, "AttachStdin": true,
        "AttachStdout": true, "AttachStderr": true, "Healthcheck": {"Test": ["NONE"]},
        "NetworkingConfig": {"EndpointsConfig": {"waypost-ins_1": {}}},
    });
    assert_eq!(other, expected);
}

#[test]
fn http_servers_have_a_log_and_no_input() {
    for transport in [Transport::StreamableHttp, Transport::Sse] {
        let body = body(spec(transport));
        let log = json!({"Type": "local", "Config": {"max-size": "10m", "max-file": "1", "compress": "false"}});
        assert_eq!(to_json(&body.host_config.unwrap().log_config), log);
        assert_eq!([body.open_stdin, body.attach_stdin, body.attach_stdout, body.attach_stderr], [Some(false); 4]);
    }
}

#[test]
fn limits_are_those_of_the_resource_class() {
    for resources in ResourceClass::ALL {
        let host = body(InstanceSpec { resources: *resources, ..spec(Transport::Stdio) }).host_config.unwrap();
        assert_eq!(host.memory, Some(resources.memory_bytes() as i64));
        assert_eq!(host.memory_swap, host.memory);
        assert_eq!(host.nano_cpus, Some(resources.millicpus() as i64 * 1_000_000));
    }
}

#[test]
fn labels_replace_those_of_the_image() {
    let labels = body(spec(Transport::Stdio)).labels.unwrap();
    let expected = [
        (labels::TOOLBOX, "tbx_1"),
        (labels::INSTANCE, "ins_1"),
        (labels::GENERATION, "3"),
        (labels::KEY, ""),
        (labels::DIGEST, "d1"),
        (labels::RESOURCES, "light"),
        (labels::PROBE, ""),
        (labels::PERSONAL_VERSION, "0"),
    ];
    assert_eq!(labels, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let parsed = labels::parse("tbx_1", &labels).unwrap();
    assert_eq!((parsed.generation, parsed.key, parsed.resources), (3, None, ResourceClass::Light));
    assert_eq!(labels::parse("tbx_2", &labels), None);
    for label in [labels::TOOLBOX, labels::INSTANCE, labels::GENERATION, labels::DIGEST] {
        let mut incomplete = labels.clone();
        incomplete.remove(label);
        assert_eq!(labels::parse("tbx_1", &incomplete), None, "{label}");
    }
    assert_eq!(labels::parse("tbx_1", &labels::of_probe("tbx_1")), None);
}

#[test]
fn command_and_arguments_replace_those_of_the_image() {
    let strings = |items: &[&str]| -> Vec<String> { items.iter().map(|item| (*item).to_owned()).collect() };
    let run = |command: Option<&[&str]>, args: Option<&[&str]>| {
        let spec = InstanceSpec { command: command.map(strings), args: args.map(strings), ..spec(Transport::Stdio) };
        let body = body(spec);
        (body.entrypoint, body.cmd)
    };
    assert_eq!(run(None, None), (None, None));
    assert_eq!(run(Some(&["/a", "b"]), None), (Some(strings(&["/a", "b"])), None));
    // Without the entry point, the engine would add the arguments of the image.
    assert_eq!(run(None, Some(&[])), (Some(strings(&["/server"])), Some(Vec::new())));
    assert_eq!(run(None, Some(&["c"])), (Some(strings(&["/server"])), Some(strings(&["c"]))));
    assert_eq!(run(Some(&["/a"]), Some(&["c"])), (Some(strings(&["/a"])), Some(strings(&["c"]))));
}

#[test]
fn the_environment_has_the_proxy_only_with_egress() {
    let variables = |spec: InstanceSpec| body(spec).env.unwrap();
    let plain = InstanceSpec { environment: [("A".into(), "1=2".into())].into(), ..spec(Transport::Stdio) };
    assert_eq!(variables(plain.clone()), ["A=1=2"]);
    let egress = vec![Destination { host: "api.example".into(), port: 443 }];
    let proxied = variables(InstanceSpec { egress, ..plain });
    // The proxy supports only CONNECT, so plain HTTP must not use it.
    let expected = [
        "A=1=2",
        "HTTPS_PROXY=http://127.0.0.1:3128",
        "NO_PROXY=localhost,127.0.0.1,::1",
        "https_proxy=http://127.0.0.1:3128",
        "no_proxy=localhost,127.0.0.1,::1",
    ];
    assert_eq!(proxied, expected);
}

#[test]
fn allowed_names_are_in_the_hosts_file() {
    let extra_hosts = |egress: &[&str]| {
        let egress = egress.iter().map(|text| text.parse().unwrap()).collect();
        body(InstanceSpec { egress, ..spec(Transport::Stdio) }).host_config.unwrap().extra_hosts.unwrap()
    };
    assert!(extra_hosts(&[]).is_empty());
    let names = ["db.example:5432", "api.example:443", "api.example:80", "192.0.2.1:443"];
    assert_eq!(extra_hosts(&names), ["api.example:127.64.0.1", "db.example:127.64.0.2"]);
}

#[test]
fn secrets_are_in_the_environment_or_in_the_only_bind_mount() {
    let secrets = vec![SecretMount {
        name: "TOKEN".into(),
        delivery: SecretDelivery::Env,
        version: 1,
        personal: false,
        optional: false,
    }];
    let volumes = vec![Volume { name: "data".into(), path: "/data".into() }];
    let spec = InstanceSpec { secrets, volumes, ..spec(Transport::Stdio) };
    let placement = Placement {
        secrets_folder: Some("/run/waypost-toolbox/tbx_1/ins_1/c".into()),
        secret_environment: [("TOKEN".into(), "hunter2".into())].into(),
        ..placement()
    };
    let mut body = container_config(&request(spec), &image(), &placement).unwrap();
    let mounts = body.host_config.as_mut().unwrap().mounts.take();
    let expected = json!([
        {
            "Type": "bind", "Source": "/run/waypost-toolbox/tbx_1/ins_1/c", "Target": "/run/secrets", "ReadOnly": true,
            "BindOptions": {"Propagation": "rprivate"},
        },
        {
            "Type": "volume", "Source": "waypost-ins_1-data", "Target": "/data", "ReadOnly": false,
            "VolumeOptions": {"NoCopy": true},
        },
    ]);
    assert_eq!(to_json(mounts), expected);
    assert_eq!(body.env.take(), Some(vec!["TOKEN=hunter2".into()]));
    assert!(!to_json(body).to_string().contains("hunter2"));
}

#[test]
fn names_and_paths_are_checked() {
    let rejected = |spec: InstanceSpec, image: &ImageInfo| {
        let error = container_config(&request(spec), image, &placement()).unwrap_err();
        assert_eq!(error.code.as_str(), "config_invalid");
        assert!(!error.next_action.is_empty());
    };
    let hex = "0a".repeat(32);
    for name in [
        "a/b:latest".to_owned(),
        "a/b".into(),
        format!("a/b@sha256:{}", &hex[1..]),
        format!("a/b@sha256:{hex}0"),
        format!("a/b@sha512:{hex}"),
        format!("a/b@sha256:{}", hex.to_uppercase()),
        format!("a/../b@sha256:{hex}"),
        format!("a/b?x=@sha256:{hex}"),
        format!("b@sha256:{hex}"),
        String::new(),
    ] {
        rejected(InstanceSpec { image: name, ..spec(Transport::Stdio) }, &image());
    }
    for path in [
        "",
        "/",
        "data",
        "/a/../b",
        "/a//b",
        "/a/",
        "/./a",
        "/proc",
        "/proc/1",
        "/sys/fs",
        "/dev",
        "/dev/shm",
        "/tmp",
        "/tmp/a",
        "/run",
        "/run/secrets",
        "/run/secrets/a",
        "/etc",
        "/etc/passwd",
        "/etc/hosts",
        "/a:b",
        "/a,b",
        "/a\n",
    ] {
        let volumes = vec![Volume { name: "data".into(), path: path.into() }];
        rejected(InstanceSpec { volumes, ..spec(Transport::Stdio) }, &image());
    }
    for names in [["a", "a"], ["", "b"], ["../a", "b"], [".a", "b"], ["a/b", "b"], ["a:b", "b"]] {
        let volume = |at: usize| Volume { name: names[at].into(), path: format!("/data{at}") };
        rejected(InstanceSpec { volumes: vec![volume(0), volume(1)], ..spec(Transport::Stdio) }, &image());
    }
    for name in ["", "A=B", "A B", "1A", "A\0"] {
        let environment = [(name.to_owned(), "x".to_owned())].into();
        rejected(InstanceSpec { environment, ..spec(Transport::Stdio) }, &image());
    }
    let wants_volume = ImageInfo { volumes: vec!["/data/".into()], ..image() };
    rejected(spec(Transport::Stdio), &wants_volume);
    let volumes = vec![Volume { name: "data".into(), path: "/data".into() }];
    let has_volume = InstanceSpec { volumes, ..spec(Transport::Stdio) };
    assert!(container_config(&request(has_volume), &wants_volume, &placement()).is_ok());
}

/// Texts that try to change something other than their own field.
fn text() -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        "seccomp=unconfined",
        "--privileged",
        "host",
        "/var/run/docker.sock:/var/run/docker.sock",
        "container:abc",
        "CAP_SYS_ADMIN",
        "apparmor=unconfined",
        "0:0",
        "root",
        "/proc",
        "/run/secrets",
        "..",
        "/",
        "",
        "NONE",
        "HostConfig",
        "Privileged",
        "dev.waypost.toolbox",
        "HTTP_PROXY",
        "/data",
        "data",
        "LD_PRELOAD",
    ]);
    prop_oneof![hostile.prop_map(str::to_owned), "[a-zA-Z_]{1,8}", "/[a-z]{1,8}", any::<String>()]
}

prop_compose! {
    fn any_spec()(
        transport in prop::sample::select(Transport::ALL),
        resources in prop::sample::select(ResourceClass::ALL),
        sharing in prop::sample::select(Sharing::ALL),
        command in option::of(vec(text(), 0..3)),
        args in option::of(vec(text(), 0..3)),
        port in option::of(any::<u16>()),
        path in option::of(text()),
        environment in btree_map(text(), text(), 0..3),
        secrets in vec((text(), prop::sample::select(SecretDelivery::ALL), any::<u64>()), 0..3),
        egress in vec((text(), any::<u16>()), 0..3),
        volumes in vec((text(), text()), 0..3),
        flags in any::<[bool; 3]>(),
        extra in btree_map(text(), text(), 0..3),
    ) -> InstanceSpec {
        InstanceSpec {
            image: image_name(),
            transport, resources, sharing, command, args, port, path, environment,
            secrets: secrets.into_iter().map(|(name, delivery, version)| SecretMount { name, delivery, version, personal: version % 2 == 0, optional: version % 3 == 0 }).collect(),
            registry_credentials: flags[0],
            egress: egress.into_iter().map(|(host, port)| Destination { host, port }).collect(),
            learn_egress: flags[1],
            volumes: volumes.into_iter().map(|(name, path)| Volume { name, path }).collect(),
            lazy: flags[2],
            idle_seconds: None,
            max_lifetime_seconds: None,
            extra: extra.into_iter().map(|(name, value)| (name, Value::from(value))).collect(),
        }
    }
}

proptest! {
    #[test]
    fn no_specification_changes_the_isolation(
        any in any_spec(),
        has_secrets: bool,
        key in option::of(text()),
        entrypoint in vec(text(), 0..3),
    ) {
        let folder = PathBuf::from("/run/waypost-toolbox/tbx_1/ins_1/c");
        let placement = Placement { secrets_folder: has_secrets.then(|| folder.clone()), ..placement() };
        let image = ImageInfo { entrypoint, ..image() };
        let request = ContainerRequest { key: key.clone(), ..request(any.clone()) };
        let Ok(actual) = container_config(&request, &image, &placement) else { return Ok(()) };
        let plain = body(InstanceSpec { resources: any.resources, ..spec(any.transport) });
        prop_assert_eq!(isolation(&actual), isolation(&plain));

        let labels = actual.labels.unwrap();
        let parsed = labels::parse("tbx_1", &labels).unwrap();
        prop_assert_eq!(parsed.instance_id, "ins_1");
        prop_assert_eq!(parsed.key, key.filter(|key| !key.is_empty()));
        prop_assert_eq!(labels.len(), 8);

        let host = actual.host_config.unwrap();
        for line in host.extra_hosts.unwrap() {
            let (name, address) = line.split_once(':').unwrap();
            prop_assert!(any.egress.iter().any(|found| found.host == name) && address.starts_with("127.64.0."), "{}", line);
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{}", line);
        }

        let mounts = host.mounts.unwrap();
        prop_assert_eq!(mounts.len(), any.volumes.len() + usize::from(has_secrets));
        for mount in mounts {
            match mount.typ {
                Some(MountType::BIND) => {
                    prop_assert_eq!(mount.source.as_deref(), folder.to_str());
                    prop_assert_eq!(mount.target.as_deref(), Some("/run/secrets"));
                    prop_assert_eq!(mount.read_only, Some(true));
                }
                Some(MountType::VOLUME) => {
                    let source = mount.source.unwrap();
                    prop_assert!(source.starts_with("waypost-ins_1-") && !source.contains('/'));
                    prop_assert!(mount.volume_options.unwrap().driver_config.is_none());
                    let target = mount.target.unwrap();
                    prop_assert!(!["/proc", "/sys", "/dev", "/tmp", "/run"].iter().any(|path| target.starts_with(path) && (target.len() == path.len() || target.as_bytes()[path.len()] == b'/' && (*path != "/run" || target.starts_with("/run/secrets")))), "{}", target);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
