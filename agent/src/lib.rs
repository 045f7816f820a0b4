//! The relay on each node: its NodeTask and the machine's mailbox folder.
