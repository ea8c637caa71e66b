//! Tests of the endpoint of a server with sign-in. They pass the validation result of the token, as the router does.

mod fixture;
mod sign_in;
