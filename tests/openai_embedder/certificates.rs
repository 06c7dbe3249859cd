//! A provider behind a certificate that only a company's own authority vouches for.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

/// A fake reached over TLS as `https://localhost:port`, and its authority's certificate in PEM.
async fn over_tls(fake: &FakeOpenAi) -> (url::Url, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["localhost".into()])
        .expect("parameters")
        .signed_by(&key, &authority)
        .expect("a certificate");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut url: url::Url = fake.base_url().parse().expect("a URL");
    let behind = url.socket_addrs(|| None).expect("an address").remove(0);
    url.set_scheme("https").expect("a scheme");
    url.set_host(Some("localhost")).expect("a host");
    url.set_port(Some(listener.local_addr().expect("an address").port())).expect("a port");
    tokio::spawn(async move {
        while let Ok((accepted, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Clients that do not trust it break off.
                let Ok(mut tls) = acceptor.accept(accepted).await else { return };
                let mut plain = TcpStream::connect(behind).await.expect("the fake");
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    (url, authority.pem())
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
