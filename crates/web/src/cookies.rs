//! The cookies of the console. All are `__Host-` cookies (RFC 6265bis, section 4.1.3.2): no hosted server's host, and no
//! page without TLS but on loopback, can set or read them.

use cookie::{Cookie, SameSite};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue, header};
use waypost_core::Random;

/// The session of a signed-in user.
pub const SESSION: &str = "__Host-wp_console";
/// Shows that a user has signed in with this browser before ([`waypost_ops::devices`]).
pub const DEVICE: &str = "__Host-wp_console_device";
/// Names the browser while its user signs in.
pub const BROWSER: &str = "__Host-wp_console_flow";
/// What the next page shall say, once.
pub const FLASH: &str = "__Host-wp_flash";
/// Signed-in browsers stay so for 30 days.
const SESSION_SECONDS: i64 = 30 * 24 * 60 * 60;
/// Longer values are none of ours.
const MAX_VALUE: usize = 2_048;

/// The value of the cookie `name`; none when it is missing, or comes twice: somebody plays tricks then.
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

/// 256 random bits as a cookie's value.
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

/// Sets [`BROWSER`], until the browser is closed.
pub fn set_browser(headers: &mut HeaderMap, value: &str) {
    append(headers, Cookie::new(BROWSER, value.to_owned()));
}

/// Sets [`FLASH`]: a sentence for the next page.
pub fn set_flash(headers: &mut HeaderMap, message: &str) {
    let message: String = message.chars().take(400).collect();
    append(headers, Cookie::new(FLASH, BASE64URL_NOPAD.encode(message.as_bytes())));
}

/// The sentence of [`FLASH`].
#[must_use]
pub fn flash(headers: &HeaderMap) -> Option<String> {
    String::from_utf8(BASE64URL_NOPAD.decode(read(headers, FLASH)?.as_bytes()).ok()?).ok()
}

/// Takes a cookie away.
pub fn clear(headers: &mut HeaderMap, name: &'static str) {
    let mut cookie = Cookie::new(name, "");
    cookie.set_max_age(cookie::time::Duration::ZERO);
    append(headers, cookie);
}

fn append(headers: &mut HeaderMap, mut cookie: Cookie<'static>) {
    cookie.set_path("/");
    cookie.set_secure(true);
    cookie.set_http_only(true);
    // Lax: links in mails lead here from elsewhere.
    cookie.set_same_site(SameSite::Lax);
    if let Ok(value) = HeaderValue::from_str(&cookie.to_string()) {
        headers.append(header::SET_COOKIE, value);
    }
}
