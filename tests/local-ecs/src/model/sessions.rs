//! AWS STS: the temporary credentials that roles gave, and which roles give none.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{At, arn, failure::Failure, ids::Ids};

/// Every session of a role, by its access key id, and what can't be assumed.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<String, Session>,
    /// The roles that nobody may assume, by ARN.
    pub(crate) unassumable: BTreeSet<String>,
}

/// The temporary credentials of one session of a role.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) access_key: String,
    pub(crate) secret: String,
    pub(crate) token: String,
    /// `…:assumed-role/ROLE/SESSION`: who the bearer is.
    pub(crate) arn: String,
    /// `AROA…:SESSION`.
    pub(crate) user_id: String,
    pub(crate) ends: At,
}

impl Sessions {
    /// Opens a session of a role, whose ARN must be one.
    pub(crate) fn open(&mut self, role: &Role<'_>, name: &str, ends: At, ids: &mut Ids) -> &Session {
        let access_key = format!("ASIA{}", ids.key(16));
        let session = Session {
            secret: ids.key(40),
            token: format!("FwoGZXIvYXdzE{}", ids.key(120)),
            arn: format!("arn:{}:sts::{}:assumed-role/{}/{name}", role.partition, role.account, role.name),
            user_id: format!("{}:{name}", role.id()),
            access_key: access_key.clone(),
            ends,
        };
        self.open.entry(access_key).or_insert(session)
    }

    /// Whose access key this is, if it is that of a session.
    pub(crate) fn get(&self, access_key: &str) -> Option<&Session> {
        self.open.get(access_key)
    }

    /// The ARN of whoever signs with this key: a session of a role while it lasts, or else a user. Long-lived keys are
    /// taken for good, temporary ones must come with the token of their session.
    pub(crate) fn identify(&self, access_key: &str, token: &str, region: &str, now: At) -> Result<String, Failure> {
        if !access_key.starts_with("ASIA") {
            return Ok(arn::user(region));
        }
        match self.open.get(access_key).filter(|session| session.token == token) {
            Some(session) if now < session.ends => Ok(session.arn.clone()),
            Some(_) => {
                Err(Failure::new("ExpiredTokenException", "The security token included in the request is expired"))
            }
            None => Err(Failure::new(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            )),
        }
    }
}

/// The ARN of a role in its parts; a path before the name is no part of its sessions' ARNs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Role<'a> {
    partition: &'a str,
    account: &'a str,
    name: &'a str,
}

impl<'a> Role<'a> {
    /// Takes `arn:<partition>:iam::<account>:role/<path and name>` apart.
    pub(crate) fn of(role_arn: &'a str) -> Option<Self> {
        let parts: Vec<&str> = role_arn.splitn(6, ':').collect();
        let [_, partition, "iam", "", account, resource] = parts[..] else {
            return None;
        };
        let name = resource.strip_prefix("role/")?.rsplit('/').next()?;
        let is_account = account.len() == 12 && account.chars().all(|c| c.is_ascii_digit());
        (role_arn.starts_with("arn:") && is_account && !name.is_empty()).then_some(Self { partition, account, name })
    }

    /// `AROA` and 17 letters and digits, the same for each session of the role.
    fn id(&self) -> String {
        let seed = self.account.bytes().chain(self.name.bytes());
        format!("AROA{}", Ids::new(seed.fold(0, |seed, byte| seed * 31 % 1_000_003 + u64::from(byte))).key(17))
    }
}

/// How long a session may last that asks for nothing else, and at most where the role doesn't allow more, as
/// `API_AssumeRole` says.
pub(crate) const AN_HOUR: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_named_after_the_role_without_its_path() {
        let role = Role::of("arn:aws-cn:iam::210987654321:role/team/ci/deployer").expect("it is a role");
        assert_eq!(role, Role { partition: "aws-cn", account: "210987654321", name: "deployer" });
        let mut sessions = Sessions::default();
        let session = sessions.open(&role, "gehen", At::ZERO, &mut Ids::new(1));
        assert_eq!(session.arn, "arn:aws-cn:sts::210987654321:assumed-role/deployer/gehen");
        assert!(session.user_id.starts_with("AROA") && session.user_id.ends_with(":gehen"), "{}", session.user_id);
        for text in
            ["deployer", "arn:aws:iam::1:role/a", "arn:aws:iam::210987654321:user/a", "arn:aws:iam::210987654321:role/"]
        {
            assert_eq!(Role::of(text), None, "{text}");
        }
    }
}
