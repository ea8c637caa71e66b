//! The cookies of end users' browsers.
//!
//! `__Host-wp_flow` identifies the browser during a sign-in: requests and forms are bound to it. `__Host-wp_eu_<org>`
//! is the session of a signed-in end user in one organisation. `__Host-wp_eu_device_<org>` shows that an end user has
//! signed in with this browser before. All are `__Host-` cookies (RFC 6265bis, section 4.1.3.2): no other host, and no
//! page without TLS except on loopback, can set or read them.

use cookie::{Cookie, SameSite};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue, header};
use waypost_core::Random;
use waypost_core::id::OrganizationId;

/// Identifies the browser during a sign-in.
pub const FLOW: &str = "__Host-wp_flow";
/// The lifetime of a session: 30 days.
const SESSION_SECONDS: i64 = 30 * 24 * 60 * 60;
/// The maximum length of a value. Longer values were not set by this server.
const MAX_VALUE: usize = 128;

/// Returns the name of the session cookie of an organisation's end users.
#[must_use]
pub fn session_cookie(organization: &OrganizationId) -> String {
    format!("__Host-wp_eu_{organization}")
}

/// Returns the value of the cookie `name`. Returns `None` if it is missing or occurs twice, which may be an attempt at
/// cookie injection.
#[must_use]
pub fn read(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut values = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(|(key, value)| (key == name).then_some(value));
    match (values.next(), values.next()) {
        (Some(value), None) if (1..=MAX_VALUE).contains(&value.len()) => Some(value.to_owned()),
        _ => None,
    }
}

/// Returns 256 random bits as a cookie value.
#[must_use]
pub fn new_value(random: &dyn Random) -> String {
    let mut bytes = [0_u8; 32];
    random.fill(&mut bytes);
    BASE64URL_NOPAD.encode(&bytes)
}

/// Returns the name of the cookie of a browser in which an end user of the organisation has signed in before
/// ([`waypost_ops::devices`]).
#[must_use]
pub fn device_cookie(organization: &OrganizationId) -> String {
    format!("__Host-wp_eu_device_{organization}")
}

/// Sets the device cookie of an organisation's end users.
pub fn set_device(headers: &mut HeaderMap, organization: &OrganizationId, value: &str) {
    let mut cookie = Cookie::new(device_cookie(organization), value.to_owned());
    cookie.set_max_age(cookie::time::Duration::milliseconds(waypost_ops::devices::LIFETIME_MS));
    append(headers, cookie);
}

/// Sets [`FLOW`], until the browser is closed.
pub fn set_flow(headers: &mut HeaderMap, value: &str) {
    append(headers, Cookie::new(FLOW, value.to_owned()));
}

/// Sets the session cookie of an organisation's end users.
pub fn set_session(headers: &mut HeaderMap, organization: &OrganizationId, value: &str) {
    let mut cookie = Cookie::new(session_cookie(organization), value.to_owned());
    cookie.set_max_age(cookie::time::Duration::seconds(SESSION_SECONDS));
    append(headers, cookie);
}

/// Deletes the session cookie.
pub fn clear_session(headers: &mut HeaderMap, organization: &OrganizationId) {
    let mut cookie = Cookie::new(session_cookie(organization), "");
    cookie.set_max_age(cookie::time::Duration::ZERO);
    append(headers, cookie);
}

fn append(headers: &mut HeaderMap, mut cookie: Cookie<'static>) {
    cookie.set_path("/");
    cookie.set_secure(true);
    cookie.set_http_only(true);
    // Lax: the identity provider sends the browser back here from its own site.
    cookie.set_same_site(SameSite::Lax);
    if let Ok(value) = HeaderValue::from_str(&cookie.to_string()) {
        headers.append(header::SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_that_was_set_is_read_and_a_duplicate_is_ignored() {
        let organization = OrganizationId::from_store("org_1".into());
        let mut headers = HeaderMap::new();
        set_session(&mut headers, &organization, "value");
        let set = headers[header::SET_COOKIE].to_str().unwrap();
        assert_eq!(set, "__Host-wp_eu_org_1=value; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=2592000");
        let mut request = HeaderMap::new();
        request.insert(header::COOKIE, HeaderValue::from_static("a=b; __Host-wp_eu_org_1=value;__Host-wp_flow=x"));
        assert_eq!(read(&request, &session_cookie(&organization)).as_deref(), Some("value"));
        assert_eq!(read(&request, FLOW).as_deref(), Some("x"));
        assert_eq!(read(&request, "b"), None);
        request.append(header::COOKIE, HeaderValue::from_static("__Host-wp_flow=y"));
        assert_eq!(read(&request, FLOW), None, "the cookie occurs twice");
    }
}
