use super::*;
use crate::template::{HttpPublish, Template};

/// What a language hears when its bytes come one at a time.
fn heard(speech: &mut dyn Speech, bytes: &[u8]) -> Vec<Heard> {
    let mut all = Vec::new();
    let mut out = Vec::new();
    for byte in bytes {
        let heard = speech.hear(std::slice::from_ref(byte), &mut out, &mut |heard| all.push(heard));
        heard.unwrap();
    }
    all
}

fn http() -> Http {
    let publish = HttpPublish {
        path: "/pub/{topic}".to_owned(),
        content_type: "text/plain".to_owned(),
        body: "<{payload}>".to_owned(),
    };
    Http::new(publish, "h:1".to_owned())
}

#[test]
fn a_post_says_how_long_it_is() {
    let mut out = Vec::new();
    http().put(&mut out, "t1", "hello");
    let expected = "POST /pub/t1 HTTP/1.1\r\nhost: h:1\r\ncontent-type: text/plain\r\n\
                    content-length: 7\r\n\r\n<hello>";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn answers_over_http_are_told_one_by_one() {
    let answers = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 429 Too Many\r\ntransfer-encoding: chunked\r\n\r\n4\r\nslow\r\n0\r\n\r\n\
        HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno";
    let expected = [
        Heard::Accepted,
        Heard::Accepted,
        Heard::Refused("429 slow".to_owned()),
        Heard::Refused("503 no".to_owned()),
    ];
    assert_eq!(heard(&mut http(), answers), expected);
}

#[test]
fn postgres_is_ready_and_then_answers() {
    let mut sql = Sql::new(Login::default(), Vec::new());
    let mut bytes = Vec::new();
    for (kind, body) in [
        (b'R', &[0_u8; 4][..]),
        (b'S', b"server_version\x0015\0"),
        (b'Z', b"I"),
        (b'D', b"\0\x01\0\0\0\x04told"),
        (b'C', b"SELECT 1\0"),
        (b'Z', b"I"),
        (b'E', b"SERROR\0C42P01\0Mno such thing\0\0"),
        (b'Z', b"I"),
    ] {
        bytes.push(kind);
        put_message_length(&mut bytes, body.len());
        bytes.extend_from_slice(body);
    }
    let expected = [Heard::Ready, Heard::Accepted, Heard::Refused("no such thing".to_owned())];
    assert_eq!(heard(&mut sql, &bytes), expected);
}

#[test]
fn statements_take_turns_and_know_the_topics_number() {
    let statements = ["INSERT {topic} {payload}", "UPDATE {number}"].map(str::to_owned);
    let mut sql = Sql::new(Login::default(), statements.into());
    let mut out = Vec::new();
    (0..3).for_each(|_| sql.put(&mut out, "bench7", "x"));
    let expected = [
        &b"Q\0\0\0\x14INSERT bench7 x\0"[..],
        b"Q\0\0\0\x0dUPDATE 7\0",
        b"Q\0\0\0\x14INSERT bench7 x\0",
    ];
    assert_eq!(out, expected.concat());
}

fn put_message_length(out: &mut Vec<u8>, body: usize) {
    out.extend_from_slice(&i32::try_from(body + 4).unwrap().to_be_bytes());
}

#[test]
fn postgres_that_wants_a_password_is_said_so() {
    let mut sql = Sql::new(Login::default(), Vec::new());
    let bytes = [b"R\0\0\0\x08".as_slice(), &[0, 0, 0, 10]].concat();
    let result = sql.hear(&bytes, &mut Vec::new(), &mut |_| {});
    assert_eq!(result, Err(Broken("PostgreSQL wants a password")));
}

#[test]
fn a_way_that_a_template_does_not_have_is_named() {
    let template = Template::named("ws").unwrap();
    let door = Door::Tcp("127.0.0.1:1".parse().unwrap());
    let Err(error) = Lane::open(&template, Way::Nats, &door, "h:1", &Login::default()) else {
        panic!("a lane was opened");
    };
    assert_eq!(error.to_string(), "the template ws has no way Nats to publish");
}
