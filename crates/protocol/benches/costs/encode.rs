//! Events as finished bytes, as they are made once for all listeners that share a shape.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidewire_measure::Case;
use tidewire_protocol::dialect::{Alle, AlleEvents, Dialect, Fluxbase, Movement, Native, View};
use tidewire_protocol::{Draft, Event, Payload, Tag, Topic, Wire};

use crate::orders;

/// JSON of 128 bytes, which is what `make bench` publishes.
const PAYLOAD: &str = r#"{"order":40017,"status":"paid","total":149.90,"currency":"EUR","items":[{"sku":"A-1","count":2},{"sku":"B-22","count":1}],"x":1}"#;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, dialect, wire) in shapes() {
        let json = Payload::json(PAYLOAD).expect("JSON");
        cases.push(message(format!("encode/{name}/message"), Arc::clone(&dialect), wire, json));
        let text = Payload::Text(PAYLOAD.into());
        cases.push(message(format!("encode/{name}/text"), Arc::clone(&dialect), wire, text));
        let large = Payload::json(&format!("[{}0]", "1234567,".repeat(511))).expect("JSON");
        cases.push(message(format!("encode/{name}/message-4k"), dialect, wire, large));
    }
    cases.push(change("encode/native-websocket/change", &Native, Wire::WebSocket, None));
    cases.push(change("encode/native-sse/change", &Native, Wire::EventStream, None));
    cases.push(change("encode/fluxbase-websocket/change", &Fluxbase, Wire::WebSocket, None));
    let newer = Some(Tag("postgres_changes".into()));
    cases.push(change("encode/fluxbase-websocket/newer-change", &Fluxbase, Wire::WebSocket, newer));
    cases
}

fn shapes() -> Vec<(&'static str, Arc<dyn Dialect>, Wire)> {
    vec![
        ("native-websocket", Arc::new(Native), Wire::WebSocket),
        ("native-sse", Arc::new(Native), Wire::EventStream),
        ("alle-websocket", Arc::new(Alle), Wire::WebSocket),
        ("alle-sse", Arc::new(AlleEvents), Wire::EventStream),
        ("fluxbase-websocket", Arc::new(Fluxbase), Wire::WebSocket),
    ]
}

fn message(name: String, dialect: Arc<dyn Dialect>, wire: Wire, payload: Payload) -> Case {
    Case::new(name, move || {
        let topic = Topic::application("room:42").expect("a topic");
        let event = orders::said(Draft::message(topic, payload.clone()));
        let dialect = Arc::clone(&dialect);
        move || {
            let frame = dialect.event(&event, None);
            let mut out = BytesMut::new();
            frame.iter().for_each(|frame| wire.seal_into(&mut out, frame, id(wire, &event)));
            out.freeze()
        }
    })
}

fn change(name: &str, dialect: &'static dyn Dialect, wire: Wire, tag: Option<Tag>) -> Case {
    Case::new(name, move || {
        let (event, change) = orders::event();
        let tag = tag.clone();
        move || -> Bytes {
            let view = View { tag: tag.as_ref(), columns: None, movement: Movement::Within };
            let frame = dialect.change(&event, &change, &view);
            let mut out = BytesMut::new();
            frame.iter().for_each(|frame| wire.seal_into(&mut out, frame, id(wire, &event)));
            out.freeze()
        }
    })
}

fn id(wire: Wire, event: &Event) -> Option<tidewire_protocol::Position> {
    (wire == Wire::EventStream).then_some(event.position)
}
