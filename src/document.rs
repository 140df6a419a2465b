//! One JSON text, read once (placeholder).
