//! Masks, case by case and by property.
