//! The servers under test.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::content::Spec;
use crate::mcp::Era;
use crate::process::Server;
use crate::tokens::Tokens;
use crate::{peer, waypost};

/// The kind of a server under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, clap::ValueEnum)]
pub enum Kind {
    /// The same stack, returning a constant.
    Floor,
    /// Waypost on SQLite.
    Sqlite,
    /// Waypost on PostgreSQL.
    Postgres,
    /// The TypeScript SDK on PostgreSQL.
    Peer,
}

impl Kind {
    /// Returns the name used in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Sqlite => "waypost/sqlite",
            Self::Postgres => "waypost/postgres",
            Self::Peer => "peer/postgres",
        }
    }

    /// Whether it uses the PostgreSQL cluster.
    pub fn uses_cluster(self) -> bool {
        matches!(self, Self::Postgres | Self::Peer)
    }

    /// Whether it is Waypost.
    pub fn is_waypost(self) -> bool {
        matches!(self, Self::Sqlite | Self::Postgres)
    }

    /// Returns the protocol eras that it supports.
    pub fn eras(self) -> &'static [Era] {
        if self == Self::Peer { &[Era::Legacy] } else { &Era::ALL }
    }
}

/// A running server under test.
pub struct Contestant {
    /// The kind of server.
    pub kind: Kind,
    /// The process.
    pub server: Server,
    /// The address of Waypost's `/metrics`.
    pub diagnostics: Option<SocketAddr>,
    /// Its database in the cluster.
    pub database: Option<String>,
    /// The MCP path, with `{user}`.
    pub path: String,
    /// The tokens of signed-in users that no leg has used yet; `None` if users do not sign in.
    pub tokens: Option<Tokens>,
    /// Number of calls served so far, measured or not.
    pub served: u64,
    walkthroughs: HashMap<&'static str, String>,
}

impl Contestant {
    /// Creates the floor.
    pub fn floor(server: Server) -> Self {
        Self {
            kind: Kind::Floor,
            server,
            diagnostics: None,
            database: None,
            path: "/t/{user}/mcp".to_owned(),
            tokens: None,
            served: 0,
            walkthroughs: HashMap::new(),
        }
    }

    /// Creates the peer.
    pub fn peer(server: Server, specs: &[Spec]) -> Self {
        let walkthroughs = specs.iter().map(|spec| (spec.title, peer::walkthrough_id(*spec))).collect();
        Self { kind: Kind::Peer, database: Some(peer::DATABASE.to_owned()), walkthroughs, ..Self::floor(server) }
    }

    /// Creates a Waypost contestant, and requests the IDs of its walkthroughs.
    pub async fn waypost(kind: Kind, server: Server, diagnostics: SocketAddr, specs: &[Spec]) -> Result<Self> {
        let walkthroughs = waypost::walkthrough_ids(server.addr, specs).await?;
        Ok(Self { kind, diagnostics: Some(diagnostics), path: waypost::path(), walkthroughs, ..Self::floor(server) })
    }

    /// Makes every user send a separate token to the shared MCP URL.
    pub fn sign_in(&mut self, tokens: Tokens) {
        self.path = waypost::shared_path();
        self.tokens = Some(tokens);
    }

    /// Returns the ID of a walkthrough; a placeholder for the floor.
    pub fn walkthrough(&self, spec: Spec) -> Result<String> {
        if self.kind == Kind::Floor {
            return Ok("wt_0123456789ab".to_owned());
        }
        self.walkthroughs.get(spec.title).cloned().with_context(|| format!("no walkthrough {}", spec.title))
    }
}
