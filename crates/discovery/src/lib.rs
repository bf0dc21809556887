//! x
pub mod answers;
pub mod backoff;
pub mod base;
pub mod fetch;
pub mod index;
pub mod listing;
pub mod metrics;
pub mod placement;
pub mod reload;
pub mod render;
pub mod slices;
pub mod template;
pub mod trouble;
pub mod watch;
pub mod writer;
