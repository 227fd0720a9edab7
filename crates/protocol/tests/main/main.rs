//! The words of the wire, held against their documentation and against anything a client may send.

mod documentation;
mod golden;
mod properties;
mod samples;
