//! A provider behind a certificate that only a company's own authority vouches for.

use std::path::PathBuf;

use super::*;
use crate::harness::tls;

/// A fake reached over TLS as `https://localhost:port`, and its authority's certificate in PEM.
async fn over_tls(fake: &FakeOpenAi) -> (url::Url, String) {
    let (port, pem) = tls::over_tls(fake.address(), &[]).await;
    let mut url: url::Url = fake.base_url().parse().expect("a URL");
    url.set_scheme("https").expect("a scheme");
    url.set_host(Some("localhost")).expect("a host");
    url.set_port(Some(port)).expect("a port");
    (url, pem)
}

#[tokio::test]
async fn a_certificate_of_an_own_authority_is_refused_until_its_file_is_named() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let (base_url, pem) = over_tls(&fake).await;
    let unknown = OpenAiSettings { base_url, ..settings(&fake) };
    let failure = with(unknown.clone()).probe().await.expect_err("not trusted");
    assert!(matches!(failure, Failure::ProviderUnavailable { .. }), "{failure:?}");
    assert!(failure.to_string().contains("certificate"), "{failure}");
    assert!(fake.requests().is_empty());

    let known = OpenAiSettings { ca: Some((PathBuf::from("ca.pem"), pem.into())), ..unknown };
    with(known).probe().await.expect("trusted");
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_file_of_broken_certificates_is_named() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let broken =
        "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    for pem in [broken, "no certificate at all", "-----BEGIN CERTIFICATE-----\n%\n"] {
        let ca = Some((PathBuf::from("/etc/company.pem"), pem.into()));
        let refused = OpenAiEmbedder::new(OpenAiSettings { ca, ..settings(&fake) });
        let message = refused.expect_err("refused").to_string();
        assert!(message.starts_with("the certificates in /etc/company.pem cannot"), "{message}");
    }
}
