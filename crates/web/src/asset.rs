//! Style sheet and scripts of the console: in the binary, and kept by browsers for a year, because their addresses name
//! their content.
//!
//! A script imports another one as `./name.js`. What is served names its full address there: a module that has two
//! addresses is two modules, each with listeners of its own.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use http::{HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use tower_http::compression::CompressionLayer;

use crate::Web;

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, kind and content of each file.
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

/// A number of all files together: scripts import each other.
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

/// The address of each file: another one as soon as the content of any is another one.
static PATHS: LazyLock<Vec<(&str, String)>> =
    LazyLock::new(|| FILES.iter().map(|(name, ..)| (*name, format!("/assets/{name}?v={}", *VERSION))).collect());

/// What is served of each file, in their order.
static CONTENTS: LazyLock<Vec<Cow<'static, [u8]>>> = LazyLock::new(|| {
    let served = |(_, kind, content): &(&str, &str, &'static [u8])| match std::str::from_utf8(content) {
        Ok(text) if *kind == SCRIPT && text.contains(" from \"./") => Cow::Owned(linked(text).into_bytes()),
        _ => Cow::Borrowed(*content),
    };
    FILES.iter().map(served).collect()
});

/// `script` with the addresses of the scripts that it imports.
fn linked(script: &str) -> String {
    FILES.iter().fold(script.to_owned(), |script, (name, ..)| {
        script.replace(&format!(" from \"./{name}\""), &format!(" from \"{}\"", path(name)))
    })
}

/// The address of the file `name`.
#[must_use]
pub fn path(name: &str) -> &'static str {
    PATHS.iter().find(|(own, _)| *own == name).map_or("", |(_, path)| path)
}

/// `/assets/…`, compressed if the browser accepts it. Only these files are compressed: they are the same for everyone, so their
/// length reveals nothing (pages hold secrets next to text that others choose, which compression can leak: BREACH).
pub fn router() -> Router<Web> {
    Router::new().route("/assets/{name}", get(file)).layer(CompressionLayer::new())
}

async fn file(Path(name): Path<String>, RawQuery(query): RawQuery) -> Response {
    let mut files = FILES.iter().zip(CONTENTS.iter());
    let Some(((name, kind, _), content)) = files.find(|((own, ..), _)| *own == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let current = query.is_some_and(|query| path(name).ends_with(&format!("?{query}")));
    let keep = if current { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = content.clone().into_response();
    for (name, value) in
        [(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, keep), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_an_address_that_names_its_content() {
        for (name, ..) in FILES {
            assert!(path(name).starts_with(&format!("/assets/{name}?v=")), "{name}");
        }
        assert_eq!(path("other"), "");
    }

    #[test]
    fn a_script_imports_others_by_the_address_that_pages_load_them_by() {
        assert_eq!(
            linked("import { api } from \"./console.js\";"),
            format!("import {{ api }} from \"{}\";", path("console.js"))
        );
        for ((name, ..), content) in FILES.iter().zip(CONTENTS.iter()) {
            let text = String::from_utf8_lossy(content);
            assert!(!text.contains("from \"./"), "{name} imports what is not there");
        }
    }
}
