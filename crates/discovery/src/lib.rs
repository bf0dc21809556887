//! x
pub mod base;
pub mod index;
pub mod listing;
pub mod placement;
