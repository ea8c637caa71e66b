//! The suite's scenarios for authorization servers: metadata and the authorization code grant.

use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;
use waypost_outbound::unguarded_client;

use crate::suite::{self, Report};
use crate::support::installation::Installation;
use crate::support::user_agent::{Decision, UserAgent};

/// Returns a free port. The suite needs the port as an argument.
async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// Registers the suite as a client (RFC 7591) and returns the client ID.
async fn register(issuer: &str, redirect_uri: &str) -> String {
    let client = unguarded_client().no_proxy().build().unwrap();
    let body = json!({
        "client_name": "conformance", "redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none",
    });
    let response = client.post(format!("{issuer}/oauth/register")).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let registered: Value = response.json().await.unwrap();
    registered["client_id"].as_str().unwrap().to_owned()
}

/// Runs the scenarios with a user who makes the given decision.
async fn run(decision: Decision) -> Report {
    let mut installation = Installation::new().await;
    installation.create_server("tour", &["--auth-type", "platform_oauth"]).await;
    let server = installation.serve().await;
    let (issuer, port) = (format!("{}/s/tour", server.origin), free_port().await.to_string());
    let id = register(&issuer, &format!("http://127.0.0.1:{port}/callback")).await;
    let resource = format!("{issuer}/mcp");
    let user = UserAgent::new("ada@example.com", installation.mailbox.clone());
    let arguments = ["--url", &issuer, "--client-id", &id, "--port", &port, "--resource", &resource];
    let report = suite::authorize(&arguments, async |address| {
        let callback = user.sign_in(&Url::parse(&address).unwrap(), decision).await.unwrap();
        // Opens the callback like a browser. The outcome is in the report.
        let _ = unguarded_client().no_proxy().build().unwrap().get(callback).send().await;
    });
    report.await
}

/// AS-1, AS-2, AS-3, AS-5, AS-6, AS-10 as checked by the suite.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn the_authorization_server_passes() {
    let report = run(Decision::Allow).await;
    println!("{}", report.output);
    assert!(report.succeeded && report.output.contains("Total: 3 passed, 0 failed"), "{}", report.output);
    let scenarios: Vec<_> = report.checks.keys().map(String::as_str).collect();
    assert_eq!(scenarios, ["authorization-code-grant", "authorization-server-metadata-endpoint"]);
    for scenario in scenarios {
        crate::assert_passes(&report, scenario, &[]);
    }
}

/// Shows that the suite can fail; otherwise the test above would prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn a_denied_request_fails_the_suite() {
    let report = run(Decision::Deny).await;
    assert!(!report.succeeded, "{}", report.output);
    assert_eq!(report.failed_checks("authorization-code-grant"), ["authorization-code-grant"]);
    assert_eq!(report.failed_checks("authorization-server-metadata-endpoint"), Vec::<&str>::new());
}
