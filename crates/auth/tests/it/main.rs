//! The sign-in pages, asked in-process, as a browser would.

mod pages;
mod site;
