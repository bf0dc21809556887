//! The flags of the leg to the proxy, as the operator types them.

use std::path::PathBuf;

use clap::Args;
use pushprox_daemon::cli::file_name;

use crate::credentials::{CredentialFiles, ExtraHeader};
use crate::leg::LegFlags;
use crate::tls::{ServerName, TlsFlags};

/// How the proxy is spoken to.
#[derive(Debug, Args)]
pub struct ToProxyArgs {
    /// File with the certificates to trust the proxy by, instead of the system's (PEM).
    #[arg(long = "tls.cacert", value_name = "FILE", value_parser = file_name)]
    pub tls_cacert: Option<PathBuf>,

    /// File with a certificate to show to the proxy (PEM).
    #[arg(long = "tls.cert", value_name = "FILE", value_parser = file_name, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// File with the key of that certificate (PEM).
    #[arg(long = "tls.key", value_name = "FILE", value_parser = file_name, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Name that the proxy's certificate must have, instead of the one in the URL.
    #[arg(long = "tls.server-name", value_name = "NAME")]
    pub tls_server_name: Option<ServerName>,

    /// Take any certificate of the proxy's: whoever answers is believed.
    #[arg(long = "tls.insecure-skip-verify")]
    pub tls_insecure_skip_verify: bool,

    /// File with a token for the proxy.
    #[arg(
        long = "proxy.bearer-token-file",
        value_name = "FILE",
        value_parser = file_name,
        conflicts_with = "proxy_basic_auth_file"
    )]
    pub proxy_bearer_token_file: Option<PathBuf>,

    /// File with user:password for the proxy.
    #[arg(long = "proxy.basic-auth-file", value_name = "FILE", value_parser = file_name)]
    pub proxy_basic_auth_file: Option<PathBuf>,

    /// Header to send to the proxy; may be given several times.
    #[arg(long = "proxy.header", value_name = "NAME: VALUE")]
    pub proxy_header: Vec<ExtraHeader>,
}

impl From<ToProxyArgs> for LegFlags {
    fn from(args: ToProxyArgs) -> Self {
        Self {
            tls: TlsFlags {
                prefix: "--tls",
                cacert: args.tls_cacert,
                cert: args.tls_cert,
                key: args.tls_key,
                server_name: args.tls_server_name,
                insecure_skip_verify: args.tls_insecure_skip_verify,
            },
            credentials: CredentialFiles {
                prefix: "--proxy",
                bearer: args.proxy_bearer_token_file,
                basic: args.proxy_basic_auth_file,
            },
            headers: args.proxy_header,
        }
    }
}
