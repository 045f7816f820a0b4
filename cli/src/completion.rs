//! `kubectl cupcake completion`: the words of this command, for the completion of kubectl.
//!
//! kubectl (since 1.26) completes the words of a plugin by calling `kubectl_complete-NAME` with those typed so far. It prints what the last of them may
//! be, one a line, and then a colon with what the shell is to do: 4 for nothing else, 0 for names of files where none is given.
//! Source: <https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/> (1.34), "kubectl completion for plugins", and the
//! directives of cobra.

use crate::args::Args;
use crate::exit::Exit;
use crate::out;
use clap::{Arg, Command, CommandFactory as _};

/// What kubectl calls for the words of this plugin.
const SCRIPT: &str = "#!/usr/bin/env sh\nexec kubectl-cupcake __complete -- \"$@\"";
/// The shell is to add names of files.
const FILES: &str = ":0";
/// The shell is to add nothing.
const NO_FILES: &str = ":4";

/// Prints the file that kubectl looks for.
pub(crate) fn script() -> Exit {
    out::line(SCRIPT);
    Exit::Done
}

/// Prints what the last of the words may be.
pub(crate) fn answer(words: &[String]) -> Exit {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    lines(&mut Args::command(), &words).into_iter().for_each(out::line);
    Exit::Done
}

/// The candidates, then the directive.
fn lines(root: &mut Command, words: &[&str]) -> Vec<String> {
    // Options that every command takes are known to each only then.
    root.build();
    let (last, before) = words.split_last().map_or(("", [].as_slice()), |(last, before)| (*last, before));
    let mut command: &Command = root;
    let mut wants: Option<&Arg> = None;
    for word in before {
        if wants.take().is_some() {
            continue;
        }
        wants = option(command, word).filter(|option| option.get_action().takes_values());
        if let Some(sub) = command.find_subcommand(word) {
            command = sub;
        }
    }
    let (candidates, directive) = match wants {
        Some(option) => values(option),
        None if last.starts_with('-') => (options(command), NO_FILES),
        None => (commands(command), NO_FILES),
    };
    let fits = candidates.into_iter().filter(|candidate| candidate.starts_with(last));
    fits.chain([directive.to_owned()]).collect()
}

/// The option that a word names, unless it brings its value along.
fn option<'c>(command: &'c Command, word: &str) -> Option<&'c Arg> {
    let named = |option: &&Arg| {
        let long = option.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
        long || option.get_short().is_some_and(|short| word.strip_prefix('-') == Some(short.to_string().as_str()))
    };
    command.get_opts().find(named)
}

fn options(command: &Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|option| !option.is_hide_set());
    shown.filter_map(|option| option.get_long().map(|long| format!("--{long}"))).collect()
}

fn commands(command: &Command) -> Vec<String> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(|sub| sub.get_name().to_owned()).collect()
}

fn values(option: &Arg) -> (Vec<String>, &'static str) {
    let values: Vec<String> = option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let directive = if values.is_empty() { FILES } else { NO_FILES };
    (values, directive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn of(words: &[&str]) -> String {
        lines(&mut Args::command(), words).join(" ")
    }

    #[test]
    fn each_word_is_completed_by_what_may_stand_there_and_hidden_words_are_not_told() {
        assert_eq!(of(&["pl"]), "plan :4");
        assert_eq!(of(&["__"]), ":4");
        assert!(of(&[""]).starts_with("sandbox simulate plan preflight"), "{}", of(&[""]));
        assert_eq!(of(&["status", "-o", ""]), "json yaml wide :4");
        assert_eq!(of(&["status", "--output", "y"]), "yaml :4");
        assert_eq!(of(&["plan", "-f", "up"]), ":0", "a file");
        assert_eq!(of(&["plan", "-f", "update.yaml", "--com"]), "--commands :4");
        assert_eq!(of(&["plan", "--kubec"]), "--kubeconfig :4", "an option of every command");
        assert_eq!(of(&["--context", "plan", "sta"]), "status :4", "the value of an option is no command");
    }

    #[test]
    fn the_script_hands_over_the_words_that_kubectl_gives_it() {
        assert!(SCRIPT.ends_with("kubectl-cupcake __complete -- \"$@\""));
        let parsed = Args::try_parse_from(["kubectl-cupcake", "__complete", "--", "status", "-o", ""]).unwrap();
        let crate::args::Command::Complete(args) = parsed.command else { panic!("another command") };
        assert_eq!(args.words, ["status", "-o", ""]);
    }
}
