//! The user of a container. It is always numeric, because secret files and volumes belong to it, and it is never root.

use super::super::EngineError;
use super::errors::invalid;

/// The user for images that do not name one: `nobody`.
pub const NOBODY: User = User { uid: 65_534, gid: 65_534 };
/// The largest user or group ID that the engine accepts.
const MAX_ID: u32 = i32::MAX as u32;

/// A numeric user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user ID, which is not 0.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
}

/// The user that an image names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUser {
    user: Id,
    group: Option<Id>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Id {
    Number(u32),
    Name(String),
}

impl ImageUser {
    /// Parses the user of an image: `user`, `uid`, `user:group` or `uid:gid`. Returns `None` if the image does not name
    /// a user.
    ///
    /// # Errors
    /// Returns an error if the user is root or malformed.
    pub fn parse(text: &str) -> Result<Option<Self>, EngineError> {
        if text.is_empty() {
            return Ok(None);
        }
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let user = id(user, text)?;
        let group = if group.is_empty() { None } else { Some(id(group, text)?) };
        if user == Id::Number(0) || user == Id::Name("root".into()) {
            return Err(root(text));
        }
        Ok(Some(Self { user, group }))
    }

    /// Returns the numeric user if it can be determined without the files of the image.
    pub fn numeric(&self) -> Option<User> {
        match (&self.user, &self.group) {
            (Id::Number(uid), Some(Id::Number(gid))) => Some(User { uid: *uid, gid: *gid }),
            _ => None,
        }
    }

    /// Resolves the user with `/etc/passwd` and `/etc/group` of the image, as the engine does: a number is always an
    /// ID, and a user without a group has the group of its entry, or 0 if there is no entry.
    ///
    /// # Errors
    /// Returns an error if a name is unknown, the user is root, or an ID is too large.
    pub fn resolve(&self, passwd: &str, groups: &str) -> Result<User, EngineError> {
        let (uid, own_group) = match &self.user {
            Id::Number(uid) => {
                let entry = passwd.lines().filter_map(passwd_entry).find(|entry| entry.1 == *uid);
                (*uid, entry.map_or(0, |entry| entry.2))
            }
            Id::Name(name) => {
                let entry = passwd.lines().filter_map(passwd_entry).find(|entry| entry.0 == name);
                let (_, uid, gid) = entry.ok_or_else(|| unknown("user", name))?;
                (uid, gid)
            }
        };
        let gid = match &self.group {
            None => own_group,
            Some(Id::Number(gid)) => *gid,
            Some(Id::Name(name)) => {
                let entry = groups.lines().filter_map(group_entry).find(|entry| entry.0 == name);
                entry.ok_or_else(|| unknown("group", name))?.1
            }
        };
        if uid == 0 {
            return Err(root(if let Id::Name(name) = &self.user { name } else { "0" }));
        }
        if uid > MAX_ID || gid > MAX_ID {
            return Err(invalid(format!("The image's user has the ID {uid}:{gid}, which is too large"), NEXT));
        }
        Ok(User { uid, gid })
    }
}

const NEXT: &str = "Add a line such as `USER 65534:65534` to the image's Dockerfile.";

fn id(text: &str, whole: &str) -> Result<Id, EngineError> {
    let malformed = || invalid(format!("The image's user `{}` is not a user", shown(whole)), NEXT);
    if text.is_empty() || text.len() > 64 {
        return Err(malformed());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|id| *id <= MAX_ID).map(Id::Number).ok_or_else(malformed);
    }
    let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-$".contains(&byte));
    // The engine would parse a sign as part of a number.
    if is_name && !text.starts_with('-') { Ok(Id::Name(text.to_owned())) } else { Err(malformed()) }
}

fn root(user: &str) -> EngineError {
    invalid(format!("The image runs as root (user `{}`)", shown(user)), NEXT)
}

fn unknown(kind: &str, name: &str) -> EngineError {
    invalid(format!("The image names the {kind} `{name}`, which it does not define"), NEXT)
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn passwd_entry(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.trim().split(':');
    let name = fields.next()?;
    Some((name, fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn group_entry(line: &str) -> Option<(&str, u32)> {
    let mut fields = line.trim().split(':');
    let name = fields.next()?;
    Some((name, fields.nth(1)?.parse().ok()?))
}

/// Returns the content of the first regular file in a tar archive; `None` if there is none, for example because the path
/// is a symbolic link.
pub fn first_file(archive: &[u8]) -> Option<&[u8]> {
    const BLOCK: usize = 512;
    let mut rest = archive;
    loop {
        let header = rest.get(..BLOCK)?;
        let octal: String =
            header[124..136].iter().take_while(|byte| byte.is_ascii_digit()).map(|b| *b as char).collect();
        let size = usize::from_str_radix(&octal, 8).ok()?;
        let body = rest.get(BLOCK..)?;
        match header[156] {
            b'0' | 0 => return body.get(..size),
            // Extended headers describe the next entry.
            b'x' | b'g' | b'L' => rest = body.get(size.checked_next_multiple_of(BLOCK)?..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\napp:x:1000:1001:app:/:/bin/sh\n\
                          1002:x:0:0::/:/bin/sh\napp:x:0:0::/:/bin/sh\nhuge:x:4294967294:1:::\n";
    const GROUPS: &str = "root:x:0:\nweb:x:33:app\n";

    fn resolve(text: &str) -> Result<Option<User>, EngineError> {
        ImageUser::parse(text)?.map(|user| user.resolve(PASSWD, GROUPS)).transpose()
    }

    #[test]
    fn users_are_resolved_as_the_engine_does() {
        let user = |uid, gid| Some(User { uid, gid });
        for (text, expected) in [
            ("", None),
            ("1000", user(1000, 1001)),
            ("1001", user(1001, 0)),
            ("1002", user(1002, 0)),
            ("1000:1000", user(1000, 1000)),
            ("app", user(1000, 1001)),
            ("app:", user(1000, 1001)),
            ("app:web", user(1000, 33)),
            ("1234:web", user(1234, 33)),
            ("65534:65534", user(65_534, 65_534)),
        ] {
            assert_eq!(resolve(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn root_and_unknown_users_are_rejected() {
        for text in [
            "root",
            "0",
            "00",
            "0:0",
            "root:root",
            "root:app",
            "0:1000",
            "toor",
            "toor:1000",
            ":1000",
            ":",
            "nobody",
            "app:nogroup",
            "-1",
            "+0",
            "0x0",
            "4294967296",
            "2147483648",
            "99999999999999999999",
            "huge",
            " app",
            "app ",
            "a b",
            "a/b",
            "a\n",
            "app:web:x",
            "app:-1",
        ] {
            let error = resolve(text).unwrap_err();
            assert!(error.next_action.contains("USER"), "{text}: {error:?}");
        }
    }

    #[test]
    fn the_first_file_of_an_archive_is_read() {
        let entry = |kind: u8, content: &[u8]| {
            let mut block = vec![0; 512];
            block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
            block[156] = kind;
            block.extend_from_slice(content);
            block.resize(block.len().next_multiple_of(512), 0);
            block
        };
        let archive = [entry(b'x', b"pax"), entry(b'0', b"root:x:0:0")].concat();
        assert_eq!(first_file(&archive), Some(b"root:x:0:0".as_slice()));
        assert_eq!(first_file(&entry(b'2', b"")), None);
        assert_eq!(first_file(&archive[..1024]), None);
        assert_eq!(first_file(&archive[..1030]), None);
        assert_eq!(first_file(&[]), None);
    }
}
