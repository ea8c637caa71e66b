//! Wrong usage and wrong settings.

use crate::Place;

#[test]
fn version_and_help_are_answers() {
    let place = Place::new();
    assert_eq!(place.fine(&["--version"]), format!("waypost {}\n", env!("CARGO_PKG_VERSION")));
    for command in ["serve", "walk", "walkthrough", "org", "user", "server", "key", "assignment", "migrate", "doctor"] {
        assert!(place.fine(&[command, "--help"]).contains("Usage: waypost"), "{command}");
    }
    assert!(!place.path("waypost-data").exists(), "help must not make anything");
}

#[test]
fn wrong_usage_exits_with_two() {
    let place = Place::new();
    for arguments in [&["nonsense"][..], &[], &["org"], &["org", "create"], &["migrate", "--nonsense"], &["backup"]] {
        place.fails(2, arguments);
    }
    insta::assert_snapshot!(place.fails(2, &["user", "create", "a@b.example", "--role", "king"]), @"
    error: invalid value 'king' for '--role <ROLE>'
      [possible values: owner, admin, member]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(place.fails(2, &["migrate", "--database", "mysql://u:secret@h/d"]), @"error: invalid setting `database_url` (from the flag --database): expected sqlite://PATH or postgres://USER@HOST/DATABASE");
}

#[test]
fn unknown_and_invalid_settings_are_named() {
    let place = Place::new();
    let mut command = place.command(&["migrate"]);
    let answer = place.answer(command.env("WAYPOST_LISTENN", "x").output().unwrap());
    insta::assert_snapshot!(answer.err, @"error: unknown setting `WAYPOST_LISTENN` (from the environment, WAYPOST_LISTENN); did you mean `WAYPOST_LISTEN`?");
    assert_eq!(answer.code, 1);
    let file = place.file("waypost.toml", "rate_limit_brust = 3\n");
    insta::assert_snapshot!(place.fails(1, &["org", "list", "--config", &file]), @"error: unknown setting `rate_limit_brust` (from the file DIR/waypost.toml); did you mean `rate_limit_burst`?");
    place.file("waypost.toml", "secret_key = 'abc'\n");
    insta::assert_snapshot!(place.fails(1, &["org", "list", "--config", &file]), @"error: invalid setting `secret_key` (from the file DIR/waypost.toml): expected 32 bytes as 64 hexadecimal digits, such as `openssl rand -hex 32` makes");
    insta::assert_snapshot!(place.fails(1, &["org", "list", "--config", "gone.toml"]), @"error: the configuration file gone.toml cannot be read: No such file or directory (os error 2)");
    assert!(!place.path("waypost-data").exists(), "nothing may be made before the settings are right");
}

#[test]
fn flags_beat_the_environment() {
    let place = Place::new();
    let mut command = place.command(&["migrate", "--data-dir", "from-flag"]);
    let answer = place.answer(command.env("WAYPOST_DATA_DIR", "from-environment").output().unwrap());
    assert_eq!((answer.code, answer.err.as_str()), (0, ""));
    assert!(place.path("from-flag/waypost.db").exists() && !place.path("from-environment").exists());
}
