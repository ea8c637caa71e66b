//! The bare relay: hyper in, hyper out, bytes untouched. Its cost is the minimum for an HTTP gateway on this machine.

use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use http::{Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// Arguments of the hidden `gateway-relay` subcommand.
#[derive(Args)]
pub struct RelayArgs {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The address of the server.
    #[arg(long)]
    upstream: SocketAddr,
}

/// Serves until the process is terminated. Prints `listening on http://…`.
pub fn main(args: RelayArgs) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(args))
}

async fn serve(args: RelayArgs) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = client.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| relay(&client, args.upstream, request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Sends a request to the server, and returns its response. An error closes the connection.
async fn relay(
    client: &Client<HttpConnector, Incoming>,
    upstream: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = Uri::builder().scheme("http").authority(upstream.to_string()).path_and_query(path).build()?;
    request.headers_mut().remove(header::HOST);
    Ok(client.request(request).await?)
}
