//! The wire contract of PushProx: what Prometheus, the proxy and the clients say to each other.
//!
//! Three legs carry six messages:
//!
//! 1. **Scrape**, Prometheus → proxy: a `GET` in absolute form ([`fqdn::Target`] is its host and
//!    port, [`timeout`] how long Prometheus waits).
//! 2. **Poll**, client → proxy: `POST /poll` whose body is the name that the client registers
//!    ([`Fqdn`]). The answer is held back until there is a scrape; its body is then one whole
//!    HTTP request, the *instruction*, which the proxy writes ([`message::scrape`]) and the client
//!    reads ([`message::instruction`]).
//! 3. **Push**, client → proxy: `POST /push` whose body is one whole HTTP response
//!    that the client writes ([`message::response`]) and the proxy reads
//!    ([`message::pushed`]), joined to its scrape by the `Id` header.
//!
//! Everything here is pure: no sockets, no clock, no runtime. Foreign bytes are parsed once, at
//! the edge, into types that hold only what is valid. Peers may be Go programs of either line
//! (ieb/PushProx and prometheus-community/PushProx); where they take liberties, the module that
//! reads them says which.

pub mod duration;
pub mod fqdn;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod headers;
pub mod message;
pub mod scrape_id;
pub mod timeout;

pub use fqdn::{Fqdn, Target};
pub use scrape_id::ScrapeId;
