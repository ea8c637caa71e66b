//! Incorrect usage and invalid settings.

use crate::Workspace;

#[test]
fn version_and_help_succeed() {
    let workspace = Workspace::empty();
    assert_eq!(workspace.run_ok(&["--version"]), format!("waypost {}\n", env!("CARGO_PKG_VERSION")));
    let commands = [
        "serve",
        "walk",
        "walkthrough",
        "org",
        "user",
        "server",
        "key",
        "assignment",
        "catalog",
        "secret",
        "toolbox",
        "instance",
        "agent",
        "grant",
        "tool-set",
        "secret-key",
        "migrate",
        "doctor",
    ];
    for command in commands {
        assert!(workspace.run_ok(&[command, "--help"]).contains("Usage: waypost"), "{command}");
    }
    assert!(!workspace.path("waypost-data").exists(), "help must not create any files");
}

#[test]
fn incorrect_usage_exits_with_2() {
    let workspace = Workspace::new();
    for arguments in [&["nonsense"][..], &[], &["org"], &["org", "create"], &["migrate", "--nonsense"], &["backup"]] {
        workspace.run_err(2, arguments);
    }
    insta::assert_snapshot!(workspace.run_err(2, &["user", "create", "a@b.example", "--role", "king"]), @"
    error: invalid value 'king' for '--role <ROLE>'
      [possible values: owner, admin, member]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(workspace.run_err(2, &["migrate", "--database", "mysql://u:secret@h/d"]), @"error: invalid setting `database_url` (from flag --database): expected sqlite://PATH or postgres://USER@HOST/DATABASE");
}

#[test]
fn unknown_and_invalid_settings_are_named() {
    let workspace = Workspace::empty();
    let mut command = workspace.command(&["migrate"]);
    let result = workspace.to_result(command.env("WAYPOST_LISTENN", "x").output().unwrap());
    insta::assert_snapshot!(result.err, @"error: unknown setting `WAYPOST_LISTENN` (from environment variable WAYPOST_LISTENN); did you mean `WAYPOST_LISTEN`?");
    assert_eq!(result.code, 1);
    let file = workspace.write_file("waypost.toml", "rate_limit_brust = 3\n");
    insta::assert_snapshot!(workspace.run_err(1, &["org", "list", "--config", &file]), @"error: unknown setting `rate_limit_brust` (from file DIR/waypost.toml); did you mean `rate_limit_burst`?");
    workspace.write_file("waypost.toml", "secret_key = 'abc'\n");
    insta::assert_snapshot!(workspace.run_err(1, &["org", "list", "--config", &file]), @"error: invalid setting `secret_key` (from file DIR/waypost.toml): expected 32 bytes as 64 hexadecimal digits, for example from `openssl rand -hex 32`");
    insta::assert_snapshot!(workspace.run_err(1, &["org", "list", "--config", "gone.toml"]), @"error: cannot read the configuration file gone.toml: No such file or directory (os error 2)");
    assert!(!workspace.path("waypost-data").exists(), "no files are created before the settings are valid");
}

#[test]
fn flags_override_the_environment() {
    let workspace = Workspace::new();
    let mut command = workspace.command(&["migrate", "--data-dir", "from-flag"]);
    let result = workspace.to_result(command.env("WAYPOST_DATA_DIR", "from-environment").output().unwrap());
    assert_eq!((result.code, result.err.as_str()), (0, ""));
    assert!(workspace.path("from-flag/waypost.db").exists() && !workspace.path("from-environment").exists());
}
