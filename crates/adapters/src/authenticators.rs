//! Several authenticators behind one: a token goes to the one that reads tokens of its look.
//!
//! The look decides and there is no second opinion: a JWT with a wrong signature is not offered
//! to a database function that might be less strict. Only where nobody is configured for a look
//! does the token go to those who read anything. What nobody takes is refused.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tidewire::protocol::{Code, Refusal, Token};
use tidewire::{Authenticator, Identity};

/// Longest token that is looked at, in bytes.
///
/// HTTP servers commonly refuse header lines beyond 8 to 16 KiB, so a longer token could not be
/// sent in `Authorization` anyway; in-band it would only be work for whoever must parse it.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// What a token looks like, before anything in it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Begins as an API key does.
    ApiKey,
    /// Three parts joined by dots, as in a signed JSON Web Token.
    Jwt,
    /// Anything else.
    Other,
}

impl Look {
    /// What `token` looks like.
    pub fn of(token: &Token) -> Self {
        let text = token.expose();
        if text.starts_with(crate::api_key::PREFIX) {
            Self::ApiKey
        } else if text.split('.').count() == 3 {
            Self::Jwt
        } else {
            Self::Other
        }
    }
}

/// A list of authenticators, each with the look of the tokens it reads.
///
/// ```
/// use std::sync::Arc;
///
/// use tidewire::Authenticator;
/// use tidewire_adapters::{ApiKey, ApiKeys, Authenticators};
///
/// let (key, hash) = tidewire_adapters::api_key::generate().unwrap();
/// let keys = ApiKeys::new([ApiKey { name: "importer".to_owned(), hash, rights: None }]).unwrap();
/// let authenticators = Authenticators::default().api_keys(Arc::new(keys));
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let identity = authenticators.identify(&key).await.unwrap();
/// assert_eq!(identity.subject.as_deref(), Some("key:importer"));
/// # });
/// ```
#[derive(Clone, Default)]
pub struct Authenticators {
    list: Vec<(Look, Arc<dyn Authenticator>)>,
}

impl fmt::Debug for Authenticators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|(look, _)| look)).finish()
    }
}

impl Authenticators {
    /// Adds one for tokens that look like API keys.
    #[must_use]
    pub fn api_keys(self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.with(Look::ApiKey, authenticator)
    }

    /// Adds one for tokens that look like JSON Web Tokens.
    #[must_use]
    pub fn jwt(self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.with(Look::Jwt, authenticator)
    }

    /// Adds one for all tokens that nobody else here is for, such as a function in the database.
    #[must_use]
    pub fn other(self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.with(Look::Other, authenticator)
    }

    fn with(mut self, look: Look, authenticator: Arc<dyn Authenticator>) -> Self {
        self.list.push((look, authenticator));
        self
    }

    /// Whether nothing was added; then no token is valid.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Those who are to be asked about tokens of this look, in the order they were added.
    fn readers(&self, look: Look) -> impl Iterator<Item = &Arc<dyn Authenticator>> {
        let configured = self.list.iter().any(|(theirs, _)| *theirs == look);
        let look = if configured { look } else { Look::Other };
        self.list.iter().filter(move |(theirs, _)| *theirs == look).map(|(_, reader)| reader)
    }
}

#[async_trait]
impl Authenticator for Authenticators {
    async fn identify(&self, token: &Token) -> Result<Identity, Refusal> {
        check_size(token)?;
        let mut refusal = None;
        for reader in self.readers(Look::of(token)) {
            match reader.identify(token).await {
                Ok(identity) => return Ok(identity),
                Err(refused) => refusal = Some(weightier(refusal, refused)),
            }
        }
        Err(refusal.unwrap_or_else(|| {
            Refusal::new(Code::TokenInvalid, "tokens of this form are not accepted here")
        }))
    }

    fn review(&self, identity: &Identity) -> Result<Identity, Refusal> {
        let mut all = self.list.iter().map(|(_, reader)| reader);
        all.try_fold(identity.clone(), |identity, reader| reader.review(&identity))
    }
}

/// Keeps what tells the client more: *expired* or *try later* before *never heard of it*.
fn weightier(before: Option<Refusal>, now: Refusal) -> Refusal {
    before.filter(|refusal| refusal.code != Code::TokenInvalid).unwrap_or(now)
}

/// Refuses tokens longer than [`MAX_TOKEN_BYTES`].
pub(crate) fn check_size(token: &Token) -> Result<(), Refusal> {
    if token.expose().len() <= MAX_TOKEN_BYTES {
        return Ok(());
    }
    let message = format!("a token is at most {MAX_TOKEN_BYTES} bytes long");
    Err(Refusal::new(Code::TokenInvalid, message))
}
