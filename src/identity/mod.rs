//! Identity: which octets make two messages the same. Hashed once, here, with a seed drawn at start.

/// What is compared: the identity's octets, and a seeded hash of them.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Hash of `octets` under this run's seed.
    pub hash: u64,
    /// The identity itself (`exact`), or 16 octets of keyed pseudo-random function of it (`compact`).
    pub octets: &'a [u8],
}
