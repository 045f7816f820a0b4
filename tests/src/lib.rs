//! Scenarios, walls and the tiers that need real processes.
