//! `ringwire-bench write-manual`: the manual pages and the completions of shells, as packages have them.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub(crate) struct ManualArgs {
    /// Where to write them.
    directory: PathBuf,
}

/// Writes a page for the program and one for each subcommand, and completions for three shells.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn command(args: &ManualArgs) -> anyhow::Result<()> {
    let mut command = crate::Command::command();
    clap_mangen::generate_to(command.clone(), &args.directory)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, "ringwire-bench", &args.directory)?;
    }
    Ok(())
}
