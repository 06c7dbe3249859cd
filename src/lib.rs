//! Embedding Recovery keeps the embeddings of call recordings complete.
//!
//! In reading order: the rules ([`domain`]), what the actors need from outside ([`ports`]), the
//! supervision tree ([`actors`]), the HTTP API and its page ([`admin`]), the adapters
//! ([`postgres`], [`embedded`], [`embedders`], [`import`], [`telemetry`]), and what puts them
//! together ([`config`], [`app`], [`cli`]).

pub mod domain;

pub mod ports;

pub mod actors;
pub mod admin;

pub mod embedded;
pub mod embedders;
pub mod import;
pub mod postgres;
pub mod telemetry;

pub mod app;
pub mod cli;
pub mod config;
