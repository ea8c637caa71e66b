//! The rmcp handler of hosted servers, created for each request.

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
use waypost_content::guidance::{FIELD_USAGE, HANDLE_RULE, ToolFlow};
use waypost_core::server::Support;
use waypost_core::{Code, Error};
use waypost_mcp_wire::methods;
use waypost_ops::hosting::with_timeout;

use crate::context::HandlerContext;
use crate::{prompts, resources, tools};

/// The time for which clients may cache lists, in milliseconds. Lists change when an author publishes; a list that is a
/// minute old does no harm.
const LIST_TTL_MS: u64 = 60_000;
/// The methods that this server supports. Other custom requests are unknown methods.
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

/// Handles one request to a hosted server.
pub struct Handler {
    context: HandlerContext,
}

impl Handler {
    /// Creates the handler of the request with this context.
    #[must_use]
    pub fn new(context: HandlerContext) -> Self {
        Self { context }
    }

    fn implementation(&self) -> Implementation {
        let server = &self.context.offers.server;
        let mut implementation = Implementation::new(&server.slug, env!("CARGO_PKG_VERSION"));
        implementation.title = Some(server.name.clone());
        implementation
    }

    /// Returns `_meta` with the server's identity, which every result should have (2026-07-28, "Per-request metadata").
    /// `None` for earlier revisions.
    fn meta(&self) -> Option<MetaObject> {
        if !self.context.is_modern {
            return None;
        }
        let mut meta = MetaObject::default();
        meta.insert("io.modelcontextprotocol/serverInfo".to_owned(), json!(self.implementation()));
        Some(meta)
    }

    /// Returns the time in milliseconds for which lists may be cached, and the scope of the cache. `None` for revisions
    /// with a handshake.
    fn list_caching(&self) -> (Option<u64>, Option<CacheScope>) {
        if self.context.is_modern { (Some(LIST_TTL_MS), Some(CacheScope::Public)) } else { (None, None) }
    }

    /// Returns the server's `instructions`. They state how this URL identifies the user and where progress is kept.
    fn instructions(&self) -> String {
        let server = &self.context.offers.server;
        let product = if server.product_name.is_empty() { &server.name } else { &server.product_name };
        let next = match ToolFlow::from(server.toolset) {
            ToolFlow::Guided => "next_walkthrough_step",
            ToolFlow::Stepwise => "complete_step",
        };
        let kept = if server.auth_type.has_sign_in() {
            "Progress is kept for the signed-in user.".to_owned()
        } else if self.context.tracking_id.is_some() {
            "Progress is kept for this personal URL.".to_owned()
        } else {
            format!(
                "Progress is kept for the progress_handle in the results. {HANDLE_RULE}, and keep it in your notes (for \
                 example AGENTS.md or a .waypost file) to resume after a restart; without it, or a personal URL, the user \
                 starts from the beginning."
            )
        };
        format!(
            "Guided walkthroughs for {product}. Call list_walkthroughs to see what is available, then lead the user through one \
             step at a time: show the step's content, then stop and wait, and call {next} only when the user says that \
             the step is done. In a step, {FIELD_USAGE}. {kept}{}",
            if server.support == Support::Tickets { " get_support opens a ticket with the team." } else { "" }
        )
    }
}

/// Converts an error to a protocol error, for methods whose results have no `isError`.
fn protocol_error(context: &HandlerContext, error: &Error) -> ErrorData {
    if let Some(cause) = std::error::Error::source(error) {
        tracing::error!(request_id = context.cx.request_id, cause = cause.to_string(), "request failed");
    }
    let code = match error.code {
        Code::InvalidArguments => ErrorCode::INVALID_PARAMS,
        Code::WalkthroughNotFound
        | Code::WalkthroughEmpty
        | Code::NoActiveWalkthrough
        | Code::AmbiguousWalkthrough
        | Code::StepMismatch
        | Code::StepNotFound
        | Code::ConfirmationRequired
        | Code::HandleUnknown
        | Code::EmailRequired
        | Code::SignInRequired
        | Code::NoProgress
        | Code::Conflict
        | Code::PreconditionFailed
        | Code::ImageNotFound
        | Code::ImageDenied
        | Code::ToolServerError
        | Code::RateLimited
        | Code::Unavailable
        | Code::NotFound
        | Code::Forbidden
        | Code::Internal => ErrorCode::INTERNAL_ERROR,
    };
    ErrorData::new(code, error.message.clone(), None)
}

fn invalid_params(message: impl Into<String>) -> ErrorData {
    ErrorData::invalid_params(message.into(), None)
}

/// Rejects cursors: lists have only one page.
fn reject_cursor(request: Option<&PaginatedRequestParams>) -> Result<(), ErrorData> {
    match request.and_then(|request| request.cursor.as_deref()) {
        None | Some("") => Ok(()),
        Some(_) => Err(invalid_params("Invalid cursor.")),
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> InitializeResult {
        let plain =
            ServerCapabilities::builder().enable_tools().enable_prompts().enable_resources().enable_completions();
        // Before 2026-07-28, changes are sent on the GET stream, which hosted servers do not support.
        let capabilities = if self.context.is_modern {
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
        reject_cursor(request.as_ref())?;
        let mut result = ListToolsResult::with_all_items(tools::list(&self.context));
        (result.ttl_ms, result.cache_scope) = self.list_caching();
        result.meta = self.meta();
        Ok(result)
    }

    /// rmcp calls this only for the schema, to check `Mcp-Param-*` headers.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::find_listed(&self.context, name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        request_context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(entry) = tools::find(&request.name) else {
            return Err(invalid_params(format!("Unknown tool: {}", request.name)));
        };
        // Before 2026-07-28, elicitation happens while the call is open, which would require server-side sessions.
        let elicitation =
            request_context.client_capabilities().filter(|_| self.context.is_modern).and_then(|all| all.elicitation);
        // 2026-07-28, "Elicitation": a capability without a mode means forms.
        let supports_forms = elicitation.is_some_and(|modes| modes.form.is_some() || modes.url.is_none());
        let input =
            tools::CallInput { arguments: request.arguments, responses: request.input_responses, supports_forms };
        // Boxed, because rmcp moves the future of a request several times.
        let mut response = Box::pin(tools::call(&self.context, entry, input)).await;
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
        reject_cursor(request.as_ref())?;
        let mut result = ListPromptsResult::with_all_items(prompts::list(&self.context.offers));
        (result.ttl_ms, result.cache_scope) = self.list_caching();
        result.meta = self.meta();
        Ok(result)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let mut result = prompts::get(&self.context, &request.name)
            .ok_or_else(|| invalid_params(format!("Unknown prompt: {}", request.name)))?;
        result.meta = self.meta();
        Ok(result.into())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        reject_cursor(request.as_ref())?;
        let mut result = ListResourcesResult::with_all_items(resources::list(&self.context.offers));
        (result.ttl_ms, result.cache_scope) = self.list_caching();
        result.meta = self.meta();
        Ok(result)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        reject_cursor(request.as_ref())?;
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
        let read = Box::pin(with_timeout(resources::read(&self.context, &request.uri))).await;
        let Some(read) = read.map_err(|error| protocol_error(&self.context, &error))? else {
            // SEP-2164: rmcp converts this to -32602 for stateless revisions.
            return Err(ErrorData::resource_not_found("Resource not found", Some(json!({ "uri": request.uri }))));
        };
        let mut result = ReadResourceResult::new(vec![read.contents]);
        (result.ttl_ms, result.cache_scope) = match (self.context.is_modern, read.is_public) {
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
        let completes_ids = match &request.r#ref {
            Reference::Resource(template) => {
                template.uri == resources::STEP_TEMPLATE && request.argument.name == "walkthrough_id"
            }
            // Prompts have no arguments, so there is nothing to complete, even for an unknown prompt.
            _ => false,
        };
        let mut values: Vec<String> = Vec::new();
        if completes_ids {
            let ids = self.context.offers.list().iter().map(|offer| offer.walkthrough_id.to_string());
            values =
                ids.filter(|id| id.starts_with(&request.argument.value)).take(CompletionInfo::MAX_VALUES).collect();
        }
        let mut result = CompleteResult::new(CompletionInfo::new(values).unwrap_or_default());
        result.meta = self.meta();
        Ok(result)
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        self.context.listener.as_ref()?.accepted(requested)
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        if let Some(listener) = &self.context.listener {
            listener.run(&self.context, &subscription).await;
        }
        Ok(())
    }

    /// Called for requests that rmcp could not parse: unknown methods, and known methods with invalid params.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        if METHODS.contains(&request.method.as_str()) {
            return Err(invalid_params(format!("Invalid params for {}.", request.method)));
        }
        let message = methods::not_found(&request.method, self.context.is_modern);
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None))
    }
}
