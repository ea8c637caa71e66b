//! Cookies of the console and of the pages on which end users sign in. All are `__Host-` cookies (RFC 6265bis, section
//! 4.1.3.2): no other host, and no page without TLS except on loopback, can set or read them.

use cookie::{Cookie, SameSite};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue, header};
use waypost_core::Random;
use waypost_core::id::OrganizationId;

/// The session of a user who is signed in to the console.
pub const SESSION: &str = "__Host-wp_console";
/// Proves that a user has signed in to the console with this browser before ([`waypost_ops::devices`]).
pub const DEVICE: &str = "__Host-wp_console_device";
/// Identifies the browser during a sign-in to the console.
pub const BROWSER: &str = "__Host-wp_console_flow";
/// Identifies the browser during the sign-in of an end user.
pub const END_USER_BROWSER: &str = "__Host-wp_flow";
/// A message that the next page of the console shows once.
pub const FLASH: &str = "__Host-wp_flash";
/// The lifetime of a session in seconds: 30 days.
const SESSION_SECONDS: i64 = 30 * 24 * 60 * 60;
/// Maximum length of a value in bytes. Longer values were not set by Waypost.
const MAX_VALUE: usize = 2_048;

/// Returns the value of the cookie `name`. Returns `None` if it is missing, empty or too long, or if it occurs more
/// than once and may be forged.
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

/// Generates a cookie value from 256 random bits.
#[must_use]
pub fn new_value(random: &dyn Random) -> String {
    let mut bytes = [0_u8; 32];
    random.fill(&mut bytes);
    BASE64URL_NOPAD.encode(&bytes)
}

/// Returns the name of the session cookie of an organisation's end users.
#[must_use]
pub fn end_user_session(organization: &OrganizationId) -> String {
    format!("__Host-wp_eu_{organization}")
}

/// Returns the name of the cookie of a browser in which an end user of the organisation has signed in before
/// ([`waypost_ops::devices`]).
#[must_use]
pub fn end_user_device(organization: &OrganizationId) -> String {
    format!("__Host-wp_eu_device_{organization}")
}

/// Sets the session cookie `name` for 30 days.
pub fn set_session(headers: &mut HeaderMap, name: impl Into<String>, value: &str) {
    let mut cookie = Cookie::new(name.into(), value.to_owned());
    cookie.set_max_age(cookie::time::Duration::seconds(SESSION_SECONDS));
    append(headers, cookie);
}

/// Sets the device cookie `name` for [`waypost_ops::devices::LIFETIME_MS`].
pub fn set_device(headers: &mut HeaderMap, name: impl Into<String>, value: &str) {
    let mut cookie = Cookie::new(name.into(), value.to_owned());
    cookie.set_max_age(cookie::time::Duration::milliseconds(waypost_ops::devices::LIFETIME_MS));
    append(headers, cookie);
}

/// Sets the cookie `name`, which the browser keeps until it is closed.
pub fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    append(headers, Cookie::new(name, value.to_owned()));
}

/// Sets [`FLASH`], the message for the next page, truncated to 400 characters.
pub fn set_flash(headers: &mut HeaderMap, message: &str) {
    let message: String = message.chars().take(400).collect();
    set(headers, FLASH, &BASE64URL_NOPAD.encode(message.as_bytes()));
}

/// Returns the message in [`FLASH`], or `None` if there is no valid message.
#[must_use]
pub fn flash(headers: &HeaderMap) -> Option<String> {
    String::from_utf8(BASE64URL_NOPAD.decode(read(headers, FLASH)?.as_bytes()).ok()?).ok()
}

/// Deletes the cookie `name`.
pub fn clear(headers: &mut HeaderMap, name: impl Into<String>) {
    let mut cookie = Cookie::new(name.into(), "");
    cookie.set_max_age(cookie::time::Duration::ZERO);
    append(headers, cookie);
}

fn append(headers: &mut HeaderMap, mut cookie: Cookie<'static>) {
    cookie.set_path("/");
    cookie.set_secure(true);
    cookie.set_http_only(true);
    // Lax: links in emails, and redirects from identity providers, lead here from another site.
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
        set_session(&mut headers, end_user_session(&organization), "value");
        let set = headers[header::SET_COOKIE].to_str().unwrap();
        assert_eq!(set, "__Host-wp_eu_org_1=value; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=2592000");
        let mut request = HeaderMap::new();
        request.insert(header::COOKIE, HeaderValue::from_static("a=b; __Host-wp_eu_org_1=value;__Host-wp_flow=x"));
        assert_eq!(read(&request, &end_user_session(&organization)).as_deref(), Some("value"));
        assert_eq!(read(&request, END_USER_BROWSER).as_deref(), Some("x"));
        assert_eq!(read(&request, "b"), None);
        request.append(header::COOKIE, HeaderValue::from_static("__Host-wp_flow=y"));
        assert_eq!(read(&request, END_USER_BROWSER), None, "the cookie occurs twice");
    }
}
