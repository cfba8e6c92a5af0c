//! `sluice explain`: where a request would go by a configuration, as if all its servers were healthy
//! and in the roles that are written. Nothing is asked.

use super::{File, complain, load, say};
use crate::{
    config::{Config, Protocol},
    control::build,
    proto::redis::explain::explain_offline,
    server,
};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    file: File,
    /// The listener that the request comes to; without one, the first of protocol redis.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The request, word by word: GET user:{42}
    #[arg(
        value_name = "WORD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    request: Vec<String>,
}

pub(super) fn run(ExplainArgs { file, listener, request }: ExplainArgs) -> ExitCode {
    let config = match load(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match explain(&config, listener.as_deref(), request) {
        Ok(lines) => {
            let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
            for (name, value) in lines {
                say(&format_args!("{name:width$}  {value}\n"));
            }
            ExitCode::SUCCESS
        }
        Err(message) => {
            complain(&format_args!("sluice explain: {message}"));
            ExitCode::FAILURE
        }
    }
}

fn explain(
    config: &Config,
    listener: Option<&str>,
    request: Vec<String>,
) -> Result<Vec<(&'static str, String)>, String> {
    let mut listeners = config.listeners.iter().enumerate();
    let found = match listener {
        Some(name) => listeners.find(|(_, one)| one.name == name),
        None => listeners.find(|(_, one)| one.protocol == Protocol::Redis),
    };
    let (index, listener) = found.ok_or_else(|| match listener {
        Some(name) => format!("there is no listener '{name}'"),
        None => "there is no listener of protocol redis".to_owned(),
    })?;
    if listener.protocol != Protocol::Redis {
        return Err(format!("listener '{}' is not of protocol redis", listener.name));
    }
    let topology = build::build(config, 1, &[]);
    topology.clusters.iter().for_each(|cluster| build::assume_healthy(cluster));
    let tables: Vec<_> = config.clusters.iter().map(server::commands).collect();
    let settings = server::redis_settings(config, index, listener);
    let words: Vec<Vec<u8>> = request.into_iter().map(String::into_bytes).collect();
    let mut lines = vec![("listener", format!("{} {}", listener.name, listener.bind))];
    lines.extend(explain_offline(&settings, &topology.clusters, &tables, &words)?);
    lines.push(("assumed", "every server is healthy and in the role that is written".to_owned()));
    Ok(lines)
}
