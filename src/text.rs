//! Text from outside (arguments, headers, reasons from ECS), made harmless before it is shown.

use std::fmt::Write as _;

/// Most characters that one text from outside may take up in a line.
const LONGEST: usize = 600;

/// `text` with every character that could move the cursor, start a new line or reorder what is read written as an
/// escape. The result holds nothing that a CI system takes for a command: a leading `::`, white space before it or not,
/// and `##` anywhere, as in `##[error]` and `##vso[…]` (GitHub's runner, ActionCommand.cs). Escaping twice changes
/// nothing.
pub fn escape(text: &str) -> String {
    let command = text.len() - text.trim_start().len();
    let leads_a_command = text[command..].starts_with("::");
    let mut shown = String::with_capacity(text.len());
    // Not ASCII: the runner may overlook some of those, as it compares by the rules of a language.
    let mut last_ascii = ' ';
    for (index, character) in text.char_indices() {
        let opens_a_command = character == '#' && last_ascii == '#' || leads_a_command && index == command;
        if character.is_ascii() {
            last_ascii = if opens_a_command { ' ' } else { character };
        }
        if moves_the_reader(character) || opens_a_command {
            let _ = write!(shown, "{}", character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// [`escape`] of the first 600 characters of a text from outside.
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => escape(&text[..end]) + "…",
        None => escape(text),
    }
}

/// `text` with `***` for the passwords of urls. What stands between a `://` and the last `@` before the next one counts
/// as a user and a password: rather too much is hidden than too little.
pub fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str("://");
        match part.rsplit_once('@').and_then(|(user, server)| Some((user.split_once(':')?.0, server))) {
            Some((user, server)) => {
                let _ = write!(shown, "{user}:***@{server}");
            }
            None => shown.push_str(part),
        }
    }
    shown
}

/// Names in backticks, with `last` before the last one: `` `a`, `b` and `c` ``.
pub fn listed(names: &[&str], last: &str) -> String {
    match names {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [some @ .., end] => format!("`{}` {last} `{end}`", some.join("`, `")),
    }
}

/// Control characters, line and paragraph separators, and the marks that reverse or hide text.
fn moves_the_reader(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// `3 s`, `1 min 5 s` or `1 h 2 min`, rounded down to whole seconds: as exact as a person wants it.
pub fn duration(time: std::time::Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `1 task`, `2 tasks`.
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn harmless_text_stays_as_it_is() {
        for text in ["", "nginx-abcdef1", "Größe: 5 µs", "a::b", ": a", "#1 of #2", "a # # b"] {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn what_moves_the_cursor_or_leads_a_command_is_escaped() {
        assert_eq!(escape("a\nb"), "a\\u{a}b");
        assert_eq!(escape("\u{1b}[2J"), "\\u{1b}[2J");
        assert_eq!(escape("\u{202e}evil"), "\\u{202e}evil");
        assert_eq!(escape("::error::x"), "\\u{3a}:error::x");
        assert_eq!(escape(" \u{3000}::error::x"), " \u{3000}\\u{3a}:error::x");
        assert_eq!(escape("a ##[error]b"), "a #\\u{23}[error]b");
        assert_eq!(escape("#####"), "#\\u{23}#\\u{23}#");
        assert_eq!(escape("#\u{34f}#[error]"), "#\u{34f}\\u{23}[error]");
    }

    #[test]
    fn an_excerpt_is_cut_between_characters() {
        assert_eq!(excerpt("short"), "short");
        assert_eq!(excerpt(&"ß".repeat(LONGEST + 1)), "ß".repeat(LONGEST) + "…");
    }

    #[test]
    fn no_password_of_a_url_is_shown() {
        for (text, shown) in [
            ("url: https://example.com:8443/a", "url: https://example.com:8443/a"),
            ("mail: me@example.com", "mail: me@example.com"),
            ("https://me@host", "https://me@host"),
            ("'https://me:secret@host/'", "'https://me:***@host/'"),
            ("https://me:a/b c@d@host", "https://me:***@host"),
            ("http://a/, ftp://me:secret@b, http://c", "http://a/, ftp://me:***@b, http://c"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }

    #[test]
    fn names_are_listed_as_people_do() {
        assert_eq!(listed(&[], "and"), "");
        assert_eq!(listed(&["a"], "and"), "`a`");
        assert_eq!(listed(&["a", "b", "c"], "or"), "`a`, `b` or `c`");
    }

    #[test]
    fn durations_read_as_people_say_them() {
        for (seconds, said) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (65, "1 min 5 s"), (3720, "1 h 2 min")] {
            assert_eq!(duration(Duration::from_secs(seconds)), said);
        }
    }

    proptest! {
        #[test]
        fn nothing_escaped_can_break_a_line(text in prop_oneof![any::<String>(), "[ #:\\PC]{0,9}"]) {
            let shown = escape(&text);
            prop_assert!(!shown.chars().any(moves_the_reader));
            prop_assert!(!shown.trim_start().starts_with("::"));
            prop_assert!(!shown.contains("##"));
            prop_assert_eq!(escape(&shown), shown);
        }
    }
}
