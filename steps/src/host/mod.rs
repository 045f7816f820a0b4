//! Steps that run on the machine, in the runner. One file a step.

pub mod params;
