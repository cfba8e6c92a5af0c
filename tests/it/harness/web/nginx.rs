//! A real nginx in a temporary folder on a free port, that names itself in every answer; killed when
//! dropped.

use super::{
    super::{PATIENCE, eventually, port::Port, process::Process},
    HttpConn,
};
use rustix::process::Signal;
use std::{
    fs::{self, File},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// Answers any path with its name as the body and as the header `X-Server`; `/64k` has 64 KiB,
/// `/slow` the same at 32 KiB a second, `/echo` the request's method and URI as nginx sees them.
#[derive(Debug)]
pub(crate) struct Nginx {
    process: Process,
    port: Port,
    name: String,
    folder: TempDir,
}

impl Nginx {
    pub(crate) fn start(name: &str) -> Self {
        Self::with(name, "", "")
    }

    /// With flags of its `listen` (`http2`), and directives of its `server` block.
    pub(crate) fn with(name: &str, listen: &str, directives: &str) -> Self {
        let mut tries = 0;
        loop {
            let (folder, port) = (TempDir::new().unwrap(), Port::free());
            fs::write(folder.path().join("64k"), "k".repeat(64 << 10)).unwrap();
            let text =
                configuration(name, &format!("{} {listen}", port.address()), directives, &folder);
            fs::write(folder.path().join("nginx.conf"), text).unwrap();
            match launch(&port, &folder, listen.contains("http2")) {
                Ok(process) => return Self { process, port, name: name.to_owned(), folder },
                // Somebody took the port.
                Err(said) if tries == 4 => panic!("nginx does not start:\n{said}"),
                Err(_) => tries += 1,
            }
        }
    }

    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// From now on every path but `/health` is answered 500, or no longer.
    pub(crate) fn fail(&self, fail: bool) {
        self.flag("fail", fail);
    }

    /// From now on `/health` is answered 503, or no longer.
    pub(crate) fn sicken(&self, sick: bool) {
        self.flag("sick", sick);
    }

    fn flag(&self, name: &str, set: bool) {
        let path = self.folder.path().join(name);
        if set {
            fs::write(path, "").unwrap();
        } else {
            let _ = fs::remove_file(path);
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Hangs it: SIGSTOP.
    pub(crate) fn stop(&self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn cont(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Starts it again on the same port.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.port, &self.folder, false).unwrap();
    }
}

fn configuration(name: &str, listen: &str, directives: &str, folder: &TempDir) -> String {
    let root = folder.path().display();
    format!(
        "daemon off; master_process off; error_log {root}/error.log warn; pid {root}/nginx.pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log off; default_type text/plain; keepalive_requests 1000000000;\n\
           client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
           fastcgi_temp_path {root}/fcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
           client_max_body_size 0;\n\
           server {{\n\
             listen {listen}; root {root};\n\
             add_header X-Server {name} always;\n\
             {directives}\n\
             location = /health {{ if (-f {root}/sick) {{ return 503; }} return 200 ok; }}\n\
             location = /64k {{ if (-f {root}/fail) {{ return 500; }} }}\n\
             location = /slow {{ limit_rate 32k; alias {root}/64k; }}\n\
             location = /echo {{ return 200 \"$request_method $request_uri\"; }}\n\
             location / {{ if (-f {root}/fail) {{ return 500; }} return 200 {name}; }}\n\
           }}\n\
         }}\n"
    )
}

/// A server that answers, or what it said when it ended.
fn launch(port: &Port, folder: &TempDir, http2: bool) -> Result<Process, String> {
    let log = folder.path().join("error.log");
    let output = File::options().create(true).append(true).open(&log).unwrap();
    let mut child = Command::new("nginx");
    child.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
    child.arg("-e").arg(&log).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let mut process = match child.spawn() {
        Ok(child) => Process(child),
        Err(error) => panic!("nginx: {error}; ./tests/run.sh installs it"),
    };
    eventually("nginx answers or ends", PATIENCE, || {
        if process.ended().is_some() {
            return Some(Err(fs::read_to_string(&log).unwrap()));
        }
        let mut conn = HttpConn::try_open(&port.address()).ok()?;
        // One that speaks HTTP/2 alone takes no HTTP/1.1 in clear.
        (http2 || conn.try_get("/health").is_ok()).then_some(Ok(()))
    })?;
    Ok(process)
}
