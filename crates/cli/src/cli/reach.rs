//! Commands that are proposed run as they stand: where somebody named another server than the one
//! that is asked by itself, a proposed command names it too. A password is never in it.

use std::borrow::Cow;
use std::env;

use clap::CommandFactory;

use super::Cli;

/// How every proposed command begins.
const PROPOSED: &str = "`handfast ";

/// What a command needs to ask the same server again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reach(Option<String>);

impl Reach {
    /// The server that was named; `by_itself` is the one that is asked where none is.
    pub(super) fn of(server: &str, by_itself: &str) -> Self {
        let named = (server != by_itself).then(|| quoted(&without_user(server)));
        Self(named.map(|url| format!(" --server {url}")))
    }

    /// The same of the flag, which the environment may have set.
    pub(super) fn of_flag(server: &str, default: &str) -> Self {
        let by_itself = env::var("HANDFAST_SERVER").unwrap_or_else(|_| default.to_owned());
        Self::of(server, &by_itself)
    }

    /// A command that asks a server.
    pub(super) fn command(&self, command: &str) -> String {
        format!("{command}{}", self.0.as_deref().unwrap_or_default())
    }

    /// A text in which commands may be proposed, in backticks.
    pub(super) fn commands<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let Some(flag) = self.0.as_deref().filter(|_| text.contains(PROPOSED)) else {
            return Cow::Borrowed(text);
        };
        let mut said = String::with_capacity(text.len() + flag.len());
        let mut rest = text;
        while let Some(at) = rest.find(PROPOSED) {
            let (before, command) = rest.split_at(at);
            let end = command[1..].find('`').map_or(command.len(), |end| end + 1);
            let (command, after) = command.split_at(end);
            said.push_str(before);
            said.push_str(command);
            if asks_a_server(&command[PROPOSED.len()..]) && !after.is_empty() {
                said.push_str(flag);
            }
            rest = after;
        }
        said.push_str(rest);
        Cow::Owned(said)
    }
}

/// Help is the same everywhere, and so is what is done to files.
fn asks_a_server(arguments: &str) -> bool {
    let name = arguments.split_whitespace().next().unwrap_or_default();
    let is_help = arguments.split_whitespace().any(|word| word == "--help");
    let cli = Cli::command();
    let found = cli.find_subcommand(name);
    !is_help && found.is_some_and(|c| c.get_arguments().any(|flag| flag.get_id() == "server"))
}

/// Whoever runs it again has the password, and nobody else is to read it.
fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let start = rest[..authority].rfind('@').map_or(0, |at| at + 1);
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{}", &rest[start..])
}

/// As one word of a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:._-%@+=,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposed_command_names_the_server_that_was_named() {
        let text = "see `handfast tx show 7`, `handfast tx resolve --help` or `handfast explain x`; \
                    `handfast serve` and `handfast indoubt`. `handfast tx";
        assert_eq!(Reach::of("http://a:1", "http://a:1").commands(text), text);
        let there = Reach::of("http://b:1", "http://a:1");
        assert_eq!(
            there.commands(text),
            "see `handfast tx show 7 --server http://b:1`, `handfast tx resolve --help` or `handfast \
             explain x`; `handfast serve` and `handfast indoubt --server http://b:1`. `handfast tx"
        );
        assert_eq!(there.command("handfast tx list"), "handfast tx list --server http://b:1");
        assert_eq!(there.commands("nothing to do"), "nothing to do");
    }

    #[test]
    fn a_server_is_one_word_and_has_no_password() {
        for (server, word) in [
            ("b:7400", "b:7400"),
            ("http://me:se@cret@b:1/x@y", "http://b:1/x@y"),
            ("me:secret@b:1", "b:1"),
            ("http://[::1]:7400", "'http://[::1]:7400'"),
            ("http://b/it's;rm", "'http://b/it'\\''s;rm'"),
        ] {
            let reach = Reach::of(server, "");
            assert_eq!(reach.command("x"), format!("x --server {word}"));
        }
    }
}
