//! What the environment of the process must not change. It belongs to the whole process, so these run a test of this
//! program again in one of their own.

use std::process::Command;

fn passes(test: &str, environment: &[(&str, &str)]) {
    let mut again = Command::new(std::env::current_exe().unwrap());
    let output = again.args(["--exact", test]).envs(environment.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn proxies_are_not_used() {
    // Nobody listens on port 9.
    let proxy = "http://127.0.0.1:9";
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let environment = names.map(|name| (name, proxy));
    passes("tests::requests::an_allowed_network_is_let_through", &environment);
    passes("tests::requests::certificates_are_checked", &environment);
}

#[test]
fn a_machine_without_root_certificates_is_no_obstacle() {
    let environment = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nowhere")];
    passes("tests::requests::an_allowed_network_is_let_through", &environment);
    passes("tests::requests::certificates_are_checked", &environment);
}
