//! What becomes of connection strings.

use super::reader::TCP_USER_TIMEOUT;
use super::*;

fn read(text: &str) -> Target {
    text.parse().unwrap()
}

fn refused(text: &str) -> String {
    let error = text.parse::<Target>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    error.to_string()
}

#[test]
fn a_target_prints_where_it_is_and_never_its_password() {
    let target = read("postgresql://me:hunter2@a:1,[::1]:2/shop?sslmode=require");
    assert_eq!(target.to_string(), "a:1,[::1]:2/shop");
    for printed in [format!("{target:?}"), format!("{target:#?}"), target.to_string()] {
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}

#[test]
fn the_mode_is_what_libpq_makes_of_it() {
    assert_eq!(read("host=h").ssl_mode(), SslMode::Prefer);
    assert_eq!(read("host=h sslmode=allow").ssl_mode(), SslMode::Allow);
    assert_eq!(read("postgresql://h/?ssl=true").ssl_mode(), SslMode::Require);
    assert_eq!(read("host=h sslrootcert=system").ssl_mode(), SslMode::VerifyFull);
}

#[test]
fn what_is_wrong_is_named_with_the_fix() {
    for (text, expected) in [
        ("host=h sslmode=tls", "disable, allow, prefer"),
        ("host=h sslmode=verify-full", "add sslrootcert=FILE"),
        ("host=h sslmode=require sslrootcert=system", "use sslmode=verify-full"),
        ("host=h sslmode=verify-ca sslrootcert=/no/such.pem", "/no/such.pem cannot be read"),
        ("host=h sslcrl=/x", "`sslcrl` is not supported"),
        ("host=h wibble=1", "`wibble` is unknown"),
        ("host=h port=99999", "1 to 65535"),
        ("host=a,b,c port=1,2", "3 servers but 2 ports"),
        ("host=h connect_timeout=soon", "whole number"),
        ("host=h target_session_attrs=standby", "LISTEN is impossible"),
    ] {
        let told = refused(text);
        assert!(told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn units_are_those_of_libpq() {
    let target = read("host=h tcp_user_timeout=1500 connect_timeout=1 keepalives_count=7");
    assert_eq!(target.0.base.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
    assert_eq!(target.0.base.get_keepalives_retries(), Some(7));
    assert_eq!(target.0.timeout, Duration::from_secs(2));
}

#[test]
fn a_dead_connection_is_noticed_without_being_asked_to() {
    let target = read("host=h");
    assert!(target.0.base.get_keepalives());
    assert_eq!(target.0.base.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));
    assert_eq!(target.0.base.get_application_name(), Some("tidewire"));
}

#[test]
fn a_socket_directory_and_an_address_are_told_apart_from_names() {
    let target = read("host=/run/pg,db hostaddr=,10.0.0.1 port=1,2 dbname=d");
    let expected = [
        Host { place: Place::Unix("/run/pg".into()), port: 1 },
        Host {
            place: Place::Tcp { name: "db".to_owned(), address: Some(IpAddr::from([10, 0, 0, 1])) },
            port: 2,
        },
    ];
    assert_eq!(target.0.hosts, expected);
}
