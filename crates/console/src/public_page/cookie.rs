//! The cookie that remembers a visitor's personal ID.
//!
//! Other servers of this installation belong to other tenants. A cookie is therefore limited to one server by its path
//! or host, and its value is signed for that server: a forged value, or a value for another server, is ignored. Under
//! https the name has a prefix that browsers enforce (RFC 6265bis, section 4.1.3): a page without TLS cannot set the
//! cookie, and with `__Host-` a sibling host cannot either.
//!
//! If the slug of a server changes, the browser has a cookie for the former path only. The page at the former path
//! therefore hands the ID over in a second cookie for the current path, which is used if the first one does not exist
//! there.

use cookie::{Cookie, SameSite};
use http::{HeaderMap, HeaderValue, header};
use waypost_ops::public_url::ServerUrls;

use waypost_http_kit::cookies;

/// The lifetime of the cookie: one year. Browsers cap it at 400 days (RFC 6265bis, section 5.5).
const SECONDS: i64 = 365 * 24 * 60 * 60;

/// The name and scope of the cookie of one server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PersonalCookie {
    name: &'static str,
    path: String,
    secure: bool,
}

impl PersonalCookie {
    /// Returns the cookie for pages at `address`.
    pub fn of(address: &ServerUrls) -> Self {
        let secure = address.origin().starts_with("https://");
        let prefix = address.prefix();
        let (name, path) = match (secure, prefix.is_empty()) {
            (true, true) => ("__Host-wp_personal", "/".to_owned()),
            (true, false) => ("__Secure-wp_personal", prefix),
            (false, true) => ("wp_personal", "/".to_owned()),
            (false, false) => ("wp_personal", prefix),
        };
        Self { name, path, secure }
    }

    /// Returns the cookie in which a page at a former address hands the ID over to the page at `current`. Returns `None`
    /// if the server has its own host: a host cannot set cookies for another host.
    pub fn handover(current: &ServerUrls) -> Option<Self> {
        let Self { name, path, secure } = Self::of(current);
        let name = match name {
            "__Secure-wp_personal" => "__Secure-wp_personal_former",
            _ => "wp_personal_former",
        };
        (path != "/").then_some(Self { name, path, secure })
    }

    /// Returns the value of the cookie. Returns `None` if the request has no such cookie, or more than one: in that
    /// case, another page set one of them.
    pub fn read(&self, headers: &HeaderMap) -> Option<String> {
        cookies::read(headers, self.name)
    }

    /// Sets the cookie.
    pub fn set(self, headers: &mut HeaderMap, value: String) {
        let mut cookie = Cookie::new(self.name, value);
        cookie.set_path(self.path);
        cookie.set_secure(self.secure);
        cookie.set_http_only(true);
        // Lax: most visitors follow a link from another site.
        cookie.set_same_site(SameSite::Lax);
        cookie.set_max_age(cookie::time::Duration::seconds(SECONDS));
        if let Ok(value) = HeaderValue::from_str(&cookie.to_string()) {
            headers.append(header::SET_COOKIE, value);
        }
    }
}
