//! Locks whose contents stay usable although another holder panicked.
//!
//! Each update under these locks leaves its state usable at every step, or the state only informs. What the panic ends is
//! decided where the task or thread is awaited (`panics`).
//!
//! # Left out
//!
//! The lock of a shard: a panic during a change of windows makes the shard unusable (`core::dedup`).

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
