//! Converts errors of the engine to codes, causes and next actions.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use bollard::errors::Error;
use waypost_toolbox_proto::ErrorCode;

use super::super::EngineError;

/// The folder in which the engine looks for the certificate authorities of registries. It contains one folder per host.
pub const CERTS_DIR: &str = "/etc/docker/certs.d";
/// The maximum length of a message of the engine in characters.
const MAX_MESSAGE: usize = 300;
/// Folders of the host that occur in messages of the engine and of its runtime.
const HOST_FOLDERS: [&str; 7] = [
    "/var/lib/docker",
    "/var/lib/containerd",
    "/run/docker",
    "/run/containerd",
    "/var/run/docker",
    "/proc",
    "/sys/fs/cgroup",
];

/// Returns the error of a specification that cannot be used.
pub fn invalid(cause: impl Into<String>, next_action: impl Into<String>) -> EngineError {
    EngineError::new(ErrorCode::ConfigInvalid, cause, next_action)
}

/// Returns the error of an engine that cannot be used.
pub fn unavailable(cause: impl Into<String>, next_action: impl Into<String>) -> EngineError {
    EngineError::new(ErrorCode::EngineUnavailable, cause, next_action)
}

/// Returns the error of a file or folder of the daemon that cannot be used.
pub fn io(action: &str, error: &std::io::Error) -> EngineError {
    if error.kind() == std::io::ErrorKind::StorageFull || error.kind() == std::io::ErrorKind::QuotaExceeded {
        return disk_full();
    }
    let cause = format!("The toolbox could not {action}: {}", error.kind());
    EngineError::new(ErrorCode::StartFailed, cause, "Check the log of the toolbox and the permissions of its folders.")
}

/// Returns the error of a full disk.
pub fn disk_full() -> EngineError {
    EngineError::new(
        ErrorCode::DiskFull,
        "The disk of the toolbox is full",
        "Free disk space on the machine, for example by removing images that are not used.",
    )
}

/// Whether the engine says that something does not exist.
pub fn is_not_found(error: &Error) -> bool {
    has_status(error, 404)
}

/// Whether the engine responded with this status.
pub fn has_status(error: &Error, status: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == status)
}

/// Returns the message of the engine; `None` if the engine could not be reached.
pub fn message(error: &Error) -> Option<&str> {
    match error {
        Error::DockerResponseServerError { message, .. } => Some(message),
        Error::DockerStreamError { error } | Error::DockerContainerWaitError { error, .. } => Some(error),
        _ => None,
    }
}

/// Returns the error of any request to the engine, except pulling an image.
pub fn request(action: &str, error: &Error, host_folders: &[String]) -> EngineError {
    let Some(message) = message(error) else {
        tracing::warn!(%error, action, "request to the container engine failed");
        return unavailable("The container engine does not respond", "Check that Docker runs on the machine.");
    };
    if message.contains("no space left on device") {
        return disk_full();
    }
    let cause = format!("The container engine could not {action}: {}", shorten(message, host_folders));
    EngineError::new(ErrorCode::StartFailed, cause, "Check the command and the image of the catalogue entry.")
}

/// Returns the error of pulling an image. `certs_dir` is [`CERTS_DIR`], or `None` if the daemon cannot access the
/// engine's files.
pub fn pull(image: &str, error: &Error, certs_dir: Option<&Path>) -> EngineError {
    match message(error) {
        Some(message) => pull_message(image, message, certs_dir),
        None => request("pull the image", error, &[]),
    }
}

/// Returns the error of pulling an image from the message of the engine. `certs_dir` is the same as for [`pull`].
pub fn pull_message(image: &str, message: &str, certs_dir: Option<&Path>) -> EngineError {
    let host = image.split('/').next().unwrap_or_default();
    let text = message.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let error = |code, cause: String, next: String| EngineError::new(code, cause, next);
    if has(&["no space left on device"]) {
        return disk_full();
    }
    if has(&["no matching manifest", "does not match the specified platform", "cannot be used on this platform"]) {
        return architecture(image, "another platform", "this one");
    }
    if has(&["x509:", "certificate signed by unknown", "tls: failed to verify"]) {
        return error(
            ErrorCode::ImageDenied,
            format!("The certificate of registry {host} is not trusted"),
            trust_registry(host, certs_dir),
        );
    }
    if has(&["server gave http response to https client"]) {
        return error(
            ErrorCode::ImageDenied,
            format!("Registry {host} does not use TLS"),
            "Enable TLS in the registry, or add it to `insecure-registries` of Docker on the machine.".into(),
        );
    }
    if has(&["toomanyrequests", "too many requests", "rate limit"]) {
        return error(
            ErrorCode::ImageDenied,
            format!("Registry {host} limits the number of requests"),
            "Try again later, or use credentials for the registry.".into(),
        );
    }
    if has(&["unauthorized", "denied", "no basic auth credentials", "authentication required", "forbidden"]) {
        return error(
            ErrorCode::ImageDenied,
            format!("Registry {host} refused access to the image, or has no such image"),
            "Check the name of the image and the credentials of the registry.".into(),
        );
    }
    if has(&["manifest unknown", "not found", "name unknown", "repository does not exist"]) {
        return error(
            ErrorCode::ImageNotFound,
            format!("Registry {host} has no image with this digest"),
            "Check the image of the catalogue entry; the registry may have deleted it.".into(),
        );
    }
    if has(&["no such host", "connection refused", "i/o timeout", "network is unreachable", "no route to host", "eof"])
        || has(&["request canceled", "deadline exceeded", "connection reset", "temporary failure"])
    {
        return error(
            ErrorCode::ImageNotFound,
            format!("Registry {host} cannot be reached from the machine"),
            "Check the name of the registry and the machine's network.".into(),
        );
    }
    error(
        ErrorCode::ImageNotFound,
        format!("The image could not be pulled: {}", shorten(message, &[])),
        "Check the image of the catalogue entry and the log of Docker on the machine.".into(),
    )
}

/// Returns the next action if the engine does not trust the certificate of a registry.
fn trust_registry(host: &str, certs_dir: Option<&Path>) -> String {
    let folder = certs_dir.unwrap_or(Path::new(CERTS_DIR)).join(host);
    let shown = folder.display();
    match certs_dir.map(|_| fs::read_dir(&folder)) {
        Some(Ok(mut files)) => {
            let is_authority = |file: fs::DirEntry| file.path().extension().is_some_and(|extension| extension == "crt");
            if files.any(|file| file.is_ok_and(is_authority)) {
                return format!(
                    "The folder {shown} on the machine has a certificate authority (`*.crt`). Check that it has signed the \
                     registry's certificate, and that this certificate is valid for the host."
                );
            }
            format!(
                "The folder {shown} on the machine has no certificate authority (`*.crt`). Store the registry's CA certificate \
                 in it as ca.crt."
            )
        }
        Some(Err(error)) if error.kind() == ErrorKind::NotFound => format!(
            "The folder {shown} does not exist on the machine. Create it, and store the registry's CA certificate in it as \
             ca.crt."
        ),
        Some(Err(_)) | None => format!("Store the registry's CA certificate as {shown}/ca.crt on the machine."),
    }
}

/// Returns the error of an image for another platform.
pub fn architecture(image: &str, needs: &str, has: &str) -> EngineError {
    let name = image.split('@').next().unwrap_or_default();
    EngineError::new(
        ErrorCode::ArchitectureMismatch,
        format!("Image {name} is for {needs}, and the toolbox is {has}"),
        "Use an image for the platform of the toolbox, or another toolbox.",
    )
}

/// Shortens a message of the engine to one line without paths of the host and without the names of source files.
pub fn shorten(message: &str, host_folders: &[String]) -> String {
    let is_host = |path: &str| {
        let below =
            |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        HOST_FOLDERS.into_iter().any(below) || host_folders.iter().any(|folder| !folder.is_empty() && below(folder))
    };
    let delimiters =
        |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '(' | ')' | '=' | ',' | ';' | '[' | ']');
    let mut text = String::new();
    for piece in message.split_inclusive(delimiters) {
        let token = piece.trim_end_matches(|c| delimiters(c) || c == ':');
        let is_source_file = token.contains(".go:") && piece.trim_end().ends_with(':');
        match token.find('/') {
            _ if is_source_file => continue,
            // A path can follow a prefix, such as `src:/var/lib/…`.
            Some(start) if is_host(&token[start..]) => {
                text.push_str(&token[..start]);
                text.push('…');
                text.push_str(&piece[token.len()..]);
            }
            _ => text.push_str(piece),
        }
    }
    let text = text.replace(|c: char| c.is_control(), " ");
    let text = text.trim().trim_end_matches(": unknown");
    let mut short: String = text.chars().take(MAX_MESSAGE).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_registries_have_codes() {
        let image = "registry.example:5000/a/b@sha256:00";
        for (message, code) in [
            (
                "manifest for registry.example:5000/a/b@sha256:00 not found: manifest unknown: manifest unknown",
                "image_not_found",
            ),
            ("Head \"https://registry.example/v2/\": unauthorized: authentication required", "image_denied"),
            (
                "pull access denied for a/b, repository does not exist or may require 'docker login': denied",
                "image_denied",
            ),
            (
                "Get \"https://registry.example:5000/v2/\": x509: certificate signed by unknown authority",
                "image_denied",
            ),
            ("Get \"https://r/v2/\": http: server gave HTTP response to HTTPS client", "image_denied"),
            ("Get \"https://r/v2/\": no basic auth credentials", "image_denied"),
            ("toomanyrequests: You have reached your pull rate limit", "image_denied"),
            ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "disk_full"),
            ("no matching manifest for linux/arm64/v8 in the manifest list entries", "architecture_mismatch"),
            ("dial tcp: lookup registry.example: no such host", "image_not_found"),
            ("something else", "image_not_found"),
        ] {
            let error = pull_message(image, message, None);
            assert_eq!(error.code.as_str(), code, "{message}");
            assert!(!error.next_action.is_empty() && !error.cause.contains("/var/lib"), "{error:?}");
        }
        let error = pull_message(image, "x509: certificate signed by unknown authority", None);
        assert!(error.next_action.contains("certs.d/registry.example:5000/ca.crt"), "{error:?}");
    }

    #[test]
    fn an_untrusted_certificate_is_reported_with_the_folder_of_the_registry() {
        let certs_dir = tempfile::tempdir().unwrap();
        let folder = certs_dir.path().join("registry.example:5000");
        let next_action = || {
            let message = "Get \"https://registry.example:5000/v2/\": x509: certificate signed by unknown authority";
            let error = pull_message("registry.example:5000/a/b@sha256:00", message, Some(certs_dir.path()));
            assert_eq!(error.code, ErrorCode::ImageDenied);
            error.next_action
        };
        let shown = folder.display();
        assert!(next_action().starts_with(&format!("The folder {shown} does not exist on the machine. Create it")));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("client.cert"), "").unwrap();
        assert!(next_action().starts_with(&format!("The folder {shown} on the machine has no certificate authority")));
        fs::write(folder.join("ca.crt"), "").unwrap();
        assert!(next_action().starts_with(&format!("The folder {shown} on the machine has a certificate authority")));
    }

    #[test]
    fn messages_contain_no_paths_of_the_host() {
        let folders = ["/data/docker".to_owned(), "/dev/shm/s".to_owned()];
        for (message, short) in [
            (
                "OCI runtime create failed: container_linux.go:380: starting container process caused: exec: \"/nope\": \
                 stat /nope: no such file or directory: unknown",
                "OCI runtime create failed: starting container process caused: exec: \"/nope\": stat /nope: no such file or \
                 directory",
            ),
            (
                "mounting \"/data/docker/overlay2/ab/merged\" to rootfs at \"/x\" failed",
                "mounting \"…\" to rootfs at \"/x\" failed",
            ),
            ("bind source path does not exist: /dev/shm/s/tbx/ins", "bind source path does not exist: …"),
            ("write /var/lib/docker/a: input/output error\nmore", "write …: input/output error more"),
            ("error at src:/data/docker/x, retry", "error at src:…, retry"),
        ] {
            assert_eq!(shorten(message, &folders), short);
        }
        assert_eq!(shorten(&"x".repeat(1000), &[]).chars().count(), MAX_MESSAGE + 1);
    }

    #[test]
    fn other_messages_are_failed_starts() {
        let server = |message: &str| Error::DockerResponseServerError { status_code: 500, message: message.into() };
        assert_eq!(request("start", &server("mkdir: no space left on device"), &[]).code, ErrorCode::DiskFull);
        assert_eq!(request("start", &server("oops"), &[]).code, ErrorCode::StartFailed);
        assert_eq!(request("start", &Error::RequestTimeoutError, &[]).code, ErrorCode::EngineUnavailable);
    }
}
