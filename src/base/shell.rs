//! Completion scripts and manual pages: what both programs have in common.

use std::io;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// The completion script of a shell. In memory, because the generator panics on a closed pipe.
pub fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// The beginning of a manual page: title, name and synopsis, and the options.
pub fn page(command: Command) -> io::Result<Vec<u8>> {
    let has_commands = command.has_subcommands();
    let man = Man::new(command).section("8").manual("Mika");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    if has_commands {
        man.render_description_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    Ok(page)
}

/// Appends text as it is laid out.
pub fn preformatted(text: &str, roff: &mut Roff) {
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}
