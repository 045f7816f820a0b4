//! Benches: decide, replay, compilation, encoded sizes.
