//! How a daemon speaks to a peer over HTTP: TLS, credentials and headers, out of files that may
//! change while it runs. The client has two such legs, discovery one; the proxy has none, and so
//! knows nothing of HTTP clients.
//!
//! | module | owns |
//! |---|---|
//! | [`args`] | the flags of the leg to the proxy, which client and discovery have alike |
//! | [`leg`] | what the flags of any leg come to, and what is wrong with their files |
//! | [`tls`], [`verifier`] | which certificates are trusted and shown, by which name |
//! | [`credentials`] | tokens and passwords out of files, headers of the operator's |
//! | [`urls`] | URLs of the command line |

pub mod args;
pub mod credentials;
pub mod leg;
pub mod tls;
pub mod urls;
pub mod verifier;
