//! Who may do what: one table of acts and roles.

use crate::caller::Caller;
use crate::error::{Code, Error, Result};
use crate::id::{OrganizationId, ServerId, UserId};
use crate::organization::Role;
use crate::walkthrough::names;

names! {
    /// What can be done.
    Operation {
        /// Make an organisation.
        OrganizationCreate = "organization.create",
        /// See an organisation.
        OrganizationRead = "organization.read",
        /// Change an organisation's name or slug.
        OrganizationUpdate = "organization.update",
        /// Delete an organisation and all it owns.
        OrganizationDelete = "organization.delete",
        /// See the members.
        MemberRead = "member.read",
        /// Add, change and remove members.
        MemberWrite = "member.write",
        /// See invitations.
        InvitationRead = "invitation.read",
        /// Invite people, and take invitations back.
        InvitationWrite = "invitation.write",
        /// See the audit log.
        AuditRead = "audit.read",
        /// See API keys, without their secrets.
        KeyRead = "key.read",
        /// Make and delete API keys.
        KeyWrite = "key.write",
        /// See servers and what is assigned to them.
        ServerRead = "server.read",
        /// Make, change and delete servers.
        ServerWrite = "server.write",
        /// See identity providers, without their secrets.
        OauthConfigRead = "oauth_config.read",
        /// Make, change and delete identity providers.
        OauthConfigWrite = "oauth_config.write",
        /// Place walkthroughs on servers.
        AssignmentWrite = "assignment.write",
        /// See walkthroughs, drafts included.
        WalkthroughRead = "walkthrough.read",
        /// Write, publish, archive, delete and restore walkthroughs.
        WalkthroughWrite = "walkthrough.write",
        /// Delete walkthroughs in the trash permanently.
        WalkthroughPurge = "walkthrough.purge",
        /// See what happens on servers, in numbers.
        AnalyticsRead = "analytics.read",
        /// See end users and what they did.
        EndUserRead = "end_user.read",
        /// Take out all that is known of an end user.
        EndUserExport = "end_user.export",
        /// Delete an end user and all that is known of them.
        EndUserDelete = "end_user.delete",
        /// See which anonymous progress became that of signed-in users.
        JoinRead = "join.read",
        /// Take such a join back.
        JoinUndo = "join.undo",
        /// Sign links with which end users claim progress recorded under a label.
        ClaimLinkCreate = "claim_link.create",
        /// See support tickets.
        TicketRead = "ticket.read",
        /// Work on support tickets.
        TicketWrite = "ticket.write",
        /// See receivers of webhooks and what was sent to them.
        WebhookRead = "webhook.read",
        /// Make, change and delete receivers of webhooks, and send again.
        WebhookWrite = "webhook.write",
        /// Play a walkthrough that is offered on a server.
        WalkthroughPlay = "walkthrough.play",
        /// Sign in as an end user, with what the pages of a server ask for.
        EndUserSignIn = "end_user.sign_in",
        /// Open a support ticket on a server.
        TicketOpen = "ticket.open",
    }
}

impl Operation {
    /// The least role of a member that may do this; none when members may not at all.
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
            | Self::WebhookWrite => Some(Role::Admin),
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
            | Self::TicketWrite => Some(Role::Member),
        }
    }
}

/// Lets `caller` do `act` in `organization`, or says why not.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of; `forbidden` in their own when the role is too low.
pub fn authorize(caller: &Caller, act: Operation, organization: &OrganizationId) -> Result<()> {
    match caller {
        Caller::Operator => Ok(()),
        Caller::Member { organization_id, .. } if organization_id != organization => {
            Err(Error::not_found("organisation"))
        }
        Caller::Member { role, .. } => match act.minimum_role() {
            Some(least) if role.covers(least) => Ok(()),
            Some(least) => {
                Err(Error::new(Code::Forbidden, format!("This needs the role `{least}`; yours is `{role}`.")))
            }
            None => Err(Error::new(Code::Forbidden, "Members cannot do this.")),
        },
        Caller::User { .. } | Caller::Visitor => Err(Error::not_found("organisation")),
        Caller::Client { organization_id, .. } if organization_id != organization => {
            Err(Error::not_found("organisation"))
        }
        Caller::Client { .. }
            if matches!(act, Operation::WalkthroughPlay | Operation::EndUserSignIn | Operation::TicketOpen) =>
        {
            Ok(())
        }
        Caller::Client { .. } => Err(Error::new(Code::Forbidden, "An MCP client cannot do this.")),
    }
}

/// Lets `caller` do what needs no organisation yet: the operator only.
///
/// # Errors
/// `forbidden` for everybody else.
pub fn authorize_operator(caller: &Caller) -> Result<()> {
    match caller {
        Caller::Operator => Ok(()),
        _ => Err(Error::new(Code::Forbidden, "Only the operator of this installation can do this.")),
    }
}

/// The user who acts, when it is one who acts for themselves.
///
/// # Errors
/// `forbidden` for everybody else: an API key has no account, no sessions, and no other organisations.
pub fn authorize_user(caller: &Caller) -> Result<&UserId> {
    match caller {
        Caller::User { user_id } => Ok(user_id),
        _ => Err(Error::new(Code::Forbidden, "Only a signed-in user can do this.")),
    }
}

/// Lets `caller` give `role` to a user or a key, or take it from them, on top of what [`authorize`] says of the act.
///
/// # Errors
/// `forbidden` when it is more than the caller's own role.
pub fn authorize_role(caller: &Caller, role: Role) -> Result<()> {
    match caller {
        Caller::Operator => Ok(()),
        Caller::Member { role: own, .. } if own.covers(role) => Ok(()),
        Caller::Member { role: own, .. } => {
            Err(Error::new(Code::Forbidden, format!("The role `{role}` is above yours, `{own}`.")))
        }
        Caller::User { .. } | Caller::Visitor => Err(Error::not_found("organisation")),
        Caller::Client { .. } => Err(Error::new(Code::Forbidden, "An MCP client cannot do this.")),
    }
}

/// Lets `caller` play walkthroughs on `server` of `organization`.
///
/// # Errors
/// `not_found` on any other server; `forbidden` for members.
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

    /// The whole matrix in one picture: a new act fails here until somebody has looked at its row.
    #[test]
    fn matrix() {
        use std::fmt::Write;
        let mut table = String::new();
        for act in Operation::ALL {
            write!(table, "{:22}", act.as_str()).unwrap();
            for (name, caller) in callers() {
                if authorize(&caller, *act, &organization(1)).is_ok() {
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
walkthrough.play       operator client
end_user.sign_in       operator client
ticket.open            operator client
";
        assert_eq!(table, expected);
    }

    #[test]
    fn a_foreign_organisation_is_not_found() {
        for (name, caller) in callers().into_iter().skip(1) {
            for act in Operation::ALL {
                let error = authorize(&caller, *act, &organization(2)).unwrap_err();
                assert_eq!(error.code, Code::NotFound, "{name} {act}");
            }
        }
    }
}
