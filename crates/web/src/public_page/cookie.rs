//! The cookie that remembers a visitor's personal ID.
//!
//! Other servers of this installation belong to other tenants. A cookie is therefore limited to one server by its path,
//! or by its host, and its value is signed for that server: a value that was made for another server, or made up, counts as
//! none. Under https the name has a prefix that browsers enforce (RFC 6265bis, section 4.1.3): no page without TLS, and with
//! `__Host-` no sibling host, can set it.
//!
//! When a server gets another slug, the browser has the cookie for the former path only. The page at the former address
//! therefore hands the ID over, in a second cookie for the present path, which counts where the first one does not exist.

use cookie::{Cookie, SameSite};
use http::{HeaderMap, HeaderValue, header};
use waypost_ops::public_url::ServerUrls;

use crate::cookies;

/// A year: browsers cap the lifetime at 400 days (RFC 6265bis, section 5.5).
const SECONDS: i64 = 365 * 24 * 60 * 60;

/// Where the cookie of one server is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot {
    name: &'static str,
    path: String,
    secure: bool,
}

impl Slot {
    /// The place of the cookie for pages at `address`.
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

    /// The place where a page at a former address hands the ID over to the page at `current`. Returns `None` on a host of the
    /// server's own: a host cannot set cookies for another one.
    pub fn handover(current: &ServerUrls) -> Option<Self> {
        let Self { name, path, secure } = Self::of(current);
        let name = match name {
            "__Secure-wp_personal" => "__Secure-wp_personal_former",
            _ => "wp_personal_former",
        };
        (path != "/").then_some(Self { name, path, secure })
    }

    /// The value. Returns `None` if there is none, or more than one: one of them is not from this page then.
    pub fn read(&self, headers: &HeaderMap) -> Option<String> {
        cookies::read(headers, self.name)
    }

    /// Sets the value.
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
