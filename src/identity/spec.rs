//! What a policy compares: which fields, and what is folded in MSG.
//!
//! # Guarantees
//!
//! - [`Spec::default`] is the identity of the module's page, octet for octet, and costs no more than if there were no
//!   choice.
//! - Identities of two specs are never equal: all but the default one carry what tells their spec, so that a reload
//!   that gives a batch under way the engine of another rule takes no message for another.
//!
//! # Left out
//!
//! Which messages get which spec: rules choose.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use siphasher::sip::SipHasher24;

use super::mask::{Builtin, Masks};

/// A part of what a message is, or of how it came.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u16)]
pub enum Field {
    /// The facility of PRI.
    Facility = 1 << 0,
    /// The severity of PRI.
    Severity = 1 << 1,
    /// HOSTNAME; where the frame names none, the sender's address stands in.
    Hostname = 1 << 2,
    /// APP-NAME, or the tag.
    AppName = 1 << 3,
    /// PROCID.
    Procid = 1 << 4,
    /// MSGID.
    Msgid = 1 << 5,
    /// STRUCTURED-DATA, less what only describes the transmission.
    StructuredData = 1 << 6,
    /// MSG, less what masks fold.
    Msg = 1 << 7,
    /// The sender's address, whatever HOSTNAME says.
    Source = 1 << 8,
    /// The listener that received it.
    Listener = 1 << 9,
}

impl Field {
    /// All of them, in the order in which they are documented.
    pub const ALL: [Self; 10] = [
        Self::Facility,
        Self::Severity,
        Self::Hostname,
        Self::AppName,
        Self::Procid,
        Self::Msgid,
        Self::StructuredData,
        Self::Msg,
        Self::Source,
        Self::Listener,
    ];

    /// What it is called in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Facility => "facility",
            Self::Severity => "severity",
            Self::Hostname => "hostname",
            Self::AppName => "app_name",
            Self::Procid => "procid",
            Self::Msgid => "msgid",
            Self::StructuredData => "structured_data",
            Self::Msg => "msg",
            Self::Source => "source",
            Self::Listener => "listener",
        }
    }
}

/// A set of fields.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Fields(u16);

impl Fields {
    /// No field.
    pub const EMPTY: Self = Self(0);

    /// Those that count unless configured.
    pub const DEFAULT: Self = Self(
        Field::Facility as u16
            | Field::Severity as u16
            | Field::Hostname as u16
            | Field::AppName as u16
            | Field::Msgid as u16
            | Field::StructuredData as u16
            | Field::Msg as u16,
    );

    /// The set and `field`.
    #[must_use]
    pub const fn with(self, field: Field) -> Self {
        Self(self.0 | field as u16)
    }

    /// The set without `field`.
    #[must_use]
    pub const fn without(self, field: Field) -> Self {
        Self(self.0 & !(field as u16))
    }

    /// Whether `field` is in it.
    #[must_use]
    pub const fn has(self, field: Field) -> bool {
        self.0 & field as u16 != 0
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its fields, in the order in which they are documented.
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(move |field| self.has(*field))
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl FromIterator<Field> for Fields {
    fn from_iter<I: IntoIterator<Item = Field>>(fields: I) -> Self {
        fields.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What a policy compares. Cheap to clone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Spec {
    fields: Fields,
    masks: Arc<Masks>,
    /// Tells it from other specs; zero if it is the default one.
    pub(super) id: u64,
}

impl Spec {
    /// A spec by which `fields` count, less what `masks` fold in MSG.
    #[must_use]
    pub fn new(fields: Fields, masks: Arc<Masks>) -> Self {
        if fields == Fields::DEFAULT && masks.is_empty() {
            return Self::default();
        }
        // Keyless and the same in every run: it has nothing to hide, and who could choose a collision is the operator.
        let mut hasher = SipHasher24::new();
        fields.hash(&mut hasher);
        for builtin in Builtin::ALL {
            masks.builtins().contains(builtin).hash(&mut hasher);
        }
        for pattern in masks.patterns() {
            pattern.regex.hash(&mut hasher);
        }
        Self {
            fields,
            masks,
            id: hasher.finish().max(1),
        }
    }

    /// The fields that count. Not empty.
    #[must_use]
    pub const fn fields(&self) -> Fields {
        self.fields
    }

    /// What is folded in MSG.
    #[must_use]
    pub fn masks(&self) -> &Masks {
        &self.masks
    }

    /// The same, to share.
    #[must_use]
    pub fn masks_shared(&self) -> Arc<Masks> {
        Arc::clone(&self.masks)
    }

    /// Whether it is the default one.
    #[must_use]
    #[inline]
    pub const fn is_default(&self) -> bool {
        self.id == 0
    }

    /// Tells it from other specs, in every run; zero if it is the default one.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Whether different texts may be one message to it.
    #[must_use]
    pub fn folds_texts(&self) -> bool {
        !self.masks.is_empty() || !self.fields.has(Field::Msg)
    }

    /// Whether messages of different hosts may be one to it.
    #[must_use]
    pub const fn folds_hosts(&self) -> bool {
        !self.fields.has(Field::Hostname)
    }
}

/// In what a copy may differ from others of its identity: what a summary counts. Hashes under this run's key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Variant {
    /// Of MSG, if the spec folds texts.
    pub text: Option<u64>,
    /// Of HOSTNAME or what stands in for it, if the spec folds hosts.
    pub host: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_fields_holds_what_was_put_in() {
        for field in Field::ALL {
            let set = Fields::EMPTY.with(field);
            assert_eq!(set.iter().collect::<Vec<_>>(), [field]);
            assert!(set.without(field).is_empty());
        }
        assert_eq!(Fields::DEFAULT.iter().count(), 7);
        assert!(!Fields::DEFAULT.has(Field::Procid));
    }
}
