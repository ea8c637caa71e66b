use std::collections::BTreeMap;

use futures::future::join_all;
use waypost_toolbox::engine::Engine;
use waypost_toolbox::engine::docker::DockerEngine;
use waypost_toolbox_proto::Transport;
use waypost_toolbox_proto::message::RegistryCredentials;

use super::support::{CREDENTIALS, run, secret_values, spec, with_everything};

waypost_testkit::needs_docker! {
    #[test]
    fn docker_pulls_report_what_is_wrong() {
        run(|bed| async {
            let image = bed.image("pull", &[]).await;
            let code = |result: Result<(), waypost_toolbox::engine::EngineError>| result.unwrap_err().code.as_str();
            let (name, digest) = image.split_once('@').unwrap();
            let other = format!("sha256:{}", "0".repeat(64));
            assert_eq!(code(bed.engine.pull(&format!("{name}@{other}"), None).await), "image_not_found");
            assert_eq!(code(bed.engine.pull(&format!("{name}-other@{digest}"), None).await), "image_not_found");
            assert_eq!(code(bed.engine.pull(&format!("{name}:latest"), None).await), "config_invalid");
            assert_eq!(code(bed.engine.pull(&format!("127.0.0.1:1/a@{digest}"), None).await), "image_not_found");
            let start =
                bed.engine.start(&bed.request("a", spec(&image, Transport::Stdio, &["wait"])), &BTreeMap::new()).await;
            assert_eq!(start.err().unwrap().code.as_str(), "image_not_found");

            let private = bed.private_registry().await;
            let image = format!("{}/pull@{digest}", private.address);
            let credentials =
                |password: &str| RegistryCredentials { username: CREDENTIALS.0.into(), password: password.into() };
            assert_eq!(code(bed.engine.pull(&image, None).await), "image_denied");
            assert_eq!(code(bed.engine.pull(&image, Some(&credentials("wrong"))).await), "image_denied");
            bed.engine.pull(&image, Some(&credentials(CREDENTIALS.1))).await.unwrap();
            // The image is present, so nothing is pulled.
            private.stop().await;
            bed.engine.pull(&image, None).await.unwrap();
            DockerEngine::connect(bed.options.clone()).await.unwrap().remove_unused_images(u64::MAX).await.unwrap();
            assert!(bed.docker.inspect_image(&image).await.is_err());
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_images_of_another_architecture_are_rejected() {
        run(|bed| async {
            let other = if cfg!(target_arch = "x86_64") { "arm64" } else { "amd64" };
            let image = bed.foreign_image("platform", other).await;
            let error = bed.engine.pull(&image, None).await.unwrap_err();
            assert_eq!(error.code.as_str(), "architecture_mismatch", "{error:?}");
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_unused_images_are_removed_oldest_first() {
        run(|bed| async {
            let [a, b, c] = [bed.image("a", &[]).await, bed.image("b", &[]).await, bed.image("c", &[]).await];
            for image in [&a, &b, &c] {
                bed.engine.pull(image, None).await.unwrap();
            }
            let request = bed.request("a", spec(&b, Transport::Stdio, &["wait"]));
            let started = bed.engine.start(&request, &BTreeMap::new()).await.unwrap();
            // There is enough free space.
            bed.engine.remove_unused_images(1).await.unwrap();
            for image in [&a, &b, &c] {
                bed.docker.inspect_image(image).await.unwrap();
            }
            // The images have just been pulled, so their containers may not exist yet.
            bed.engine.remove_unused_images(u64::MAX).await.unwrap();
            for image in [&a, &b, &c] {
                bed.docker.inspect_image(image).await.unwrap();
            }
            let second = DockerEngine::connect(bed.options.clone()).await.unwrap();
            second.remove_unused_images(u64::MAX).await.unwrap();
            assert!(bed.docker.inspect_image(&a).await.is_err() && bed.docker.inspect_image(&c).await.is_err());
            bed.docker.inspect_image(&b).await.unwrap();
            bed.engine.remove(&started.container.id).await.unwrap();
            second.remove_unused_images(u64::MAX).await.unwrap();
            assert!(bed.docker.inspect_image(&b).await.is_err());
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_images_run_as_their_numeric_user() {
        run(|bed| async {
            for (name, user, expected) in [
                ("none", None, "65534:65534"),
                ("number", Some("USER 1000:1001"), "1000:1001"),
                ("name", Some("USER app"), "1234:1235"),
                ("uid", Some("USER 1234"), "1234:1235"),
            ] {
                let image = bed.image(name, user.as_slice()).await;
                bed.engine.pull(&image, None).await.unwrap();
                let request = bed.request(name, with_everything(spec(&image, Transport::Stdio, &["wait"])));
                let started = bed.engine.start(&request, &secret_values()).await.unwrap();
                let inspected = bed.inspect(&started.container.id).await;
                assert_eq!(inspected.config.unwrap().user.as_deref(), Some(expected), "{name}");
                bed.engine.remove_instance(&request.instance_id, true).await.unwrap();
            }
            assert_eq!(bed.counts().await, (0, 0, 0, 0));
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_images_that_run_as_root_are_rejected() {
        run(|bed| async {
            for (name, user) in [
                ("root", "root"),
                ("zero", "0"),
                ("pair", "0:1000"),
                ("alias", "admin"),
                ("unknown", "nobody"),
                ("group", "app:nogroup"),
            ] {
                let image = bed.image(name, &[&format!("USER {user}")]).await;
                bed.engine.pull(&image, None).await.unwrap();
                let request = bed.request(name, with_everything(spec(&image, Transport::Stdio, &["wait"])));
                let error = bed.engine.start(&request, &secret_values()).await.err().unwrap();
                assert_eq!(error.code.as_str(), "config_invalid", "{error:?}");
                assert!(error.next_action.contains("USER"), "{error:?}");
            }
            let image = bed.image("volume", &["VOLUME /cache"]).await;
            bed.engine.pull(&image, None).await.unwrap();
            let request = bed.request("volume", spec(&image, Transport::Stdio, &["wait"]));
            let error = bed.engine.start(&request, &BTreeMap::new()).await.err().unwrap();
            assert!(error.cause.contains("/cache"), "{error:?}");
            bed.engine.remove_instance(&request.instance_id, true).await.unwrap();
            assert_eq!(bed.counts().await, (0, 0, 0, 0));
        });
    }
}

waypost_testkit::needs_docker! {
    #[test]
    fn docker_networks_are_distinct_under_concurrency() {
        run(|bed| async {
            let image = format!("127.0.0.1:1/a@sha256:{}", "0".repeat(64));
            let requests: Vec<_> = (0..12)
                .map(|number| bed.request(&format!("n{}", number / 2), spec(&image, Transport::Stdio, &[])))
                .collect();
            for result in join_all(requests.iter().map(|request| bed.engine.prepare(request))).await {
                result.unwrap();
            }
            let mut subnets = Vec::new();
            for request in requests.iter().step_by(2) {
                let name = format!("waypost-{}", request.instance_id);
                let network = bed.docker.inspect_network(&name, None).await.unwrap();
                assert_eq!(
                    (network.internal, network.enable_ipv6, network.attachable),
                    (Some(true), Some(false), Some(false))
                );
                assert_eq!(network.options.unwrap()["com.docker.network.bridge.inhibit_ipv4"], "true");
                subnets.push(network.ipam.unwrap().config.unwrap()[0].subnet.clone().unwrap());
            }
            assert_eq!(bed.counts().await.1, 6);
            subnets.sort();
            subnets.dedup();
            assert_eq!(subnets.len(), 6);
            assert!(subnets.iter().all(|subnet| subnet.starts_with("10.213.") && subnet.ends_with("/28")), "{subnets:?}");
        });
    }
}
