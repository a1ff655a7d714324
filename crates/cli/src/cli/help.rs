//! What `handfast --help` says: the commands in groups, examples, exit statuses. The one-line
//! descriptions are those of the commands themselves.

use clap::builder::StyledStr;
use clap::builder::styling::{AnsiColor, Style, Styles};
use clap::{Command, CommandFactory};

use super::{Cli, EXITS};

/// The commands in the order in which they are shown. What this build does not have is left out.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Run", &["serve", "demo"]),
    (
        "Look and act",
        &["tx", "indoubt", "topic", "subscription", "dead", "participant", "database"],
    ),
    ("Keep", &["backup", "restore", "journal"]),
    ("Check", &["doctor", "bench", "torture"]),
    ("Learn", &["explain", "help"]),
];

const EXAMPLES: [(&str, &str); 5] = [
    ("handfast serve", "a server with a store in ./handfast-data"),
    ("handfast topic create transfers", "a topic that keeps every event"),
    ("handfast topic publish transfers --data hello", "an event"),
    ("handfast topic tail transfers --follow", "what comes"),
    ("handfast tx list --json", "open transactions, for programs"),
];

const HEADING: Style = AnsiColor::Green.on_default().bold();
const LITERAL: Style = AnsiColor::Cyan.on_default().bold();

/// The command line with its help.
pub(super) fn command() -> Command {
    let styles = Styles::styled().header(HEADING).usage(HEADING).literal(LITERAL);
    let command = Cli::command().styles(styles);
    // Else `help` would be added later than it is listed here.
    let listed = groups(&command);
    let template = "{about}\n\n{usage-heading} {usage}{after-help}";
    command.help_template(template).after_help(listed)
}

fn groups(command: &Command) -> StyledStr {
    let mut text = String::new();
    let names = GROUPS.iter().flat_map(|(_, names)| *names);
    let width = names.map(|name| name.len()).max().unwrap_or(0);
    for (heading, names) in GROUPS {
        let known: Vec<(&str, String)> =
            names.iter().filter_map(|name| Some((*name, about(command, name)?))).collect();
        if known.is_empty() {
            continue;
        }
        text.push_str(&format!("{HEADING}{heading}:{HEADING:#}\n"));
        for (name, about) in known {
            text.push_str(&format!("  {LITERAL}{name:<width$}{LITERAL:#}  {about}\n"));
        }
        text.push('\n');
    }
    text.push_str(&format!(
        "{HEADING}Options:{HEADING:#}\n  {LITERAL}-h, --help{LITERAL:#}     Help, also for each \
         command\n  {LITERAL}-V, --version{LITERAL:#}  Version\n\n"
    ));
    text.push_str(&format!("{HEADING}Examples:{HEADING:#}\n"));
    let width = EXAMPLES.iter().map(|(example, _)| example.len()).max().unwrap_or(0);
    for (example, meaning) in EXAMPLES {
        text.push_str(&format!("  {LITERAL}{example:<width$}{LITERAL:#}  {meaning}\n"));
    }
    text.push_str(&format!("\n{EXITS}\n"));
    text.into()
}

/// The one line that a command says about itself.
fn about(command: &Command, name: &str) -> Option<String> {
    if name == "help" {
        return Some("Help for a command".to_owned());
    }
    let about = command.find_subcommand(name)?.get_about()?.to_string();
    Some(about.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_a_group() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let found = GROUPS.iter().any(|(_, names)| names.contains(&name));
            assert!(found || command.is_hide_set(), "{name} is in no group of the help");
        }
    }

    #[test]
    fn help_fits_a_terminal() {
        let help = command().render_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "over 100 columns: {line}");
        }
        assert!(help.starts_with("A durable event bus"), "{help}");
    }

    /// All commands, the inner ones too, with their full names.
    fn each(command: &Command, path: &str, visit: &mut impl FnMut(&str, &Command)) {
        visit(path, command);
        let shown = |inner: &&Command| inner.get_name() != "help" && !inner.is_hide_set();
        for inner in command.get_subcommands().filter(shown) {
            each(inner, &format!("{path} {}", inner.get_name()), visit);
        }
    }

    #[test]
    fn every_command_that_asks_a_server_has_one_line_and_an_example() {
        each(&Cli::command(), "handfast", &mut |path, command| {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && about.lines().count() == 1, "{path}: {about:?}");
            let is_leaf = command.get_subcommands().next().is_none();
            let asks = command.get_arguments().any(|arg| arg.get_id() == "server");
            let ours = [
                "tx",
                "indoubt",
                "topic",
                "subscription",
                "dead",
                "participant",
                "database",
                "backup",
                "restore",
                "doctor",
                "explain",
            ]
            .iter()
            .any(|name| path.starts_with(&format!("handfast {name}")));
            if is_leaf && (asks || ours) {
                let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(after.contains("Example"), "{path} has no example");
            }
        });
    }
}
