//! Doors: listeners with the roles that may come in by them, and who came in.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use pushprox_daemon::listen::{AddressError, ListenAddress, Listener};
use pushprox_daemon::web::ClientCertificate;

use super::{Access, Role};

/// The roles that may come in by a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    scrapers: bool,
    clients: bool,
    operators: bool,
}

/// A listener, and who may come in by it.
#[derive(Debug)]
pub struct Door {
    /// Where peers arrive.
    pub listener: Listener,
    /// What for.
    pub roles: Roles,
}

/// The doors of a proxy, and what is asked at them.
#[derive(Debug)]
pub struct Entrance {
    /// Where peers arrive.
    pub doors: Vec<Door>,
    /// What they have to show.
    pub access: Access,
}

impl From<Vec<Listener>> for Entrance {
    /// Open to everyone.
    fn from(listeners: Vec<Listener>) -> Self {
        Self {
            doors: listeners.into_iter().map(Door::from).collect(),
            access: Access::open(),
        }
    }
}

/// The value of `--web.listen-address`: an address, before which roles may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorAddress {
    /// Where to listen.
    pub address: ListenAddress,
    /// Who may come in.
    pub roles: Roles,
}

/// Why a text is not a [`DoorAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// What stands behind the roles is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A word before the `@` is none of the three.
    #[error(
        "it has no role before its '@' that there is; there are scrapers, clients and operators, \
         as in scrapers,operators@127.0.0.1:8081"
    )]
    Role,
    /// A socket of systemd's has a name that is no list of roles.
    #[error(
        "--web.systemd-socket: the socket named {0:?} has no role in its name; FileDescriptorName= \
         is scrapers, clients or operators, or several with commas, or is left out for all of them"
    )]
    SocketName(String),
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    /// Its certificate, if it has shown one that was verified.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
    /// What the listener that it came in by is for.
    pub(crate) roles: Roles,
}

impl Roles {
    /// All of them.
    pub const ALL: Self = Self {
        scrapers: true,
        clients: true,
        operators: true,
    };

    const NONE: Self = Self {
        scrapers: false,
        clients: false,
        operators: false,
    };

    /// The roles that the name of a socket gives which systemd has opened: `FileDescriptorName=`.
    /// All of them where the operator has not named it.
    ///
    /// # Errors
    ///
    /// [`DoorError::SocketName`]: a misspelt role must not open a door to everybody.
    pub fn of_socket(name: &str) -> Result<Self, DoorError> {
        if name.is_empty() || name == "unknown" || name.ends_with(".socket") {
            return Ok(Self::ALL);
        }
        Self::named(name).ok_or_else(|| DoorError::SocketName(name.to_owned()))
    }

    /// The roles in a list such as `scrapers,operators`.
    fn named(words: &str) -> Option<Self> {
        let mut roles = Self::NONE;
        for word in words.split(',') {
            match word {
                "scrapers" => roles.scrapers = true,
                "clients" => roles.clients = true,
                "operators" => roles.operators = true,
                _ => return None,
            }
        }
        Some(roles)
    }

    pub(crate) fn has(self, role: Role) -> bool {
        match role {
            Role::Scraper => self.scrapers,
            Role::Client => self.clients,
            Role::Operator => self.operators,
        }
    }
}

impl From<Listener> for Door {
    fn from(listener: Listener) -> Self {
        Self {
            listener,
            roles: Roles::ALL,
        }
    }
}

impl FromStr for DoorAddress {
    type Err = DoorError;

    fn from_str(text: &str) -> Result<Self, DoorError> {
        let Some((words, address)) = text.split_once('@') else {
            return Ok(Self {
                address: text.parse()?,
                roles: Roles::ALL,
            });
        };
        Ok(Self {
            roles: Roles::named(words).ok_or(DoorError::Role)?,
            address: address.parse()?,
        })
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles = [Role::Scraper, Role::Client, Role::Operator];
        let words: Vec<_> = roles
            .into_iter()
            .filter(|role| self.has(*role))
            .map(Role::plural)
            .collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_stand_before_an_address() {
        for (text, roles) in [
            (":8080", "scrapers,clients,operators"),
            ("scrapers@127.0.0.1:8081", "scrapers"),
            ("operators,clients@[::1]:0", "clients,operators"),
        ] {
            let door: DoorAddress = text.parse().unwrap();
            assert_eq!(door.roles.to_string(), roles);
        }
        for (text, error) in [
            ("scraper@:8080", DoorError::Role),
            ("@:8080", DoorError::Role),
            ("scrapers, clients@:8080", DoorError::Role),
            ("scrapers@8080", DoorError::Address(AddressError::Syntax)),
        ] {
            assert_eq!(text.parse::<DoorAddress>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_socket_of_systemds_has_the_roles_in_its_name() {
        for (name, roles) in [
            ("pushprox-proxy.socket", "scrapers,clients,operators"),
            ("", "scrapers,clients,operators"),
            ("unknown", "scrapers,clients,operators"),
            ("clients", "clients"),
            ("operators,scrapers", "scrapers,operators"),
        ] {
            assert_eq!(Roles::of_socket(name).unwrap().to_string(), roles);
        }
        for name in ["client", "scrapers,", "web"] {
            let error = Roles::of_socket(name).unwrap_err();
            assert_eq!(error, DoorError::SocketName(name.to_owned()));
        }
    }
}
