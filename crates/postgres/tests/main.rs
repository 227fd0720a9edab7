//! The crate against a real PostgreSQL; one binary, a module for each subject.

mod private_cluster;
