//! A simulated browser that submits the forms of Waypost's pages and keeps cookies.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http::header::{CONTENT_TYPE, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response};
use url::{Url, form_urlencoded};
use waypost_outbound::unguarded_client;

use super::form::{Form, parse_forms};
use super::mailbox::Mailbox;

/// The maximum number of pages. No sign-in flow needs as many.
const MAX_PAGES: usize = 20;

const FORM_CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

/// The decision on the consent page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// `allow`
    Allow,
    /// `deny`
    Deny,
}

/// The browser of one user, for one installation. Sends `Secure` cookies over HTTP, as real browsers do for loopback.
pub struct UserAgent {
    http: Client,
    cookies: Mutex<BTreeMap<String, String>>,
    email: String,
    mailbox: Mailbox,
    secrets: Mutex<Vec<String>>,
}

impl UserAgent {
    /// Creates a browser without cookies, for the user who receives the emails to `email`.
    pub fn new(email: &str, mailbox: Mailbox) -> Self {
        #[expect(clippy::disallowed_methods, reason = "connects to the server under test")]
        let http = unguarded_client().no_proxy().redirect(Policy::none()).timeout(super::TIMEOUT).build();
        let http = http.expect("the client is built");
        Self { http, cookies: Mutex::default(), email: email.to_owned(), mailbox, secrets: Mutex::default() }
    }

    /// Returns the secrets received so far: one-time codes, cookies, authorization codes.
    pub fn secrets(&self) -> Vec<String> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record_secret(&self, secret: &str) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(secret.to_owned());
    }

    /// Follows the pages from an authorization URL to the client's callback and returns the callback URL without
    /// opening it.
    ///
    /// # Errors
    /// Returns the page on which the flow cannot continue.
    pub async fn sign_in(&self, authorize: &Url, decision: Decision) -> Result<Url, String> {
        let mut url = authorize.clone();
        let mut response = self.send(self.http.get(url.clone())).await?;
        for _ in 0..MAX_PAGES {
            if let Some(location) = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()) {
                url = url.join(location).map_err(|error| format!("{location}: {error}"))?;
                if url.origin() != authorize.origin() {
                    url.query_pairs()
                        .filter(|(name, _)| name == "code")
                        .for_each(|(_, code)| self.record_secret(&code));
                    return Ok(url);
                }
                response = self.send(self.http.get(url.clone())).await?;
                continue;
            }
            let status = response.status();
            let page = response.text().await.map_err(|error| error.to_string())?;
            let Some(form) = find_next_form(&page) else { return Err(format!("{url} returned {status}:\n{page}")) };
            let fields = self.fill_form(&form, decision).await?;
            let origin = url.origin().ascii_serialization();
            url = url.join(&form.action).map_err(|error| format!("{}: {error}", form.action))?;
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            let request =
                self.http.post(url.clone()).header(ORIGIN, origin).header(CONTENT_TYPE, FORM_CONTENT_TYPE).body(body);
            response = self.send(request).await?;
        }
        Err(format!("the sign-in is still at {url} after {MAX_PAGES} pages"))
    }

    async fn fill_form(&self, form: &Form, decision: Decision) -> Result<Vec<(String, String)>, String> {
        let mut fields = Vec::new();
        for field in &form.fields {
            let value = match field.name.as_str() {
                "email" if field.kind != "hidden" => self.email.clone(),
                "code" => {
                    let code = self.mailbox.next_code(&self.email).await?;
                    self.record_secret(&code);
                    code
                }
                _ => field.value.clone(),
            };
            // Checkboxes stay unchecked.
            if field.kind != "checkbox" {
                fields.push((field.name.clone(), value));
            }
        }
        if form.buttons.iter().any(|(name, _)| name == "decision") {
            let decision = if decision == Decision::Allow { "allow" } else { "deny" };
            fields.push(("decision".to_owned(), decision.to_owned()));
        }
        Ok(fields)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, String> {
        let cookies = {
            let cookies = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
            cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
        };
        let request = if cookies.is_empty() { request } else { request.header("cookie", cookies) };
        let response = request.send().await.map_err(|error| format!("{error:?}"))?;
        let mut cookies = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        for header in response.headers().get_all(SET_COOKIE) {
            let header = header.to_str().map_err(|error| error.to_string())?;
            let (cookie, attributes) = header.split_once(';').unwrap_or((header, ""));
            let (name, value) = cookie.split_once('=').ok_or_else(|| format!("invalid Set-Cookie header: {header}"))?;
            if value.is_empty() || attributes.to_ascii_lowercase().contains("max-age=0") {
                cookies.remove(name);
            } else {
                self.record_secret(value);
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(response)
    }
}

/// Returns the form that continues a sign-in by code: the form for the decision, the code or the email, or the login
/// form of the console if it has a button that requests a code.
fn find_next_form(page: &str) -> Option<Form> {
    const BY_CODE: &str = "/login/code";
    let forms = parse_forms(page);
    let decision = |form: &&Form| form.buttons.iter().any(|(name, _)| name == "decision");
    let address = |form: &&Form| form.has_visible_field("email") && !form.has_visible_field("password");
    let found = forms.iter().find(decision).or_else(|| forms.iter().find(|form| form.has_visible_field("code")));
    if let Some(form) = found.or_else(|| forms.iter().find(address)) {
        return Some(form.clone());
    }
    let login = forms.iter().find(|form| form.has_visible_field("email"));
    let has_button = page.contains(&format!("formaction=\"{BY_CODE}\""));
    login.filter(|_| has_button).map(|form| Form { action: BY_CODE.to_owned(), ..form.clone() })
}
