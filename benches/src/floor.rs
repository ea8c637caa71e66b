//! The floor: axum and rmcp exactly as Waypost uses them, with one tool that returns a constant, and no store.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use clap::Args;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities, ServerConfig,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use crate::content;

/// Arguments of the hidden `floor` subcommand.
#[derive(Args)]
pub struct FloorArgs {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[derive(Clone)]
struct ConstantHandler(Arc<CallToolResult>);

impl ServerHandler for ConstantHandler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        _request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, rmcp::ErrorData> {
        Ok(CallToolResult::clone(&self.0).into())
    }
}

struct App {
    handler: ConstantHandler,
    sessions: Arc<NeverSessionManager>,
    config: StreamableHttpServerConfig,
}

/// Serves until the process is terminated. Prints `listening on http://…` like Waypost.
pub fn main(args: FloorArgs) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(args.listen))
}

async fn serve(listen: SocketAddr) -> Result<()> {
    let mut result = CallToolResult::success(vec![ContentBlock::text(content::text_block(250, content::LONG.steps))]);
    result.structured_content = Some(content::constant_step_result());
    let app = App {
        handler: ConstantHandler(Arc::new(result)),
        sessions: Arc::new(NeverSessionManager::default()),
        config: StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true),
    };
    let router = axum::Router::new().route("/t/{user}/mcp", post(handle)).with_state(Arc::new(app));
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, router).await?)
}

async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let handler = app.handler.clone();
    let service = StreamableHttpService::new(move || Ok(handler.clone()), app.sessions.clone(), app.config.clone());
    service.handle(request).await.into_response()
}
