//! Requests of clients as commands.

use tidewire_measure::Case;
use tidewire_protocol::Frame;
use tidewire_protocol::dialect::{Alle, Dialect, Fluxbase, Native};

pub(crate) fn cases() -> Vec<Case> {
    [
        ("native/subscribe", &Native as &'static dyn Dialect, r#"{"type":"subscribe","id":1,"topic":"room:42"}"#),
        (
            "native/resume",
            &Native,
            r#"{"type":"subscribe","id":1,"topic":"room:42","since":"4f1c0000beef1234-123456"}"#,
        ),
        (
            "native/subscribe-table",
            &Native,
            r#"{"type":"subscribe","id":2,"table":"public.orders","events":["UPDATE"],"columns":["status"],"filter":"customer_id=eq.1234","snapshot":true}"#,
        ),
        (
            "native/publish",
            &Native,
            r#"{"type":"publish","id":"b1f0","topic":"room:42","event":"said","data":{"order":40017,"status":"paid","items":[{"sku":"A-1","count":2}]}}"#,
        ),
        ("native/ping", &Native, r#"{"type":"ping"}"#),
        ("alle/subscribe", &Alle, r#"{"type":"subscribe","channel":"orders"}"#),
        ("alle/notify", &Alle, r#"{"type":"notify","channel":"orders","payload":"order 40017 is paid"}"#),
        ("fluxbase/subscribe", &Fluxbase, r#"{"type":"subscribe","channel":"table:public.orders"}"#),
        (
            "fluxbase/subscribe-newer",
            &Fluxbase,
            r#"{"type":"subscribe","config":{"event":"UPDATE","schema":"public","table":"orders","filter":"customer_id=eq.1234"}}"#,
        ),
        (
            "fluxbase/broadcast",
            &Fluxbase,
            r#"{"type":"broadcast","channel":"room:42","event":"said","payload":{"order":40017,"status":"paid","items":[{"sku":"A-1","count":2}]}}"#,
        ),
    ]
    .into_iter()
    .map(|(name, dialect, text)| request(name, dialect, text))
    .collect()
}

fn request(name: &str, dialect: &'static dyn Dialect, text: &'static str) -> Case {
    Case::new(format!("decode/{name}"), move || {
        let frame = Frame::text(text);
        move || dialect.decode(&frame).expect("a request that is understood")
    })
}
