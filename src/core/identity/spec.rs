//! A spec: the fields that a policy compares, and the masks that fold parts of MSG.
//!
//! # Guarantees
//!
//! - [`Spec::default`] is the default identity of `identity`, octet for octet. It costs no more than if there were no
//!   choice.
//! - Identities of two specs are never equal: all but the default one carry the number of their spec. So messages stay
//!   apart even if a reload hands a batch under way to the engine of another rule.
//!
//! # Left out
//!
//! The choice of a spec for a message: rules choose.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use siphasher::sip::SipHasher24;

use super::mask::{Builtin, Masks};

/// A part of a message, or of its origin.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u16)]
pub enum Field {
    /// The facility of PRI.
    Facility = 1 << 0,
    /// The severity of PRI.
    Severity = 1 << 1,
    /// HOSTNAME, or the sender's address if the frame names no host.
    Hostname = 1 << 2,
    /// APP-NAME, or the tag.
    AppName = 1 << 3,
    /// PROCID.
    Procid = 1 << 4,
    /// MSGID.
    Msgid = 1 << 5,
    /// STRUCTURED-DATA without the elements that only describe the transmission.
    StructuredData = 1 << 6,
    /// MSG, with masks applied.
    Msg = 1 << 7,
    /// The sender's address, even if there is a HOSTNAME.
    Source = 1 << 8,
    /// The name of the listener that received it.
    Listener = 1 << 9,
}

impl Field {
    /// All fields, in documented order.
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

    /// Its name in a configuration.
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

    /// The fields that count unless configured.
    pub const DEFAULT: Self = Self(
        Field::Facility as u16
            | Field::Severity as u16
            | Field::Hostname as u16
            | Field::AppName as u16
            | Field::Msgid as u16
            | Field::StructuredData as u16
            | Field::Msg as u16,
    );

    /// This set plus `field`.
    #[must_use]
    pub const fn with(self, field: Field) -> Self {
        Self(self.0 | field as u16)
    }

    /// This set less `field`.
    #[must_use]
    pub const fn without(self, field: Field) -> Self {
        Self(self.0 & !(field as u16))
    }

    /// Whether the set holds `field`.
    #[must_use]
    pub const fn has(self, field: Field) -> bool {
        self.0 & field as u16 != 0
    }

    /// Whether the set holds no field.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The fields of the set, in documented order.
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

/// The fields that a policy compares, and its masks. Cheap to clone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Spec {
    fields: Fields,
    masks: Arc<Masks>,
    /// A hash that tells it from other specs. Zero is the default spec.
    pub(super) id: u64,
}

impl Spec {
    /// A spec that compares `fields`, with `masks` applied to MSG.
    #[must_use]
    pub fn new(fields: Fields, masks: Arc<Masks>) -> Self {
        if fields == Fields::DEFAULT && masks.is_empty() {
            return Self::default();
        }
        // Without a key, so that it is the same in every run. Only the operator could choose a collision.
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

    /// The fields that are compared.
    #[must_use]
    pub const fn fields(&self) -> Fields {
        self.fields
    }

    /// The masks that are applied to MSG.
    #[must_use]
    pub fn masks(&self) -> &Masks {
        &self.masks
    }

    /// The same masks, shared.
    #[must_use]
    pub fn masks_shared(&self) -> Arc<Masks> {
        Arc::clone(&self.masks)
    }

    /// Whether this is the default spec.
    #[must_use]
    #[inline]
    pub const fn is_default(&self) -> bool {
        self.id == 0
    }

    /// A number that tells it from other specs, the same in every run. Zero is the default spec.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Whether messages with different texts may have the same identity.
    #[must_use]
    pub fn folds_texts(&self) -> bool {
        !self.masks.is_empty() || !self.fields.has(Field::Msg)
    }

    /// Whether messages of different hosts may have the same identity.
    #[must_use]
    pub const fn folds_hosts(&self) -> bool {
        !self.fields.has(Field::Hostname)
    }
}

/// The parts in which a copy may differ from others of its identity. A summary counts them. Hashes under this run's key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Variant {
    /// The hash of MSG, if the spec folds texts.
    pub text: Option<u64>,
    /// The hash of HOSTNAME or of the sender that stands in, if the spec folds hosts.
    pub host: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_fields_holds_the_fields_added() {
        for field in Field::ALL {
            let set = Fields::EMPTY.with(field);
            assert_eq!(set.iter().collect::<Vec<_>>(), [field]);
            assert!(set.without(field).is_empty());
        }
        assert_eq!(Fields::DEFAULT.iter().count(), 7);
        assert!(!Fields::DEFAULT.has(Field::Procid));
    }
}
