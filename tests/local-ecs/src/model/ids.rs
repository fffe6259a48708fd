//! Identifiers that look like ECS's, from a generator that repeats itself in every run.

/// A splitmix64 generator.
#[derive(Debug)]
pub(crate) struct Ids(u64);

impl Ids {
    /// A generator that starts at `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 32 hexadecimal digits, as in a task's ARN.
    pub(crate) fn task(&mut self) -> String {
        format!("{:016x}{:016x}", self.number(), self.number())
    }

    /// `ecs-svc/` and 19 digits, as a deployment is called.
    pub(crate) fn deployment(&mut self) -> String {
        format!("ecs-svc/{}", 1_000_000_000_000_000_000 + self.number() % 8_000_000_000_000_000_000)
    }

    /// 19 digits, as a service revision is called.
    pub(crate) fn revision(&mut self) -> String {
        (1_000_000_000_000_000_000 + self.number() % 8_000_000_000_000_000_000).to_string()
    }

    /// 21 letters and digits, as a service deployment is called.
    pub(crate) fn service_deployment(&mut self) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";
        (0..21).map(|_| char::from(LETTERS[(self.number() % 32) as usize])).collect()
    }

    /// So many capital letters and digits, as in access keys.
    pub(crate) fn key(&mut self, length: usize) -> String {
        const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        (0..length).map(|_| char::from(LETTERS[(self.number() % 32) as usize])).collect()
    }

    /// A UUID, as events and requests carry.
    pub(crate) fn uuid(&mut self) -> String {
        let (high, low) = (self.number(), self.number());
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            low >> 52,
            low & 0xffff_ffff_ffff
        )
    }
}
