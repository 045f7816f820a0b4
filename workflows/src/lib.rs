//! Pure compilers: an intent and a snapshot of the cluster become a plan, or a refusal with a report.
