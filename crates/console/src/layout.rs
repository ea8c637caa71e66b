//! The layout of all pages: header, navigation and flash message.

use waypost_core::organization::{Membership, Organization, Role};

use crate::asset;

/// The user who views a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The name of the user, or the email if the user has no name.
    pub name: String,
    /// The email of the user.
    pub email: String,
}

/// The organisation of a page, with the viewer's role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentOrganization {
    /// The organisation.
    pub organization: Organization,
    /// The viewer's role.
    pub role: Role,
}

impl CurrentOrganization {
    /// Returns the path of a page of this organisation: `path("servers")` is `/o/acme/servers`.
    #[must_use]
    pub fn path(&self, rest: &str) -> String {
        let slug = &self.organization.slug;
        if rest.is_empty() { format!("/o/{slug}") } else { format!("/o/{slug}/{rest}") }
    }

    /// Whether the viewer is at least an admin.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role.covers(Role::Admin)
    }

    /// Whether the viewer is an owner.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.role == Role::Owner
    }
}

/// A navigation link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NavItem {
    /// The target path.
    pub href: String,
    /// The label.
    pub label: &'static str,
    /// The section, as in [`Layout::section`].
    pub section: &'static str,
}

/// Section, path below the organisation and label of each link, in groups. The last group is for admins.
const NAV: [&[(&str, &str, &str)]; 5] = [
    &[
        ("overview", "", "Overview"),
        ("servers", "servers", "Servers"),
        ("walkthroughs", "walkthroughs", "Walkthroughs"),
        ("analytics", "analytics", "Analytics"),
        ("end-users", "end-users", "End users"),
        ("tickets", "tickets", "Tickets"),
    ],
    &[
        ("instances", "instances", "Instances"),
        ("toolboxes", "toolboxes", "Toolboxes"),
        ("catalog", "catalog", "Catalogue"),
    ],
    &[
        ("agents", "agents", "Agents"),
        ("grants", "grants", "Grants"),
        ("tool-approvals", "tool-approvals", "Approvals"),
        ("tool-sets", "tool-sets", "Tool sets"),
        ("calls", "calls", "Calls"),
        ("connections", "connections", "Connections"),
        ("personal-secrets", "personal-secrets", "Personal secrets"),
    ],
    &[("members", "members", "Members")],
    &[
        ("secrets", "secrets", "Secrets"),
        ("api-keys", "api-keys", "API keys"),
        ("oauth-configs", "oauth-configs", "Sign-in providers"),
        ("webhooks", "webhooks", "Webhooks"),
        ("audit", "audit", "Audit log"),
        ("settings", "settings", "Settings"),
    ],
];

/// The sections of the gateway.
const GATEWAY: [&str; 7] =
    ["agents", "grants", "tool-approvals", "tool-sets", "calls", "connections", "personal-secrets"];
/// The sections for admins in groups that members also see.
const FOR_ADMINS: [&str; 4] = ["agents", "grants", "calls", "connections"];

/// The layout of all pages: header, navigation and flash message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// The signed-in user, if any.
    pub viewer: Option<Viewer>,
    /// The organisation of the page. `None` on pages outside organisations.
    pub org: Option<CurrentOrganization>,
    /// The memberships shown in the organisation switcher.
    pub memberships: Vec<Membership>,
    /// The current navigation section, such as `servers`.
    pub section: &'static str,
    /// The message of the previous action, shown once.
    pub flash: Option<String>,
    /// Whether toolboxes are switched off on this installation, so that links to pages that need them are not shown.
    pub is_without_toolboxes: bool,
    /// Whether the gateway is switched off on this installation, so that its pages do not exist.
    pub is_without_gateway: bool,
}

impl Layout {
    /// Creates a layout without a user, for visitors and errors.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Sets the current navigation section.
    #[must_use]
    pub fn with_section(mut self, section: &'static str) -> Self {
        self.section = section;
        self
    }

    /// Returns the navigation links that the viewer can open, in groups.
    #[must_use]
    pub fn nav(&self) -> Vec<Vec<NavItem>> {
        let Some(org) = &self.org else { return Vec::new() };
        let shown = if org.is_admin() { NAV.len() } else { NAV.len() - 1 };
        let item = |(section, rest, label): &(&'static str, &str, &'static str)| NavItem {
            href: org.path(rest),
            label,
            section,
        };
        // The gateway serves only instances, whose pages are not shown without toolboxes.
        let is_shown = |(section, ..): &&(&str, &str, &str)| {
            !(self.is_without_toolboxes && matches!(*section, "instances" | "toolboxes" | "secrets"))
                && !((self.is_without_gateway || self.is_without_toolboxes) && GATEWAY.contains(section))
                && (org.is_admin() || !FOR_ADMINS.contains(section))
        };
        let groups = NAV[..shown].iter().map(|group| group.iter().filter(is_shown).map(item).collect::<Vec<_>>());
        groups.filter(|group| !group.is_empty()).collect()
    }

    /// Returns the URL of an asset.
    #[must_use]
    pub fn asset(&self, name: &str) -> &'static str {
        asset::path(name)
    }
}
