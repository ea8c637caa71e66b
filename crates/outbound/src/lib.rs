//! Requests to addresses that a tenant or a client named: never into a private network.
