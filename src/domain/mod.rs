//! The rules, pure: no IO, no clock, no randomness, no async. Everything here can be read, tested
//! and reasoned about alone.

pub mod batch_size;
pub mod checkup;
pub mod chunking;
pub mod circuit;
pub mod concurrency;
pub mod failure;
pub mod health;
pub mod index_build;
pub mod insert_concurrency;
pub mod packing;
pub mod part;
pub mod program_version;
pub mod recording;
pub mod retry;
pub mod span;
pub mod standing;
mod strain;
pub mod task;
pub mod trace;
