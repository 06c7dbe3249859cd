//! Who may do what: bearer tokens with a scope each. Only their digests are kept, and each is
//! compared in constant time, so that an answer's delay tells nothing of a token.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Look at everything.
    Read,
    /// Look, and act on the queue.
    Admin,
}

/// The tokens of a service; none means that whoever reaches the loopback address may act.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Token>);

#[derive(Clone)]
struct Token {
    name: String,
    scope: Scope,
    digest: [u8; 32],
}

/// Somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// Goes into `admin_actions`: `api:` and the token's name, which is no secret.
    pub name: String,
    pub scope: Scope,
}

impl Tokens {
    /// Adds a token. Its name tells people whose it is, and is kept with each action.
    pub fn add(&mut self, name: impl Into<String>, scope: Scope, token: &SecretString) {
        self.0.push(Token { name: name.into(), scope, digest: digest(token.expose_secret()) });
    }

    /// True where nobody needs a token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The owner of the token that a request carries; `None` where it carries none, or a wrong one.
    /// Where no tokens are set, everybody is let in.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        if self.is_empty() {
            return Some(Caller { name: "api:loopback".into(), scope: Scope::Admin });
        }
        let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let given = digest(token.trim());
        // Every token is looked at, whichever fits: the place of one is not told either.
        let (mut found, mut at) = (Choice::from(0), 0_u64);
        for (index, token) in self.0.iter().enumerate() {
            let fits = token.digest.ct_eq(&given);
            at.conditional_assign(&(index as u64), fits);
            found |= fits;
        }
        let token = bool::from(found).then(|| self.0.get(at as usize))??;
        Some(Caller { name: format!("api:{}", token.name), scope: token.scope })
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
