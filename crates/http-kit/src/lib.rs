//! Code shared by the HTTP crates: assets, compression, cookies, downloads, headers, layers, rate limits, CSRF
//! protection, statuses of errors, and facts about a request.

pub mod asset;
pub mod compression;
pub mod cookies;
pub mod download;
pub mod headers;
pub mod layered;
pub mod limits;
pub mod origin;
pub mod request_info;
pub mod status;
pub mod web;
