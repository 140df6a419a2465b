//! The one integration binary: a module per feature, so that everything links once.
//!
//! Each module stands under `cfg(test)`, which is always set here, because that is how clippy tells
//! that functions around the tests may unwrap and index as the tests do.

#[cfg(test)]
mod binary;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod embed;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod tidy;
