//! A client's life apart from its socket.

use std::sync::Arc;

use tidewire::protocol::dialect::Native;
use tidewire::protocol::{Frame, Wire};
use tidewire::{Identity, Node, Opening, Session};
use tidewire_measure::Case;

use crate::crowd::{Crowd, Sockets, builder};

const SUBSCRIBE: &str = r#"{"type":"subscribe","id":1,"topic":"room:42"}"#;
const PUBLISH: &str =
    r#"{"type":"publish","id":2,"topic":"room:42","data":{"order":40017,"status":"paid"}}"#;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::looping("session/open-subscribe-leave", || {
            // Somebody is there all the time, so the topic is.
            let crowd = Crowd::listening(1);
            move |rounds| {
                let visit = async {
                    for _ in 0..rounds {
                        drop(visitor(&crowd.node, &crowd.sockets).await);
                    }
                };
                crowd.runtime.block_on(visit);
            }
        }),
        Case::looping("session/publish-confirmed", || {
            let crowd = Crowd::nobody(builder());
            let mut session = crowd.runtime.block_on(visitor(&crowd.node, &crowd.sockets));
            move |rounds| {
                let publish = async {
                    for _ in 0..rounds {
                        session.receive(Frame::text(PUBLISH)).await.expect("it goes on");
                        session.flush().expect("the socket is whole");
                    }
                };
                crowd.runtime.block_on(publish);
            }
        }),
    ]
}

async fn visitor(node: &Node, sockets: &Sockets) -> Session {
    let opening = Opening::new(Arc::new(Native), Wire::WebSocket, Identity::everything());
    let opening = opening.outlet(Box::new(sockets.clone()));
    let mut session = node.open(opening).expect("there is room");
    session.receive(Frame::text(SUBSCRIBE)).await.expect("it goes on");
    session.ready().await.expect("it goes on");
    session.flush().expect("the socket is whole");
    session
}
