//! Tests of the daemon's end of the link, against the control plane's end.

mod control_plane;
mod join;
mod lifecycle;
mod machine;
mod network;
mod replay;
mod requests;
