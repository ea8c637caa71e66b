//! The console's style sheets and scripts.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::response::Response;
use axum::routing::get;
use http::HeaderMap;
use waypost_http_kit::asset::{AssetFile, Assets, SCRIPT, STYLE};

use crate::Console;

const FILES: &[AssetFile] = &[
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
    ("messages.js", SCRIPT, include_bytes!("../assets/messages.js")),
    ("times.js", SCRIPT, include_bytes!("../assets/times.js")),
    ("tickets.js", SCRIPT, include_bytes!("../assets/tickets.js")),
    ("import.js", SCRIPT, include_bytes!("../assets/import.js")),
    ("walkthroughs.js", SCRIPT, include_bytes!("../assets/walkthroughs.js")),
    ("live.js", SCRIPT, include_bytes!("../assets/live.js")),
    ("event-stream.js", SCRIPT, include_bytes!("../assets/event-stream.js")),
    ("tool-arguments.js", SCRIPT, include_bytes!("../assets/tool-arguments.js")),
    ("instance-tools.js", SCRIPT, include_bytes!("../assets/instance-tools.js")),
    ("instance-logs.js", SCRIPT, include_bytes!("../assets/instance-logs.js")),
    ("catalog.js", SCRIPT, include_bytes!("../assets/catalog.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
];

/// The files as they are served.
static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets::new("/assets", FILES));

/// Returns the URL path of the file `name`, or an empty string if there is no such file.
#[must_use]
pub fn path(name: &str) -> &'static str {
    ASSETS.path(name)
}

/// Returns the routes of `/assets/…`.
pub fn router() -> Router<Console> {
    Router::new().route("/assets/{name}", get(file))
}

async fn file(Path(name): Path<String>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    ASSETS.serve(&name, query.as_deref(), &headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_import_of_a_script_is_resolved() {
        for (name, ..) in FILES {
            assert!(path(name).starts_with(&format!("/assets/{name}?v=")), "{name}");
            let text = ASSETS.content(name).unwrap();
            assert!(!String::from_utf8_lossy(&text).contains("from \"./"), "{name} imports a file that does not exist");
        }
        assert_eq!(path("other"), "");
    }
}
