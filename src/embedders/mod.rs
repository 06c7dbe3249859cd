//! Adapters that turn texts into vectors.

mod ceiling;
mod limiter;
pub mod local;
pub mod openai;
pub mod paced;
pub mod traced;
