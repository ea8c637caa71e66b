//! The cookies of the console. All are `__Host-` cookies (RFC 6265bis, section 4.1.3.2): the host of a hosted server
//! cannot set or read them, and neither can a page without TLS except on loopback.

use cookie::{Cookie, SameSite};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue, header};
use waypost_core::Random;

/// The session of a signed-in user.
pub const SESSION: &str = "__Host-wp_console";
/// Proves that a user has signed in with this browser before ([`waypost_ops::devices`]).
pub const DEVICE: &str = "__Host-wp_console_device";
/// Identifies the browser during a sign-in.
pub const BROWSER: &str = "__Host-wp_console_flow";
/// A message that the next page shows once.
pub const FLASH: &str = "__Host-wp_flash";
/// A session lasts 30 days.
const SESSION_SECONDS: i64 = 30 * 24 * 60 * 60;
/// Values longer than this were not set by the console.
const MAX_VALUE: usize = 2_048;

/// Returns the value of the cookie `name`. Returns `None` if it is missing, or if it occurs more than once and may be
/// forged.
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

/// Sets [`SESSION`].
pub fn set_session(headers: &mut HeaderMap, value: &str) {
    let mut cookie = Cookie::new(SESSION, value.to_owned());
    cookie.set_max_age(cookie::time::Duration::seconds(SESSION_SECONDS));
    append(headers, cookie);
}

/// Sets [`DEVICE`].
pub fn set_device(headers: &mut HeaderMap, value: &str) {
    let mut cookie = Cookie::new(DEVICE, value.to_owned());
    cookie.set_max_age(cookie::time::Duration::milliseconds(waypost_ops::devices::LIFETIME_MS));
    append(headers, cookie);
}

/// Sets [`BROWSER`] until the browser is closed.
pub fn set_browser(headers: &mut HeaderMap, value: &str) {
    append(headers, Cookie::new(BROWSER, value.to_owned()));
}

/// Sets [`FLASH`], the message for the next page, cut to 400 characters.
pub fn set_flash(headers: &mut HeaderMap, message: &str) {
    let message: String = message.chars().take(400).collect();
    append(headers, Cookie::new(FLASH, BASE64URL_NOPAD.encode(message.as_bytes())));
}

/// Returns the message in [`FLASH`].
#[must_use]
pub fn flash(headers: &HeaderMap) -> Option<String> {
    String::from_utf8(BASE64URL_NOPAD.decode(read(headers, FLASH)?.as_bytes()).ok()?).ok()
}

/// Deletes a cookie.
pub fn clear(headers: &mut HeaderMap, name: &'static str) {
    let mut cookie = Cookie::new(name, "");
    cookie.set_max_age(cookie::time::Duration::ZERO);
    append(headers, cookie);
}

fn append(headers: &mut HeaderMap, mut cookie: Cookie<'static>) {
    cookie.set_path("/");
    cookie.set_secure(true);
    cookie.set_http_only(true);
    // Lax, because links in emails lead here.
    cookie.set_same_site(SameSite::Lax);
    if let Ok(value) = HeaderValue::from_str(&cookie.to_string()) {
        headers.append(header::SET_COOKIE, value);
    }
}
