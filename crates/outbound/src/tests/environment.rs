//! Environment variables that must not change the behaviour. Because they affect the whole process, these tests run
//! other tests of this test binary in a child process.

use std::process::Command;

fn assert_passes(test: &str, environment: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test]).envs(environment.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn proxies_are_not_used() {
    // Nothing listens on port 9.
    let proxy = "http://127.0.0.1:9";
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let environment = names.map(|name| (name, proxy));
    assert_passes("tests::requests::requests_to_an_allowed_network_are_sent", &environment);
    assert_passes("tests::requests::certificates_are_checked", &environment);
}

#[test]
fn a_machine_without_root_certificates_can_reach_allowed_networks() {
    let environment = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nowhere")];
    assert_passes("tests::requests::requests_to_an_allowed_network_are_sent", &environment);
    assert_passes("tests::requests::certificates_are_checked", &environment);
}
