//! Outside libraries behind the engine's traits, one cargo feature each, so that nobody who works
//! on the engine pays for them.
//!
//! Most of it answers one question: who is the bearer of this token?
//! [`Authenticators`] looks at a token and hands it to the part that reads such tokens:
//! [`ApiKeys`] for the keys of producers, [`JwtAuthenticator`] (feature `jwt`) for JSON Web
//! Tokens, and whatever else implements [`Authenticator`](tidewire::Authenticator).
//! [`Rights`] is how tokens and keys write down what their bearer may do.
//!
//! `DiskHistory` (feature `disk`) is a history that survives a restart.
//!
//! Nothing here reads the environment or a configuration file; the server crate does and hands
//! over settings. For operators, `docs/authentication.md` tells how to configure all of it.

pub mod authenticators;

pub mod api_key;

pub mod rights;

#[cfg(feature = "disk")]
pub mod disk;

#[cfg(feature = "jwt")]
pub mod jwt;

pub use api_key::{ApiKey, ApiKeyError, ApiKeys};
pub use authenticators::{Authenticators, Look};
#[cfg(feature = "disk")]
pub use disk::{DiskError, DiskHistory, DiskMetrics, DiskSettings};
#[cfg(feature = "jwt")]
pub use jwt::{JwtAuthenticator, JwtError, JwtSettings};
pub use rights::{Rights, RightsError};
