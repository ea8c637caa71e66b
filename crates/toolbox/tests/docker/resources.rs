use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;
use waypost_toolbox::engine::Engine;
use waypost_toolbox_proto::Transport;

use super::support::{read_all, read_until, run, secret_values, spec, with_everything};

waypost_testkit::needs_docker! {
    #[test]
    fn docker_memory_is_limited() {
        run(|bed| async {
            let image = bed.image("memory", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let mut exits = bed.engine.exits().await.unwrap();
            let request = bed.request("a", spec(&image, Transport::Stdio, &["memory"]));
            bed.engine.start(&request, &BTreeMap::new()).await.unwrap();
            assert_eq!(exits.next().await.unwrap().exit_code, 137);
            let container = bed.engine.containers().await.unwrap().remove(0);
            assert!(container.out_of_memory && !container.running, "{container:?}");
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_processes_are_limited() {
        run(|bed| async {
            let image = bed.image("forks", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let request = bed.request("a", spec(&image, Transport::Stdio, &["forks"]));
            let started = bed.engine.start(&request, &BTreeMap::new()).await.unwrap();
            let text = read_until(&mut started.attached.unwrap().output, "forks=").await;
            assert_eq!(text, "forks=255\n");
            assert_eq!(bed.engine.usage(&started.container.id).await.unwrap().pids, 256);
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_servers_that_ignore_the_signal_are_killed_after_the_grace_period() {
        run(|bed| async {
            let image = bed.image("grace", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let request = bed.request("a", spec(&image, Transport::Stdio, &["wait"]));
            let started = bed.engine.start(&request, &BTreeMap::new()).await.unwrap();
            let before = Instant::now();
            bed.engine.stop(&started.container.id, Duration::from_secs(2)).await.unwrap();
            let elapsed = before.elapsed();
            assert!((2.0..10.0).contains(&elapsed.as_secs_f64()), "{elapsed:?}");
            assert_eq!(bed.engine.containers().await.unwrap()[0].exit_code, Some(137));
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_secret_files_belong_to_the_user_and_are_removed() {
        run(|bed| async {
            let image = bed.image("secrets", &["USER app"]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let request = bed.request("a", with_everything(spec(&image, Transport::Stdio, &["facts"])));
            let started = bed.engine.start(&request, &secret_values()).await.unwrap();
            let text = read_all(started.attached.unwrap().output).await;
            for line in [
                "stat /run/secrets=1234:1235 500",
                "stat /run/secrets/TOKEN=1234:1235 400",
                "stat /data=1234:1235 755",
                "secret=file-hunter2",
                "env API_KEY=env-hunter2",
                "env CONFIG=value",
            ] {
                assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
            }
            assert!(!text.contains("env TOKEN"), "{text}");
            // Other users of the machine cannot access the files.
            for folder in [bed.options.secrets_dir.clone(), bed.secrets(), bed.secrets().join(&request.instance_id)] {
                let metadata = fs::metadata(&folder).unwrap();
                assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, 0o700), "{}", folder.display());
            }
            let inspected = serde_json::to_string(&bed.inspect(&started.container.id).await).unwrap();
            assert!(!inspected.contains("file-hunter2"));
            bed.engine.remove(&started.container.id).await.unwrap();
            assert_eq!(fs::read_dir(bed.secrets()).unwrap().count(), 0);
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_volumes_keep_files_and_are_removed_with_the_instance() {
        run(|bed| async {
            let image = bed.image("volumes", &[]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let write = with_everything(spec(&image, Transport::Stdio, &["write", "/data/file", "kept"]));
            let read = with_everything(spec(&image, Transport::Stdio, &["read", "/data/file"]));
            let mut outputs = Vec::new();
            for spec in [write, read] {
                let request = bed.request("a", spec);
                bed.engine.prepare(&request).await.unwrap();
                let started = bed.engine.start(&request, &secret_values()).await.unwrap();
                outputs.push(read_all(started.attached.unwrap().output).await);
                bed.engine.remove(&started.container.id).await.unwrap();
            }
            assert_eq!(outputs, ["write=ok\n", "kept\n"]);
            let instance = bed.request("a", spec(&image, Transport::Stdio, &[])).instance_id;
            assert_eq!(bed.counts().await, (0, 1, 1, 0));
            bed.engine.remove_instance(&instance, true).await.unwrap();
            assert_eq!(bed.counts().await, (0, 0, 0, 0));
        });
    }
}
