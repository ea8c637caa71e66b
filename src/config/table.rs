//! The table of settings: names, defaults and descriptions.

use std::path::PathBuf;

use waypost_core::seal::SecretText;

use super::{Settings, value};

/// A row of the table.
pub struct Setting {
    /// Name in the configuration file. The environment variable is `WAYPOST_` + the name in upper case.
    pub name: &'static str,
    /// The command-line flag, if there is one.
    pub flag: Option<&'static str>,
    /// Default value, as Markdown.
    pub default: &'static str,
    /// Description, as Markdown.
    pub help: &'static str,
    /// Parses the text into the settings, or returns the expected format.
    pub(super) set: fn(&mut Settings, &str) -> Result<(), String>,
}

impl Setting {
    /// Returns the name of the environment variable.
    #[must_use]
    pub fn environment(&self) -> String {
        format!("WAYPOST_{}", self.name.to_ascii_uppercase())
    }
}

/// Returns the row with the given name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// All settings.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        flag: Some("--listen"),
        default: "`127.0.0.1:8080`",
        help: "Address and port to listen on.",
        set: |settings, text| value::parse_address(text).map(|address| settings.listen = address),
    },
    Setting {
        name: "public_url",
        flag: Some("--public-url"),
        default: "`http://localhost:` + the port of `listen`",
        help: "The public URL of this installation: an origin without a path. The URLs of hosted servers are based on it.",
        set: |settings, text| value::parse_origin(text).map(|url| settings.public_url = Some(url)),
    },
    Setting {
        name: "database_url",
        flag: Some("--database"),
        default: "`sqlite://` + `data_dir` + `/waypost.db`",
        help: "`sqlite://PATH`, or `postgres://USER:PASSWORD@HOST/DATABASE` (PostgreSQL 15 or newer) for more than one replica.",
        set: |settings, text| text.parse().map(|url| settings.database_url = url),
    },
    Setting {
        name: "data_dir",
        flag: Some("--data-dir"),
        default: "`./waypost-data`",
        help: "Data directory. Created with access for its owner only. A relative path is relative to the working directory.",
        set: |settings, text| {
            if text.is_empty() {
                return Err("expected a directory".to_owned());
            }
            settings.data_dir = PathBuf::from(text);
            Ok(())
        },
    },
    Setting {
        name: "diagnostics_listen",
        flag: Some("--diagnostics-listen"),
        default: "`127.0.0.1:9464`",
        help: "Address and port of the diagnostics port, which serves `/metrics`, `/healthz` and `/readyz`; `off` disables it.",
        set: |settings, text| value::parse_address_or_off(text).map(|address| settings.diagnostics_listen = address),
    },
    Setting {
        name: "secret_key",
        flag: None,
        default: "SQLite: `data_dir` + `/secret.key`, generated on the first start; PostgreSQL: none",
        help: "Key for signing and encryption: 32 bytes as 64 hexadecimal digits, for example from `openssl rand -hex 32`. Required on PostgreSQL; must be the same on every replica.",
        set: |settings, text| text.parse().map(|key| settings.secret_key = Some(key)),
    },
    Setting {
        name: "secret_key_previous",
        flag: None,
        default: "SQLite: `data_dir` + `/secret.key.previous`, if it exists; PostgreSQL: none",
        help: "A second key, used only for decryption and verification: the previous key, or the next one while replicas are restarted one by one (see `waypost secret-key rotate`).",
        set: |settings, text| text.parse().map(|key| settings.secret_key_previous = Some(key)),
    },
    Setting {
        name: "trusted_proxies",
        flag: None,
        default: "none",
        help: "Proxies whose forwarded headers are trusted: comma-separated addresses or networks, such as `127.0.0.1,10.0.0.0/8`.",
        set: |settings, text| value::parse_networks(text).map(|networks| settings.trusted_proxies = networks),
    },
    Setting {
        name: "outbound_allow",
        flag: None,
        default: "none (`serve --demo`: loopback)",
        help: "Private networks that outgoing requests may reach, including over `http://`: comma-separated entries `NETWORK=PURPOSE` or `NETWORK=PURPOSE@ORG`. PURPOSE is `sign-in`, `client-documents`, `webhooks` or `tools`; ORG is the slug or ID of an organisation and limits the entry to it. Example: `10.1.0.0/16=sign-in,10.2.0.5=webhooks@acme`.",
        set: |settings, text| value::parse_allowances(text).map(|allowances| settings.outbound_allow = allowances),
    },
    Setting {
        name: "client_documents",
        flag: None,
        default: "`auto`",
        help: "Whether clients may use a metadata document instead of registering: `auto` (advertised while documents can be fetched, see [sign-in.md](sign-in.md#client-metadata-documents)), `on` (always advertised, without a check) or `off` (never advertised, and rejected).",
        set: |settings, text| text.parse().map(|mode| settings.client_documents = mode),
    },
    Setting {
        name: "outbound_ca_file",
        flag: None,
        default: "none",
        help: "PEM file with root certificates that outgoing requests, such as those to identity providers and image registries, and commands with `--url` trust in addition to the system's.",
        set: |settings, text| value::parse_path(text).map(|path| settings.outbound_ca_file = Some(path)),
    },
    Setting {
        name: "smtp_url",
        flag: None,
        default: "none (`serve --demo`: `console:`)",
        help: "Mail server: `smtp://USER:PASSWORD@HOST:587`, `smtps://USER:PASSWORD@HOST`, or `console:`, which prints emails to standard output. Signing in with an emailed code requires this setting.",
        set: |settings, text| text.parse().map(|url| settings.smtp_url = Some(url)),
    },
    Setting {
        name: "mail_from",
        flag: None,
        default: "`waypost@` + the host of `public_url`",
        help: "Sender of emails: `waypost@example.com` or `Acme <waypost@example.com>`.",
        set: |settings, text| text.parse().map(|sender| settings.mail_from = Some(sender)),
    },
    Setting {
        name: "sign_up",
        flag: None,
        default: "`invite`",
        help: "Who can create a console account: `invite` (invited users), `open` (anyone, with an emailed code) or `closed` (no one). The first owner uses the setup link that `serve` prints.",
        set: |settings, text| text.parse().map(|sign_up| settings.sign_up = sign_up),
    },
    Setting {
        name: "github_client_id",
        flag: None,
        default: "none",
        help: "Client ID at GitHub. If the ID and the secret are set, console users can sign in with GitHub. Register the callback URL `public_url` + `/login/with/github/callback` there.",
        set: |settings, text| value::parse_text(text).map(|id| settings.github.id = Some(id)),
    },
    Setting {
        name: "github_client_secret",
        flag: None,
        default: "none",
        help: "Client secret at GitHub.",
        set: |settings, text| {
            value::parse_text(text).map(|secret| settings.github.secret = Some(SecretText::new(secret)))
        },
    },
    Setting {
        name: "google_client_id",
        flag: None,
        default: "none",
        help: "Client ID at Google. If the ID and the secret are set, console users can sign in with Google. Register the callback URL `public_url` + `/login/with/google/callback` there.",
        set: |settings, text| value::parse_text(text).map(|id| settings.google.id = Some(id)),
    },
    Setting {
        name: "google_client_secret",
        flag: None,
        default: "none",
        help: "Client secret at Google.",
        set: |settings, text| {
            value::parse_text(text).map(|secret| settings.google.secret = Some(SecretText::new(secret)))
        },
    },
    Setting {
        name: "openid_issuer",
        flag: None,
        default: "none",
        help: "Issuer of an OpenID Connect provider with which console users can sign in, such as `https://id.example.com`.",
        set: |settings, text| value::parse_issuer(text).map(|issuer| settings.openid_issuer = Some(issuer)),
    },
    Setting {
        name: "openid_client_id",
        flag: None,
        default: "none",
        help: "Client ID at the OpenID Connect provider. If the issuer, the ID and the secret are set, console users can sign in with it. Register the callback URL `public_url` + `/login/with/openid/callback` there.",
        set: |settings, text| value::parse_text(text).map(|id| settings.openid.id = Some(id)),
    },
    Setting {
        name: "openid_client_secret",
        flag: None,
        default: "none",
        help: "Client secret at the OpenID Connect provider.",
        set: |settings, text| {
            value::parse_text(text).map(|secret| settings.openid.secret = Some(SecretText::new(secret)))
        },
    },
    Setting {
        name: "openid_name",
        flag: None,
        default: "`OpenID Connect`",
        help: "Name of the OpenID Connect provider on the sign-in button: `Continue with …`.",
        set: |settings, text| value::parse_text(text).map(|name| settings.openid_name = name),
    },
    Setting {
        name: "rate_limit_per_caller",
        flag: None,
        default: "`100`",
        help: "MCP calls per second per caller. A caller is a signed-in end user, an anonymous user with stored progress, or all other callers from one client IP address (or one IPv6 /64 network) together. `0` for no limit.",
        set: |settings, text| value::parse_number(text).map(|number| settings.rate_limit_per_caller = number),
    },
    Setting {
        name: "rate_limit_burst",
        flag: None,
        default: "`200`",
        help: "Burst size per caller: calls that are allowed at once before the limit applies; at least 1.",
        set: |settings, text| value::parse_positive_number(text).map(|number| settings.rate_limit_burst = number),
    },
    Setting {
        name: "rate_limit_callers_per_address",
        flag: None,
        default: "`5`",
        help: "Combined limit of all anonymous users with stored progress on one client IP address, as a multiple of `rate_limit_per_caller`; at least 1.",
        set: |settings, text| {
            value::parse_positive_number(text).map(|number| settings.rate_limit_callers_per_address = number)
        },
    },
    Setting {
        name: "new_users_per_address",
        flag: None,
        default: "`300`",
        help: "New anonymous users per hour per client IP address (or IPv6 /64 network); `0` for no limit. Existing users can always continue.",
        set: |settings, text| value::parse_number(text).map(|number| settings.new_users_per_address = number),
    },
    Setting {
        name: "rate_limit_per_server",
        flag: None,
        default: "`1000`",
        help: "MCP calls per second per hosted server; `0` for no limit.",
        set: |settings, text| value::parse_number(text).map(|number| settings.rate_limit_per_server = number),
    },
    Setting {
        name: "ticket_limit_per_address",
        flag: None,
        default: "`30`",
        help: "Support tickets per hour per client IP address (or IPv6 /64 network), across all servers; `0` for no limit. Does not apply to users identified by a token.",
        set: |settings, text| value::parse_number(text).map(|number| settings.ticket_limit_per_address = number),
    },
    Setting {
        name: "ticket_limit_per_server",
        flag: None,
        default: "`100`",
        help: "Support tickets per hour per hosted server; `0` for no limit.",
        set: |settings, text| value::parse_number(text).map(|number| settings.ticket_limit_per_server = number),
    },
    Setting {
        name: "instance_limit",
        flag: None,
        default: "`5`",
        help: "Instances of tool servers per organisation; `0` allows none.",
        set: |settings, text| value::parse_number(text).map(|number| settings.instance_limit = number),
    },
    Setting {
        name: "toolboxes",
        flag: None,
        default: "`on`",
        help: "`off` switches off toolboxes and instances: no machine can join or connect, and the operations on toolboxes and instances are rejected. Containers on machines keep running ([toolboxes.md](toolboxes.md#off-switches)).",
        set: |settings, text| value::parse_switch(text).map(|is_on| settings.toolboxes = is_on),
    },
    Setting {
        name: "gateway",
        flag: None,
        default: "`on`",
        help: "`off` switches off the gateway: its URLs and pages do not exist. Each organisation can also switch off its own ([gateway.md](gateway.md#off-switches)).",
        set: |settings, text| value::parse_switch(text).map(|is_on| settings.gateway = is_on),
    },
    Setting {
        name: "gateway_definition_max_age_seconds",
        flag: None,
        default: "`30`",
        help: "Maximum age in seconds of a tool server's list of tools, prompts and resources: the gateway reads an older list again before a call; `0` reads it before every call ([gateway.md](gateway.md#approvals)).",
        set: |settings, text| {
            value::parse_number(text).map(|number| settings.gateway_definition_max_age_seconds = number)
        },
    },
    Setting {
        name: "gateway_call_timeout_seconds",
        flag: None,
        default: "`30`",
        help: "Seconds after which a call through the gateway ends, from `1` to `300`. This includes the start of a container and the check of what the server lists, but neither the time in which the agent is asked for something, nor that in which the call waits for other calls of the server ([gateway.md](gateway.md#limits)).",
        set: |settings, text| {
            value::parse_call_timeout(text).map(|number| settings.gateway_call_timeout_seconds = number)
        },
    },
    Setting {
        name: "gateway_calls_per_hour",
        flag: None,
        default: "`0`",
        help: "Calls of each agent through the gateway per hour, in each process; `0` for no limit ([gateway.md](gateway.md#quotas)).",
        set: |settings, text| value::parse_number(text).map(|number| settings.gateway_calls_per_hour = number),
    },
    Setting {
        name: "gateway_forwarded_headers",
        flag: None,
        default: "none",
        help: "Headers of agents that the gateway forwards with each call, to remote servers and to servers over HTTP in containers: up to 20 comma-separated names, such as `X-Tenant,X-Request-Id`. Credentials, and headers of HTTP, MCP and proxies, cannot be listed ([gateway.md](gateway.md#headers-of-agents)).",
        set: |settings, text| text.parse().map(|headers| settings.gateway_forwarded_headers = headers),
    },
    Setting {
        name: "gateway_elicitation_hosts",
        flag: None,
        default: "none",
        help: "Hosts whose pages tool servers may ask users of agents to open: up to 100 comma-separated names or addresses, such as `auth.example.com`, or `*` for every host. Other pages are not shown ([gateway.md](gateway.md#pages-that-users-open)).",
        set: |settings, text| text.parse().map(|hosts| settings.gateway_elicitation_hosts = hosts),
    },
    Setting {
        name: "internal_listen",
        flag: None,
        default: "none",
        help: "Address and port for requests of other replicas, which need a certificate that is derived from `secret_key`. Required for toolboxes on PostgreSQL, and not used on SQLite ([toolboxes.md](toolboxes.md#several-replicas)).",
        set: |settings, text| value::parse_address(text).map(|address| settings.internal_listen = Some(address)),
    },
    Setting {
        name: "internal_url",
        flag: None,
        default: "none",
        help: "The URL at which other replicas and commands reach `internal_listen`: an origin with `https://`, different for each replica. Required for toolboxes on PostgreSQL.",
        set: |settings, text| value::parse_secure_origin(text).map(|url| settings.internal_url = Some(url)),
    },
    Setting {
        name: "listen_limit",
        flag: None,
        default: "`2000`",
        help: "Open `subscriptions/listen` streams per process; `0` for no limit. Each stream uses a connection.",
        set: |settings, text| value::parse_number(text).map(|number| settings.listen_limit = number),
    },
    Setting {
        name: "listen_limit_per_server",
        flag: None,
        default: "`1000`",
        help: "Open streams per hosted server; `0` for no limit.",
        set: |settings, text| value::parse_number(text).map(|number| settings.listen_limit_per_server = number),
    },
    Setting {
        name: "listen_limit_per_address",
        flag: None,
        default: "`100`",
        help: "Open streams per client IP address (or IPv6 /64 network); `0` for no limit.",
        set: |settings, text| value::parse_number(text).map(|number| settings.listen_limit_per_address = number),
    },
    Setting {
        name: "connection_limit",
        flag: None,
        default: "`0`",
        help: "Connections to the main port; `0` for as many as file descriptors allow, up to 10,000. The limit never exceeds the available file descriptors. When it is reached, the connection that has been waiting for its client the longest is closed; a new connection is rejected (503) only if none is waiting.",
        set: |settings, text| value::parse_number(text).map(|number| settings.connection_limit = number),
    },
    Setting {
        name: "connection_limit_per_address",
        flag: None,
        default: "`500`",
        help: "Connections per client IP address (or IPv6 /64 network), at most three quarters of all; `0` for no limit. Trusted proxies are exempt. When it is reached, the same rule applies to the connections of that address (429).",
        set: |settings, text| value::parse_number(text).map(|number| settings.connection_limit_per_address = number),
    },
    Setting {
        name: "diagnostics_connection_limit",
        flag: None,
        default: "`64`",
        help: "Connections to the diagnostics port, which has reserved file descriptors.",
        set: |settings, text| {
            value::parse_positive_number(text).map(|number| settings.diagnostics_connection_limit = number)
        },
    },
    Setting {
        name: "header_timeout_seconds",
        flag: None,
        default: "`10`",
        help: "Timeout in seconds for a complete request head, measured from the start of the connection or of a later request.",
        set: |settings, text| value::parse_positive_number(text).map(|number| settings.header_timeout_seconds = number),
    },
    Setting {
        name: "header_limit_bytes",
        flag: None,
        default: "`32KiB`",
        help: "Maximum size of a request head, in bytes or with `KiB` or `MiB`; from 8 KiB to 1 MiB. A larger head is rejected (431).",
        set: |settings, text| value::parse_header_limit(text).map(|bytes| settings.header_limit_bytes = bytes),
    },
    Setting {
        name: "body_timeout_seconds",
        flag: None,
        default: "`5`",
        help: "Seconds that a request body may lag behind `body_bytes_per_second` before it is rejected (408).",
        set: |settings, text| value::parse_positive_number(text).map(|number| settings.body_timeout_seconds = number),
    },
    Setting {
        name: "body_bytes_per_second",
        flag: None,
        default: "`1000`",
        help: "Minimum transfer rate of a request body; `0` for no limit.",
        set: |settings, text| value::parse_number(text).map(|number| settings.body_bytes_per_second = number),
    },
    Setting {
        name: "body_memory_bytes",
        flag: None,
        default: "`64MiB`",
        help: "Memory for all incomplete request bodies, in bytes or with `KiB`, `MiB` or `GiB`; `0` for no limit. When it is reached, the largest body of the client IP address that uses the most memory is rejected (503).",
        set: |settings, text| value::parse_byte_size(text).map(|bytes| settings.body_memory_bytes = bytes),
    },
    Setting {
        name: "keep_alive_seconds",
        flag: None,
        default: "`75`",
        help: "Idle timeout of a connection in seconds. Does not apply to streams or to requests that are being processed.",
        set: |settings, text| value::parse_positive_number(text).map(|number| settings.keep_alive_seconds = number),
    },
    Setting {
        name: "response_timeout_seconds",
        flag: None,
        default: "`60`",
        help: "Time in seconds after which a client that accepts no bytes of its response is disconnected.",
        set: |settings, text| {
            value::parse_positive_number(text).map(|number| settings.response_timeout_seconds = number)
        },
    },
    Setting {
        name: "http2_stream_limit",
        flag: None,
        default: "`100`",
        help: "Concurrent requests per HTTP/2 connection.",
        set: |settings, text| value::parse_positive_number(text).map(|number| settings.http2_stream_limit = number),
    },
    Setting {
        name: "http2_reset_limit",
        flag: None,
        default: "`100`",
        help: "Requests that an HTTP/2 connection may cancel per minute; it is closed when it exceeds this limit and more than half of its requests were cancelled. `0` for no limit.",
        set: |settings, text| value::parse_number(text).map(|number| settings.http2_reset_limit = number),
    },
    Setting {
        name: "retention_tool_calls",
        flag: None,
        default: "`90d`",
        help: "Retention period of the tool call log, in days (`90d`) or hours (`36h`, at least `1h`); `off` or `0` keeps it forever. Does not affect analytics. Use the same value on all replicas. See [operations.md](operations.md#retention).",
        set: |settings, text| value::parse_period(text).map(|period| settings.retention.tool_calls = period),
    },
    Setting {
        name: "retention_events",
        flag: None,
        default: "`400d`",
        help: "Retention period of walkthrough events and call counts. Progress and completions are not deleted.",
        set: |settings, text| value::parse_period(text).map(|period| settings.retention.events = period),
    },
    Setting {
        name: "retention_audit",
        flag: None,
        default: "`730d`",
        help: "Retention period of the audit log. Entries are not deleted for any other reason.",
        set: |settings, text| value::parse_period(text).map(|period| settings.retention.audit = period),
    },
    Setting {
        name: "retention_deliveries",
        flag: None,
        default: "`30d`",
        help: "Retention period of webhook deliveries that are no longer pending.",
        set: |settings, text| value::parse_period(text).map(|period| settings.retention.deliveries = period),
    },
    Setting {
        name: "retention_gateway_calls",
        flag: None,
        default: "`30d`",
        help: "Retention period of the gateway's call log ([gateway.md](gateway.md#the-call-log)).",
        set: |settings, text| value::parse_period(text).map(|period| settings.retention.gateway_calls = period),
    },
    Setting {
        name: "log_format",
        flag: None,
        default: "`auto`",
        help: "`text`, `json` or `auto` (text if standard error is a terminal, otherwise JSON).",
        set: |settings, text| text.parse().map(|format| settings.log_format = format),
    },
    Setting {
        name: "log_level",
        flag: None,
        default: "`info` (commands other than `serve`: `warn`)",
        help: "`off`, `error`, `warn`, `info`, `debug` or `trace`, optionally with levels per module, such as `info,waypost=debug`. `bollard`, `rmcp`, `tokio_tungstenite` and `tungstenite` never log below `info`, because they log messages with secrets.",
        set: |settings, text| text.parse().map(|level| settings.log_level = level),
    },
    Setting {
        name: "version_cache_bytes",
        flag: None,
        default: "`64MiB`",
        help: "Size of the cache for published walkthrough versions, in bytes or with `KiB`, `MiB` or `GiB`.",
        set: |settings, text| value::parse_byte_size(text).map(|bytes| settings.version_cache_bytes = bytes),
    },
];
