//! Web servers on the stage, with visitors whose sessions are sticky: what Sluice is told of them, what
//! its user may type, the death of a server, and the table. Not the servers nor the visitors.

mod fleet;
mod page;
mod visitors;

pub(super) use visitors::Visits;

use super::{
    DemoError,
    folder::Folder,
    load::Tally,
    proxy::{DRAIN, Ports, Proxy, address},
    screen::Screen,
    show::{self, Stage},
    status::{Backend, Status},
    table::{self, Totals},
};
use fleet::Fleet;
use std::path::Path;

/// From the first server to the last table, as the demo of Redis.
///
/// # Errors
/// When a server or Sluice does not start or ends, or the output is closed.
pub(super) async fn run(
    seconds: Option<u64>,
    tally: &Tally,
    visits: &Visits,
    screen: &mut Screen,
) -> Result<(), DemoError> {
    let folder = Folder::create()?;
    screen.say(&"starting three web servers, each an nginx with a page of its own ...")?;
    let fleet = Fleet::start(folder.path()).await?;
    let backends = fleet.servers().map(|(_, port)| address(port)).collect();
    let yaml = |ports| yaml(ports, &fleet, folder.path());
    let mut proxy = Proxy::start(folder.path(), ("HTTP", HTTP_PORT), &backends, yaml).await?;
    screen.say(&greeting(&proxy, &fleet, folder.path()))?;
    let ports = proxy.ports();
    let mut stage = WebStage { fleet, visits };
    tokio::select! {
        never = visitors::run(ports.front, tally, visits) => match never {},
        shown = show::run(seconds, &mut stage, &mut proxy, tally, screen) => shown,
    }
}

/// The servers, and what becomes of one.
#[derive(Debug)]
struct WebStage<'a> {
    fleet: Fleet,
    visits: &'a Visits,
}

impl Stage for WebStage<'_> {
    fn kill(&mut self) -> Option<String> {
        let (name, port) = self.fleet.kill()?;
        let sessions = self.visits.killed(name);
        Some(format!("SIGKILL to {name} (127.0.0.1:{port}), where {sessions} sessions are"))
    }

    fn restart(&mut self) -> Result<Option<String>, DemoError> {
        let (name, port) = self.fleet.restart()?;
        self.visits.restarted();
        Ok(Some(format!("started {name} (127.0.0.1:{port}) again; no session moves back to it")))
    }

    fn clients(&self) -> usize {
        self.visits.count()
    }

    fn table(&self, status: &Status, before: Option<(&Totals, f64)>, color: bool) -> String {
        let name = |backend: &Backend| {
            let mut servers = self.fleet.servers();
            servers.find(|(_, port)| address(*port) == backend.name).map_or("?", |(name, _)| name)
        };
        let mut text = format!(
            "{:<8} {:<15} {:<9} {:>8} {:>6} {:>5} {:>5} {:>9} {:>7}  {}\n",
            "SERVER",
            "BACKEND",
            "STATE",
            "SESSIONS",
            "SHARE",
            "CAME",
            "LEFT",
            "REQUESTS",
            "PER SEC",
            "FAILED TRIES"
        );
        for backend in status.backends() {
            let sessions = backend.sessions.unwrap_or_default();
            text += &format!(
                "{:<8} {:<15} {} {:>8} {:>5.0}% {:>5} {:>5} {:>9} {:>7}  {}\n",
                name(backend),
                backend.name,
                table::state(&backend.state, color),
                sessions.here,
                sessions.share * 100.0,
                sessions.came,
                sessions.left,
                backend.reads.saturating_add(backend.writes),
                table::of_backend(backend, before),
                backend.failures,
            );
        }
        text
    }
}

fn greeting(proxy: &Proxy, fleet: &Fleet, folder: &Path) -> String {
    let Ports { front, admin } = proxy.ports();
    let first = fleet.servers().next().map_or(0, |(_, port)| port);
    let program = std::env::current_exe().unwrap_or_else(|_| "sluice".into());
    format!(
        "{}\nIn a browser:\n\
         \x20 http://127.0.0.1:{front}/\n\
         \nIn another terminal:\n\
         \x20 curl -i http://127.0.0.1:{front}/who                 # a new session each time\n\
         \x20 curl -c jar -b jar http://127.0.0.1:{front}/who      # one session\n\
         \x20 curl http://127.0.0.1:{admin}/api/v1/status\n\
         \x20 {} backend drain demo/{} --admin {}\n\
         \nCtrl-C ends the demo and removes everything.\n",
        proxy.places(),
        program.display(),
        address(first),
        folder.join(SOCKET).display(),
    )
}

fn yaml(ports: Ports, fleet: &Fleet, folder: &Path) -> String {
    let backends: Vec<String> = fleet.servers().map(|(_, port)| address(port)).collect();
    format!(
        "# Written by `sluice demo --http`, which removes it at its end.\n\
         admin: {{ bind: {}, socket: {} }}\n\
         shutdown: {{ drain_timeout: {}s }}\n\
         listeners:\n\
         \x20 - {{ name: demo, bind: {}, protocol: http, cluster: demo }}\n\
         clusters:\n\
         \x20 demo:\n\
         \x20   backends: [{}]\n\
         \x20   balance: round_robin\n\
         \x20   sticky: {{ cookie: {{ name: SLUICE, keys: [a key for the demo alone] }} }}\n\
         \x20   slow_start: 0\n\
         \x20   check: {{ http: {{ path: /health }}, interval: 500ms, fast_interval: 250ms, timeout: 500ms }}\n",
        address(ports.admin),
        folder.join(SOCKET).display(),
        DRAIN.as_secs(),
        address(ports.front),
        backends.join(", "),
    )
}

const HTTP_PORT: u16 = 8080;
const SOCKET: &str = "admin.sock";
