//! Pipelines of commands, in parts of bounded size.

use std::borrow::Cow;
use std::sync::OnceLock;

use data_encoding::HEXLOWER;
use redis::{Arg, Cmd, Pipeline};
use sha1::{Digest as _, Sha1};

use super::keys;

/// The most bytes and commands of a part; a command that is larger is a part of its own.
const PART_BYTES: usize = 1 << 20;
const PART_COMMANDS: usize = 2000;

/// The most items in one command: the server is blocked while it runs.
const ITEMS_MAX: usize = 500;

/// Approximate overhead of the protocol for one argument.
const ARG_OVERHEAD: usize = 10;

/// Commands in order: those of one key are always executed in that order, all of them only on one server.
#[derive(Default)]
pub(super) struct Commands {
    list: Vec<Cmd>,
    /// The script that they call.
    script: Option<&'static Script>,
    /// Where stages begin, apart from the first.
    barriers: Vec<usize>,
}

/// Splits a series of commands into parts of bounded size.
#[derive(Default)]
pub(super) struct PartSize {
    bytes: usize,
    commands: usize,
}

/// A script that runs on the server.
pub(super) struct Script {
    text: &'static str,
    id: OnceLock<String>,
}

/// Arguments for one key, split into as few commands as possible, none of which is very long.
pub(super) struct Fields<'a> {
    name: &'a str,
    key: Cow<'a, str>,
    command: Option<Cmd>,
    items: usize,
}

// === impl Commands ===

impl Commands {
    /// For calls of a script ([`Script::call`]).
    pub(super) fn with_script(script: &'static Script) -> Self {
        Self {
            script: Some(script),
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, command: Cmd) {
        self.list.push(command);
    }

    /// What follows is sent once all before it has been executed, also on other servers of a cluster. On one server, the
    /// order of the commands is enough.
    pub(super) fn barrier(&mut self) {
        self.barriers.push(self.list.len());
    }

    pub(super) fn script(&self) -> Option<&'static Script> {
        self.script
    }

    /// The commands in parts, for one server. The first part begins with the one that loads the script, if any.
    pub(super) fn parts(self) -> Vec<Pipeline> {
        let mut parts = Vec::new();
        if self.list.is_empty() {
            return parts;
        }
        let load = self.script.map(Script::load);
        let mut size = PartSize::default();
        for command in load.into_iter().chain(self.list) {
            if !size.fits(&command) || parts.is_empty() {
                parts.push(Pipeline::new());
            }
            if let Some(part) = parts.last_mut() {
                part.add_command(command);
            }
        }
        parts
    }

    /// The commands in stages, each to be executed before the next is sent.
    pub(super) fn stages(self) -> Vec<Vec<Cmd>> {
        let mut stages = vec![Vec::new()];
        let mut barriers = self.barriers.into_iter().peekable();
        for (index, command) in self.list.into_iter().enumerate() {
            while barriers.next_if(|&at| at <= index).is_some() {
                stages.push(Vec::new());
            }
            if let Some(stage) = stages.last_mut() {
                stage.push(command);
            }
        }
        stages.retain(|stage| !stage.is_empty());
        stages
    }
}

// === impl PartSize ===

impl PartSize {
    /// Adds a command; false if it is the first one of another part.
    pub(super) fn fits(&mut self, command: &Cmd) -> bool {
        let bytes: usize = command
            .args_iter()
            .map(|arg| match arg {
                Arg::Simple(bytes) => bytes.len() + ARG_OVERHEAD,
                _ => ARG_OVERHEAD,
            })
            .sum();
        if self.bytes + bytes <= PART_BYTES && self.commands < PART_COMMANDS {
            self.bytes += bytes;
            self.commands += 1;
            return true;
        }
        (self.bytes, self.commands) = (bytes, 1);
        false
    }
}

// === impl Script ===

impl Script {
    pub(super) const fn new(text: &'static str) -> Self {
        let id = OnceLock::new();
        Self { text, id }
    }

    /// A call with one key, to which arguments may be added.
    pub(super) fn call(&self, key: &str) -> Cmd {
        let id = self
            .id
            .get_or_init(|| HEXLOWER.encode(&Sha1::digest(self.text)));
        redis::cmd("EVALSHA").arg(id).arg(1).arg(key).take()
    }

    /// The command that makes the script known on a connection's server, before its calls.
    pub(super) fn load(&self) -> Cmd {
        redis::cmd("SCRIPT").arg("LOAD").arg(self.text).take()
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
            key: key.into(),
            command: None,
            items: 0,
        }
    }

    /// Adds one item, which may be several arguments.
    pub(super) fn add(&mut self, commands: &mut Commands, item: &[&str]) {
        let (name, key) = (self.name, &*self.key);
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

/// Arguments for a list of torrents, which may be in parts ([`keys::list`]).
pub(super) struct ListFields {
    parts: Vec<Fields<'static>>,
}

// === impl ListFields ===

impl ListFields {
    pub(super) fn new(name: &'static str, list: &'static str, is_split: bool) -> Self {
        let keys = keys::list_parts(list, is_split);
        let part = |key: String| Fields {
            name,
            key: key.into(),
            command: None,
            items: 0,
        };
        Self {
            parts: keys.into_iter().map(part).collect(),
        }
    }

    /// Adds one item about a torrent.
    pub(super) fn add(&mut self, commands: &mut Commands, torrent: &str, item: &[&str]) {
        let index = keys::part_of(torrent, self.parts.len());
        if let Some(part) = self.parts.get_mut(index) {
            part.add(commands, item);
        }
    }

    pub(super) fn end(&mut self, commands: &mut Commands) {
        for part in &mut self.parts {
            part.end(commands);
        }
    }
}

/// The key of a command; none if it has none. Keys are the first argument that begins with `t:`.
pub(super) fn key_of(command: &Cmd) -> Option<&[u8]> {
    command.args_iter().find_map(|arg| match arg {
        Arg::Simple(bytes) if bytes.starts_with(b"t:") => Some(bytes),
        _ => None,
    })
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
    fn a_script_is_loaded_before_its_calls() {
        static SCRIPT: Script = Script::new("return 1");
        let mut commands = Commands::with_script(&SCRIPT);
        commands.push(SCRIPT.call("t:x"));
        let parts = commands.parts();
        let names: Vec<String> = parts[0].cmd_iter().map(|it| name_and_key(it).0).collect();
        assert_eq!(
            (parts.len(), names),
            (1, vec!["SCRIPT".into(), "EVALSHA".into()])
        );
        assert!(Commands::with_script(&SCRIPT).parts().is_empty());
    }

    #[test]
    fn barriers_separate_stages() {
        let mut commands = Commands::default();
        commands.barrier();
        for before in [1, 1, 2] {
            commands.push(command(before));
            if before == 2 {
                commands.barrier();
                commands.barrier();
            }
        }
        commands.push(command(3));
        let lens: Vec<usize> = commands.stages().iter().map(Vec::len).collect();
        assert_eq!(lens, [3, 1]);
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
