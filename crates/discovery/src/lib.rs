//! x
pub mod answers;
pub mod base;
pub mod index;
pub mod listing;
pub mod placement;
pub mod render;
pub mod template;
