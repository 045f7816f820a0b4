//! Steps that run in the operator. One file a step.

pub mod params;
