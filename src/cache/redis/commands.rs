//! Pipelines of commands, in parts of bounded size.

use redis::{Arg, Cmd, Pipeline};

/// The most bytes and commands of a part; a command that is larger is a part of its own.
const PART_BYTES: usize = 1 << 20;
const PART_COMMANDS: usize = 2000;

/// The most items in one command: the server is blocked while it runs.
const ITEMS_MAX: usize = 500;

/// Approximate overhead of the protocol for one argument.
const ARG_OVERHEAD: usize = 10;

/// Commands in order.
#[derive(Default)]
pub(super) struct Commands {
    parts: Vec<Pipeline>,
    /// Of the last part.
    bytes: usize,
}

/// Arguments for one key, split into as few commands as possible, none of which is very long.
pub(super) struct Fields<'a> {
    name: &'a str,
    key: &'a str,
    command: Option<Cmd>,
    items: usize,
}

// === impl Commands ===

impl Commands {
    pub(super) fn push(&mut self, command: Cmd) {
        let bytes: usize = command
            .args_iter()
            .map(|arg| match arg {
                Arg::Simple(bytes) => bytes.len() + ARG_OVERHEAD,
                _ => ARG_OVERHEAD,
            })
            .sum();
        let has_room = self.bytes + bytes <= PART_BYTES
            && self
                .parts
                .last()
                .is_some_and(|part| part.len() < PART_COMMANDS);
        if !has_room {
            self.parts.push(Pipeline::new());
            self.bytes = 0;
        }
        self.bytes += bytes;
        if let Some(part) = self.parts.last_mut() {
            part.add_command(command);
        }
    }

    pub(super) fn parts(self) -> Vec<Pipeline> {
        self.parts
    }
}

impl From<Cmd> for Commands {
    fn from(command: Cmd) -> Self {
        let mut commands = Self::default();
        commands.push(command);
        commands
    }
}

impl FromIterator<Cmd> for Commands {
    fn from_iter<I: IntoIterator<Item = Cmd>>(iterator: I) -> Self {
        let mut commands = Self::default();
        iterator
            .into_iter()
            .for_each(|command| commands.push(command));
        commands
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// For commands such as `HSET key field value …`.
    pub(super) fn new(name: &'a str, key: &'a str) -> Self {
        Self {
            name,
            key,
            command: None,
            items: 0,
        }
    }

    /// Adds one item, which may be several arguments.
    pub(super) fn add(&mut self, commands: &mut Commands, item: &[&str]) {
        let (name, key) = (self.name, self.key);
        let command = self
            .command
            .get_or_insert_with(|| redis::cmd(name).arg(key).take());
        for arg in item {
            command.arg(arg);
        }
        self.items += 1;
        if self.items == ITEMS_MAX {
            self.end(commands);
        }
    }

    pub(super) fn end(&mut self, commands: &mut Commands) {
        self.items = 0;
        if let Some(command) = self.command.take() {
            commands.push(command);
        }
    }
}

/// The name of a command and its key, as text.
pub(super) fn name_and_key(command: &Cmd) -> (String, Option<String>) {
    let mut texts = command.args_iter().filter_map(|arg| match arg {
        Arg::Simple(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    });
    let name = texts.next().unwrap_or_default().to_owned();
    let key = texts.find(|text| text.starts_with("t:")).map(Into::into);
    (name, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(len: usize) -> Cmd {
        let mut command = redis::cmd("SET");
        command.arg("t:x").arg(vec![b'x'; len]);
        command
    }

    #[test]
    fn parts_are_bounded_in_bytes_and_commands() {
        let lens = |sizes: &[usize]| -> Vec<usize> {
            let commands: Commands = sizes.iter().map(|&size| command(size)).collect();
            commands.parts().iter().map(Pipeline::len).collect()
        };
        assert_eq!(lens(&[]), [0; 0]);
        assert_eq!(lens(&[1, 2, 3]), [3]);
        assert_eq!(lens(&[1, 3 << 20, 1, 1]), [1, 1, 2]);
        assert_eq!(lens(&vec![1; PART_COMMANDS + 1]), [PART_COMMANDS, 1]);
    }

    #[test]
    fn the_key_is_found_wherever_it_stands() {
        let mut read = redis::cmd("XINFO");
        read.arg("STREAM").arg("t:control");
        assert_eq!(
            name_and_key(&read),
            ("XINFO".into(), Some("t:control".into()))
        );
    }
}
