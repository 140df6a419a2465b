//! To come, in this very branch.
