//! What bash, zsh and fish complete after `gehen`.

use clap::ValueEnum;
use clap_complete::{Shell as Generated, generate};

use super::single_dashed;

/// A shell that completions can be printed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash, from version 4 on.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// The script by which `shell` completes the flags of `definition`, with a single dash.
pub fn script(shell: Shell, mut definition: clap::Command) -> String {
    let generator = match shell {
        Shell::Bash => Generated::Bash,
        Shell::Zsh => Generated::Zsh,
        Shell::Fish => Generated::Fish,
    };
    let mut script = Vec::new();
    generate(generator, &mut definition, "gehen", &mut script);
    let script = String::from_utf8(script).expect("clap's texts are UTF-8");
    match shell {
        Shell::Bash => single_dashed(&script),
        // A value stands in the next word, as in the help.
        Shell::Zsh => single_dashed(&script).replace("=[", "["),
        // What fish calls old-style options has a single dash. gehen takes no files but after a flag.
        Shell::Fish => script.replace("gehen -l ", "gehen -o ") + "complete -c gehen -f\n",
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::{Flags, as_shown};
    use super::*;

    #[test]
    fn each_script_names_each_flag_with_a_single_dash() {
        for (shell, before) in [(Shell::Bash, "-"), (Shell::Zsh, "-"), (Shell::Fish, "-o ")] {
            let script = script(shell, as_shown(Flags::command()));
            for flag in Flags::command().get_arguments().filter_map(|flag| flag.get_long().map(str::to_owned)) {
                assert!(script.contains(&format!("{before}{flag}")), "{shell:?}: {flag} is not in:\n{script}");
                for wrong in [format!("--{flag}"), format!("-l {flag}")] {
                    assert!(!script.contains(&wrong), "{shell:?}: {wrong} is in:\n{script}");
                }
            }
        }
    }
}
