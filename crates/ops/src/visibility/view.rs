//! The definitions that an agent sees at a URL of the gateway: those that were granted, under their public names.

use std::collections::HashSet;

use waypost_core::Timestamp;
use waypost_core::grant::{Grant, Target, covers};
use waypost_core::tool_definition::{DefinitionKind, ToolDefinition};
use waypost_core::tool_override::ToolOverride;
use waypost_core::tool_set::{ToolSet, ToolSetMember};
use waypost_core::uri_template::UriTemplate;
use waypost_mcp_wire::names::{is_public_name, public_name, public_uri, split_public_uri};

use crate::tool_access::{AccessibleServer, AgentAccess};

/// The definitions that an agent sees at `now`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    access: &'a AgentAccess,
    tool_set: Option<&'a ToolSet>,
    now: Timestamp,
}

/// A definition under its public name.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    /// The server that lists it.
    pub server: &'a AccessibleServer,
    /// The definition.
    pub definition: &'a ToolDefinition,
    /// The name or URI by which agents know it.
    pub public: String,
    /// The description that replaces that of the definition, if an admin has set one.
    pub description: Option<&'a str>,
}

/// The target of a call.
#[derive(Debug, Clone)]
pub struct Found<'a> {
    /// The server that lists it.
    pub server: &'a AccessibleServer,
    /// The definition. For a resource that matches a template, the definition of the template.
    pub definition: &'a ToolDefinition,
    /// The kind of the target.
    kind: DefinitionKind,
    /// The name or URI by which the server knows it.
    pub original: String,
    /// The grants of the agent for this server.
    pub grants: &'a [Grant],
}

impl Found<'_> {
    /// Returns the target for the rules of grants.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        Target { kind: self.kind, name: &self.original, class: self.definition.class }
    }
}

impl AccessibleServer {
    /// Returns the name by which agents know a definition, without a prefix.
    fn current_name<'n>(&'n self, kind: DefinitionKind, name: &'n str) -> &'n str {
        self.tool_override(kind, name).and_then(|own| own.name.as_deref()).unwrap_or(name)
    }

    /// Returns the override of a tool, if an admin has set one.
    fn tool_override(&self, kind: DefinitionKind, name: &str) -> Option<&ToolOverride> {
        self.overrides.get(name).filter(|_| kind == DefinitionKind::Tool)
    }
}

impl<'a> View<'a> {
    /// Creates the view of an agent. With a tool set, it contains only the definitions of the tool set.
    #[must_use]
    pub fn new(access: &'a AgentAccess, tool_set: Option<&'a ToolSet>, now: Timestamp) -> Self {
        Self { access, tool_set, now }
    }

    /// Returns all definitions of one kind. Of several with the same public name, only the first is returned.
    #[must_use]
    pub fn items(&self, kind: DefinitionKind) -> Vec<Item<'a>> {
        let mut names = HashSet::new();
        let mut items = Vec::new();
        for (server, definition) in self.servers().flat_map(|server| self.definitions(server, kind)) {
            let public = self.public(server, kind, &definition.name);
            if names.insert(public.clone()) {
                let own = server.tool_override(kind, &definition.name);
                let description = own.and_then(|own| own.description.as_deref());
                items.push(Item { server, definition, public, description });
            }
        }
        items
    }

    /// Returns the tool or prompt with this public name.
    #[must_use]
    pub fn find_named(&self, kind: DefinitionKind, public: &str) -> Option<Found<'a>> {
        let (server, definition) =
            self.servers().filter(|server| self.may_contain(server, public)).find_map(|server| {
                let mut named = self.approved(server, kind).filter(|found| self.is_named(server, found, public));
                named.find(|definition| self.is_visible(server, definition)).map(|definition| (server, definition))
            })?;
        Some(self.found(server, definition, definition.name.clone()))
    }

    /// Returns the resource with this public URI: one that the server lists, or one that matches a template. If the
    /// server lists the resource, its own approval decides, so that a template gives no access to a resource that was
    /// classified differently, or was not approved.
    #[must_use]
    pub fn find_resource(&self, public: &str) -> Option<Found<'a>> {
        let (server, uri) = self.split(public)?;
        if server.quarantined_resources.contains(uri) {
            return None;
        }
        let matches = |template: &str| UriTemplate::parse(template).is_ok_and(|template| template.matches(uri));
        let listed = self.approved(server, DefinitionKind::Resource).find(|listed| listed.name == uri);
        let template = || self.approved(server, DefinitionKind::ResourceTemplate).find(|listed| matches(&listed.name));
        let definition = listed.or_else(template)?;
        let found = Found { kind: DefinitionKind::Resource, ..self.found(server, definition, uri.to_owned()) };
        covers(found.grants, self.now, found.target()).then_some(found)
    }

    /// Returns the template with this public URI template.
    #[must_use]
    pub fn find_template(&self, public: &str) -> Option<Found<'a>> {
        let (server, template) = self.split(public)?;
        let mut templates = self.definitions(server, DefinitionKind::ResourceTemplate);
        let found = templates.find(|(_, listed)| listed.name == template);
        found.map(|(server, definition)| self.found(server, definition, template.to_owned()))
    }

    fn found(&self, server: &'a AccessibleServer, definition: &'a ToolDefinition, original: String) -> Found<'a> {
        Found { server, definition, kind: definition.kind, original, grants: self.grants(server) }
    }

    fn grants(&self, server: &AccessibleServer) -> &'a [Grant] {
        self.access.grants.get(&server.instance.id).map_or(&[], Vec::as_slice)
    }

    fn servers(&self) -> impl Iterator<Item = &'a AccessibleServer> + use<'a> {
        let this = *self;
        this.access.access.servers.iter().filter(move |server| {
            !this.grants(server).is_empty() && (this.tool_set.is_none() || this.member(server).is_some())
        })
    }

    fn member(&self, server: &AccessibleServer) -> Option<&'a ToolSetMember> {
        self.tool_set?.members.iter().find(|member| member.instance_id == server.instance.id)
    }

    /// Returns the granted definitions of one kind, without the tools whose name belongs to another tool.
    fn definitions(
        &self,
        server: &'a AccessibleServer,
        kind: DefinitionKind,
    ) -> impl Iterator<Item = (&'a AccessibleServer, &'a ToolDefinition)> + use<'a> {
        let this = *self;
        let visible = self.approved(server, kind).filter(move |definition| this.is_visible(server, definition));
        visible.map(move |definition| (server, definition))
    }

    /// Whether an approved definition is granted, and is not a tool whose name belongs to another tool.
    fn is_visible(&self, server: &AccessibleServer, definition: &ToolDefinition) -> bool {
        let ToolDefinition { kind, name, class, .. } = definition;
        let is_shadowed = *kind == DefinitionKind::Tool && server.shadowed_tools.contains(name);
        !is_shadowed && covers(self.grants(server), self.now, Target { kind: *kind, name, class: *class })
    }

    /// Returns the approved definitions of one kind that belong to the URL, granted or not.
    fn approved(
        &self,
        server: &'a AccessibleServer,
        kind: DefinitionKind,
    ) -> impl Iterator<Item = &'a ToolDefinition> + use<'a> {
        let tools = self.member(server).and_then(|member| member.tools.as_ref());
        // A tool set that lists tools contains nothing else.
        let is_selected = move |definition: &ToolDefinition| {
            tools.is_none_or(|tools| kind == DefinitionKind::Tool && tools.contains(&definition.name))
        };
        server.definitions.iter().filter(move |definition| definition.kind == kind && is_selected(definition))
    }

    fn has_prefix(&self) -> bool {
        self.tool_set.is_none_or(|set| set.prefix)
    }

    /// Whether a tool or prompt has this public name.
    fn is_named(&self, server: &AccessibleServer, definition: &ToolDefinition, public: &str) -> bool {
        let name = server.current_name(definition.kind, &definition.name);
        match self.has_prefix() {
            true => is_public_name(public, &server.instance.slug, name),
            false => public == name,
        }
    }

    fn public(&self, server: &AccessibleServer, kind: DefinitionKind, name: &str) -> String {
        let (slug, name) = (&server.instance.slug, server.current_name(kind, name));
        match kind {
            _ if !self.has_prefix() => name.to_owned(),
            DefinitionKind::Resource | DefinitionKind::ResourceTemplate => public_uri(slug, name),
            DefinitionKind::Tool | DefinitionKind::Prompt | DefinitionKind::Instructions => public_name(slug, name),
        }
    }

    /// Whether a public name can be that of a definition of this server.
    fn may_contain(&self, server: &AccessibleServer, public: &str) -> bool {
        !self.has_prefix() || public.strip_prefix(&server.instance.slug).is_some_and(|rest| rest.starts_with("__"))
    }

    /// Splits a public URI into the server and the original URI.
    fn split<'u>(&self, public: &'u str) -> Option<(&'a AccessibleServer, &'u str)> {
        if !self.has_prefix() {
            return Some((self.servers().next()?, public));
        }
        let (slug, uri) = split_public_uri(public)?;
        Some((self.servers().find(|server| server.instance.slug == slug)?, uri))
    }
}
