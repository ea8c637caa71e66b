//! The console's style sheet and scripts. They are compiled into the binary, and browsers cache them for a year,
//! because their URLs contain a hash of the content.
//!
//! In the source, a script imports another one as `./name.js`. The served script contains the full URL instead: a
//! module loaded from two URLs would run twice, and register its listeners twice.

use std::io::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::Web;

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The name, media type and content of each file.
const FILES: &[(&str, &str, &[u8])] = &[
    ("assigned.js", SCRIPT, include_bytes!("../assets/assigned.js")),
    ("analytics.js", SCRIPT, include_bytes!("../assets/analytics.js")),
    ("console.css", STYLE, include_bytes!("../assets/console.css")),
    ("console.js", SCRIPT, include_bytes!("../assets/console.js")),
    ("dom.js", SCRIPT, include_bytes!("../assets/dom.js")),
    ("editor.js", SCRIPT, include_bytes!("../assets/editor.js")),
    ("editor-conflict.js", SCRIPT, include_bytes!("../assets/editor-conflict.js")),
    ("editor-diff.js", SCRIPT, include_bytes!("../assets/editor-diff.js")),
    ("editor-fields.js", SCRIPT, include_bytes!("../assets/editor-fields.js")),
    ("editor-head.js", SCRIPT, include_bytes!("../assets/editor-head.js")),
    ("editor-keep.js", SCRIPT, include_bytes!("../assets/editor-keep.js")),
    ("editor-history.js", SCRIPT, include_bytes!("../assets/editor-history.js")),
    ("editor-model.js", SCRIPT, include_bytes!("../assets/editor-model.js")),
    ("editor-preview.js", SCRIPT, include_bytes!("../assets/editor-preview.js")),
    ("editor-queue.js", SCRIPT, include_bytes!("../assets/editor-queue.js")),
    ("editor-session.js", SCRIPT, include_bytes!("../assets/editor-session.js")),
    ("editor-steps.js", SCRIPT, include_bytes!("../assets/editor-steps.js")),
    ("editor-text.js", SCRIPT, include_bytes!("../assets/editor-text.js")),
    ("forms.js", SCRIPT, include_bytes!("../assets/forms.js")),
    ("editor-undo.js", SCRIPT, include_bytes!("../assets/editor-undo.js")),
    ("htmx.js", SCRIPT, include_bytes!("../assets/htmx.min.js")),
    ("try.js", SCRIPT, include_bytes!("../assets/try.js")),
    ("tickets.js", SCRIPT, include_bytes!("../assets/tickets.js")),
    ("import.js", SCRIPT, include_bytes!("../assets/import.js")),
    ("walkthroughs.js", SCRIPT, include_bytes!("../assets/walkthroughs.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
];

/// A hash of all files together, because scripts import each other.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut digest = Sha256::new();
    for (name, kind, content) in FILES {
        for part in [name.as_bytes(), kind.as_bytes(), content] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    HEXLOWER.encode(&digest.finalize()[..8])
});

/// The URL path of each file. All paths change if any file changes.
static PATHS: LazyLock<Vec<(&str, String)>> =
    LazyLock::new(|| FILES.iter().map(|(name, ..)| (*name, format!("/assets/{name}?v={}", *VERSION))).collect());

/// The content of a file as it is served.
struct ServedContent {
    plain: Bytes,
    /// Compressed once, so that repeated requests cost nothing.
    gzip: Bytes,
}

/// The served content of each file, in the order of [`FILES`].
static CONTENTS: LazyLock<Vec<ServedContent>> = LazyLock::new(|| {
    let served = |(_, kind, content): &(&str, &str, &'static [u8])| {
        let plain = match std::str::from_utf8(content) {
            Ok(text) if *kind == SCRIPT && text.contains(" from \"./") => resolve_imports(text).into_bytes().into(),
            _ => Bytes::from_static(content),
        };
        ServedContent { gzip: gzip(&plain), plain }
    };
    FILES.iter().map(served).collect()
});

fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail. An empty result is never served.
    let compressed = encoder.write_all(plain).and_then(|()| encoder.finish());
    compressed.unwrap_or_default().into()
}

/// Replaces the imports in `script` with full URL paths.
fn resolve_imports(script: &str) -> String {
    FILES.iter().fold(script.to_owned(), |script, (name, ..)| {
        script.replace(&format!(" from \"./{name}\""), &format!(" from \"{}\"", path(name)))
    })
}

/// Returns the URL path of the file `name`, or an empty string if there is no such file.
#[must_use]
pub fn path(name: &str) -> &'static str {
    PATHS.iter().find(|(own, _)| *own == name).map_or("", |(_, path)| path)
}

/// Returns the routes of `/assets/…`. The files are compressed if the browser accepts it. Nothing else is compressed:
/// pages contain secrets next to text that others choose, and compression can leak them (BREACH). The assets are the
/// same for every user, so their length reveals nothing.
pub fn router() -> Router<Web> {
    Router::new().route("/assets/{name}", get(file))
}

/// Whether a request accepts gzip (RFC 9110, section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && weight > 0.0
    })
}

async fn file(Path(name): Path<String>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let mut files = FILES.iter().zip(CONTENTS.iter());
    let Some(((name, kind, _), content)) = files.find(|((own, ..), _)| *own == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let current = query.is_some_and(|query| path(name).ends_with(&format!("?{query}")));
    let cache_control = if current { "public, max-age=31536000, immutable" } else { "no-cache" };
    let compressed = accepts_gzip(&headers) && (1..content.plain.len()).contains(&content.gzip.len());
    let body = if compressed { &content.gzip } else { &content.plain };
    let mut response = body.clone().into_response();
    let headers = [
        (header::CONTENT_TYPE, *kind),
        (header::CACHE_CONTROL, cache_control),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::VARY, "accept-encoding"),
    ];
    let encoding = compressed.then_some((header::CONTENT_ENCODING, "gzip"));
    for (name, value) in headers.into_iter().chain(encoding) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn decompressed_files_equal_the_originals() {
        for ((name, ..), content) in FILES.iter().zip(CONTENTS.iter()) {
            let mut text = Vec::new();
            GzDecoder::new(&content.gzip[..]).read_to_end(&mut text).unwrap();
            assert!(text == content.plain, "{name}");
        }
    }

    #[test]
    fn gzip_is_sent_only_if_it_is_accepted() {
        let accepts = |value: &'static str| {
            accepts_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        for value in ["gzip", "GZIP", "br, gzip", "gzip;q=0.5", "deflate;q=1.0, gzip ; q=1"] {
            assert!(accepts(value), "{value}");
        }
        for value in ["", "br", "gzip;q=0", "gzip;q=0.000", "gzip;q=x", "identity", "xgzip"] {
            assert!(!accepts(value), "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn every_path_contains_the_version() {
        for (name, ..) in FILES {
            assert!(path(name).starts_with(&format!("/assets/{name}?v=")), "{name}");
        }
        assert_eq!(path("other"), "");
    }

    #[test]
    fn scripts_import_each_other_by_the_path_that_pages_use() {
        assert_eq!(
            resolve_imports("import { api } from \"./console.js\";"),
            format!("import {{ api }} from \"{}\";", path("console.js"))
        );
        for ((name, ..), content) in FILES.iter().zip(CONTENTS.iter()) {
            let text = String::from_utf8_lossy(&content.plain);
            assert!(!text.contains("from \"./"), "{name} imports a file that does not exist");
        }
    }
}
