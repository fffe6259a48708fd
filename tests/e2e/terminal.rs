//! A terminal for the stories: gehen runs in it as a person's shell would start it, and an emulator says what it shows.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::support::Gehen;

/// How long the reader waits for news at once.
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How long a story waits until the terminal shows what it is to show.
const LONGEST: Duration = Duration::from_mins(1);

/// A new terminal: the end that a person sits at, and the one for programs.
pub fn open() -> (OwnedFd, OwnedFd) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
    let terminal = terminal.expect("a terminal can be had");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("the terminal can be unlocked");
    let name = ptsname(&terminal, Vec::new()).expect("the terminal has a name");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let program = rustix::fs::open(name, flags, Mode::empty()).expect("the terminal can be opened");
    (terminal, program)
}

/// A run of gehen in a terminal of its own.
pub struct InTerminal {
    child: Child,
    terminal: File,
    shown: Arc<Mutex<Shown>>,
    reader: JoinHandle<()>,
    /// Asks the reader to let go of the terminal.
    hung_up: Arc<AtomicBool>,
    /// Its folder is there as long as this is.
    _gehen: Gehen,
}

/// What the run has written.
struct Shown {
    emulator: vt100::Parser,
    bytes: Vec<u8>,
}

impl InTerminal {
    /// Starts gehen with these arguments in a terminal of `rows` and `columns`.
    pub fn start(gehen: Gehen, (rows, columns): (u16, u16), arguments: &[&str]) -> Self {
        let (terminal, program) = open();
        tcsetwinsize(&terminal, size(rows, columns)).expect("the terminal can be sized");
        let another = || program.try_clone().expect("a file can be opened twice");
        // As a shell would: a session whose terminal this is, so that Ctrl-C reaches it.
        let child = gehen
            .prepare(Command::new("setsid").args(["--ctty", env!("CARGO_BIN_EXE_gehen")]).args(arguments))
            .stdin(another())
            .stdout(another())
            .stderr(another())
            .spawn()
            .expect("gehen can be started");
        let terminal = File::from(terminal);
        let mut reading = terminal.try_clone().expect("a file can be opened twice");
        let shown = Arc::new(Mutex::new(Shown { emulator: vt100::Parser::new(rows, columns, 0), bytes: Vec::new() }));
        let all = Arc::clone(&shown);
        let hung_up = Arc::new(AtomicBool::default());
        let is_hung_up = Arc::clone(&hung_up);
        let reader = std::thread::spawn(move || {
            let mut some = [0; 4096];
            while !is_hung_up.load(Ordering::Relaxed) {
                let mut ready = [PollFd::new(&reading, PollFlags::IN)];
                if !matches!(poll(&mut ready, Some(&MOMENT)), Ok(1..)) {
                    continue;
                }
                // Once no program has the terminal open any more, reading from it fails.
                let Ok(count @ 1..) = reading.read(&mut some) else { return };
                let mut shown = all.lock().expect("nobody panics with the screen");
                shown.emulator.process(&some[..count]);
                shown.bytes.extend_from_slice(&some[..count]);
            }
        });
        Self { child, terminal, shown, reader, hung_up, _gehen: gehen }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().expect("nobody panics with the screen")
    }

    /// The rows of the screen that aren't empty, as they are seen.
    pub fn rows(&self) -> Vec<String> {
        let shown = self.shown();
        let screen = shown.emulator.screen();
        screen.rows(0, screen.size().1).map(|row| row.trim_end().to_owned()).filter(|row| !row.is_empty()).collect()
    }

    /// Waits until the rows of the screen are as `expected`.
    #[track_caller]
    pub fn until(&self, expected: impl Fn(&[String]) -> bool) {
        let since = Instant::now();
        while !expected(&self.rows()) {
            assert!(since.elapsed() < LONGEST, "the screen still shows:\n{}", self.rows().join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How often `text` has been written.
    pub fn times(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.shown().bytes).matches(text).count()
    }

    /// Makes the terminal another size.
    pub fn resize(&self, rows: u16, columns: u16) {
        let mut shown = self.shown();
        tcsetwinsize(&self.terminal, size(rows, columns)).expect("the terminal can be sized");
        shown.emulator.screen_mut().set_size(rows, columns);
    }

    /// Types `keys`.
    pub fn types(&self, keys: &[u8]) {
        (&self.terminal).write_all(keys).expect("the terminal takes keys");
    }

    /// Takes the terminal away, of which the system tells gehen by SIGHUP, and waits for the end of the run.
    pub fn hang_up(self) -> ExitStatus {
        let Self { mut child, terminal, reader, hung_up, .. } = self;
        hung_up.store(true, Ordering::Relaxed);
        reader.join().expect("the reader ends");
        drop(terminal);
        child.wait().expect("the run ends")
    }

    /// Waits for the end of the run. Gives its exit code, what the terminal shows then, as lines without the breaks
    /// that a narrow terminal makes, and all that was written.
    pub fn wait(mut self) -> (Option<i32>, Vec<String>, String) {
        let status = self.child.wait().expect("the run ends");
        self.reader.join().expect("the reader ends");
        let shown = self.shown.lock().expect("nobody panics with the screen");
        let screen = shown.emulator.screen();
        assert!(!screen.hide_cursor(), "the cursor is hidden");
        assert_eq!(screen.cursor_position().1, 0, "the cursor is not at the begin of a line:\n{}", screen.contents());
        let lines = screen.contents().lines().map(|line| line.trim_end().to_owned()).collect();
        (status.code(), lines, String::from_utf8_lossy(&shown.bytes).into_owned())
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
