//! Headers of 2026-07-28, which repeat parts of the body ("Standard Request Headers").

use http::HeaderMap;
use waypost_mcp_wire::JsonRpcError;
use waypost_mcp_wire::headers::check_headers;
use waypost_mcp_wire::param_headers::ParamHeader;
use waypost_mcp_wire::strict::Message;

/// Checks the headers that every request has.
///
/// # Errors
/// `HEADER_MISMATCH`, or `INVALID_PARAMS` if only the header declares the revision.
pub(crate) fn check(request: &Message<'_>, headers: &HeaderMap) -> Result<(), JsonRpcError> {
    check_headers(request, as_bytes(headers).iter().copied(), &[])
}

/// Checks the headers that repeat arguments of a tool with this definition (`x-mcp-header`).
///
/// # Errors
/// `HEADER_MISMATCH` if a header does not match its argument.
pub(crate) fn check_arguments(
    request: &Message<'_>,
    headers: &HeaderMap,
    definition: &str,
) -> Result<(), JsonRpcError> {
    check_headers(request, as_bytes(headers).iter().copied(), &ParamHeader::of_tool(definition))
}

fn as_bytes(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}
