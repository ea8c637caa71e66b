//! Authorization: the operations and the roles they require.

use crate::caller::Caller;
use crate::error::{Code, Error, Result};
use crate::id::{OrganizationId, ServerId, UserId};
use crate::organization::Role;
use crate::walkthrough::names;

names! {
    /// An operation that requires authorization.
    Operation {
        /// Create an organisation.
        OrganizationCreate = "organization.create",
        /// View an organisation.
        OrganizationRead = "organization.read",
        /// Change an organisation's name or slug.
        OrganizationUpdate = "organization.update",
        /// Delete an organisation and everything it owns.
        OrganizationDelete = "organization.delete",
        /// View members.
        MemberRead = "member.read",
        /// Add, change and remove members.
        MemberWrite = "member.write",
        /// View invitations.
        InvitationRead = "invitation.read",
        /// Create and revoke invitations.
        InvitationWrite = "invitation.write",
        /// View the audit log.
        AuditRead = "audit.read",
        /// View API keys, without their secrets.
        KeyRead = "key.read",
        /// Create and delete API keys.
        KeyWrite = "key.write",
        /// View servers and their assignments.
        ServerRead = "server.read",
        /// Create, change and delete servers.
        ServerWrite = "server.write",
        /// View identity providers, without their secrets.
        OauthConfigRead = "oauth_config.read",
        /// Create, change and delete identity providers.
        OauthConfigWrite = "oauth_config.write",
        /// Assign walkthroughs to servers.
        AssignmentWrite = "assignment.write",
        /// View walkthroughs, including drafts.
        WalkthroughRead = "walkthrough.read",
        /// Edit, publish, archive, delete and restore walkthroughs.
        WalkthroughWrite = "walkthrough.write",
        /// Permanently delete walkthroughs in the trash.
        WalkthroughPurge = "walkthrough.purge",
        /// View analytics.
        AnalyticsRead = "analytics.read",
        /// View end users and their activity.
        EndUserRead = "end_user.read",
        /// Export all data of an end user.
        EndUserExport = "end_user.export",
        /// Delete an end user and all their data.
        EndUserDelete = "end_user.delete",
        /// View joins of anonymous progress.
        JoinRead = "join.read",
        /// Undo a join.
        JoinUndo = "join.undo",
        /// Create links with which end users can claim progress recorded under a label.
        ClaimLinkCreate = "claim_link.create",
        /// View support tickets.
        TicketRead = "ticket.read",
        /// Work on support tickets.
        TicketWrite = "ticket.write",
        /// View webhooks and their deliveries.
        WebhookRead = "webhook.read",
        /// Create, change and delete webhooks, and resend deliveries.
        WebhookWrite = "webhook.write",
        /// View toolboxes.
        ToolboxRead = "toolbox.read",
        /// Create, revoke and delete toolboxes.
        ToolboxWrite = "toolbox.write",
        /// View the catalogue of tool servers.
        CatalogRead = "catalog.read",
        /// Import and delete catalogue entries.
        CatalogWrite = "catalog.write",
        /// View instances, their deployments, tools and statistics.
        InstanceRead = "instance.read",
        /// Read the logs of instances.
        InstanceLogRead = "instance.log_read",
        /// Deploy, change, start, stop and remove instances.
        InstanceWrite = "instance.write",
        /// Connect the caller's own agent to a remote server to which it has a grant.
        InstanceConnect = "instance.connect",
        /// Call the tools of an instance.
        InstanceCall = "instance.call",
        /// View the names of secrets and where they are used.
        ToolSecretRead = "tool_secret.read",
        /// Create, rotate and delete secrets.
        ToolSecretWrite = "tool_secret.write",
        /// View the definitions of tool servers and their approvals.
        ToolApprovalRead = "tool_approval.read",
        /// Approve and reject definitions of tool servers.
        ToolApprovalWrite = "tool_approval.write",
        /// View agents and their tokens, without the secrets.
        AgentRead = "agent.read",
        /// Create, change and delete agents and their tokens.
        AgentWrite = "agent.write",
        /// View which personal secrets agents have supplied values for, but never the values.
        AgentSecretRead = "agent_secret.read",
        /// Set and remove agents' values for personal secrets.
        AgentSecretWrite = "agent_secret.write",
        /// View, set and remove the caller's own values for personal secrets.
        OwnSecretWrite = "own_secret.write",
        /// View grants.
        GrantRead = "grant.read",
        /// Create, change and delete grants.
        GrantWrite = "grant.write",
        /// View the gateway's call log.
        CallRead = "call.read",
        /// View a call with its recorded arguments and result.
        CallContentsRead = "call_contents.read",
        /// View tool sets.
        ToolSetRead = "tool_set.read",
        /// Create, change and delete tool sets.
        ToolSetWrite = "tool_set.write",
        /// Sign in to the gateway, as the agent of the signed-in user.
        GatewaySignIn = "gateway.sign_in",
        /// Play a walkthrough that is offered on a server.
        WalkthroughPlay = "walkthrough.play",
        /// Sign in as an end user on the pages of a server.
        EndUserSignIn = "end_user.sign_in",
        /// Open a support ticket on a server.
        TicketOpen = "ticket.open",
    }
}

impl Operation {
    /// Returns the lowest role whose members may perform the operation. Returns `None` if no member may.
    #[must_use]
    pub fn minimum_role(self) -> Option<Role> {
        match self {
            Self::OrganizationCreate | Self::WalkthroughPlay | Self::EndUserSignIn | Self::TicketOpen => None,
            Self::OrganizationDelete => Some(Role::Owner),
            Self::OrganizationUpdate
            | Self::MemberWrite
            | Self::InvitationRead
            | Self::InvitationWrite
            | Self::AuditRead
            | Self::KeyRead
            | Self::KeyWrite
            | Self::ServerWrite
            | Self::OauthConfigWrite
            | Self::EndUserExport
            | Self::EndUserDelete
            | Self::JoinRead
            | Self::JoinUndo
            | Self::ClaimLinkCreate
            | Self::WalkthroughPurge
            | Self::WebhookRead
            | Self::WebhookWrite
            | Self::ToolboxWrite
            | Self::CatalogWrite
            | Self::InstanceLogRead
            | Self::InstanceWrite
            | Self::InstanceCall
            | Self::ToolSecretRead
            | Self::ToolSecretWrite
            | Self::ToolApprovalWrite
            | Self::AgentRead
            | Self::AgentWrite
            | Self::AgentSecretRead
            | Self::AgentSecretWrite
            | Self::GrantRead
            | Self::GrantWrite
            | Self::CallRead
            | Self::CallContentsRead
            | Self::ToolSetWrite => Some(Role::Admin),
            Self::OrganizationRead
            | Self::MemberRead
            | Self::ServerRead
            | Self::OauthConfigRead
            | Self::AssignmentWrite
            | Self::WalkthroughRead
            | Self::WalkthroughWrite
            | Self::AnalyticsRead
            | Self::EndUserRead
            | Self::TicketRead
            | Self::TicketWrite
            | Self::ToolboxRead
            | Self::CatalogRead
            | Self::InstanceRead
            | Self::InstanceConnect
            | Self::ToolApprovalRead
            | Self::ToolSetRead
            | Self::OwnSecretWrite
            | Self::GatewaySignIn => Some(Role::Member),
        }
    }
}

/// Authorizes `caller` to perform `operation` in `organization`.
///
/// # Errors
/// `not_found` if the caller does not belong to `organization`; `forbidden` if the caller does but may not perform
/// `operation`. The operator may perform every operation.
pub fn authorize(caller: &Caller, operation: Operation, organization: &OrganizationId) -> Result<()> {
    match caller {
        Caller::Operator => Ok(()),
        Caller::Member { organization_id, .. } if organization_id != organization => {
            Err(Error::not_found("organisation"))
        }
        Caller::Member { role, .. } => match operation.minimum_role() {
            Some(minimum) if role.covers(minimum) => Ok(()),
            Some(minimum) => {
                Err(Error::new(Code::Forbidden, format!("This requires the role `{minimum}`; yours is `{role}`.")))
            }
            None => Err(Error::new(Code::Forbidden, "Members cannot do this.")),
        },
        Caller::User { .. } | Caller::Visitor => Err(Error::not_found("organisation")),
        Caller::Client { organization_id, .. } if organization_id != organization => {
            Err(Error::not_found("organisation"))
        }
        Caller::Client { .. }
            if matches!(operation, Operation::WalkthroughPlay | Operation::EndUserSignIn | Operation::TicketOpen) =>
        {
            Ok(())
        }
        Caller::Client { .. } => Err(Error::new(Code::Forbidden, "An MCP client cannot do this.")),
    }
}

/// Authorizes operations outside any organisation, which only the operator may perform.
///
/// # Errors
/// `forbidden` if the caller is not the operator.
pub fn authorize_operator(caller: &Caller) -> Result<()> {
    match caller {
        Caller::Operator => Ok(()),
        _ => Err(Error::new(Code::Forbidden, "Only the operator of this installation can do this.")),
    }
}

/// Authorizes operations on a user's own account and returns the user's ID.
///
/// # Errors
/// `forbidden` if the caller is not a signed-in user: an API key has no account, no sessions, and no other
/// organisations.
pub fn authorize_user(caller: &Caller) -> Result<&UserId> {
    match caller {
        Caller::User { user_id } => Ok(user_id),
        _ => Err(Error::new(Code::Forbidden, "Only a signed-in user can do this.")),
    }
}

/// Authorizes `caller` to grant `role` to a user or an API key, or to revoke it. Must be called in addition to
/// [`authorize`].
///
/// # Errors
/// `forbidden` if the role is higher than the caller's own, and for MCP clients; `not_found` for callers outside any
/// organisation.
pub fn authorize_role(caller: &Caller, role: Role) -> Result<()> {
    match caller {
        Caller::Operator => Ok(()),
        Caller::Member { role: own, .. } if own.covers(role) => Ok(()),
        Caller::Member { role: own, .. } => {
            Err(Error::new(Code::Forbidden, format!("The role `{role}` is higher than yours, `{own}`.")))
        }
        Caller::User { .. } | Caller::Visitor => Err(Error::not_found("organisation")),
        Caller::Client { .. } => Err(Error::new(Code::Forbidden, "An MCP client cannot do this.")),
    }
}

/// Authorizes `caller` to play walkthroughs on `server` of `organization`.
///
/// # Errors
/// `not_found` if the caller does not belong to `organization`, or is a client of another server; `forbidden` for
/// members.
pub fn authorize_play(caller: &Caller, organization: &OrganizationId, server: &ServerId) -> Result<()> {
    authorize(caller, Operation::WalkthroughPlay, organization)?;
    match caller {
        Caller::Client { server_id, .. } if server_id != server => Err(Error::not_found("server")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organization(n: u8) -> OrganizationId {
        OrganizationId::from_store(format!("org_{n}"))
    }

    fn callers() -> Vec<(&'static str, Caller)> {
        let member = |role| Caller::Member { organization_id: organization(1), role, actor: "usr_1".to_owned() };
        let client =
            Caller::Client { organization_id: organization(1), server_id: ServerId::from_store("srv_1".into()) };
        vec![
            ("operator", Caller::Operator),
            ("owner", member(Role::Owner)),
            ("admin", member(Role::Admin)),
            ("member", member(Role::Member)),
            ("user", Caller::User { user_id: UserId::from_store("usr_1".into()) }),
            ("visitor", Caller::Visitor),
            ("client", client),
        ]
    }

    /// The complete access matrix. A new operation fails this test until its row is added.
    #[test]
    fn each_operation_is_allowed_for_the_expected_callers() {
        use std::fmt::Write;
        let mut table = String::new();
        for operation in Operation::ALL {
            write!(table, "{:22}", operation.as_str()).unwrap();
            for (name, caller) in callers() {
                if authorize(&caller, *operation, &organization(1)).is_ok() {
                    write!(table, " {name}").unwrap();
                }
            }
            table.push('\n');
        }
        let expected = "\
organization.create    operator
organization.read      operator owner admin member
organization.update    operator owner admin
organization.delete    operator owner
member.read            operator owner admin member
member.write           operator owner admin
invitation.read        operator owner admin
invitation.write       operator owner admin
audit.read             operator owner admin
key.read               operator owner admin
key.write              operator owner admin
server.read            operator owner admin member
server.write           operator owner admin
oauth_config.read      operator owner admin member
oauth_config.write     operator owner admin
assignment.write       operator owner admin member
walkthrough.read       operator owner admin member
walkthrough.write      operator owner admin member
walkthrough.purge      operator owner admin
analytics.read         operator owner admin member
end_user.read          operator owner admin member
end_user.export        operator owner admin
end_user.delete        operator owner admin
join.read              operator owner admin
join.undo              operator owner admin
claim_link.create      operator owner admin
ticket.read            operator owner admin member
ticket.write           operator owner admin member
webhook.read           operator owner admin
webhook.write          operator owner admin
toolbox.read           operator owner admin member
toolbox.write          operator owner admin
catalog.read           operator owner admin member
catalog.write          operator owner admin
instance.read          operator owner admin member
instance.log_read      operator owner admin
instance.write         operator owner admin
instance.connect       operator owner admin member
instance.call          operator owner admin
tool_secret.read       operator owner admin
tool_secret.write      operator owner admin
tool_approval.read     operator owner admin member
tool_approval.write    operator owner admin
agent.read             operator owner admin
agent.write            operator owner admin
agent_secret.read      operator owner admin
agent_secret.write     operator owner admin
own_secret.write       operator owner admin member
grant.read             operator owner admin
grant.write            operator owner admin
call.read              operator owner admin
call_contents.read     operator owner admin
tool_set.read          operator owner admin member
tool_set.write         operator owner admin
gateway.sign_in        operator owner admin member
walkthrough.play       operator client
end_user.sign_in       operator client
ticket.open            operator client
";
        assert_eq!(table, expected);
    }

    /// Returns `ok` or the error code of each caller, in the order of [`callers`].
    fn outcomes(check: impl Fn(&Caller) -> Result<()>) -> Vec<(&'static str, &'static str)> {
        let code = |caller: &Caller| check(caller).map_or_else(|error| error.code.as_str(), |()| "ok");
        callers().iter().map(|(name, caller)| (*name, code(caller))).collect()
    }

    /// Members and clients may know that their organisation exists; users outside any organisation and visitors may
    /// not.
    #[test]
    fn refused_callers_learn_only_what_they_may_know() {
        for operation in Operation::ALL {
            for (name, outcome) in outcomes(|caller| authorize(caller, *operation, &organization(1))) {
                let refusal = if matches!(name, "user" | "visitor") { "not_found" } else { "forbidden" };
                assert!(outcome == "ok" || outcome == refusal, "{name} {operation}: {outcome}");
            }
        }
        let member = Caller::Member { organization_id: organization(1), role: Role::Member, actor: String::new() };
        let error = authorize(&member, Operation::KeyWrite, &organization(1)).unwrap_err();
        assert_eq!(error.message, "This requires the role `admin`; yours is `member`.");
    }

    #[test]
    fn only_the_operator_acts_outside_organisations() {
        for (name, outcome) in outcomes(authorize_operator) {
            assert_eq!(outcome, if name == "operator" { "ok" } else { "forbidden" }, "{name}");
        }
    }

    #[test]
    fn only_users_have_an_account_and_only_their_own() {
        for (name, outcome) in outcomes(|caller| authorize_user(caller).map(|_| ())) {
            assert_eq!(outcome, if name == "user" { "ok" } else { "forbidden" }, "{name}");
        }
        for id in ["usr_1", "usr_2"] {
            let user_id = UserId::from_store(id.to_owned());
            let caller = Caller::User { user_id: user_id.clone() };
            assert_eq!(authorize_user(&caller).unwrap(), &user_id);
        }
    }

    #[test]
    fn no_caller_grants_a_role_higher_than_their_own() {
        let expected = [
            ("operator", ["ok", "ok", "ok"]),
            ("owner", ["ok", "ok", "ok"]),
            ("admin", ["forbidden", "ok", "ok"]),
            ("member", ["forbidden", "forbidden", "ok"]),
            ("user", ["not_found", "not_found", "not_found"]),
            ("visitor", ["not_found", "not_found", "not_found"]),
            ("client", ["forbidden", "forbidden", "forbidden"]),
        ];
        for (column, role) in [Role::Owner, Role::Admin, Role::Member].into_iter().enumerate() {
            let expected: Vec<_> = expected.iter().map(|(name, outcomes)| (*name, outcomes[column])).collect();
            assert_eq!(outcomes(|caller| authorize_role(caller, role)), expected, "{role}");
        }
    }

    #[test]
    fn a_client_plays_only_on_its_own_server() {
        let server = |n: u8| ServerId::from_store(format!("srv_{n}"));
        // The columns: the client's server, another server of the organisation, and a server of another organisation.
        let places = [(organization(1), server(1)), (organization(1), server(2)), (organization(2), server(1))];
        let expected = [
            ("operator", ["ok", "ok", "ok"]),
            ("owner", ["forbidden", "forbidden", "not_found"]),
            ("admin", ["forbidden", "forbidden", "not_found"]),
            ("member", ["forbidden", "forbidden", "not_found"]),
            ("user", ["not_found", "not_found", "not_found"]),
            ("visitor", ["not_found", "not_found", "not_found"]),
            ("client", ["ok", "not_found", "not_found"]),
        ];
        for (column, (organization, server)) in places.iter().enumerate() {
            let expected: Vec<_> = expected.iter().map(|(name, outcomes)| (*name, outcomes[column])).collect();
            assert_eq!(outcomes(|caller| authorize_play(caller, organization, server)), expected, "{server}");
        }
    }

    #[test]
    fn another_organisation_is_not_found() {
        for (name, caller) in callers().into_iter().skip(1) {
            for operation in Operation::ALL {
                let error = authorize(&caller, *operation, &organization(2)).unwrap_err();
                assert_eq!(error.code, Code::NotFound, "{name} {operation}");
            }
        }
    }
}
