//! The refusal of a reload that changes what only a restart can change.
//!
//! # Guarantees
//!
//! - It names the key, the value in force and the wanted one, and says what to write until the restart.
//!
//! # Left out
//!
//! Which keys those are (`reload` for the relay, `plan` for a listener).

/// A key whose value only a restart can change.
#[derive(Debug, thiserror::Error)]
#[error("{key}: changing {runs} to {wanted} needs a restart; write {runs} until then")]
pub(super) struct NeedsRestart {
    key: &'static str,
    runs: String,
    wanted: String,
}

impl NeedsRestart {
    /// Refuses the first of `keys` whose value in force differs from the wanted one.
    pub(super) fn refuse<const N: usize>(
        keys: [(&'static str, String, String); N],
    ) -> Result<(), Self> {
        let changed = keys.into_iter().find(|(_, runs, wanted)| runs != wanted);
        changed.map_or(Ok(()), |(key, runs, wanted)| {
            Err(Self { key, runs, wanted })
        })
    }
}
