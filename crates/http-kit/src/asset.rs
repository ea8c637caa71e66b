//! Style sheets and scripts that are compiled into the binary. Browsers cache them for a year, because their URLs
//! contain a hash of the content.
//!
//! In the source, a script imports another one as `./name.js`. The served script contains the full URL instead: a
//! module loaded from two URLs would run twice, and register its listeners twice.

use std::io::Write;
use std::sync::OnceLock;

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::compression::Coding;

/// The media type of a style sheet.
pub const STYLE: &str = "text/css; charset=utf-8";
/// The media type of a script.
pub const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The name, media type and content of a file.
pub type AssetFile = (&'static str, &'static str, &'static [u8]);

/// A set of files that are served below one path. They are compressed if the browser accepts it: the files are the same
/// for every user, so their length reveals nothing.
pub struct Assets {
    files: Vec<ServedFile>,
}

struct ServedFile {
    name: &'static str,
    kind: &'static str,
    /// The URL path with the version.
    path: String,
    plain: Bytes,
    // Compressed for the first request that accepts the coding; later requests reuse the result.
    brotli: OnceLock<Bytes>,
    gzip: OnceLock<Bytes>,
}

impl ServedFile {
    /// Returns the file in this coding.
    fn encoded(&self, coding: Coding) -> &Bytes {
        match coding {
            Coding::Brotli => self.brotli.get_or_init(|| brotli(&self.plain)),
            Coding::Gzip => self.gzip.get_or_init(|| gzip(&self.plain)),
        }
    }
}

impl Assets {
    /// Prepares `files` to be served below the path `prefix`, such as `/assets`.
    #[must_use]
    pub fn new(prefix: &str, files: &[AssetFile]) -> Self {
        let version = version(files);
        let paths: Vec<_> = files.iter().map(|(name, ..)| (*name, format!("{prefix}/{name}?v={version}"))).collect();
        let serve = |((name, kind, content), (_, path)): (&AssetFile, &(&str, String))| {
            let plain = match std::str::from_utf8(content) {
                Ok(text) if *kind == SCRIPT && text.contains(" from \"./") => resolve_imports(text, &paths).into(),
                _ => Bytes::from_static(content),
            };
            ServedFile { name, kind, path: path.clone(), plain, brotli: OnceLock::new(), gzip: OnceLock::new() }
        };
        Self { files: files.iter().zip(&paths).map(serve).collect() }
    }

    /// Returns the URL path of the file `name`, or an empty string if there is no such file. All paths change if any
    /// file changes, because scripts import each other.
    #[must_use]
    pub fn path(&self, name: &str) -> &str {
        self.find(name).map_or("", |file| &file.path)
    }

    /// Returns the content of the file `name` as it is served. Returns `None` if there is no such file.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Bytes> {
        self.find(name).map(|file| file.plain.clone())
    }

    fn find(&self, name: &str) -> Option<&ServedFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Returns the response to a request for the file `name` with this query string: 404 if there is no such file.
    #[must_use]
    pub fn serve(&self, name: &str, query: Option<&str>, headers: &HeaderMap) -> Response {
        let Some(file) = self.find(name) else { return StatusCode::NOT_FOUND.into_response() };
        let is_current = query.is_some_and(|query| file.path.ends_with(&format!("?{query}")));
        let encoded = Coding::negotiate(headers).map(|coding| (coding, file.encoded(coding)));
        let encoded = encoded.filter(|(_, body)| (1..file.plain.len()).contains(&body.len()));
        let body = encoded.map_or(&file.plain, |(_, body)| body);
        let mut response = body.clone().into_response();
        let headers = [
            (header::CONTENT_TYPE, file.kind),
            (header::CACHE_CONTROL, cache_control(is_current)),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::VARY, "accept-encoding"),
        ];
        let encoding = encoded.map(|(coding, _)| (header::CONTENT_ENCODING, coding.as_str()));
        for (name, value) in headers.into_iter().chain(encoding) {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Returns the `Cache-Control` header of a file, which can be cached for a year if its URL identifies its content.
#[must_use]
pub fn cache_control(is_versioned: bool) -> &'static str {
    if is_versioned { "public, max-age=31536000, immutable" } else { "no-cache" }
}

/// Returns a hash of all files together.
fn version(files: &[AssetFile]) -> String {
    let mut digest = Sha256::new();
    for (name, kind, content) in files {
        for part in [name.as_bytes(), kind.as_bytes(), content] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    HEXLOWER.encode(&digest.finalize()[..8])
}

fn brotli(plain: &[u8]) -> Bytes {
    // Quality 9 of 11: the two higher levels are ten times slower and save only two percent more.
    let (quality, window) = (9, 22);
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4_096, quality, window);
    // See `gzip`.
    if encoder.write_all(plain).is_err() {
        return Bytes::new();
    }
    encoder.into_inner().into()
}

fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail. An empty result is never served.
    let compressed = encoder.write_all(plain).and_then(|()| encoder.finish());
    compressed.unwrap_or_default().into()
}

/// Replaces the imports in `script` with full URL paths.
fn resolve_imports(script: &str, paths: &[(&str, String)]) -> String {
    paths.iter().fold(script.to_owned(), |script, (name, path)| {
        script.replace(&format!(" from \"./{name}\""), &format!(" from \"{path}\""))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    const FILES: &[AssetFile] = &[
        ("a.js", SCRIPT, b"import { b } from \"./b.js\";"),
        ("b.js", SCRIPT, b"export const b = 1;"),
        ("c.css", STYLE, b"body { margin: 0 }"),
    ];

    #[test]
    fn decompressed_files_equal_the_originals() {
        for file in Assets::new("/assets", FILES).files {
            let (mut text, mut other) = (Vec::new(), Vec::new());
            GzDecoder::new(&file.encoded(Coding::Gzip)[..]).read_to_end(&mut text).unwrap();
            brotli::Decompressor::new(&file.encoded(Coding::Brotli)[..], 4_096).read_to_end(&mut other).unwrap();
            assert!(text == file.plain && other == file.plain, "{}", file.name);
        }
    }

    #[test]
    fn files_are_sent_in_the_preferred_coding_if_that_is_shorter() {
        let long: &'static [u8] =
            b"body { margin: 0 } body { margin: 0 } body { margin: 0 } body { margin: 0 } body { margin: 0 }";
        let assets = Assets::new("/assets", &[("long.css", STYLE, long), ("short.css", STYLE, b"a{}")]);
        let encoding = |name: &str, accept: &'static str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(accept))]);
            let response = assets.serve(name, None, &headers);
            assert_eq!(response.headers()[header::VARY], "accept-encoding");
            response.headers().get(header::CONTENT_ENCODING).map(|coding| coding.to_str().unwrap().to_owned())
        };
        assert_eq!(encoding("long.css", "gzip, br").as_deref(), Some("br"));
        assert_eq!(encoding("long.css", "gzip").as_deref(), Some("gzip"));
        assert_eq!(encoding("long.css", "identity"), None);
        assert_eq!(encoding("short.css", "gzip, br"), None);
    }

    #[test]
    fn scripts_import_each_other_by_the_path_that_pages_use() {
        let assets = Assets::new("/assets", FILES);
        assert!(assets.path("b.js").starts_with("/assets/b.js?v="));
        assert_eq!(assets.path("other"), "");
        let script = format!("import {{ b }} from \"{}\";", assets.path("b.js"));
        assert_eq!(assets.content("a.js").unwrap(), script);
        let changed = Assets::new("/assets", &FILES[1..]);
        assert_ne!(assets.path("b.js"), changed.path("b.js"), "the version covers all files");
    }
}
