//! The text of `docs/config.md`, which is generated from the table of settings.

use super::table::SETTINGS;

/// Returns the text of `docs/config.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("| Setting | Environment | Flag | Default | Description |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        let flag = setting.flag.map(|flag| format!("`{flag}`")).unwrap_or_default();
        let (name, environment, help) = (setting.name, setting.environment(), setting.help);
        text.push_str(&format!("| `{name}` | `{environment}` | {flag} | {} | {help} |\n", setting.default));
    }
    text.push_str(CLOSING);
    text
}

const INTRODUCTION: &str = "\
<!-- Generated from src/config/table.rs by the test `the_reference_is_up_to_date`. Do not edit. -->

# Configuration

Each setting is read from the first of these sources that contains it:

1. a command-line flag
2. an environment variable (`WAYPOST_…`)
3. the TOML file given by `--config FILE` or `WAYPOST_CONFIG`
4. the default

An unknown or invalid setting is a start-up error that names the setting.

";

const CLOSING: &str = "
`--config`, `--database` and `--data-dir` are accepted by every command, the other flags only by `waypost serve`.
`--data-dir` also changes the location of the default database.

The configuration file contains settings at its top level:

```toml
listen = \"0.0.0.0:8080\"
public_url = \"https://waypost.example.com\"
database_url = \"postgres://waypost@db.example.com/waypost\"
trusted_proxies = [\"10.0.0.0/8\"]
```

## Variables of commands

These variables select the installation that commands work on, or contain credentials. They do not affect `serve` and
cannot be set in the configuration file:

| Environment | Flag | Description |
|---|---|---|
| `WAYPOST_URL` | `--url` | The origin of a running installation, such as `https://waypost.example.com`. Commands that manage organisations and their data then use its REST API instead of a database. `waypost gateway stdio` connects to its gateway. `waypost toolbox join` accepts only the flag. |
| `WAYPOST_API_KEY` | `--api-key` | The API key. Prefer the environment variable: other users of the machine can see flags. `--api-key -` reads the key from standard input. |
| `WAYPOST_TOOLBOX_TOKEN` | `--token-file` | The token of `waypost toolbox join`. The flag names a file with the token. |
| `WAYPOST_AGENT_TOKEN` | `--token-file` | The token of an agent, for `waypost gateway stdio`. The flag names a file with the token. |

`--database` and `--data-dir` take precedence over `WAYPOST_URL` and cannot be combined with `--url`. Commands that work
directly on the database (`migrate`, `doctor`, `backup`, `restore`, `secret-key`, `audit`) do not accept `--url`. If
`WAYPOST_URL` is set, they require `--database` or `--data-dir`.

## Environment variables

Every environment variable that starts with `WAYPOST_` must be listed in the tables above or be `WAYPOST_CONFIG`. Two
kinds of variables are ignored: those that Kubernetes sets for services (`WAYPOST_SERVICE_HOST`, `WAYPOST_PORT_8080_TCP`,
…), and `WAYPOST_TEST_…`, which the project's tests use.
";
