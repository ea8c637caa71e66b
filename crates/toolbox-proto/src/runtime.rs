//! Known vulnerabilities of container runtimes.

/// The first version of runc without CVE-2024-21626, through which an image could access files of the machine.
const FIRST_FIXED: (u64, u64, u64) = (1, 1, 12);
/// Debian's packages of earlier versions that have the fix (DSA-5615-1): the suffix of the release, and the first fixed
/// revision.
const FIXED_PACKAGES: [(&str, u64); 2] = [("+deb11u", 3), ("+deb12u", 1)];

/// Returns a warning if a runtime, such as `runc 1.1.5`, has a known vulnerability. `None` if it has none, or if this is not
/// known. Other distributions fix their packages without a new version as well, so this is no reason to reject a runtime.
#[must_use]
pub fn find_vulnerability(runtime: &str) -> Option<String> {
    let version = runtime.strip_prefix("runc ")?;
    if parse_version(version)? >= FIRST_FIXED || is_fixed_package(version) {
        return None;
    }
    Some(format!(
        "runc {version} is older than 1.1.12, which closes CVE-2024-21626. Upgrade runc, unless your distribution has fixed \
         this version."
    ))
}

/// Parses the first three numbers of a version, such as `1.0.0~rc93+ds1`. A missing third number is 0.
fn parse_version(text: &str) -> Option<(u64, u64, u64)> {
    let mut parts = text.split('.').map(leading_number);
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or_default()))
}

fn leading_number(text: &str) -> Option<u64> {
    text.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn is_fixed_package(version: &str) -> bool {
    FIXED_PACKAGES.into_iter().any(|(suffix, first)| {
        let revision = version.rsplit_once(suffix).and_then(|(_, revision)| leading_number(revision));
        revision.is_some_and(|revision| revision >= first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_of_runc_without_the_fix_are_found() {
        for (runtime, is_vulnerable) in [
            ("runc 1.1.12", false),
            ("runc 1.2.0-rc.1", false),
            ("runc 2.0", false),
            ("runc 1.1.11", true),
            ("runc 1.1", true),
            ("runc 1.0.0-rc93", true),
            ("runc 1.1.5+ds1", true),
            ("runc 1.1.5+ds1-1+deb12u1", false),
            ("runc 1.1.5+ds1-1+deb12u10", false),
            ("runc 1.0.0~rc93+ds1-5+deb11u2", true),
            ("runc 1.0.0~rc93+ds1-5+deb11u3", false),
            ("runc 1.1.5+ds1-1+deb12u", true),
            ("runc dev", false),
            ("runc ", false),
            ("runc", false),
            ("crun 1.1.5", false),
            ("", false),
        ] {
            assert_eq!(find_vulnerability(runtime).is_some(), is_vulnerable, "{runtime}");
        }
        let warning = find_vulnerability("runc 1.1.11").unwrap();
        assert!(warning.starts_with("runc 1.1.11 is older than 1.1.12, which closes CVE-2024-21626. "), "{warning}");
    }
}
