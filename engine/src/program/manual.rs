//! The manual page of a program and the completions of its flags, as packages have them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

use super::output::note;

/// Whether the arguments ask for them: the name by which the program was called, and where to write.
pub(super) fn asked_for(
    mut arguments: impl Iterator<Item = OsString>,
) -> Option<(String, PathBuf)> {
    let program = PathBuf::from(arguments.next()?);
    arguments.next().filter(|flag| flag == "--write-manual")?;
    Some((program.file_name()?.to_str()?.to_owned(), arguments.next()?.into()))
}

/// Writes them, and gives the program's exit code.
pub(super) fn write(command: Command, directory: &Path) -> ExitCode {
    match try_write(command, directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let directory = directory.display();
            note(format_args!("error: cannot write the manual to {directory}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A page for the command and one for each of its subcommands, and completions for three shells.
fn try_write(mut command: Command, directory: &Path) -> io::Result<()> {
    clap_mangen::generate_to(command.clone(), directory)?;
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, &name, directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Program;

    #[test]
    fn a_program_has_a_page_and_completions() {
        let directory = tempfile::tempdir().expect("a directory");
        let flag = ["/usr/bin/my-greeter", "--write-manual", "/manual"].map(OsString::from);
        let (name, to) = asked_for(flag.into_iter()).expect("that is asked for");
        assert_eq!(to, Path::new("/manual"));
        let program = Program::new("greeter").with_about("Greets whoever says something.");
        try_write(program.command().name(name), directory.path()).expect("they are written");
        let text = |name| std::fs::read_to_string(directory.path().join(name)).expect(name);
        let page = text("my-greeter.1");
        for expected in ["Greets whoever says something.", "takeover", "my\\-greeter"] {
            assert!(page.contains(expected), "{page}");
        }
        for name in ["my-greeter.bash", "my-greeter.fish", "_my-greeter"] {
            assert!(text(name).contains("takeover"), "{name}");
        }
        assert_eq!(asked_for(["greeter", "--check"].map(OsString::from).into_iter()), None);
    }
}
