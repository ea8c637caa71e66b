//! The issuers of this installation (RFC 8414): each hosted server is an issuer, and so is the gateway.
//!
//! Each client, authorization request and grant belongs to one issuer. Nothing that one issuer has issued is valid at
//! another.

use crate::id::{OrganizationId, ServerId};
use crate::scope::Scope;
use crate::server::Server;

/// An issuer of this installation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IssuerId {
    /// A hosted server, at which end users sign in.
    Server {
        /// The server's organisation.
        organization_id: OrganizationId,
        /// The server.
        server_id: ServerId,
    },
    /// The gateway of all organisations, at which users of the console sign in.
    Gateway,
}

impl IssuerId {
    /// The value of [`Self::as_str`] for the gateway. No server ID has this form.
    pub const GATEWAY: &str = "gateway";

    /// Returns the issuer from the columns of a row, which are both `None` for the gateway. Returns `None` if only one
    /// of them is set.
    #[must_use]
    pub fn from_store(organization_id: Option<OrganizationId>, server_id: Option<ServerId>) -> Option<Self> {
        match (organization_id, server_id) {
            (Some(organization_id), Some(server_id)) => Some(Self::Server { organization_id, server_id }),
            (None, None) => Some(Self::Gateway),
            (Some(_), None) | (None, Some(_)) => None,
        }
    }

    /// Returns the ID of the server, or `gateway`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Server { server_id, .. } => server_id.as_str(),
            Self::Gateway => Self::GATEWAY,
        }
    }

    /// Returns the organisation of the server. `None` for the gateway.
    #[must_use]
    pub fn organization_id(&self) -> Option<&OrganizationId> {
        match self {
            Self::Server { organization_id, .. } => Some(organization_id),
            Self::Gateway => None,
        }
    }

    /// Returns the server. `None` for the gateway.
    #[must_use]
    pub fn server_id(&self) -> Option<&ServerId> {
        match self {
            Self::Server { server_id, .. } => Some(server_id),
            Self::Gateway => None,
        }
    }

    /// Returns the scopes of the issuer. The first one is the default.
    #[must_use]
    pub fn scopes(&self) -> &'static [Scope] {
        match self {
            Self::Server { .. } => Scope::SERVER,
            Self::Gateway => Scope::GATEWAY,
        }
    }
}

impl From<&Server> for IssuerId {
    fn from(server: &Server) -> Self {
        Self::Server { organization_id: server.organization_id.clone(), server_id: server.id.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_a_server_or_the_gateway() {
        let (organization_id, server_id) =
            (OrganizationId::from_store("org_1".to_owned()), ServerId::from_store("srv_1".to_owned()));
        let server = IssuerId::from_store(Some(organization_id.clone()), Some(server_id.clone())).unwrap();
        assert_eq!((server.as_str(), server.server_id()), ("srv_1", Some(&server_id)));
        assert_eq!(IssuerId::from_store(None, None), Some(IssuerId::Gateway));
        assert_eq!(IssuerId::from_store(Some(organization_id), None), None);
        assert_eq!(IssuerId::from_store(None, Some(server_id)), None);
        assert!(IssuerId::GATEWAY.parse::<ServerId>().is_err());
    }

    #[test]
    fn issuers_share_no_scope() {
        let server = IssuerId::Server {
            organization_id: OrganizationId::from_store("org_1".to_owned()),
            server_id: ServerId::from_store("srv_1".to_owned()),
        };
        assert!(server.scopes().iter().all(|scope| !IssuerId::Gateway.scopes().contains(scope)));
        let all = server.scopes().len() + IssuerId::Gateway.scopes().len();
        assert_eq!(all, Scope::ALL.len());
    }
}
