//! The demo's web servers: three nginx on free ports, each with a name, a colour and a page. Not Sluice,
//! which stands in front of them.

use super::{
    super::{
        DemoError,
        client::http_get,
        process::{Process, last_lines},
    },
    page,
};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// All of them; the last one is the one that is killed.
#[derive(Debug)]
pub(super) struct Fleet(Vec<Server>);

#[derive(Debug)]
struct Server {
    process: Process,
    name: &'static str,
    port: u16,
    folder: PathBuf,
}

impl Fleet {
    /// Starts them and waits until each answers with its name.
    ///
    /// # Errors
    /// When nginx is missing or does not start.
    pub(super) async fn start(folder: &Path) -> Result<Self, DemoError> {
        let mut servers = Vec::new();
        for (name, _) in page::SERVERS {
            servers.push(Server::start(name, &folder.join(name)).await?);
        }
        Ok(Self(servers))
    }

    /// Names and ports.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&'static str, u16)> {
        self.0.iter().map(|server| (server.name, server.port))
    }

    /// SIGKILL; whom it was for.
    pub(super) fn kill(&mut self) -> Option<(&'static str, u16)> {
        let victim = self.0.last_mut()?;
        victim.process.kill();
        Some((victim.name, victim.port))
    }

    /// Starts it again, on the port that it had.
    ///
    /// # Errors
    /// When nginx cannot be started.
    pub(super) fn restart(&mut self) -> Result<(&'static str, u16), DemoError> {
        let victim = self.0.last_mut().ok_or_else(|| DemoError::told("no server"))?;
        victim.process = spawn(&victim.folder)?;
        Ok((victim.name, victim.port))
    }
}

impl Server {
    /// Between finding a free port and using it somebody else may take it; then another one is tried.
    async fn start(name: &'static str, folder: &Path) -> Result<Self, DemoError> {
        let write = |what: &Path, text: &str| {
            let written = fs::write(what, text);
            written.map_err(|error| DemoError::io(format!("write {}", what.display()), error))
        };
        fs::create_dir(folder)
            .map_err(|error| DemoError::io(format!("create {}", folder.display()), error))?;
        write(&folder.join("index.html"), &page::html())?;
        for _ in 0..ATTEMPTS {
            let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let port = bound.map_err(|error| DemoError::io("find a free port", error))?.port();
            write(&folder.join("nginx.conf"), &configuration(name, port, folder))?;
            let process = spawn(folder)?;
            let mut server = Self { process, name, port, folder: folder.to_owned() };
            if server.answers().await {
                return Ok(server);
            }
        }
        let log = last_lines(&folder.join(LOG)).unwrap_or_default();
        Err(DemoError::told(format!("nginx does not start{log}")))
    }

    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + START_TIME;
        while Instant::now() < deadline && self.process.runs() {
            if http_get(self.port, "/who").await.is_ok_and(|body| body == self.name) {
                return true;
            }
            tokio::time::sleep(POLL).await;
        }
        false
    }
}

fn spawn(folder: &Path) -> Result<Process, DemoError> {
    // Debian keeps it where only root's PATH looks.
    let debian = Path::new("/usr/sbin/nginx");
    let program = if debian.exists() { debian } else { Path::new("nginx") };
    let arguments = [Path::new("-p"), folder, Path::new("-c"), &folder.join("nginx.conf")];
    let log = [Path::new("-e"), &folder.join(LOG)];
    Process::start(program, arguments.into_iter().chain(log), folder, LOG)
}

fn configuration(name: &str, port: u16, folder: &Path) -> String {
    let root = folder.display();
    format!(
        "daemon off; master_process off; pid {root}/nginx.pid;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n\
         \x20 access_log off; default_type text/html; charset utf-8;\n\
         \x20 client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
         \x20 fastcgi_temp_path {root}/fcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
         \x20 server {{\n\
         \x20   listen 127.0.0.1:{port}; root {root};\n\
         \x20   add_header Cache-Control no-store always;\n\
         \x20   location = /health {{ return 200 ok; }}\n\
         \x20   location = /who {{ default_type text/plain; return 200 {name}; }}\n\
         \x20   location = /favicon.ico {{ return 204; }}\n\
         \x20   location / {{ try_files /index.html =404; }}\n\
         \x20 }}\n\
         }}\n"
    )
}

const LOG: &str = "nginx.log";
const ATTEMPTS: usize = 5;
const START_TIME: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
