//! Who is who: the authenticators that the settings name, in one.

use std::sync::Arc;

use anyhow::Context as _;
use tidewire::{Action, Authenticator};
use tidewire_adapters::{ApiKey, ApiKeys, Authenticators, JwtAuthenticator, JwtSettings, Rights};
use tidewire_postgres::{AuthFunction, Target};
use tokio::sync::watch;

use crate::config::{self, AuthSettings, Grants};

/// The authenticators of a server; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Authentication {
    jwt: Option<Arc<JwtAuthenticator>>,
    keys: Option<Arc<ApiKeys>>,
    function: Option<Arc<AuthFunction>>,
    removals: Option<watch::Receiver<u64>>,
}

impl Authentication {
    /// Starts what the settings name.
    ///
    /// # Errors
    /// Keys that cannot be read, or a function without a database.
    pub(crate) fn start(settings: &AuthSettings, target: Option<&Target>) -> anyhow::Result<Self> {
        let jwt = settings.jwt.as_ref().map(|jwt| JwtAuthenticator::new(&jwt_settings(jwt)));
        let keys = (!settings.keys.is_empty())
            .then(|| ApiKeys::new(api_keys(settings)?).context("auth.keys"));
        let function = settings.function.as_ref().map(|name| {
            let target = target.context("auth.function needs postgres.url")?;
            AuthFunction::new(target, name).context("auth.function")
        });
        let jwt = jwt.transpose()?.map(Arc::new);
        Ok(Self {
            removals: jwt.as_ref().map(|jwt| jwt.removals()),
            jwt,
            keys: keys.transpose()?.map(Arc::new),
            function: function.transpose()?.map(Arc::new),
        })
    }

    /// All of them in one; `None` when nothing is configured.
    pub(crate) fn authenticator(&self) -> Option<Arc<dyn Authenticator>> {
        let mut all = Authenticators::default();
        if let Some(keys) = &self.keys {
            all = all.api_keys(Arc::clone(keys) as _);
        }
        if let Some(jwt) = &self.jwt {
            all = all.jwt(Arc::clone(jwt) as _);
        }
        if let Some(function) = &self.function {
            all = all.other(Arc::clone(function) as _);
        }
        (!all.is_empty()).then(|| Arc::new(all) as _)
    }

    /// Whether tokens can be checked now.
    pub(crate) fn is_ready(&self) -> bool {
        self.jwt.as_ref().is_none_or(|jwt| jwt.is_ready())
    }

    /// Returns when keys were taken away at a key server, of which nobody here was told. Cancel
    /// safe: what happens between two calls is noticed by the second.
    pub(crate) async fn keys_removed(&mut self) {
        let changed = match &mut self.removals {
            Some(removals) => removals.changed().await.is_ok(),
            None => false,
        };
        // Without such keys there is nothing to wait for.
        if !changed {
            std::future::pending::<()>().await;
        }
    }

    /// Exchanges the keys for those of other settings.
    ///
    /// # Errors
    /// Keys that cannot be read; those in use stay then.
    pub(crate) fn reload(&self, settings: &AuthSettings) -> anyhow::Result<()> {
        match (&self.jwt, &settings.jwt) {
            (Some(jwt), Some(settings)) => jwt.reload(&jwt_settings(settings))?,
            (Some(jwt), None) => jwt.clear(),
            (None, _) => {}
        }
        if let Some(keys) = &self.keys {
            keys.reload(api_keys(settings)?).context("auth.keys")?;
        }
        Ok(())
    }
}

pub(crate) fn jwt_settings(settings: &config::JwtSettings) -> JwtSettings {
    JwtSettings {
        secret: settings.secret.clone(),
        public_key: settings.public_key.clone(),
        jwks_file: settings.jwks_file.clone(),
        jwks_url: settings.jwks_url.clone(),
        audience: settings.audience.clone(),
        issuer: settings.issuer.iter().cloned().collect(),
        role_claim: settings.role_claim.clone(),
        grants_claim: settings.grants_claim.clone(),
        leeway: settings.leeway,
        require_exp: settings.require_exp,
        ..JwtSettings::default()
    }
}

fn api_keys(settings: &AuthSettings) -> anyhow::Result<Vec<ApiKey>> {
    let keys = settings.keys.iter().map(|key| {
        let rights = key.grants.as_ref().map(rights).transpose();
        Ok(ApiKey {
            name: key.name.clone(),
            hash: key.hash.clone(),
            rights: rights.with_context(|| format!("grants of the key {:?}", key.name))?,
        })
    });
    keys.collect()
}

fn rights(grants: &Grants) -> anyhow::Result<Rights> {
    let lists = [
        (Action::Subscribe, &grants.subscribe),
        (Action::Publish, &grants.publish),
        (Action::Presence, &grants.presence),
        (Action::Track, &grants.track),
        (Action::History, &grants.history),
    ];
    let mut rights = Rights { admin: grants.admin, ..Rights::default() };
    for (action, patterns) in lists {
        for pattern in patterns {
            rights = rights.and_written(action, pattern).with_context(|| pattern.clone())?;
        }
    }
    Ok(rights)
}
