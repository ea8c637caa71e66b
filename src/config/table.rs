//! The table of settings: names, defaults and explanations, from which `docs/config.md` is made.

use std::path::PathBuf;

use waypost_core::seal::SecretText;

use super::{Settings, value};

/// One row of the table.
pub struct Setting {
    /// The name in the file; in capitals and behind `WAYPOST_` that of the environment.
    pub name: &'static str,
    /// The flag, and the only command that has it when it is not on all.
    pub flag: Option<&'static str>,
    /// The default, for people.
    pub default: &'static str,
    /// What it is for, for people.
    pub help: &'static str,
    /// Takes the text over into the settings, or says what would be right.
    pub(super) set: fn(&mut Settings, &str) -> Result<(), String>,
}

impl Setting {
    /// The name in the environment.
    #[must_use]
    pub fn environment(&self) -> String {
        format!("WAYPOST_{}", self.name.to_ascii_uppercase())
    }
}

/// The row by its name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Everything that can be set.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        flag: Some("--listen"),
        default: "`127.0.0.1:8080`",
        help: "Address and port of the hosted MCP servers.",
        set: |settings, text| value::address(text).map(|address| settings.listen = address),
    },
    Setting {
        name: "public_url",
        flag: Some("--public-url"),
        default: "`http://localhost:` + the port of `listen`",
        help: "The origin, without path, under which clients reach this installation. Hosted servers are below it.",
        set: |settings, text| value::origin(text).map(|url| settings.public_url = Some(url)),
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
        help: "Where files are kept. Made with the rights of its owner only; a relative path starts at the working directory.",
        set: |settings, text| {
            if text.is_empty() {
                return Err("expected a folder".to_owned());
            }
            settings.data_dir = PathBuf::from(text);
            Ok(())
        },
    },
    Setting {
        name: "diagnostics_listen",
        flag: Some("--diagnostics-listen"),
        default: "`127.0.0.1:9464`",
        help: "Address and port of `/metrics`, `/healthz` and `/readyz`; `off` for none.",
        set: |settings, text| value::address_or_off(text).map(|address| settings.diagnostics_listen = address),
    },
    Setting {
        name: "secret_key",
        flag: None,
        default: "on SQLite `data_dir` + `/secret.key`, made at the first start; none on PostgreSQL",
        help: "Signs and encrypts: 32 bytes as 64 hexadecimal digits, such as `openssl rand -hex 32` makes. Required on PostgreSQL, the same on every replica.",
        set: |settings, text| text.parse().map(|key| settings.secret_key = Some(key)),
    },
    Setting {
        name: "secret_key_previous",
        flag: None,
        default: "on SQLite `data_dir` + `/secret.key.previous`, if it is there",
        help: "A second key that opens and verifies, and with which nothing is made: the one before, or while replicas are restarted one by one the next (`waypost secret rotate`).",
        set: |settings, text| text.parse().map(|key| settings.secret_key_previous = Some(key)),
    },
    Setting {
        name: "trusted_proxies",
        flag: None,
        default: "none",
        help: "Proxies whose forwarded headers count: addresses or networks, separated by commas, such as `127.0.0.1,10.0.0.0/8`.",
        set: |settings, text| value::networks(text).map(|networks| settings.trusted_proxies = networks),
    },
    Setting {
        name: "outbound_allow",
        flag: None,
        default: "none (`serve --demo`: loopback)",
        help: "Private networks that outgoing requests may reach, also over `http://`: `NETWORK=PURPOSE` or `NETWORK=PURPOSE@ORG`, separated by commas. PURPOSE is `sign-in`, `client-documents`, `webhooks` or `tools`; ORG is the slug or ID of the only organisation that the entry applies to. Example: `10.1.0.0/16=sign-in,10.2.0.5=webhooks@acme`.",
        set: |settings, text| value::allowances(text).map(|allowances| settings.outbound_allow = allowances),
    },
    Setting {
        name: "client_documents",
        flag: None,
        default: "`auto`",
        help: "Whether clients may name a metadata document instead of registering: `auto` (advertised while documents can be fetched, see [sign-in.md](sign-in.md#client-metadata-documents)), `on` (always advertised, without a check) or `off` (never; a client that names one is refused).",
        set: |settings, text| text.parse().map(|mode| settings.client_documents = mode),
    },
    Setting {
        name: "outbound_ca_file",
        flag: None,
        default: "none",
        help: "A PEM file with root certificates that these requests, and commands with `--url`, trust beside the system's.",
        set: |settings, text| value::file(text).map(|path| settings.outbound_ca_file = Some(path)),
    },
    Setting {
        name: "smtp_url",
        flag: None,
        default: "none (`serve --demo`: `console:`)",
        help: "How mails are sent: `smtp://USER:PASSWORD@HOST:587`, `smtps://USER:PASSWORD@HOST`, or `console:`, which prints them to standard output. Without it nobody can sign in with a code by mail.",
        set: |settings, text| text.parse().map(|url| settings.smtp_url = Some(url)),
    },
    Setting {
        name: "mail_from",
        flag: None,
        default: "`waypost@` + the host of `public_url`",
        help: "Whom mails come from: `waypost@example.com` or `Acme <waypost@example.com>`.",
        set: |settings, text| text.parse().map(|sender| settings.mail_from = Some(sender)),
    },
    Setting {
        name: "sign_up",
        flag: None,
        default: "`invite`",
        help: "Who may make an account of the console for themselves: `invite` (whoever was invited), `open` (everybody, with a code by mail) or `closed` (nobody). The first owner comes by the link that `serve` prints.",
        set: |settings, text| text.parse().map(|sign_up| settings.sign_up = sign_up),
    },
    Setting {
        name: "github_client_id",
        flag: None,
        default: "none",
        help: "Waypost's client id at GitHub. With both, users of the console can sign in with it; the callback to register there is `public_url` + `/login/with/github/callback`.",
        set: |settings, text| value::text(text).map(|id| settings.github.id = Some(id)),
    },
    Setting {
        name: "github_client_secret",
        flag: None,
        default: "none",
        help: "Waypost's client secret at GitHub.",
        set: |settings, text| value::text(text).map(|secret| settings.github.secret = Some(SecretText::new(secret))),
    },
    Setting {
        name: "google_client_id",
        flag: None,
        default: "none",
        help: "Waypost's client id at Google. With both, users of the console can sign in with it; the callback to register there is `public_url` + `/login/with/google/callback`.",
        set: |settings, text| value::text(text).map(|id| settings.google.id = Some(id)),
    },
    Setting {
        name: "google_client_secret",
        flag: None,
        default: "none",
        help: "Waypost's client secret at Google.",
        set: |settings, text| value::text(text).map(|secret| settings.google.secret = Some(SecretText::new(secret))),
    },
    Setting {
        name: "openid_issuer",
        flag: None,
        default: "none",
        help: "A provider of OpenID Connect with which users of the console can sign in: its issuer, such as `https://id.example.com`.",
        set: |settings, text| value::issuer(text).map(|issuer| settings.openid_issuer = Some(issuer)),
    },
    Setting {
        name: "openid_client_id",
        flag: None,
        default: "none",
        help: "Waypost's client id at the provider of OpenID Connect. With both, users of the console can sign in with it; the callback to register there is `public_url` + `/login/with/openid/callback`.",
        set: |settings, text| value::text(text).map(|id| settings.openid.id = Some(id)),
    },
    Setting {
        name: "openid_client_secret",
        flag: None,
        default: "none",
        help: "Waypost's client secret at the provider of OpenID Connect.",
        set: |settings, text| value::text(text).map(|secret| settings.openid.secret = Some(SecretText::new(secret))),
    },
    Setting {
        name: "openid_name",
        flag: None,
        default: "`OpenID Connect`",
        help: "What that provider is called on its button: `Continue with …`.",
        set: |settings, text| value::text(text).map(|name| settings.openid_name = name),
    },
    Setting {
        name: "rate_limit_per_caller",
        flag: None,
        default: "`100`",
        help: "Calls per second of one caller: a signed-in end user, an anonymous user, or all callers of one client address (of one /64 network of IPv6) who have stored no progress; `0` for no limit.",
        set: |settings, text| value::number(text).map(|number| settings.rate_limit_per_caller = number),
    },
    Setting {
        name: "rate_limit_burst",
        flag: None,
        default: "`200`",
        help: "Calls that one caller may make at once before the limit counts; at least 1.",
        set: |settings, text| value::at_least_one(text).map(|number| settings.rate_limit_burst = number),
    },
    Setting {
        name: "rate_limit_callers_per_address",
        flag: None,
        default: "`5`",
        help: "How many times the limit of one caller the anonymous users of one client address have together, once they have stored progress; at least 1.",
        set: |settings, text| value::at_least_one(text).map(|number| settings.rate_limit_callers_per_address = number),
    },
    Setting {
        name: "new_users_per_address",
        flag: None,
        default: "`300`",
        help: "Anonymous users who may start from one client address (from one /64 network of IPv6) per hour; `0` for no limit. Users who started before can always continue.",
        set: |settings, text| value::number(text).map(|number| settings.new_users_per_address = number),
    },
    Setting {
        name: "rate_limit_per_server",
        flag: None,
        default: "`1000`",
        help: "Calls per second of one hosted server; `0` for no limit.",
        set: |settings, text| value::number(text).map(|number| settings.rate_limit_per_server = number),
    },
    Setting {
        name: "ticket_limit_per_address",
        flag: None,
        default: "`30`",
        help: "Support tickets per hour from one client address (from one /64 network of IPv6), on all servers together; users whom a token identifies do not count. `0` for no limit.",
        set: |settings, text| value::number(text).map(|number| settings.ticket_limit_per_address = number),
    },
    Setting {
        name: "ticket_limit_per_server",
        flag: None,
        default: "`100`",
        help: "Support tickets per hour on one hosted server; `0` for no limit.",
        set: |settings, text| value::number(text).map(|number| settings.ticket_limit_per_server = number),
    },
    Setting {
        name: "listen_limit",
        flag: None,
        default: "`2000`",
        help: "Streams of `subscriptions/listen` that may be open in one process; `0` for no limit. Each holds a connection.",
        set: |settings, text| value::number(text).map(|number| settings.listen_limit = number),
    },
    Setting {
        name: "listen_limit_per_server",
        flag: None,
        default: "`1000`",
        help: "Of these, streams to one hosted server; `0` for no limit.",
        set: |settings, text| value::number(text).map(|number| settings.listen_limit_per_server = number),
    },
    Setting {
        name: "listen_limit_per_address",
        flag: None,
        default: "`100`",
        help: "Of these, streams from one client address (from one /64 network of IPv6); `0` for no limit.",
        set: |settings, text| value::number(text).map(|number| settings.listen_limit_per_address = number),
    },
    Setting {
        name: "connection_limit",
        flag: None,
        default: "`0`",
        help: "Connections of the main port; `0` for as many as file descriptors allow, at most 10,000. It is never more than they allow. When it is reached, the connection that has waited for its client the longest is closed; a new one is refused (503) only if none waits.",
        set: |settings, text| value::number(text).map(|number| settings.connection_limit = number),
    },
    Setting {
        name: "connection_limit_per_address",
        flag: None,
        default: "`500`",
        help: "Of these, connections from one client address (from one /64 network of IPv6), at most three quarters of all; `0` for no limit. Trusted proxies are exempt. When it is reached, the same happens with the connections of that address (429).",
        set: |settings, text| value::number(text).map(|number| settings.connection_limit_per_address = number),
    },
    Setting {
        name: "diagnostics_connection_limit",
        flag: None,
        default: "`64`",
        help: "Connections of the diagnostics port, for which file descriptors are reserved.",
        set: |settings, text| value::at_least_one(text).map(|number| settings.diagnostics_connection_limit = number),
    },
    Setting {
        name: "header_timeout_seconds",
        flag: None,
        default: "`10`",
        help: "Seconds that a client may take for the head of a request, from the start of the connection or of a further request.",
        set: |settings, text| value::at_least_one(text).map(|number| settings.header_timeout_seconds = number),
    },
    Setting {
        name: "header_limit_bytes",
        flag: None,
        default: "`32KiB`",
        help: "The size of the head of a request, in bytes or with `KiB`; at least 8 KiB. A larger one gets 431.",
        set: |settings, text| value::header_bytes(text).map(|bytes| settings.header_limit_bytes = bytes),
    },
    Setting {
        name: "body_timeout_seconds",
        flag: None,
        default: "`5`",
        help: "Seconds that the body of a request may be behind `body_bytes_per_second`; then it gets 408.",
        set: |settings, text| value::at_least_one(text).map(|number| settings.body_timeout_seconds = number),
    },
    Setting {
        name: "body_bytes_per_second",
        flag: None,
        default: "`1000`",
        help: "How fast the body of a request has to arrive; `0` for no limit.",
        set: |settings, text| value::number(text).map(|number| settings.body_bytes_per_second = number),
    },
    Setting {
        name: "body_memory_bytes",
        flag: None,
        default: "`64MiB`",
        help: "Memory for all incomplete bodies of requests, in bytes or with `KiB`, `MiB`, `GiB`; `0` for no limit. When it is reached, the client address that holds the most loses its largest one (503).",
        set: |settings, text| value::bytes(text).map(|bytes| settings.body_memory_bytes = bytes),
    },
    Setting {
        name: "keep_alive_seconds",
        flag: None,
        default: "`75`",
        help: "Seconds that a connection may be without a request. Streams and requests that are being processed have no limit.",
        set: |settings, text| value::at_least_one(text).map(|number| settings.keep_alive_seconds = number),
    },
    Setting {
        name: "response_timeout_seconds",
        flag: None,
        default: "`60`",
        help: "Seconds that a client may accept no bytes of its response.",
        set: |settings, text| value::at_least_one(text).map(|number| settings.response_timeout_seconds = number),
    },
    Setting {
        name: "http2_stream_limit",
        flag: None,
        default: "`100`",
        help: "Requests at the same time on one connection of HTTP/2.",
        set: |settings, text| value::at_least_one(text).map(|number| settings.http2_stream_limit = number),
    },
    Setting {
        name: "http2_reset_limit",
        flag: None,
        default: "`100`",
        help: "Requests that one connection of HTTP/2 may cancel within a minute, if these are more than half of all; then it is closed. `0` for no limit.",
        set: |settings, text| value::number(text).map(|number| settings.http2_reset_limit = number),
    },
    Setting {
        name: "retention_tool_calls",
        flag: None,
        default: "`90d`",
        help: "Age at which tool calls are deleted, in days (`90d`) or hours (`36h`, at least `1h`); `off` or `0` keeps them forever. Analytics does not change. Use the same value on all replicas. See [operations.md](operations.md#retention).",
        set: |settings, text| value::period(text).map(|period| settings.retention.tool_calls = period),
    },
    Setting {
        name: "retention_events",
        flag: None,
        default: "`400d`",
        help: "The same for events of walkthroughs and for the counts of calls. Progress and completions are not deleted.",
        set: |settings, text| value::period(text).map(|period| settings.retention.events = period),
    },
    Setting {
        name: "retention_audit",
        flag: None,
        default: "`730d`",
        help: "The same for the audit log. Nothing else deletes from it.",
        set: |settings, text| value::period(text).map(|period| settings.retention.audit = period),
    },
    Setting {
        name: "retention_deliveries",
        flag: None,
        default: "`30d`",
        help: "The same for webhook deliveries that are no longer pending.",
        set: |settings, text| value::period(text).map(|period| settings.retention.deliveries = period),
    },
    Setting {
        name: "log_format",
        flag: None,
        default: "`auto`",
        help: "`text`, `json`, or `auto`: text when standard error is a terminal, else JSON.",
        set: |settings, text| text.parse().map(|format| settings.log_format = format),
    },
    Setting {
        name: "log_level",
        flag: None,
        default: "`info` (commands other than `serve`: `warn`)",
        help: "`off`, `error`, `warn`, `info`, `debug` or `trace`; parts of the program may differ, as in `info,waypost=debug`.",
        set: |settings, text| text.parse().map(|level| settings.log_level = level),
    },
    Setting {
        name: "version_cache_bytes",
        flag: None,
        default: "`64MiB`",
        help: "Memory for the published versions of walkthroughs, in bytes or with `KiB`, `MiB`, `GiB`.",
        set: |settings, text| value::bytes(text).map(|bytes| settings.version_cache_bytes = bytes),
    },
];

/// The text of `docs/config.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("| Setting | Environment | Flag | Default | Meaning |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        let flag = setting.flag.map(|flag| format!("`{flag}`")).unwrap_or_default();
        let (name, environment, help) = (setting.name, setting.environment(), setting.help);
        text.push_str(&format!("| `{name}` | `{environment}` | {flag} | {} | {help} |\n", setting.default));
    }
    text.push_str(CLOSING);
    text
}

const INTRODUCTION: &str = "\
<!-- Made from src/config/table.rs by the test `the_reference_is_up_to_date`. Do not edit. -->

# Configuration

A setting is taken from the first of these that has it:

1. a flag of the command line,
2. the environment (`WAYPOST_…`),
3. the TOML file that `--config FILE` or `WAYPOST_CONFIG` names,
4. its default.

An unknown or invalid setting, in any of these places, stops the start with a message that names it.

";

const CLOSING: &str = "
`--config`, `--database` and `--data-dir` are flags of every command; the other flags belong to `waypost serve`.
`--data-dir` also moves the default database.

A file holds any of these, at its top level:

```toml
listen = \"0.0.0.0:8080\"
public_url = \"https://waypost.example.com\"
database_url = \"postgres://waypost@db.example.com/waypost\"
trusted_proxies = [\"10.0.0.0/8\"]
```

## Commands on another machine

Two more variables say where commands work; what is served does not depend on them, and no file holds them:

| Environment | Flag | Meaning |
|---|---|---|
| `WAYPOST_URL` | `--url` | The origin of a running installation, such as `https://waypost.example.com`: commands on organisations, users, servers, providers, keys, walkthroughs and assignments work through its REST API and open no database. |
| `WAYPOST_API_KEY` | `--api-key` | The API key for it. The environment is better than the flag, which every user of the machine can see; `--api-key -` reads the key from standard input. |

`--database` and `--data-dir` come before `WAYPOST_URL`, and contradict `--url`. Commands that work on the database itself
(`migrate`, `doctor`, `backup`, `restore`, `secret`) refuse both, unless a database is named.

## The environment

Every variable of the environment that begins with `WAYPOST_` must be one of the tables', or `WAYPOST_CONFIG`. Two kinds
are passed over: those that Kubernetes sets for services (`WAYPOST_SERVICE_HOST`, `WAYPOST_PORT_8080_TCP`, …), and
`WAYPOST_TEST_…`, which belongs to the project's own tests.
";
