//! Written next; nothing here yet.
