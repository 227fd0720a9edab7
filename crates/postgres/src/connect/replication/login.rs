//! From the first message to being let in: SCRAM, with and without channel binding, MD5 and clear
//! text, as the server asks.

use bytes::{Buf, Bytes};
use nix::unistd::{User, geteuid};
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;
use tokio_postgres::Config;
use tokio_postgres::config::ChannelBinding;

use super::{Line, LineError, Purpose, Said};
use crate::connect::{ConnectError, ErrorKind, settings};

const SCRAM: &str = sasl::SCRAM_SHA_256;
const SCRAM_PLUS: &str = sasl::SCRAM_SHA_256_PLUS;

/// Introduces us and answers what is asked until the server is ready.
pub(super) async fn log_in(
    line: &mut Line,
    base: &Config,
    purpose: Purpose,
) -> Result<(), LineError> {
    let user = user(base)?;
    let (options, replication) = match purpose {
        Purpose::Replication => {
            (Some(settings::options(base.get_options())), Some(("replication", "database")))
        }
        Purpose::Statements => (base.get_options().map(str::to_owned), None),
    };
    let options = options.as_deref().map(|options| ("options", options));
    let parameters = [
        ("user", user.as_str()),
        ("database", base.get_dbname().unwrap_or(&user)),
        ("application_name", base.get_application_name().unwrap_or("tidewire")),
        ("client_encoding", "UTF8"),
    ];
    let parameters = parameters.into_iter().chain(replication).chain(options);
    line.send(|out| frontend::startup_message(parameters, out)).await?;
    authenticate(line, base, &user).await?;
    loop {
        let frame = line.next().await?;
        match frame.tag {
            b'K' => line.pid = (&*frame.body).try_get_i32().unwrap_or(0),
            b'E' => return Err(LineError::Said(Said::read(&frame.body))),
            b'Z' => return Ok(()),
            _ => {}
        }
    }
}

/// The user of the connection string, or the one that runs this program, as libpq has it.
fn user(base: &Config) -> Result<String, LineError> {
    if let Some(user) = base.get_user() {
        return Ok(user.to_owned());
    }
    let ours = User::from_uid(geteuid()).ok().flatten();
    ours.map(|user| user.name).ok_or_else(|| refused("the connection string names no user"))
}

fn refused(message: &str) -> LineError {
    LineError::Refused(ConnectError::new(ErrorKind::Authentication, message))
}

/// What the server asks for.
enum Asked {
    Nothing,
    ClearText,
    Md5([u8; 4]),
    Sasl(Vec<String>),
    Other(u32),
}

async fn authenticate(line: &mut Line, base: &Config, user: &str) -> Result<(), LineError> {
    let asked = read_asked(&authentication(line).await?);
    if !matches!(asked, Asked::Sasl(_)) {
        refuse_unbound(base)?;
    }
    match asked {
        Asked::Nothing => return Ok(()),
        Asked::ClearText => {
            let password = password(base)?;
            line.send(|out| frontend::password_message(password, out)).await?;
        }
        Asked::Md5(salt) => {
            let hashed = md5_hash(user.as_bytes(), password(base)?, salt);
            line.send(|out| frontend::password_message(hashed.as_bytes(), out)).await?;
        }
        Asked::Sasl(mechanisms) => scram(line, base, &mechanisms).await?,
        Asked::Other(number) => {
            return Err(refused(&format!(
                "PostgreSQL asks for a way of authentication ({number}) that is not supported: \
                 use scram-sha-256 in pg_hba.conf"
            )));
        }
    }
    match read_asked(&authentication(line).await?) {
        Asked::Nothing => Ok(()),
        _ => Err(refused("PostgreSQL did not accept the password and did not say why")),
    }
}

/// The body of the next message about authentication.
async fn authentication(line: &mut Line) -> Result<Bytes, LineError> {
    let frame = line.next().await?;
    match frame.tag {
        b'R' => Ok(frame.body),
        b'E' => Err(LineError::Said(Said::read(&frame.body))),
        _ => Err(std::io::Error::other("an unexpected message while logging in").into()),
    }
}

fn read_asked(mut body: &[u8]) -> Asked {
    match body.try_get_u32().unwrap_or(u32::MAX) {
        0 => Asked::Nothing,
        3 => Asked::ClearText,
        5 => body.try_into().map_or(Asked::Other(5), Asked::Md5),
        10 => {
            let names = body.split(|&byte| byte == 0).filter(|name| !name.is_empty());
            Asked::Sasl(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
        }
        other => Asked::Other(other),
    }
}

fn password(base: &Config) -> Result<&[u8], LineError> {
    let missing = "PostgreSQL asks for a password and the connection string has none";
    base.get_password().ok_or_else(|| refused(missing))
}

/// `channel_binding=require` allows nothing but SCRAM over TLS with binding.
fn refuse_unbound(base: &Config) -> Result<(), LineError> {
    match base.get_channel_binding() {
        ChannelBinding::Require => Err(refused(
            "channel_binding=require, but the server did not authenticate with SCRAM over TLS",
        )),
        _ => Ok(()),
    }
}

async fn scram(line: &mut Line, base: &Config, offered: &[String]) -> Result<(), LineError> {
    let wanted = base.get_channel_binding() != ChannelBinding::Disable;
    let binding = line.plug.channel_binding().filter(|_| wanted && line.plug.is_encrypted());
    let offers = |name: &str| offered.iter().any(|offer| offer == name);
    let (binding, mechanism) = match binding {
        Some(digest) if offers(SCRAM_PLUS) => {
            (sasl::ChannelBinding::tls_server_end_point(digest), SCRAM_PLUS)
        }
        // Tells the server that we could have, so that a downgrade by somebody between shows.
        Some(_) => (sasl::ChannelBinding::unrequested(), SCRAM),
        None => (sasl::ChannelBinding::unsupported(), SCRAM),
    };
    if !offers(mechanism) {
        return Err(refused("PostgreSQL offers no way of SCRAM that is supported"));
    }
    if mechanism != SCRAM_PLUS {
        refuse_unbound(base)?;
    }
    let mut scram = sasl::ScramSha256::new(password(base)?, binding);
    line.send(|out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;
    scram.update(&sasl_data(line, 11).await?)?;
    line.send(|out| frontend::sasl_response(scram.message(), out)).await?;
    let proof = sasl_data(line, 12).await?;
    scram.finish(&proof).map_err(|_| refused("the server does not know the password either"))
}

/// The data of a message about SASL.
async fn sasl_data(line: &mut Line, number: u32) -> Result<Bytes, LineError> {
    let mut body = authentication(line).await?;
    match body.try_get_u32() {
        Ok(found) if found == number => Ok(body),
        _ => {
            // Nothing more to say to a server that does not keep to the protocol.
            let _ = line.plug.shutdown().await;
            Err(refused("PostgreSQL did not keep to SCRAM"))
        }
    }
}
