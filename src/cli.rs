//! The command line: its definition, whose doc comments are the help text, in Go's single-dash spelling.

mod completions;
mod man;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    ArgAction, CommandFactory, FromArgMatches, Parser, ValueEnum, ValueHint,
    error::{ContextKind, ContextValue, ErrorKind},
    value_parser,
};

use self::completions::Shell;
use crate::{config, git_sha::GitSha, text::excerpt};

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Deploy, or say what deploying would do.
    Deploy(Request),
    /// Print this text to stdout: the help, gehen's own version, the schema of gehen.yml, or a file that belongs to an
    /// installation.
    Print(String),
}

/// What is to be deployed, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The version, as given with `-gitsha`.
    pub version: GitSha,
    /// The file, as given with `-path`.
    pub path: PathBuf,
    /// The names of the services and scheduled tasks that were named with `-only`; none means all.
    pub only: Vec<String>,
    /// Whether only to say what would be done, as asked for with `-dry-run`.
    pub dry_run: bool,
    /// The form of the log, as given with `-log-format`.
    pub log_format: LogFormat,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The exit codes and what they mean.
const EXIT_CODES: [(u8, &str); 3] = [
    (0, "deployed: the new version is proven live and the old one unreachable"),
    (1, "failed: the last lines say why and what runs now"),
    (2, "the new version is live, but the time for draining the old one ran out"),
];

/// Puts a new version of services onto AWS ECS and stays until it is proven live or undone.
#[derive(Debug, Parser)]
#[command(
    name = "gehen",
    override_usage = "gehen -gitsha <sha> [flags]",
    disable_help_flag = true,
    args_override_self = true,
    after_help = exit_codes(),
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
struct Flags {
    /// Git SHA of the version to deploy, which is the tag of its images: 7 to 64 hexadecimal digits
    #[arg(long, value_name = "sha", value_hint = ValueHint::Other)]
    gitsha: Option<GitSha>,

    /// File that lists the services and scheduled tasks
    #[arg(long, value_name = "file", default_value = "gehen.yml", value_hint = ValueHint::FilePath)]
    path: PathBuf,

    /// Deploy only these services and scheduled tasks of the file, and in its order
    #[arg(long, value_name = "name,…", value_parser = names, value_hint = ValueHint::Other)]
    #[arg(action = ArgAction::Append)]
    only: Vec<Names>,

    /// Say what would be deployed and where a rollback would go, and change nothing
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    #[arg(action = ArgAction::Set, default_value = "false", hide_default_value = true, value_name = "bool")]
    dry_run: bool,

    /// Form of the log: text, or json for one object a line
    #[arg(long, value_name = "form", default_value = "text", value_enum, hide_possible_values = true)]
    log_format: LogFormat,

    /// Print the JSON Schema of gehen.yml, for editors
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    #[arg(action = ArgAction::Set, default_value = "false", hide_default_value = true, value_name = "bool")]
    schema: bool,

    /// Print the completions for a shell: bash, zsh or fish
    #[arg(long, value_name = "shell", value_enum, hide_possible_values = true)]
    completions: Option<Shell>,

    /// Print the man page
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    #[arg(action = ArgAction::Set, default_value = "false", hide_default_value = true, value_name = "bool")]
    man: bool,

    /// Print the version of gehen
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    #[arg(action = ArgAction::Set, default_value = "false", hide_default_value = true, value_name = "bool")]
    version: bool,

    /// Print this help
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    #[arg(action = ArgAction::Set, default_value = "false", hide_default_value = true, value_name = "bool")]
    help: bool,
}

/// Reads the arguments that follow the program's name. The error is one line that ends with the way out.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut definition = Flags::command();
    let flags = definition
        .try_get_matches_from_mut(as_long_flags(&definition, arguments))
        .and_then(|matches| Flags::from_arg_matches(&matches))
        .map_err(|error| explain(&definition, &error))?;
    if flags.help {
        return Ok(Command::Print(single_dashed(&as_shown(definition).render_help().to_string())));
    }
    if flags.version {
        return Ok(Command::Print(concat!("gehen version ", env!("CARGO_PKG_VERSION"), "\n").to_owned()));
    }
    if flags.schema {
        return Ok(Command::Print(config::schema()));
    }
    if flags.man {
        return Ok(Command::Print(man::page(as_shown(definition))));
    }
    if let Some(shell) = flags.completions {
        return Ok(Command::Print(completions::script(shell, as_shown(definition))));
    }
    match flags.gitsha {
        Some(version) => Ok(Command::Deploy(Request {
            version,
            path: flags.path,
            only: flags.only.into_iter().flat_map(|Names(names)| names).collect(),
            dry_run: flags.dry_run,
            log_format: flags.log_format,
        })),
        None => {
            Err("-gitsha is missing: give the Git SHA to deploy, as in `gehen -gitsha $(git rev-parse HEAD)`".into())
        }
    }
}

/// The form of the log that the arguments ask for, whatever else is wrong with them.
pub fn log_format(arguments: &[OsString]) -> LogFormat {
    let asked = as_long_flags(&Flags::command(), arguments.iter().cloned()).into_iter();
    let asked = asked.take_while(|argument| argument != "--");
    let value = asked.filter_map(|argument| Some(argument.to_str()?.strip_prefix("--log-format=")?.to_owned())).last();
    value.and_then(|value| LogFormat::from_str(&value, false).ok()).unwrap_or_default()
}

/// Rewrites Go's spelling into the one that clap reads: `-flag`, `--flag`, `-flag=value` and `-flag value` become
/// `--flag` and `--flag=value`. As in Go's flag package, the first argument that is no flag ends the flags.
fn as_long_flags(definition: &clap::Command, arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let takes_value = |name: &str| {
        definition
            .get_arguments()
            .any(|flag| flag.get_long() == Some(name) && flag.get_num_args().is_none_or(|count| count.min_values() > 0))
    };
    let mut arguments = arguments.into_iter();
    let mut rewritten = vec![OsString::from("gehen")];
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        let Some(name) = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).filter(|name| !name.is_empty())
        else {
            rewritten.push("--".into());
            rewritten.extend((text != "--").then_some(argument));
            rewritten.extend(arguments);
            break;
        };
        let mut flag = OsString::from(if name == "h" { "--help".to_owned() } else { format!("--{name}") });
        if takes_value(name)
            && let Some(value) = arguments.next()
        {
            flag.push("=");
            flag.push(value);
        }
        rewritten.push(flag);
    }
    rewritten
}

/// The names that one `-only` gives.
#[derive(Clone, Debug)]
struct Names(Vec<String>);

fn names(text: &str) -> Result<Names, &'static str> {
    let names: Vec<_> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err("give names from the file, with a comma between them");
    }
    Ok(Names(names))
}

/// The values that Go's `strconv.ParseBool` accepts.
fn go_bool(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("give true or false, or leave the value out"),
    }
}

/// The definition as the texts that are made of it show it: a flag that may be switched off with `=false` is just a
/// flag.
fn as_shown(definition: clap::Command) -> clap::Command {
    definition.mut_args(|flag| match flag.get_num_args() {
        Some(count) if count.min_values() == 0 => {
            let plain = flag.num_args(0).require_equals(false).default_missing_value(None);
            let plain = plain.default_value(None).hide_default_value(false);
            plain.action(ArgAction::SetTrue).value_parser(value_parser!(bool))
        }
        _ => flag,
    })
}

/// A text that clap made, with the flags spelled as the user types them. Nothing else in it has two dashes before a
/// letter.
fn single_dashed(text: &str) -> String {
    let mut parts = text.split("--");
    let mut spelled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        spelled.push_str(if part.starts_with(|next: char| next.is_ascii_alphabetic()) { "-" } else { "--" });
        spelled.push_str(part);
    }
    spelled
}

/// The end of the help.
fn exit_codes() -> String {
    let lines = EXIT_CODES.map(|(code, meaning)| format!("\n  {code}  {meaning}"));
    format!("Exit codes:{}\n", lines.concat())
}

/// One line for an error of clap's: what is wrong, and the way out.
fn explain(definition: &clap::Command, error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let argument = context(ContextKind::InvalidArg);
    let flag = argument.split_whitespace().next().unwrap_or_default();
    let flag =
        excerpt(&flag.strip_prefix('-').filter(|rest| rest.starts_with('-')).unwrap_or(flag).replace("[=<bool>]", ""));
    let value = excerpt(context(ContextKind::InvalidValue));
    let valid = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) => valid.as_slice(),
        _ => &[],
    };
    let known: Vec<_> = definition.get_arguments().filter_map(|flag| Some(format!("-{}", flag.get_long()?))).collect();
    let known = known.join(", ");
    match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            format!("unknown flag {flag}: the flags are {known}; `gehen -help` explains them")
        }
        ErrorKind::UnknownArgument => {
            format!("stray argument `{}`: gehen takes flags only ({known})", excerpt(argument))
        }
        ErrorKind::ValueValidation => {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("{flag}: `{value}` won't do: {cause}")
        }
        ErrorKind::InvalidValue if !valid.is_empty() && !value.is_empty() => {
            format!("{flag}: `{value}` won't do: give {}", choice(valid))
        }
        _ if value.is_empty() => format!("{flag} needs a value, as in `{flag} <value>`; `gehen -help` explains it"),
        _ => format!("{flag}: `{value}` won't do; `gehen -help` explains it"),
    }
}

/// `a`, `a or b`, or `a, b or c`.
fn choice(words: &[String]) -> String {
    match words {
        [some @ .., last] if !some.is_empty() => format!("{} or {last}", some.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Command, String> {
        parse(line.iter().map(OsString::from))
    }

    fn deploy(version: &str, path: &str) -> Command {
        Command::Deploy(request(version, path))
    }

    fn request(version: &str, path: &str) -> Request {
        Request {
            version: version.parse().expect("a Git SHA"),
            path: path.into(),
            only: Vec::new(),
            dry_run: false,
            log_format: LogFormat::Text,
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Flags::command().debug_assert();
    }

    #[test]
    fn every_spelling_of_go_works() {
        for line in [
            &["-gitsha", "abcdef1", "-path", "a.yml"][..],
            &["--gitsha", "abcdef1", "--path", "a.yml"],
            &["-gitsha=abcdef1", "-path=a.yml"],
            &["--gitsha=abcdef1", "--path=a.yml"],
            &["-path", "a.yml", "-gitsha", "abcdef1"],
            &["-gitsha", "0000000", "-path", "b.yml", "-path", "a.yml", "-gitsha", "abcdef1"],
            &["-version=false", "-gitsha", "abcdef1", "-path", "a.yml", "--"],
        ] {
            assert_eq!(parsed(line), Ok(deploy("abcdef1", "a.yml")), "{line:?}");
        }
        assert_eq!(parsed(&["-gitsha", "abcdef1"]), Ok(deploy("abcdef1", "gehen.yml")));
        assert_eq!(parsed(&["-gitsha", "abcdef1", "-path", "-odd.yml"]), Ok(deploy("abcdef1", "-odd.yml")));
        assert_eq!(parsed(&["-gitsha", "abcdef1", "-path", "a=b--c.yml"]), Ok(deploy("abcdef1", "a=b--c.yml")));
    }

    #[test]
    fn flags_that_may_be_left_out_say_what_else_to_do() {
        let given = ["-gitsha", "abcdef1", "-dry-run", "-only", "api, worker", "-log-format=json"];
        let expected = Request {
            only: vec!["api".into(), "worker".into()],
            dry_run: true,
            log_format: LogFormat::Json,
            ..request("abcdef1", "gehen.yml")
        };
        assert_eq!(parsed(&given), Ok(Command::Deploy(expected)));
    }

    #[test]
    fn the_names_of_each_only_count() {
        let given = ["-gitsha", "abcdef1", "-only", "api", "-only=web,worker", "-only", "api"];
        let expected =
            Request { only: ["api", "web", "worker", "api"].map(Into::into).into(), ..request("abcdef1", "gehen.yml") };
        assert_eq!(parsed(&given), Ok(Command::Deploy(expected)));
    }

    #[test]
    fn version_and_help_need_no_git_sha() {
        let version = Ok(Command::Print(format!("gehen version {}\n", env!("CARGO_PKG_VERSION"))));
        for line in [["-version"], ["--version"], ["-version=true"], ["-version=T"]] {
            assert_eq!(parsed(&line), version, "{line:?}");
        }
        for line in [["-h"], ["-help"], ["--help"]] {
            let Ok(Command::Print(help)) = parsed(&line) else { panic!("{line:?} prints the help") };
            assert!(help.contains(" -gitsha <sha>") && !help.contains("--"), "{help}");
        }
    }

    #[test]
    fn the_files_of_an_installation_need_no_git_sha() {
        for (line, beginning) in [
            (&["-man"][..], ".ie "),
            (&["-completions", "bash"], "_gehen() {"),
            (&["-completions=zsh"], "#compdef gehen"),
            (&["--completions", "fish"], "complete -c gehen -o gitsha "),
        ] {
            let Ok(Command::Print(text)) = parsed(line) else { panic!("{line:?} prints a text") };
            assert!(text.starts_with(beginning) && text.ends_with('\n'), "{text}");
        }
    }

    #[test]
    fn only_two_dashes_before_a_letter_are_made_one() {
        for (text, spelled) in [("--path --a-b", "-path -a-b"), ("a -- b", "a -- b"), ("--", "--"), ("---", "---")] {
            assert_eq!(single_dashed(text), spelled);
        }
    }

    #[test]
    fn every_mistake_is_one_line_with_the_way_out() {
        let known = Flags::command();
        let known: Vec<_> = known.get_arguments().filter_map(|flag| Some(format!("-{}", flag.get_long()?))).collect();
        let known = known.join(", ");
        for (line, message) in [
            (&[][..], "-gitsha is missing: give the Git SHA to deploy, as in `gehen -gitsha $(git rev-parse HEAD)`"),
            (&["-gitsha"], "-gitsha needs a value, as in `-gitsha <value>`; `gehen -help` explains it"),
            (&["-gitsha", ""], "-gitsha: `` won't do: a Git SHA has 7 to 64 hexadecimal digits"),
            (&["-gitsha="], "-gitsha: `` won't do: a Git SHA has 7 to 64 hexadecimal digits"),
            (&["-gitsha", "latest"], "-gitsha: `latest` won't do: a Git SHA has 7 to 64 hexadecimal digits"),
            (&["-gitsha", "-path"], "-gitsha: `-path` won't do: a Git SHA has 7 to 64 hexadecimal digits"),
            (&["-gitsha", "a\nb"], "-gitsha: `a\\u{a}b` won't do: a Git SHA has 7 to 64 hexadecimal digits"),
            (&["-gitsha", "abcdef1", "-path"], "-path needs a value, as in `-path <value>`; `gehen -help` explains it"),
            (&["-sha", "abcdef1"], &format!("unknown flag -sha: the flags are {known}; `gehen -help` explains them")),
            (&["--git"], &format!("unknown flag -git: the flags are {known}; `gehen -help` explains them")),
            (&["-gitsha", "abcdef1", "now"], &format!("stray argument `now`: gehen takes flags only ({known})")),
            (&["now", "-gitsha", "abcdef1"], &format!("stray argument `now`: gehen takes flags only ({known})")),
            (
                &["-gitsha", "abcdef1", "-only", "api,"],
                "-only: `api,` won't do: give names from the file, with a comma between them",
            ),
            (&["-log-format", "xml"], "-log-format: `xml` won't do: give text or json"),
            (&["-completions", "sh"], "-completions: `sh` won't do: give bash, zsh or fish"),
            (&["-completions"], "-completions needs a value, as in `-completions <value>`; `gehen -help` explains it"),
            (&["-version=maybe"], "-version: `maybe` won't do: give true or false, or leave the value out"),
        ] {
            assert_eq!(parsed(line), Err(message.to_owned()), "{line:?}");
        }
    }
}
