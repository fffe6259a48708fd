//! A Git SHA: the version that gehen deploys, and the rule by which two of them name the same commit.

use std::{fmt, str::FromStr};

/// Fewest hexadecimal digits that Git itself abbreviates a SHA to (`core.abbrev`), and so the fewest that count.
const SHORTEST: usize = 7;
/// Digits of a SHA-256 object name, the longest that Git writes.
const LONGEST: usize = 64;

/// 7 to 64 hexadecimal digits, kept as they were written: an image tag is case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSha(String);

impl GitSha {
    /// Whether `other` names the same commit: equal to this SHA or one a prefix of the other, case ignored.
    pub fn names_same_commit_as(&self, other: &Self) -> bool {
        let shared = self.0.len().min(other.0.len());
        self.0.as_bytes()[..shared].eq_ignore_ascii_case(&other.0.as_bytes()[..shared])
    }
}

impl FromStr for GitSha {
    type Err = NotAGitSha;

    fn from_str(text: &str) -> Result<Self, NotAGitSha> {
        let fits = (SHORTEST..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if fits { Ok(Self(text.to_owned())) } else { Err(NotAGitSha) }
    }
}

impl fmt::Display for GitSha {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The text is something other than 7 to 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAGitSha;

impl fmt::Display for NotAGitSha {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a Git SHA has {SHORTEST} to {LONGEST} hexadecimal digits")
    }
}

impl std::error::Error for NotAGitSha {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_7_to_64_hexadecimal_digits_and_nothing_else() {
        let long = "a".repeat(64);
        for good in ["abcdef1", "ABCDEF1", "0123456789abcdef0123456789abcdef01234567", &long] {
            assert_eq!(good.parse::<GitSha>().map(|sha| sha.to_string()).as_deref(), Ok(good));
        }
        let too_long = "a".repeat(65);
        for bad in ["", "abcdef", "abcdefg", "abc def1", " abcdef1", "v1.2.3", "latest", "ａｂｃｄｅｆ１", &too_long]
        {
            assert_eq!(bad.parse::<GitSha>(), Err(NotAGitSha), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_names_the_same_commit_in_either_direction_and_case() {
        let same = |left: &str, right: &str| {
            let parse = |text: &str| text.parse::<GitSha>().expect("the table holds Git SHAs");
            parse(left).names_same_commit_as(&parse(right))
        };
        assert!(same("abcdef1", "abcdef1"));
        assert!(same("abcdef1", "ABCDEF1"));
        assert!(same("abcdef1", "abcdef1234567"));
        assert!(same("abcdef1234567", "abcdef1"));
        assert!(!same("abcdef1", "abcdef2"));
        assert!(!same("abcdef1234567", "abcdef1234568"));
    }
}
