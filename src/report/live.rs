//! The live lines below the log on a terminal: one for each service that is being deployed.

use std::{
    fmt,
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use super::progress::Board;

/// How often the lines are drawn anew: often enough that no second is left out.
const TICK: Duration = Duration::from_millis(500);

/// The live lines.
pub struct Live {
    bar: ProgressBar,
}

impl Live {
    /// Begins to show what `board` says; nothing as long as no service is being deployed.
    pub fn start(board: Arc<Mutex<Board>>, colour: bool) -> Self {
        let terminal = Term::stderr();
        let rows = move |_: &ProgressState, text: &mut dyn fmt::Write| {
            let (height, width) = terminal.size();
            let board = board.lock().unwrap_or_else(PoisonError::into_inner);
            let rows = board.rows(height.into(), width.into(), colour, Instant::now());
            let _ = text.write_str(&rows.join("\n"));
        };
        let style = ProgressStyle::with_template("{rows}").expect("the template is sound").with_key("rows", rows);
        let screen = ProgressDrawTarget::term_like(Box::new(Screen::default()));
        let bar = ProgressBar::with_draw_target(None, screen).with_style(style);
        bar.enable_steady_tick(TICK);
        Self { bar }
    }

    /// Does `print` while the live lines are out of the way.
    pub fn above(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Takes the live lines away for good.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Draws for indicatif in a way that survives a change of the terminal's size. Between two drawings the cursor stands
/// where the lines begin, so that erasing all below it erases them, even where the terminal has wrapped them anew; and
/// no line can wrap while it is drawn. Of what indicatif asks for, only the lines matter, then: it knows nothing of
/// other places. A terminal that has gone away is no error.
#[derive(Debug, Default)]
struct Screen {
    drawn: Mutex<Drawn>,
}

/// The lines that are to be drawn, and whether some are on the screen.
#[derive(Debug, Default)]
struct Drawn {
    lines: Vec<String>,
    is_visible: bool,
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        Term::stderr().size().1
    }

    fn height(&self) -> u16 {
        Term::stderr().size().0
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.write_str(line)
    }

    fn write_str(&self, line: &str) -> io::Result<()> {
        // Lines are filled up with spaces, which would only wrap.
        if !line.trim().is_empty() {
            self.drawn.lock().unwrap_or_else(PoisonError::into_inner).lines.push(line.to_owned());
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut drawn.lines);
        let was_visible = std::mem::replace(&mut drawn.is_visible, !lines.is_empty());
        if was_visible || drawn.is_visible {
            let _ = io::stderr().lock().write_all(frame(&lines).as_bytes());
        }
        Ok(())
    }
}

/// What replaces all below the cursor by `lines`, and leaves it where they begin.
fn frame(lines: &[String]) -> String {
    let erase = "\r\x1b[J";
    match lines.len() {
        0 => erase.to_owned(),
        1 => format!("{erase}\x1b[?7l{}\x1b[?7h\r", lines[0]),
        count => format!("{erase}\x1b[?7l{}\x1b[?7h\x1b[{}A\r", lines.join("\r\n"), count - 1),
    }
}
