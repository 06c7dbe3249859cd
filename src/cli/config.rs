//! `config`: what is set and where it comes from, and the reference of every setting.

use std::process::ExitCode;

use serde_json::json;

use super::serve::Settings;
use super::settings::{Parsed, Value, all, markdown, values};
use super::{EXIT_USAGE, print_bytes};
use crate::config::{DatabaseArgs, EmbedderChoice};
use crate::telemetry::metrics;

/// Tell the settings of the service: each value, and whether a flag, a variable or the default gives
/// it. Secrets are masked.
///
/// With --markdown, the reference of every setting of every command instead; with --metrics, that of
/// every metric. Exit codes: 0; 64 a setting cannot be meant, or wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery config
  OPENAI_BASE_URL=http://localhost:8080/v1 embedding-recovery config --json
  embedding-recovery config --markdown")]
pub(super) struct Args {
    /// Print the reference of every setting, as Markdown
    #[arg(long, env = "EMBEDDING_RECOVERY_MARKDOWN", conflicts_with = "json")]
    markdown: bool,

    /// Print the reference of every metric, as Markdown
    #[arg(long, env = "EMBEDDING_RECOVERY_METRICS", conflicts_with_all = ["json", "markdown"])]
    metrics: bool,

    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,

    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(
    database: &DatabaseArgs,
    args: &Args,
    parsed: &Parsed,
) -> anyhow::Result<ExitCode> {
    if args.markdown {
        print_bytes(markdown(&all(&super::command())).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.metrics {
        print_bytes(metrics::markdown().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let values = values(&super::command(), parsed);
    let embedder = match args.settings.embedder.choose(database.url().is_none()) {
        Ok(EmbedderChoice::Local { .. }) => Ok("the built-in model".to_owned()),
        Ok(EmbedderChoice::OpenAi { provider, model, .. }) => {
            Ok(format!("{model} at {}", provider.address()))
        }
        Err(error) => Err(error.to_string()),
    };
    let sound = embedder.is_ok() && parsed.refused.is_empty();
    let text = match args.json {
        true => as_json(&values, &embedder, parsed),
        false => as_text(&values, &embedder, parsed),
    };
    print_bytes(text.as_bytes())?;
    Ok(if sound { ExitCode::SUCCESS } else { EXIT_USAGE.into() })
}

fn as_json(values: &[Value], embedder: &Result<String, String>, parsed: &Parsed) -> String {
    let settings: Vec<_> = values
        .iter()
        .map(|value| {
            json!({
                "flag": value.flag,
                "variable": value.variable,
                "value": value.value,
                "source": value.source.name(),
            })
        })
        .collect();
    let refused: Vec<String> = parsed.refused.iter().map(ToString::to_string).collect();
    let (embedder, error) = (embedder.as_ref().ok(), embedder.as_ref().err());
    format!(
        "{}\n",
        json!({ "settings": settings, "embedder": embedder, "error": error, "refused": refused })
    )
}

fn as_text(values: &[Value], embedder: &Result<String, String>, parsed: &Parsed) -> String {
    let width = values.iter().map(|value| value.flag.len()).max().unwrap_or_default();
    let mut text = String::new();
    for value in values {
        let shown = value.value.as_deref().unwrap_or("not set");
        text += &format!("{:width$}  {shown}  ({})\n", value.flag, value.origin());
    }
    text += &match embedder {
        Ok(embedder) => format!("embeds with {embedder}\n"),
        Err(error) => format!("cannot embed: {error}\n"),
    };
    for refused in &parsed.refused {
        text += &format!("refused: {refused}\n");
    }
    text
}
