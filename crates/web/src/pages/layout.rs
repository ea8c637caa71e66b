//! What stands around the content of every page.

use waypost_core::organization::{Membership, Organization, Role};

use crate::asset;

/// A person who looks at a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// Their name, or else their address.
    pub name: String,
    /// Their address.
    pub email: String,
}

/// The organisation that a page is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentOrganization {
    /// The organisation.
    pub organization: Organization,
    /// The viewer's role there.
    pub role: Role,
}

impl CurrentOrganization {
    /// The path of a page of this organisation: `path("servers")` is `/o/acme/servers`.
    #[must_use]
    pub fn path(&self, rest: &str) -> String {
        let slug = &self.organization.slug;
        if rest.is_empty() { format!("/o/{slug}") } else { format!("/o/{slug}/{rest}") }
    }

    /// Whether the viewer may do what admins do.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role.covers(Role::Admin)
    }

    /// Whether the viewer owns it.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.role == Role::Owner
    }
}

/// A link of the navigation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NavItem {
    /// Where it leads.
    pub href: String,
    /// Its text.
    pub label: &'static str,
    /// The section that it is, as in [`Layout::section`].
    pub section: &'static str,
}

/// Section, path below the organisation, and text of each link; those of the second list are for admins.
const NAV: [&[(&str, &str, &str)]; 3] = [
    &[
        ("overview", "", "Overview"),
        ("servers", "servers", "Servers"),
        ("walkthroughs", "walkthroughs", "Walkthroughs"),
        ("analytics", "analytics", "Analytics"),
        ("end-users", "end-users", "End users"),
        ("tickets", "tickets", "Tickets"),
    ],
    &[("members", "members", "Members")],
    &[
        ("api-keys", "api-keys", "API keys"),
        ("oauth-configs", "oauth-configs", "Sign-in providers"),
        ("webhooks", "webhooks", "Webhooks"),
        ("audit", "audit", "Audit log"),
        ("settings", "settings", "Settings"),
    ],
];

/// What stands around the content of every page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Who looks at it; none for visitors.
    pub viewer: Option<Viewer>,
    /// The organisation that it is about; none for pages of the user alone.
    pub org: Option<CurrentOrganization>,
    /// The organisations to switch to.
    pub memberships: Vec<Membership>,
    /// The part of the navigation that is the present one, such as `servers`.
    pub section: &'static str,
    /// What happened just before, to be said once.
    pub flash: Option<String>,
}

impl Layout {
    /// A frame without anybody: for visitors, and for errors.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// As the present part of the navigation.
    #[must_use]
    pub fn with_section(mut self, section: &'static str) -> Self {
        self.section = section;
        self
    }

    /// The links of the navigation, in groups: what the viewer may not open is not shown.
    #[must_use]
    pub fn nav(&self) -> Vec<Vec<NavItem>> {
        let Some(org) = &self.org else { return Vec::new() };
        let shown = if org.is_admin() { NAV.len() } else { NAV.len() - 1 };
        let item = |(section, rest, label): &(&'static str, &str, &'static str)| NavItem {
            href: org.path(rest),
            label,
            section,
        };
        NAV[..shown].iter().map(|group| group.iter().map(item).collect()).collect()
    }

    /// The address of a file of ours.
    #[must_use]
    pub fn asset(&self, name: &str) -> &'static str {
        asset::path(name)
    }
}
