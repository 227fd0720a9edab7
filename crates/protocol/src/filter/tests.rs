//! Filters against what is expected of them, and against slower and simpler judges.
//!
//! That verdicts equal PostgreSQL's is tested in `tidewire-postgres`, with PostgreSQL as oracle.

mod demands;
mod grammar;
mod judging;
mod values;
