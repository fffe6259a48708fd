//! An image reference, and what changing its tag makes of it.

use crate::git_sha::GitSha;

/// The parts of `name`, `name:tag`, `name@digest` and `name:tag@digest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// Registry and repository, as in `registry.example.com:5000/team/api`.
    pub name: &'a str,
    /// What follows the last `:` after the last `/`; the port of a registry is no tag.
    pub tag: Option<&'a str>,
    /// What follows the `@`, as in `sha256:…`.
    pub digest: Option<&'a str>,
}

impl<'a> Image<'a> {
    /// Takes a reference apart. Every text is one: ECS checks references only when a task pulls them.
    pub fn parse(reference: &'a str) -> Self {
        let (tagged, digest) = match reference.split_once('@') {
            Some((tagged, digest)) => (tagged, Some(digest)),
            None => (reference, None),
        };
        let repository = tagged.rfind('/').map_or(0, |slash| slash + 1);
        match tagged[repository..].rfind(':') {
            Some(colon) => {
                let colon = repository + colon;
                Self { name: &tagged[..colon], tag: Some(&tagged[colon + 1..]), digest }
            }
            None => Self { name: tagged, tag: None, digest },
        }
    }

    /// The same image at `version`; a digest is dropped, because it would pin the old content.
    pub fn at(&self, version: &GitSha) -> String {
        format!("{}:{version}", self.name)
    }

    /// The Git SHA that the tag is, if it is one.
    pub fn git_sha(&self) -> Option<GitSha> {
        self.tag?.parse().ok()
    }
}

/// The one Git SHA that all `references` are tagged with, if there is one.
pub fn common_git_sha<'a>(references: impl IntoIterator<Item = &'a str>) -> Option<GitSha> {
    let mut shas = references.into_iter().map(|reference| Image::parse(reference).git_sha());
    let first = shas.next()??;
    shas.all(|sha| sha.as_ref() == Some(&first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sha(text: &str) -> GitSha {
        text.parse().expect("the table holds Git SHAs")
    }

    #[test]
    fn every_form_gets_the_new_tag() {
        let digest = "sha256:0123456789abcdef";
        for (reference, expected) in [
            ("api".to_owned(), "api:abcdef1"),
            ("api:old".to_owned(), "api:abcdef1"),
            (format!("api@{digest}"), "api:abcdef1"),
            (format!("api:old@{digest}"), "api:abcdef1"),
            ("team/api:old".to_owned(), "team/api:abcdef1"),
            ("registry.example.com/api".to_owned(), "registry.example.com/api:abcdef1"),
            ("registry.example.com:5000/api".to_owned(), "registry.example.com:5000/api:abcdef1"),
            ("registry.example.com:5000/team/api:old".to_owned(), "registry.example.com:5000/team/api:abcdef1"),
            (format!("localhost:5000/api@{digest}"), "localhost:5000/api:abcdef1"),
            (format!("localhost:5000/api:old@{digest}"), "localhost:5000/api:abcdef1"),
        ] {
            assert_eq!(Image::parse(&reference).at(&sha("abcdef1")), expected, "{reference}");
        }
    }

    #[test]
    fn a_common_git_sha_needs_every_tag_to_be_it() {
        assert_eq!(common_git_sha(["api:abcdef1", "worker:abcdef1"]), Some(sha("abcdef1")));
        assert_eq!(common_git_sha(["api:abcdef1", "worker:abcdef2"]), None);
        assert_eq!(common_git_sha(["api:abcdef1", "worker"]), None);
        assert_eq!(common_git_sha(["api:latest"]), None);
        assert_eq!(common_git_sha([]), None);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_and_put_together_again(reference in any::<String>()) {
            let image = Image::parse(&reference);
            let tag = image.tag.map(|tag| format!(":{tag}")).unwrap_or_default();
            let digest = image.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
            prop_assert_eq!(format!("{}{tag}{digest}", image.name), reference);
        }

        #[test]
        fn changing_the_tag_keeps_the_name(
            name in "([a-z0-9.]{1,20}(:[0-9]{1,5})?/)?[a-z0-9-]{1,20}(/[a-z0-9-]{1,20})?",
            tag in proptest::option::of("[A-Za-z0-9_.-]{1,40}"),
            pinned in any::<bool>(),
        ) {
            let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
            let digest = if pinned { "@sha256:abc" } else { "" };
            let reference = format!("{name}{tag}{digest}");
            let moved = Image::parse(&reference).at(&sha("abcdef1"));
            prop_assert_eq!(&moved, &format!("{name}:abcdef1"));
            prop_assert_eq!(Image::parse(&moved).name, name);
        }
    }
}
