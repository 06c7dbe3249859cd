//! The HTTP client of a provider: what each request carries, whom it trusts, and which proxy it
//! takes. Proxies are the environment's: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, also in
//! lower case.

use std::error::Error;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, redirect};
use secrecy::{ExposeSecret, SecretString};

use super::settings::{OpenAiSettings, OpenAiSettingsError};

/// A whole request, from connecting to its last byte, takes at most this many read time-outs: the
/// read time-out alone would let a server send one byte at a time for ever.
const READ_TIMEOUTS_MAX: u32 = 10;

/// Azure's header for a key (its REST API reference, "Authentication").
const AZURE_KEY: HeaderName = HeaderName::from_static("api-key");

/// Prepares a client.
///
/// # Errors
/// The key, a header or the certificates cannot be used, or the client cannot start.
pub(super) fn client(settings: &OpenAiSettings) -> Result<Client, OpenAiSettingsError> {
    // Refused where the process has one already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("embedding-recovery/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers(settings)?)
        // A redirect would carry transcripts somewhere that nobody configured.
        .redirect(redirect::Policy::none())
        .connect_timeout(settings.connect_timeout)
        .read_timeout(settings.read_timeout)
        .timeout(settings.read_timeout.saturating_mul(READ_TIMEOUTS_MAX));
    if let Some((file, pem)) = &settings.ca {
        let refused = |problem: String| OpenAiSettingsError::CaFile { file: file.clone(), problem };
        let certificates =
            Certificate::from_pem_bundle(pem).map_err(|error| refused(root_cause(&error)))?;
        if certificates.is_empty() {
            return Err(refused("there is none in it".into()));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    if settings.is_loopback() {
        // A server on this host is not reached through the environment's proxy.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| match &settings.ca {
        Some((file, _)) => {
            OpenAiSettingsError::CaFile { file: file.clone(), problem: root_cause(&error) }
        }
        None => OpenAiSettingsError::Client(root_cause(&error)),
    })
}

/// The key and the user's headers, none of which is printed by the client.
fn headers(settings: &OpenAiSettings) -> Result<HeaderMap, OpenAiSettingsError> {
    let mut headers = HeaderMap::new();
    if let Some(key) = &settings.api_key {
        let key = key.expose_secret();
        let (name, value) = match settings.is_azure() {
            true => (AZURE_KEY, key.to_owned()),
            false => (AUTHORIZATION, format!("Bearer {key}")),
        };
        headers.insert(name, secret(&value.into()).ok_or(OpenAiSettingsError::Key)?);
    }
    for (name, value) in &settings.headers {
        let wrong = || OpenAiSettingsError::Header { name: name.clone() };
        let header: HeaderName = name.parse().map_err(|_| wrong())?;
        if headers.insert(header, secret(value).ok_or_else(wrong)?).is_some() {
            return Err(OpenAiSettingsError::HeaderTwice { name: name.clone() });
        }
    }
    Ok(headers)
}

fn secret(value: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value.expose_secret()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The innermost error: reqwest's own messages hold the URL, and little else.
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<reqwest::Error>() {
        Some(_) => "the HTTP client gives no reason".into(),
        None => cause.to_string(),
    }
}
