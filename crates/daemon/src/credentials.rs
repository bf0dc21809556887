//! What a request shows of itself: the credentials in `Authorization` or `Proxy-Authorization`.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::HeaderName;

use crate::secret::Secret;

/// The credentials of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password (RFC 7617).
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token (RFC 6750).
    Bearer(Secret),
}

/// A header that holds no credentials of a kind that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credentials are neither Basic nor Bearer, or cannot be read")]
pub struct Unreadable;

/// Reads the credentials in a header. None where there is no such header.
///
/// # Errors
///
/// [`Unreadable`]: there are several, or none that are known.
pub fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Credentials>, Unreadable> {
    let mut values = headers.get_all(name).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().map_err(|_| Unreadable)?,
        _ => return Err(Unreadable),
    };
    let (scheme, shown) = value.trim().split_once(' ').ok_or(Unreadable)?;
    let shown = shown.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !shown.is_empty() {
        return Ok(Some(Credentials::Bearer(Secret::new(shown.as_bytes()))));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Unreadable);
    }
    let pair = BASE64.decode(shown).map_err(|_| Unreadable)?;
    let colon = pair
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(Unreadable)?;
    let (user, password) = pair.split_at_checked(colon).ok_or(Unreadable)?;
    let user = String::from_utf8(user.to_vec()).map_err(|_| Unreadable)?;
    let password = password.get(1..).unwrap_or_default();
    Ok(Some(Credentials::Basic {
        user,
        password: Secret::new(password),
    }))
}

/// Not every program pads.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    fn of(values: &[&'static str]) -> Result<Option<Credentials>, Unreadable> {
        let headers = values
            .iter()
            .map(|value| (AUTHORIZATION, HeaderValue::from_static(value)))
            .collect();
        read(&headers, &AUTHORIZATION)
    }

    fn basic(user: &str, password: &str) -> Result<Option<Credentials>, Unreadable> {
        Ok(Some(Credentials::Basic {
            user: user.to_owned(),
            password: Secret::new(password.as_bytes()),
        }))
    }

    #[test]
    fn both_kinds_are_read() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["Basic dXNlcjpwYTpzcw=="]), basic("user", "pa:ss"));
        assert_eq!(of(&["basic  dXNlcjpwYTpzcw"]), basic("user", "pa:ss"));
        assert_eq!(of(&["Basic Og=="]), basic("", ""));
        let token = Credentials::Bearer(Secret::new(*b"abc.def"));
        assert_eq!(of(&["bearer abc.def"]), Ok(Some(token)));
    }

    #[test]
    fn anything_else_is_no_credentials() {
        for wrong in [
            "",
            "Basic",
            "Basic ",
            "Basic dXNlcg==",
            "Basic !!!",
            "Bearer",
            "Bearer  ",
            "Digest x=y",
            "Basic /zpw",
        ] {
            assert_eq!(of(&[wrong]), Err(Unreadable), "{wrong:?}");
        }
        let twice = ["Basic dXNlcjpwYTpzcw==", "Basic dXNlcjpwYTpzcw=="];
        assert_eq!(of(&twice), Err(Unreadable));
    }
}
