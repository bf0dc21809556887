//! The real binaries on loopback, with the programs that they are made for around them.

