//! `tidewire token`: a token for trying, signed with the secret of the configuration.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tidewire::Action;
use tidewire_adapters::Rights;
use tidewire_adapters::jwt::{Mint, mint};

use crate::args::TokenFlags;
use crate::assemble::jwt_settings;
use crate::config::Settings;

pub(super) fn run(settings: &Settings, flags: TokenFlags) -> anyhow::Result<()> {
    let jwt = settings.auth.jwt.as_ref().context(
        "tokens are signed with auth.jwt.secret, which is not set; set TIDEWIRE_JWT_SECRET to the \
         secret of your server",
    )?;
    let rights = rights(&flags)?;
    let wanted = Mint { subject: flags.subject, role: flags.role, rights, ttl: flags.ttl };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let token = mint(&jwt_settings(jwt), &wanted, now)?;
    super::print(&format!("{}\n", token.expose()))
}

/// The rights that flags name; `None` without any, so that the namespaces alone decide.
fn rights(flags: &TokenFlags) -> anyhow::Result<Option<Rights>> {
    let mut rights = Rights::default();
    // Whoever may listen may also read back and see who is there.
    let actions = [Action::Subscribe, Action::History, Action::Presence, Action::Track];
    for pattern in &flags.subscribe {
        for action in actions {
            // Who is where has no rows, so the whole topic is meant, or a part of it by nobody.
            let is_about_rows = pattern.starts_with("table:") && pattern.contains('?');
            if is_about_rows && !matches!(action, Action::Subscribe | Action::History) {
                continue;
            }
            rights = rights.and_written(action, pattern).with_context(|| pattern.clone())?;
        }
    }
    for pattern in &flags.publish {
        rights = rights.and_written(Action::Publish, pattern).with_context(|| pattern.clone())?;
    }
    Ok((!rights.grants.is_empty()).then_some(rights))
}
