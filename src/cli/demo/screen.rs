//! Where the demo prints: a terminal, where the table is redrawn in place, or a pipe, where every
//! line stays. Not what is printed.

use super::DemoError;
use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    /// Lines of the block drawn last, which the next one replaces.
    drawn: usize,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), drawn: 0 }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns and lines of the terminal; of a pipe what a document has.
    pub(super) fn size(&self) -> (usize, usize) {
        let size =
            self.terminal.then(|| rustix::termios::tcgetwinsize(io::stdout()).ok()).flatten();
        match size {
            Some(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (usize::from(size.ws_col), usize::from(size.ws_row))
            }
            _ => (COLUMNS, LINES),
        }
    }

    /// Prints a line, or several, that stay.
    ///
    /// # Errors
    /// When the output was closed.
    pub(super) fn say(&mut self, text: &dyn fmt::Display) -> Result<(), DemoError> {
        self.drawn = 0;
        // On a terminal Ctrl-C has left `^C` at the start of this line.
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        write(&format!("{start}{text}\n"))
    }

    /// Prints a block in the place of the one before it.
    ///
    /// # Errors
    /// When the output was closed.
    pub(super) fn draw(&mut self, block: &str) -> Result<(), DemoError> {
        if !self.terminal {
            return write(block);
        }
        // Lines longer than the terminal is wide must not wrap, or the way back up is longer.
        let mut text = String::from("\r\x1b[?7l");
        if self.drawn > 0 {
            text += &format!("\x1b[{}A", self.drawn);
        }
        for line in block.lines() {
            text += &format!("{line}\x1b[K\n");
        }
        text += "\x1b[J\x1b[?7h";
        self.drawn = block.lines().count();
        write(&text)
    }
}

fn write(text: &str) -> Result<(), DemoError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| DemoError::io(OUTPUT, error))
}

const COLUMNS: usize = 100;
const LINES: usize = 40;
/// What an error of the output says.
pub(super) const OUTPUT: &str = "standard output";
