//! What hyper serves: scrapes, and the list of clients.

pub(crate) mod clients;
pub(crate) mod scrape;
