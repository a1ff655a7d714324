//! Conducts `bench db`: databases, server and application, and the proof at the end.

use handfast::TopicSettings;

use super::args::Args;
use super::bank::TOPIC;
use super::databases::{Databases, until_up};
use super::plan::{Found, Plan};
use super::{proof, report};
use crate::bench::part::{Part, Said};
use crate::bench::server::Server;
use crate::bench::show::Show;
use crate::bench::{Common, Report, conduct, directory};
use crate::harness::Problem;

/// Runs it.
pub(crate) fn run(args: &Args, common: Common) -> Result<Report, Problem> {
    conduct(async {
        let show = Show::new(common);
        let dir = directory(None)?;
        show.doing("starting the databases");
        let databases = Databases::start(args, dir.path()).await?;
        let server = Server::start(dir.path(), &databases.config(args.pool)).await?;
        let hf = server.connect().await?;
        hf.create_topic(TOPIC, TopicSettings::new()).await?;
        until_up(&hf).await?;
        let plan = Plan {
            server: server.url.clone(),
            postgres: databases.postgres.clone(),
            mariadb: databases.mariadb.clone(),
            concurrency: args.concurrency.clone(),
            slices: args.seconds,
        };
        let mut application = Part::start(dir.path(), "application", "db-application", &plan)?;
        let mut slices = 0;
        let found: Found = loop {
            match application.next().await? {
                Said::Found(found) => {
                    break serde_json::from_value(found).map_err(std::io::Error::from)?;
                }
                Said::Progress(_) => {
                    slices += 1;
                    let all = usize::from(args.seconds) * args.concurrency.len() * 6;
                    show.doing(format!("slice {slices} of {all}"));
                }
                Said::Ready | Said::Measuring | Said::Measured => {}
            }
        };
        show.doing("comparing");
        let mut problems = found.problems.clone();
        let open = server.settle(&hf, 0).await?;
        if open > 0 {
            problems.push(format!("{open} transactions have not ended"));
        }
        problems.extend(proof::prove(&databases, &hf, &found.committed).await?);
        server.end().await?;
        let runs = report::runs(&found.ran);
        Report::new("db", args, &runs, problems, report::text(&runs))
    })
}
