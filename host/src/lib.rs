//! The runner on the machine itself: the engine over a file journal, and the host steps.
