//! Every word that crosses a wire between Tidewire and its clients.
//!
//! This crate is pure: no I/O, no clock, no randomness. Reading order:
//! [`topic`] and [`position`] say where something is said, [`event`] what is said,
//! [`command`] and [`answer`] what a client asks and is told, [`close`] how it ends,
//! [`frame`] and [`wire`] how it looks on a transport, and [`dialect`] translates
//! between frames and all of the above, one wire language each.

pub mod topic;

pub mod position;

pub mod event;

pub mod presence;

pub mod change;

pub mod interest;

pub mod filter;

pub mod command;

pub mod answer;

pub mod close;

pub mod frame;

pub mod wire;

pub mod dialect;

mod digits;

pub mod json;

mod object;

mod scan;

pub use answer::{Answer, Code, Outcome, Refusal, Retry};
pub use change::{Change, Operation};
pub use close::Close;
pub use command::{Command, Publication, Reference, Since, Subscription, Tag, Token};
pub use dialect::{Dialect, Shape};
pub use event::{Audience, Body, Draft, Event, GapReason, Payload, PayloadError, SessionId};
pub use frame::Frame;
pub use interest::Interest;
pub use object::FromObject;
pub use position::{Epoch, Position};
pub use topic::{Topic, TopicError, TopicKind};
pub use wire::Wire;
