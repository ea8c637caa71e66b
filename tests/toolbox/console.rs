//! The pages of the console, without a browser.

use http::StatusCode;
use http::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use reqwest::redirect::Policy;
use url::form_urlencoded;
use waypost_outbound::unguarded_client;

use crate::support::TIMEOUT;
use crate::waypost::Waypost;

/// The console of an installation, in which the owner of `acme` is signed in.
pub struct Console {
    client: reqwest::Client,
    origin: String,
    cookies: String,
}

impl Console {
    /// Creates the account of the first owner on the setup page.
    pub async fn set_up(waypost: &Waypost) -> Self {
        let client = unguarded_client().no_proxy().redirect(Policy::none()).timeout(TIMEOUT).build();
        let client = client.expect("a valid client");
        let mut console = Self { client, origin: waypost.origin.clone(), cookies: String::new() };
        let path = waypost.set_up_path().await;
        let (_, token) = path.split_once("token=").expect("the link has a token");
        let (name, email, password) = ("Anna", "anna@example.com", "quartz-banjo-umbrella-42");
        let fields = [("token", token), ("name", name), ("email", email), ("password", password)];
        let response = console.submit("/setup", &fields).await;
        let cookies = response.headers().get_all(SET_COOKIE).iter().map(|line| line.to_str().expect("ASCII"));
        let cookies: Vec<_> = cookies.filter_map(|line| line.split(';').next()).collect();
        console.cookies = cookies.join("; ");
        console
    }

    /// Returns the HTML of a page.
    pub async fn page(&self, path: &str) -> String {
        let request = self.client.get(format!("{}{path}", self.origin)).header(COOKIE, &self.cookies);
        let response = request.send().await.expect("the server responds");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.expect("the response is complete")
    }

    /// Submits a form, which must be accepted.
    pub async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> reqwest::Response {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.client.post(format!("{}{path}", self.origin)).header(COOKIE, &self.cookies);
        let request = request.header("sec-fetch-site", "same-origin");
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        let response = request.send().await.expect("the server responds");
        let status = response.status();
        if status != StatusCode::SEE_OTHER {
            panic!("{path}: {status} {}", response.text().await.unwrap_or_default());
        }
        response
    }
}
