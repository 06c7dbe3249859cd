//! Stand-ins for what lies outside the process.

pub mod openai;
