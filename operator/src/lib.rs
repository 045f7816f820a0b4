//! The controllers: intents become runs, runs are ticked, orders are written.
