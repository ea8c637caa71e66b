//! Tests of the sign-in pages: in-process requests, as a browser sends them.

mod harness;
mod pages;
