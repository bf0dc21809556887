//! What a network, a kernel and a stranger can do to a proxy in use: whoever has no part in it is
//! served while it lasts, and nothing of it stays.

mod answers;
mod chain;
mod drain;
mod floods;
mod imposter;
mod phases;
mod rolling;
mod soak;
mod weather;
