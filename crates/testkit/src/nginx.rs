//! Debian's nginx as a reverse proxy, with the limits that it has by default unless a test sets others.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use crate::process::{Daemon, command};
use crate::wait::{SOON, free_port, until};

/// A running nginx. Its folder goes with it.
#[derive(Debug)]
pub struct Nginx {
    /// Its process.
    pub daemon: Daemon,
    /// Where it listens.
    pub address: SocketAddr,
    folder: TempDir,
}

impl Nginx {
    /// Starts an nginx that passes everything on to `upstream`, at its root and below `/prefix/`,
    /// configured with nothing but that.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(upstream: SocketAddr) -> Self {
        let http = |address| {
            format!(
                "server {{\nlisten {address};\nlocation / {{ proxy_pass http://{upstream}; }}\n\
                 location /prefix/ {{ proxy_pass http://{upstream}/; }}\n}}\n"
            )
        };
        Self::with(http).await
    }

    /// Starts an nginx with what `http` puts into the `http` block of its configuration. `http` is
    /// told where to listen.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn with(http: impl Fn(SocketAddr) -> String) -> Self {
        // nginx takes no port 0, and another may be quicker at the port that was free a moment ago.
        for _ in 0..5 {
            let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
            if let Some(nginx) = Self::start_at(address, &http(address)).await {
                return nginx;
            }
        }
        panic!("nginx found no port");
    }

    /// What it has logged of warnings and errors.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap()
    }

    /// The requests that it has served, a line each.
    pub fn accesses(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        log.lines().map(str::to_owned).collect()
    }

    async fn start_at(address: SocketAddr, http: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().display();
        let mut configuration = format!(
            "daemon off;\nmaster_process off;\npid {prefix}/nginx.pid;\nerror_log {prefix}/error.log warn;\n\
             events {{}}\nhttp {{\naccess_log {prefix}/access.log;\n"
        );
        // The folders for what it buffers are root's where Debian has them.
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            configuration += &format!("{kind}_temp_path {prefix}/{kind};\n");
        }
        configuration += http;
        configuration += "}\n";
        std::fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
        let daemon = Self::launch(folder.path(), address).await?;
        Some(Self {
            daemon,
            address,
            folder,
        })
    }

    /// Starts it again, after its end, as it was.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self) {
        let daemon = Self::launch(self.folder.path(), self.address).await;
        self.daemon = daemon.expect("nginx does not start again");
    }

    async fn launch(folder: &Path, address: SocketAddr) -> Option<Daemon> {
        let mut nginx = command("/usr/sbin/nginx");
        nginx.arg("-p").arg(folder);
        nginx.arg("-c").arg(folder.join("nginx.conf"));
        nginx.arg("-e").arg(folder.join("error.log"));
        let mut daemon = Daemon::start("nginx", nginx);
        let runs = until("nginx listening", SOON, async || {
            if !daemon.runs() {
                return Some(false);
            }
            std::net::TcpStream::connect(address)
                .is_ok()
                .then_some(true)
        })
        .await;
        runs.then_some(daemon)
    }
}
