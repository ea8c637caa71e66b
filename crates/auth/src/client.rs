//! OAuth clients: who asks for a sign-in, and where its codes may be sent.

pub mod document;
