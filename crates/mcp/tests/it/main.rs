//! The endpoint of a server whose users sign in, with what the router would have found out about the token.

mod sign_in;
mod stage;
