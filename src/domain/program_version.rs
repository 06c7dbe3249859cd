//! Versions of the program: which is older, so that one that a schema serves no longer refuses to start.

use std::fmt;
use std::str::FromStr;

/// Major, minor and patch, as they are released. Earlier ones are less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProgramVersion([u32; 3]);

impl ProgramVersion {
    /// This program's, from its manifest.
    pub fn own() -> Self {
        env!("CARGO_PKG_VERSION").parse().unwrap_or(Self([0; 3]))
    }
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version of the form 1.2.3")]
pub struct NoVersion(String);

impl FromStr for ProgramVersion {
    type Err = NoVersion;

    /// Reads `1.2.3`. What a preview has behind it does not count: it needs what its release needs.
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let release = text.split(['-', '+']).next().unwrap_or_default();
        let numbers: Result<Vec<u32>, _> = release.split('.').map(str::parse).collect();
        let numbers = numbers.map_err(|_| NoVersion(text.to_owned()))?;
        numbers.try_into().map(Self).map_err(|_| NoVersion(text.to_owned()))
    }
}

impl fmt::Display for ProgramVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number_and_previews_are_like_their_release() {
        let version = |text: &str| text.parse::<ProgramVersion>().expect(text);
        assert!(version("0.9.0") < version("0.10.0"));
        assert!(version("1.0.0") > version("0.99.99"));
        assert_eq!(version("1.2.3-rc.1"), version("1.2.3"));
        assert_eq!(ProgramVersion::own().to_string(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn what_is_no_version_is_none() {
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "v1.2.3"] {
            assert_eq!(text.parse::<ProgramVersion>(), Err(NoVersion(text.into())));
        }
    }
}
