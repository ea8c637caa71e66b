//! The servers under test, as the load sees them.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::content::Spec;
use crate::mcp::Era;
use crate::process::Server;
use crate::tokens::Tokens;
use crate::{peer, waypost};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, clap::ValueEnum)]
pub enum Kind {
    /// The same stack with a constant.
    Floor,
    /// Waypost on SQLite.
    Sqlite,
    /// Waypost on PostgreSQL.
    Postgres,
    /// The TypeScript SDK on PostgreSQL.
    Peer,
}

impl Kind {
    /// The name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Sqlite => "waypost/sqlite",
            Self::Postgres => "waypost/postgres",
            Self::Peer => "peer/postgres",
        }
    }

    /// Whether it works on the PostgreSQL cluster.
    pub fn uses_cluster(self) -> bool {
        matches!(self, Self::Postgres | Self::Peer)
    }

    /// Whether it is Waypost.
    pub fn is_waypost(self) -> bool {
        matches!(self, Self::Sqlite | Self::Postgres)
    }

    /// The eras that it speaks.
    pub fn eras(self) -> &'static [Era] {
        if self == Self::Peer { &[Era::Legacy] } else { &Era::ALL }
    }
}

/// A running server with all that is needed to load it.
pub struct Contestant {
    /// Who it is.
    pub kind: Kind,
    /// The process.
    pub server: Server,
    /// Waypost's `/metrics`.
    pub diagnostics: Option<SocketAddr>,
    /// Its database in the cluster.
    pub database: Option<String>,
    /// The MCP path, with `{user}`.
    pub path: String,
    /// Of its users who are signed in and whom no leg has had; none where nobody signs in.
    pub tokens: Option<Tokens>,
    /// Calls that it has answered so far, measured or not.
    pub served: u64,
    walkthroughs: HashMap<&'static str, String>,
}

impl Contestant {
    /// The floor.
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

    /// The peer.
    pub fn peer(server: Server, specs: &[Spec]) -> Self {
        let walkthroughs = specs.iter().map(|spec| (spec.title, peer::walkthrough_id(*spec))).collect();
        Self { kind: Kind::Peer, database: Some(peer::DATABASE.to_owned()), walkthroughs, ..Self::floor(server) }
    }

    /// Waypost; asks it for the ids of its walkthroughs.
    pub async fn waypost(kind: Kind, (server, diagnostics): (Server, SocketAddr), specs: &[Spec]) -> Result<Self> {
        let walkthroughs = waypost::walkthrough_ids(server.addr, specs).await?;
        Ok(Self { kind, diagnostics: Some(diagnostics), path: waypost::path(), walkthroughs, ..Self::floor(server) })
    }

    /// From now on each user shows a token of their own, at the address that is the same for all.
    pub fn sign_in(&mut self, tokens: Tokens) {
        self.path = waypost::shared_path();
        self.tokens = Some(tokens);
    }

    /// The id of a walkthrough; the floor has none.
    pub fn walkthrough(&self, spec: Spec) -> Result<String> {
        if self.kind == Kind::Floor {
            return Ok("wt_0123456789ab".to_owned());
        }
        self.walkthroughs.get(spec.title).cloned().with_context(|| format!("no walkthrough {}", spec.title))
    }
}
