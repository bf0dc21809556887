//! What must hold of `--web.config.file`, whatever is in it.

use std::path::Path;

use super::file::WebFile;
use super::tls;
use crate::config_file;
use crate::reload::Files;

/// The file, which is read or refused by its name. Files that it names are not looked at.
pub fn web_config(bytes: &[u8]) {
    let path = Path::new("web.yml");
    let file: Option<WebFile> = match config_file::parse(path, bytes) {
        Ok(file) => file,
        Err(error) => {
            assert!(error.to_string().starts_with("web.yml: "), "{error}");
            return;
        }
    };
    let file = file.unwrap_or_default();
    if let Some(limit) = file.rate_limit
        && let Ok(Some(rate)) = limit.rate()
    {
        assert!(rate.burst > 0 && !rate.interval.is_zero());
    }
    let server = file.tls_server_config.unwrap_or_default();
    let has_files =
        server.cert_file.is_some() || server.key_file.is_some() || server.client_ca_file.is_some();
    // Without a CA of its own it would read the system's.
    if !has_files && (server.client_ca.is_some() || server.client_auth_type.is_none()) {
        match tls::server(&server, path, &mut Files::default()) {
            Ok(made) => assert_eq!(made.is_none(), server.is_empty()),
            Err(error) => assert!(error.to_string().starts_with("web.yml"), "{error}"),
        }
    }
}
