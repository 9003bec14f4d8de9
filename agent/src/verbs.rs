//! Every verb is another way to treat the same answers of the same steps.

mod config;
mod doctor;
mod explain;
mod facts;
mod plan;
mod reset;
mod round;
mod run;
mod status;
mod survey;
#[cfg(test)]
mod tests;
mod timeline;
mod token;
mod up;

use crate::cli::{About, AboutTokens, Cli, Exit, Verb};
use crate::session::{Session, Trouble};
use crate::show;

/// Runs one verb to its end. `environment` holds the variables that begin with `GPUK_`.
pub fn main(cli: &Cli, environment: Vec<(String, String)>) -> Exit {
    // An error only says that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            show::complain(&format!("cannot start: {error}"));
            return Exit::Broken;
        }
    };
    let tasks = tokio::task::LocalSet::new();
    let exit = tasks.block_on(&runtime, dispatch(cli, environment));
    // A read that hangs in a driver must not keep the program from ending.
    runtime.shutdown_background();
    exit
}

async fn dispatch(cli: &Cli, environment: Vec<(String, String)>) -> Exit {
    let common = &cli.common;
    match &cli.verb {
        Verb::Config { about: About::Check { file } } => config::check(file, common.json),
        Verb::Explain { lines } => explain::explain(lines, common.json),
        Verb::Run => run::run(common, environment).await,
        Verb::Token { about: AboutTokens::ServeSsh(options) } => token::serve_ssh(common, options).await,
        Verb::Status => status::status(common),
        Verb::Timeline => timeline::timeline(common),
        Verb::Doctor { gpu, deep } => match Session::open(common, environment, &show::complain).await {
            Ok(session) => doctor::doctor(&session, doctor::Scope { gpu: *gpu, deep: *deep }, common.json).await,
            Err(trouble) => doctor::cannot_start(&trouble, common.json),
        },
        verb => match Session::open(common, environment, &show::complain).await {
            Ok(session) => match verb {
                Verb::Facts => facts::facts(&session, common.json).await,
                Verb::Plan => plan::plan(&session, common.json).await,
                Verb::Reset { steps, all, rejoin, dry_run } => {
                    let what = match (all, rejoin) {
                        (true, _) => reset::What::Everything,
                        (_, true) => reset::What::Membership,
                        _ => reset::What::Steps(steps),
                    };
                    reset::reset(&session, &what, *dry_run, common.json).await
                }
                Verb::Up => up::up(&session, common.json).await,
                _ => config::show(&session, matches!(verb, Verb::Config { about: About::Show { origin: true } }), common.json),
            },
            Err(trouble) => say(&trouble, common.json),
        },
    }
}

/// Says why nothing could be begun.
pub fn say(trouble: &Trouble, json: bool) -> Exit {
    match trouble {
        _ if json => show::print_json(&as_json(trouble)),
        Trouble::Configuration(errors) => {
            show::complain(&format!("the configuration is wrong; nothing was changed\n{errors}"));
        }
        Trouble::Other(error) => show::complain(&format!("{error:#}")),
    }
    trouble.exit()
}

/// One shape for everything that keeps a verb from beginning; what stands in no line of a file has neither origin nor key.
fn as_json(trouble: &Trouble) -> serde_json::Value {
    match trouble {
        Trouble::Configuration(errors) => serde_json::json!({ "errors": errors }),
        Trouble::Other(error) => {
            let message = format!("{error:#}");
            serde_json::json!({
                "errors": [{ "origin": null, "line": null, "column": null, "key": null, "message": message, "hint": null }]
            })
        }
    }
}
