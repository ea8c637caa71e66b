//! What a hosted server answers: the product's side of rmcp, one small value per request.

use rmcp::ErrorData;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, CompletionInfo,
    CustomRequest, CustomResult, DiscoverResult, ErrorCode, GetPromptRequestParams, GetPromptResponse, Implementation,
    InitializeResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, MetaObject,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Reference,
    ServerCapabilities, SubscriptionFilter, Tool,
};
use rmcp::service::{RequestContext, RoleServer, SubscriptionContext};
use serde_json::json;
use waypost_core::guidance::{FIELDS, Flow, PASS_HANDLE};
use waypost_core::server::Support;
use waypost_core::{Code, Error};
use waypost_ops::hosting::with_timeout;

use crate::target::Target;
use crate::{methods, prompts, resources, tools};

/// How long clients may keep lists: they change when an author publishes, and a list that is a minute old does no harm.
const LIST_TTL_MS: u64 = 60_000;
/// The methods that this server has; what else arrives as a custom request is unknown.
const METHODS: &[&str] = &[
    "initialize",
    "server/discover",
    "ping",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "completion/complete",
    "subscriptions/listen",
];

/// Answers one request of a hosted server.
pub struct Handler {
    target: Target,
}

impl Handler {
    /// Answers the request of `target`.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target }
    }

    fn implementation(&self) -> Implementation {
        let server = &self.target.offers.server;
        let mut implementation = Implementation::new(&server.slug, env!("CARGO_PKG_VERSION"));
        implementation.title = Some(server.name.clone());
        implementation
    }

    /// `_meta` with the server's identity, which every result should carry (2026-07-28, "Per-request metadata"), and
    /// which the revisions before do not know.
    fn meta(&self) -> Option<MetaObject> {
        if !self.target.modern {
            return None;
        }
        let mut meta = MetaObject::default();
        meta.insert("io.modelcontextprotocol/serverInfo".to_owned(), json!(self.implementation()));
        Some(meta)
    }

    /// How long a list may be kept, which only the stateless era says.
    fn list_caching(&self) -> (Option<u64>, Option<CacheScope>) {
        if self.target.modern { (Some(LIST_TTL_MS), Some(CacheScope::Public)) } else { (None, None) }
    }

    /// The server's `instructions`. They promise what is true for this address: who the user is and where progress is kept.
    fn instructions(&self) -> String {
        let server = &self.target.offers.server;
        let product = if server.product_name.is_empty() { &server.name } else { &server.product_name };
        let next = match Flow::from(server.toolset) {
            Flow::Guided => "next_walkthrough_step",
            Flow::Stepwise => "complete_step",
        };
        let kept = if server.auth_type.signs_in() {
            "Progress is kept for the signed-in user.".to_owned()
        } else if self.target.tracking_id.is_some() {
            "Progress is kept for this personal URL.".to_owned()
        } else {
            format!(
                "Progress is kept for the progress_handle in the results. {PASS_HANDLE}, and keep it in your notes (for \
                 example AGENTS.md or a .waypost file) to resume after a restart; without it, or a personal URL, the user \
                 starts from the beginning."
            )
        };
        format!(
            "Guided walkthroughs for {product}. Call list_walkthroughs to see what there is, then lead the user through one \
             step at a time: show the step's content, then stop and wait, and call {next} only when the user says that \
             the step is done. In a step, {FIELDS}. {kept}{}",
            if server.support == Support::Tickets { " get_support opens a ticket with the team." } else { "" }
        )
    }
}

/// A fault as a protocol error, for methods whose results have no `isError`.
fn protocol_error(target: &Target, error: &Error) -> ErrorData {
    if let Some(cause) = std::error::Error::source(error) {
        tracing::error!(request_id = target.cx.request_id, cause = cause.to_string(), "a request failed");
    }
    let code = match error.code {
        Code::InvalidArguments => ErrorCode::INVALID_PARAMS,
        _ => ErrorCode::INTERNAL_ERROR,
    };
    ErrorData::new(code, error.message.clone(), None)
}

fn invalid_params(message: impl Into<String>) -> ErrorData {
    ErrorData::invalid_params(message.into(), None)
}

/// Lists come in one page; whoever names another one asks for what is not there.
fn only_page(request: Option<&PaginatedRequestParams>) -> Result<(), ErrorData> {
    match request.and_then(|request| request.cursor.as_deref()) {
        None | Some("") => Ok(()),
        Some(_) => Err(invalid_params("Invalid cursor.")),
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> InitializeResult {
        let plain =
            ServerCapabilities::builder().enable_tools().enable_prompts().enable_resources().enable_completions();
        // Before 2026-07-28 changes are sent on the stream of GET, which hosted servers do not have.
        let capabilities = if self.target.modern {
            let lists = plain.enable_tool_list_changed().enable_prompts_list_changed().enable_resources_list_changed();
            lists.enable_resources_subscribe().build()
        } else {
            plain.build()
        };
        let mut info = InitializeResult::new(capabilities);
        info.server_info = self.implementation();
        info.instructions = Some(self.instructions());
        info
    }

    async fn discover(&self, _: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        let versions = self.supported_protocol_versions().into_owned();
        let mut result = DiscoverResult::from_server_info(versions, self.get_info());
        result.ttl_ms = LIST_TTL_MS;
        result.cache_scope = CacheScope::Public;
        Ok(result)
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        only_page(request.as_ref())?;
        let mut result = ListToolsResult::with_all_items(tools::listed(&self.target));
        (result.ttl_ms, result.cache_scope) = self.list_caching();
        result.meta = self.meta();
        Ok(result)
    }

    /// Without a request's context rmcp asks for schemas only, to check `Mcp-Param-*` headers.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::find_listed(&self.target, name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(entry) = tools::find(&request.name) else {
            return Err(invalid_params(format!("Unknown tool: {}", request.name)));
        };
        // Before 2026-07-28 the server asks while the call is open, for which it would have to keep a session.
        let elicitation = context.client_capabilities().filter(|_| self.target.modern).and_then(|all| all.elicitation);
        // 2026-07-28, "Elicitation": a capability that names no mode means forms.
        let shows_forms = elicitation.is_some_and(|modes| modes.form.is_some() || modes.url.is_none());
        let asked = tools::Asked { arguments: request.arguments, answers: request.input_responses, shows_forms };
        let mut response = tools::call(&self.target, entry, asked).await;
        match &mut response {
            CallToolResponse::Complete(result) => result.meta = self.meta(),
            CallToolResponse::InputRequired(result) => result.meta = self.meta(),
            _ => {}
        }
        Ok(response)
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        only_page(request.as_ref())?;
        let mut result = ListPromptsResult::with_all_items(prompts::list(&self.target.offers));
        (result.ttl_ms, result.cache_scope) = self.list_caching();
        result.meta = self.meta();
        Ok(result)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let mut result = prompts::get(&self.target, &request.name)
            .ok_or_else(|| invalid_params(format!("Unknown prompt: {}", request.name)))?;
        result.meta = self.meta();
        Ok(result.into())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        only_page(request.as_ref())?;
        let mut result = ListResourcesResult::with_all_items(resources::list(&self.target.offers));
        (result.ttl_ms, result.cache_scope) = self.list_caching();
        result.meta = self.meta();
        Ok(result)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        only_page(request.as_ref())?;
        let mut result = ListResourceTemplatesResult::with_all_items(resources::templates());
        (result.ttl_ms, result.cache_scope) = self.list_caching();
        result.meta = self.meta();
        Ok(result)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let read = with_timeout(resources::read(&self.target, &request.uri)).await;
        let Some(read) = read.map_err(|error| protocol_error(&self.target, &error))? else {
            // SEP-2164: rmcp makes -32602 of this for the stateless era.
            return Err(ErrorData::resource_not_found("Resource not found", Some(json!({ "uri": request.uri }))));
        };
        let mut result = ReadResourceResult::new(vec![read.contents]);
        (result.ttl_ms, result.cache_scope) = match (self.target.modern, read.public) {
            (true, false) => (Some(0), Some(CacheScope::Private)),
            _ => self.list_caching(),
        };
        result.meta = self.meta();
        Ok(result.into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let wanted = match &request.r#ref {
            Reference::Resource(template) => {
                template.uri == resources::STEP_TEMPLATE && request.argument.name == "walkthrough_id"
            }
            // Prompts take no arguments; there is nothing to complete, also for one that does not exist.
            _ => false,
        };
        let mut values: Vec<String> = Vec::new();
        if wanted {
            let ids = self.target.offers.list().iter().map(|offer| offer.walkthrough_id.to_string());
            values =
                ids.filter(|id| id.starts_with(&request.argument.value)).take(CompletionInfo::MAX_VALUES).collect();
        }
        let mut result = CompleteResult::new(CompletionInfo::new(values).unwrap_or_default());
        result.meta = self.meta();
        Ok(result)
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        self.target.listener.as_ref()?.accepted(requested)
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        if let Some(listener) = &self.target.listener {
            listener.run(&self.target, &context).await;
        }
        Ok(())
    }

    /// What rmcp could not read as one of its requests: an unknown method, or a known one with the wrong parameters.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        if METHODS.contains(&request.method.as_str()) {
            return Err(invalid_params(format!("Invalid params of {}.", request.method)));
        }
        let message = methods::not_found(&request.method, self.target.modern);
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None))
    }
}
