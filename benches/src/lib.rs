//! What the benches measure: large clusters, long histories, and the objects that they leave behind.
//!
//! `cargo bench -p cupcake-benches` runs all of it and ends in one table.

pub mod history;
pub mod objects;
pub mod table;
pub mod world;
