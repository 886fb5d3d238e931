//! Flags of a subcommand, or a part of them, from words as they stand on a command line.

use std::ffi::OsString;

use clap::{Args, Command, ValueEnum};

/// The name of a value on the command line.
pub(crate) fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Reads words, of which the first is a flag already.
///
/// # Errors
/// What clap says of them.
pub(crate) fn parse_words<A: Args>(
    words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> clap::error::Result<A> {
    let command = A::augment_args(Command::new("ringwire-bench").no_binary_name(true));
    A::from_arg_matches(&command.try_get_matches_from(words)?)
}

/// The same of words with spaces between them.
///
/// # Errors
/// What clap says of them.
pub(crate) fn parse<A: Args>(line: &str) -> clap::error::Result<A> {
    parse_words(line.split_whitespace())
}
