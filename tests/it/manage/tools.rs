//! Help, manual and completions.

use std::fs;
use std::process::Stdio;

use super::Folder;

#[test]
fn a_closed_stdout_is_not_a_failure() {
    let folder = Folder::new();
    for arguments in [
        &["man"][..],
        &["completions", "bash"],
        &["--help"],
        &["users", "list"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = folder
            .command(arguments)
            .stdout(writer)
            .stderr(Stdio::null())
            .status();
        assert_eq!(status.unwrap().code(), Some(0), "{arguments:?}");
    }
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = folder.command(&["man"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn every_command_is_in_help_manual_and_completions() {
    let folder = Folder::new();
    let help = folder.ok(&["--help"]);
    let manual = folder.ok(&["man"]);
    let completions = folder.ok(&["completions", "bash"]);
    for command in [
        "users",
        "torrents",
        "whitelist",
        "migrate",
        "check",
        "genkey",
    ] {
        assert!(
            help.contains(command) && manual.contains(command),
            "{command}"
        );
        assert!(completions.contains(command), "{command}");
    }
    assert!(manual.contains("torrents import PATH"), "{manual}");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(!folder.ok(&["completions", shell]).is_empty());
    }
    folder.fails(2, &["completions", "cmd"]);
    // As bash asks for a completion of a word below a command.
    let ask = format!(
        "{completions}
         COMP_WORDS=(mika-manage users dis); COMP_CWORD=2
         _mika__manage mika-manage dis users; echo \"${{COMPREPLY[@]}}\""
    );
    let bash = std::process::Command::new("bash")
        .args(["-c", &ask])
        .output();
    let offered = String::from_utf8_lossy(&bash.expect("bash starts").stdout).into_owned();
    assert_eq!(offered, "disable\n");
}
