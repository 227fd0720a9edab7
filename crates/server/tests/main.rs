//! The whole server against a real PostgreSQL, with clients that are not ours: started inside the
//! test, or as the program where signals, environment and memory matter.

mod authentication;
mod bad_input;
mod budgets;
mod commands;
mod database_commands;
mod examples;
mod hardship;
mod history;
mod history_on_disk;
mod joins;
mod ledger;
mod library;
mod limits;
mod memory;
mod notify;
mod openapi;
mod operating;
mod outages;
mod publishing;
mod realtime;
mod restarts;
mod resuming;
mod revoking;
mod rights;
mod row_rights;
mod silence;
mod slow_reader;
mod support;
mod survival;
mod tls;
mod versions;
mod walls;
